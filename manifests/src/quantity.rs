//! Amounts as Kubernetes writes them.

use crate::error::ManifestError;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use skyserve_model::Amount;
use std::collections::BTreeMap;

/// Most cores or GiB that a quantity says exactly in thousandths: more than any machine has.
const AMOUNT_MAX: f64 = 1e9;

pub(crate) type Quantities = BTreeMap<String, Quantity>;

/// What a container may use: an exact amount is asked for and is the limit, `2+` is asked for alone.
#[derive(Debug, Default)]
pub(crate) struct Amounts {
    requests: Quantities,
    limits: Quantities,
}

impl Amounts {
    pub(crate) fn cpus(&mut self, amount: Option<Amount>) -> Result<(), ManifestError> {
        self.add("cpu", amount, |cores| in_units(cores, 1000.0, "m", ""))
    }

    pub(crate) fn memory_gb(&mut self, amount: Option<Amount>) -> Result<(), ManifestError> {
        self.add("memory", amount, |gigabytes| in_units(gigabytes, 1024.0, "Mi", "Gi"))
    }

    /// Devices: Kubernetes takes no request of them that differs from the limit.
    pub(crate) fn devices(&mut self, resource: &str, count: u64) {
        for amounts in [&mut self.requests, &mut self.limits] {
            amounts.insert(resource.to_owned(), Quantity(count.to_string()));
        }
    }

    /// What is asked for when nothing was said.
    pub(crate) fn request_by_default(&mut self, resource: &str, quantity: &str) {
        self.requests.entry(resource.to_owned()).or_insert_with(|| Quantity(quantity.to_owned()));
    }

    /// `None` when nothing was said: the namespace's LimitRange, if there is one, then decides.
    pub(crate) fn requirements(self) -> Option<ResourceRequirements> {
        let given = |amounts: Quantities| Some(amounts).filter(|amounts| !amounts.is_empty());
        let (requests, limits) = (given(self.requests), given(self.limits));
        (requests.is_some() || limits.is_some()).then_some(ResourceRequirements { requests, limits, claims: None })
    }

    fn add(
        &mut self,
        resource: &str,
        amount: Option<Amount>,
        quantity: fn(f64) -> String,
    ) -> Result<(), ManifestError> {
        let Some(Amount { value, or_more }) = amount else { return Ok(()) };
        if !(value > 0.0 && value <= AMOUNT_MAX) {
            return Err(ManifestError::Resources(format!("{value} is no amount of {resource}")));
        }
        let quantity = Quantity(quantity(value));
        if !or_more {
            self.limits.insert(resource.to_owned(), quantity.clone());
        }
        self.requests.insert(resource.to_owned(), quantity);
        Ok(())
    }
}

/// `0.5` as `500m`, `2.0` as `2`: rounded up, because less is not what was asked for.
fn in_units(value: f64, parts: f64, part: &str, whole: &str) -> String {
    if value.fract() == 0.0 { format!("{value:.0}{whole}") } else { format!("{:.0}{part}", (value * parts).ceil()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirements(cpus: Option<Amount>, memory_gb: Option<Amount>) -> serde_json::Value {
        let mut amounts = Amounts::default();
        amounts.cpus(cpus).unwrap();
        amounts.memory_gb(memory_gb).unwrap();
        serde_json::to_value(amounts.requirements()).unwrap()
    }

    #[test]
    fn an_exact_amount_is_a_limit_and_one_with_a_plus_is_not() {
        let exact = |value| Some(Amount { value, or_more: false });
        let least = |value| Some(Amount { value, or_more: true });
        assert_eq!(
            requirements(exact(1.0), least(0.5)),
            serde_json::json!({ "requests": { "cpu": "1", "memory": "512Mi" }, "limits": { "cpu": "1" } })
        );
        assert_eq!(
            requirements(least(0.25), exact(8.0)),
            serde_json::json!({ "requests": { "cpu": "250m", "memory": "8Gi" }, "limits": { "memory": "8Gi" } })
        );
        assert!(requirements(None, None).is_null());
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(Amounts::default().cpus(Some(Amount { value, or_more: false })).is_err(), "{value}");
        }
    }
}
