//! `update`: another version of a service that runs.

use super::{Core, Refusal, RequestError};
use skyserve_api::{ChangeView, ServiceView, UpdatePlan};
use skyserve_model::{Event, ReplicaId, Service, Timestamp, VersionRules};
use skyserve_recovery::Store;
use std::net::SocketAddr;
use std::sync::Arc;

/// What came of an update.
#[derive(Debug)]
pub struct Updated {
    pub view: Arc<ServiceView>,
    /// Whether there is a new version; else the newest asks for just this already.
    pub is_new: bool,
}

impl<S: Store> Core<S> {
    /// `update`: makes `rules` the newest version, if the newest does not ask for the same already. So a request may be
    /// repeated by a client that did not hear the answer: what it asked for is there, and there is no third version.
    ///
    /// `expected` is the version that the user saw; another user's update since then is not overwritten.
    pub fn update(
        &mut self,
        name: &str,
        rules: VersionRules,
        source: String,
        expected: Option<u64>,
        now: Timestamp,
    ) -> Result<Updated, RequestError> {
        let service = self.updatable(name)?;
        if asks_for_the_same(service, &rules) {
            return Ok(Updated { view: Arc::clone(&self.find(name)?.view), is_new: false });
        }
        let newest = service.head.version;
        if let Some(expected) = expected.filter(|expected| *expected != newest.0) {
            return Err(Refusal::Conflict(format!(
                "Service {name} is at version {newest} by now, not {expected}: somebody else has updated it. Nothing was \
                 changed; look at `status {name}`, then run `update` again."
            ))
            .into());
        }
        let event = Event::Update { rules: Arc::new(rules), source };
        let view = self.user_event(name, &event, now)?;
        tracing::info!(service = name, version = view.version, "service {name} was updated");
        Ok(Updated { view, is_new: true })
    }

    /// What [`Core::update`] would change; it changes nothing.
    pub fn plan_update(&self, name: &str, rules: &VersionRules) -> Result<UpdatePlan, Refusal> {
        let service = self.updatable(name)?;
        let differences = service.rules.differences(rules).into_iter();
        let changes = differences
            .map(|difference| ChangeView { what: difference.what, needs_new_replicas: difference.needs_new_replicas });
        let replaced =
            service.alive().filter(|replica| service.rules_of_launch(replica).launch != rules.launch).count();
        Ok(UpdatePlan {
            version: service.head.version.0,
            changes: changes.collect(),
            replicas_replaced: replaced,
            nothing_to_do: asks_for_the_same(service, rules),
        })
    }

    /// READY replicas that [`Core::update`] would take over as they are and ask something else in their probes.
    pub fn probed_otherwise(&self, name: &str, rules: &VersionRules) -> Result<Vec<(ReplicaId, SocketAddr)>, Refusal> {
        let service = self.updatable(name)?;
        let taken_over = service.ready().filter(|replica| {
            service.rules_of_launch(replica).launch == rules.launch
                && !service.rules_for(replica).probe.asks_the_same(&rules.probe)
        });
        Ok(taken_over.filter_map(|replica| Some((replica.id, replica.address?))).collect())
    }

    fn updatable(&self, name: &str) -> Result<&Service, Refusal> {
        let service = &self.find(name)?.service;
        if service.head.shutdown.is_some() {
            return Err(Refusal::Conflict(format!(
                "Service {name} is being taken down and cannot be updated. Once it is gone, start it again with `up YAML \
                 -n {name}`."
            )));
        }
        Ok(service)
    }
}

/// A version that was given up is asked for again: whatever kept it from working may have been mended elsewhere.
fn asks_for_the_same(service: &Service, rules: &VersionRules) -> bool {
    *service.rules == *rules && service.head.given_up.is_none()
}
