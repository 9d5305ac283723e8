//! What users ask for: refused with a reason, or stored before it is answered.

use super::managed::Managed;
use super::{Core, Fatal};
use skyserve_api::ServiceView;
use skyserve_model::{Change, Event, ReplicaId, Service, Timestamp, VersionRules, step};
use skyserve_recovery::{Store, StoreError};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// Why a user's request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Unavailable(String),
}

/// What came of a user's request: refused, or the controller must end.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

impl<S: Store> Core<S> {
    /// `up`. `port_is_free` tells whether an address can be listened on just now.
    pub fn up(
        &mut self,
        name: &str,
        rules: VersionRules,
        source: String,
        port_is_free: &dyn Fn(SocketAddr) -> bool,
        now: Timestamp,
    ) -> Result<Arc<ServiceView>, RequestError> {
        if self.services.contains_key(name) {
            return Err(Refusal::Conflict(format!(
                "Service {name} exists already: change it with `update {name} YAML`, or give the new one another name."
            ))
            .into());
        }
        let listen = self.free_address(port_is_free)?;
        let mut service = Service::new(name.to_owned(), self.next_incarnation, listen, rules, now);
        let insert = Change::InsertService { head: service.head.clone(), rules: Arc::clone(&service.rules), source };
        // The service and its first replicas are one transaction: `up` is whole or was never asked.
        let (changes, _undo) = step(&mut service, &Event::Tick, now);
        let changes: Vec<Change> = std::iter::once(insert).chain(changes).collect();
        self.store_for_user(&changes, now)?;
        self.next_incarnation += 1;
        tracing::info!(service = name, %listen, "service {name} was asked for");
        let managed = Managed::new(service, &self.options);
        let view = Arc::clone(&managed.view);
        self.services.insert(name.to_owned(), managed);
        self.changed(name, now);
        Ok(view)
    }

    /// `down NAME`.
    pub fn down(&mut self, name: &str, purge: bool, now: Timestamp) -> Result<Arc<ServiceView>, RequestError> {
        self.user_event(name, &Event::Shutdown { purge }, now)
    }

    /// `down NAME --replica-id N`.
    pub fn terminate_replica(
        &mut self,
        name: &str,
        replica: ReplicaId,
        purge: bool,
        now: Timestamp,
    ) -> Result<Arc<ServiceView>, RequestError> {
        let managed = self.find(name)?;
        if !managed.service.replicas.contains_key(&replica) {
            let ids: Vec<String> = managed.service.replicas.keys().map(ToString::to_string).collect();
            return Err(Refusal::NotFound(format!(
                "Service {name} has no replica {replica}; it has: {}.",
                if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
            ))
            .into());
        }
        self.user_event(name, &Event::TerminateReplica { replica, purge }, now)
    }

    pub(super) fn user_event(
        &mut self,
        name: &str,
        event: &Event,
        now: Timestamp,
    ) -> Result<Arc<ServiceView>, RequestError> {
        // What happened before the user asked comes first.
        self.apply_noted_of(name, now)?;
        let view = Arc::clone(&self.find(name)?.view);
        self.try_apply(name, std::slice::from_ref(event), now)
            .map_err(|error| self.refuse(&error, now).unwrap_or(RequestError::Fatal(Fatal(error))))?;
        let Some(managed) = self.services.get_mut(name) else { return Ok(view) };
        managed.refresh_view(&self.options.infra);
        Ok(Arc::clone(&managed.view))
    }

    pub(super) fn store_for_user(&mut self, changes: &[Change], now: Timestamp) -> Result<(), RequestError> {
        let result = self.store.commit(changes);
        result.map_err(|error| self.refuse(&error, now).unwrap_or(RequestError::Fatal(Fatal(error))))
    }

    /// The refusal that a store's error means to a user; `None` if the controller must end.
    pub(super) fn refuse(&mut self, error: &StoreError, now: Timestamp) -> Option<RequestError> {
        if error.must_exit() {
            return None;
        }
        self.note_trouble(error, now);
        Some(Refusal::Unavailable(format!("Nothing was changed, because it cannot be stored: {error}")).into())
    }

    pub(super) fn find(&self, name: &str) -> Result<&Managed, Refusal> {
        self.services.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.services.keys().map(String::as_str).collect();
            let known = if names.is_empty() {
                "There are no services".to_owned()
            } else {
                format!("Services: {}", names.join(", "))
            };
            Refusal::NotFound(format!("Service {name} does not exist. {known}."))
        })
    }

    pub(super) fn free_address(&self, port_is_free: &dyn Fn(SocketAddr) -> bool) -> Result<SocketAddr, Refusal> {
        let used: BTreeSet<u16> = self.services.values().map(|managed| managed.service.head.listen.port()).collect();
        self.options
            .listen_ports
            .clone()
            .filter(|port| !used.contains(port) && !self.ports_taken.contains(port))
            .map(|port| SocketAddr::new(self.options.listen_host, port))
            .find(|address| port_is_free(*address))
            .ok_or_else(|| {
                let (first, last) = (self.options.listen_ports.start(), self.options.listen_ports.end());
                Refusal::Unavailable(format!(
                    "No port is free for the endpoint on {} from {first} to {last}. Free one, or give other ports in \
                     ~/.sky/config.yaml under serve.load_balancer.ports.",
                    self.options.listen_host
                ))
            })
    }
}
