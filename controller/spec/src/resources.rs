//! The `resources:` section: what one replica needs, as one choice or several.

use crate::Amount;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What one replica needs: `list` holds one entry, or several to choose from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    pub kind: ResourcesKind,
    /// Never empty.
    pub list: Vec<Resource>,
}

/// How the entries of a [`Resources`] relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourcesKind {
    /// One entry.
    Single,
    /// Any of the entries will do.
    AnyOf,
    /// The first entry that can be had, in this order.
    Ordered,
}

/// One choice of resources. Fields that were not given are absent, with SkyPilot's names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resource {
    #[serde(skip_serializing_if = "Infra::is_empty")]
    pub infra: Infra,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// `2` or `2+`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// GB: `8`, `8.0` or `8+`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// One accelerator and how many of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accelerators: Option<BTreeMap<String, f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accelerator_args: Option<BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_spot: Option<bool>,
    /// GB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<u64>,
    /// By region; the region `None` (serialised as `"None"`) when none was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_tier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_tier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_disk: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hourly_cost: Option<f64>,
    /// Ports and ranges, sorted and without overlap: `["8080", "9000-9010"]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autostop: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<String>,
    /// The task's `config:` section.
    #[serde(rename = "_cluster_config_overrides", skip_serializing_if = "Option::is_none")]
    pub config_overrides: Option<Value>,
    /// A bucket is to be mounted.
    #[serde(rename = "_requires_fuse", skip_serializing_if = "std::ops::Not::not")]
    pub requires_fuse: bool,
}

/// Where to run: `cloud[/region[/zone]]`, `*` or absent for anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub struct Infra {
    /// Lower case (`aws`, `kubernetes`).
    pub cloud: Option<String>,
    /// A region, or a Kubernetes context.
    pub region: Option<String>,
    pub zone: Option<String>,
}

/// The clouds SkyPilot knows.
pub(crate) const CLOUDS: [&str; 25] = [
    "aws",
    "azure",
    "gcp",
    "ibm",
    "lambda",
    "scp",
    "oci",
    "kubernetes",
    "runpod",
    "vast",
    "vsphere",
    "cudo",
    "fluidstack",
    "paperspace",
    "primeintellect",
    "do",
    "nebius",
    "ssh",
    "slurm",
    "hyperbolic",
    "seeweb",
    "shadeform",
    "yotta",
    "mithril",
    "verda",
];

impl Infra {
    /// As [`Self::parse`], for what a user wrote: `None` if it has not the form, or the cloud is unknown.
    pub(crate) fn checked(text: &str) -> Option<Self> {
        let infra = Self::parse(text);
        let parts: Vec<&str> = text.split('/').collect();
        let form = parts.iter().all(|part| !part.trim().is_empty()) && (parts.len() <= 3 || infra.is_kubernetes());
        let known = infra.cloud.as_deref().is_none_or(|cloud| CLOUDS.contains(&cloud));
        (form && known).then_some(infra)
    }

    pub fn is_kubernetes(&self) -> bool {
        self.cloud.as_deref() == Some("kubernetes")
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads what [`Infra`] displays as, and what users write: `aws/us-east-1`, `k8s/context`, `*/*/zone`.
    pub fn parse(text: &str) -> Self {
        let known = |part: &str| (!part.is_empty() && part != "*").then(|| part.to_owned());
        let (cloud, rest) =
            text.trim().split_once('/').map_or((text.trim(), None), |(cloud, rest)| (cloud, Some(rest)));
        let cloud =
            known(&cloud.to_lowercase()).map(|cloud| if cloud == "k8s" { "kubernetes".to_owned() } else { cloud });
        // A Kubernetes context may hold slashes.
        if matches!(cloud.as_deref(), Some("kubernetes")) {
            return Self { cloud, region: rest.and_then(known), zone: None };
        }
        let (region, zone) = rest.map_or((None, None), |rest| match rest.split_once('/') {
            Some((region, zone)) => (known(region), known(zone)),
            None => (known(rest), None),
        });
        Self { cloud, region, zone }
    }
}

impl std::fmt::Display for Infra {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or_any = |part: &Option<String>| part.clone().unwrap_or_else(|| "*".to_owned());
        let parts = [or_any(&self.cloud), or_any(&self.region), or_any(&self.zone)];
        let given = parts.iter().rposition(|part| part != "*").map_or(0, |last| last + 1);
        f.write_str(&parts[..given].join("/"))
    }
}

impl From<Infra> for String {
    fn from(infra: Infra) -> Self {
        infra.to_string()
    }
}

impl From<String> for Infra {
    fn from(text: String) -> Self {
        Self::parse(&text)
    }
}

impl Resource {
    /// Cores, if asked for.
    pub fn cpus(&self) -> Option<Amount> {
        self.cpus.as_deref().and_then(Amount::parse)
    }

    /// Memory in GB, if asked for.
    pub fn memory_gb(&self) -> Option<Amount> {
        self.memory.as_deref().and_then(Amount::parse)
    }

    /// The ports and ranges as inclusive pairs.
    pub fn port_ranges(&self) -> Vec<(u16, u16)> {
        let range = |text: &String| match text.split_once('-') {
            Some((from, to)) => Some((from.parse().ok()?, to.parse().ok()?)),
            None => text.parse().ok().map(|port| (port, port)),
        };
        self.ports.iter().flatten().filter_map(range).collect()
    }

    /// The Docker image to run in, if one was asked for.
    pub fn docker_image(&self) -> Option<&str> {
        let images = self.image_id.as_ref()?;
        images
            .get("docker")
            .map(String::as_str)
            .or_else(|| images.values().find_map(|image| image.strip_prefix("docker:")))
    }
}
