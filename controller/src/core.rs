//! The controller without its IO: what happened goes in, what is to be done comes out, and between
//! the two every decision is stored. The driver runs it on the real world, `tests/sim` on a simulated
//! one.
//!
//! Invariants:
//! * What is in memory is what the store holds: a step that cannot be stored is undone.
//! * Work is derived from the state ([`Core::flush`]), never remembered beside it. What was lost (an
//!   event whose rows could not be stored, a reply that never came) is derived again.
//! * At most one call of a kind is under way for a replica.
//! * Routes are published after the rows they come from are stored.
//!
//! It reads no clock, file or socket.

use crate::routes;
use crate::view;
use skyserve_api::ServiceView;
use skyserve_model::{
    CallFailure, Change, Epoch, Event, LaunchSpec, Observation, OperationKind, Phase, ReplicaId, ReplicaStatus,
    ReplicaUid, Service, ServiceStatus, Timestamp, VersionRules, limits, recover, step,
};
use skyserve_recovery::{Store, StoreError};
use skyserve_routes::report::Report;
use skyserve_routes::{RouteTable, ServiceRoutes, TableVersion};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// How often the provider is asked for all it has: finds what its reports missed.
const LIST_INTERVAL_MS: u64 = 60_000;
/// Pause before the store is tried again after it could not write.
const STORE_RETRY_MS: u64 = 1_000;

/// What the core must know of its surroundings.
#[derive(Debug, Clone)]
pub struct CoreOptions {
    /// Address that endpoints listen on.
    pub listen_host: IpAddr,
    /// Ports for endpoints, used from the lowest on.
    pub listen_ports: RangeInclusive<u16>,
    /// The INFRA column: where replicas run.
    pub infra: String,
}

/// What the store held when the core took over.
#[derive(Debug)]
pub struct Held {
    pub epoch: Epoch,
    pub next_incarnation: u64,
    pub services: Vec<Service>,
}

/// Something the core has to be told.
#[derive(Debug)]
pub enum Input {
    /// The provider shows one replica.
    Observed { observation: Observation, seen_at: Timestamp },
    /// The provider's answer to [`Output::List`], asked at `began_at`.
    Listed { observations: Vec<Observation>, began_at: Timestamp },
    /// The provider could not answer [`Output::List`].
    ListFailed { message: String },
    /// A call ended.
    Called {
        service: String,
        replica: ReplicaId,
        uid: ReplicaUid,
        kind: OperationKind,
        result: Result<(), CallFailure>,
    },
    /// A readiness probe ended.
    Probed { service: String, replica: ReplicaId, uid: ReplicaUid, result: Result<(), String> },
    /// The load balancer's state.
    Load(Box<Report>),
}

/// Something the core wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Launch this replica; answer with [`Input::Called`].
    Launch { service: String, replica: ReplicaId, spec: Box<LaunchSpec> },
    /// Terminate this replica; answer with [`Input::Called`].
    Terminate { service: String, replica: ReplicaId, uid: ReplicaUid, grace_ms: u64 },
    /// Probe this replica from now on; answer each time with [`Input::Probed`].
    StartProbe { service: String, replica: ReplicaId, uid: ReplicaUid, address: SocketAddr, rules: Arc<VersionRules> },
    /// Probe it no more.
    StopProbe { uid: ReplicaUid },
    /// Give the load balancer this table.
    Publish(Arc<RouteTable>),
    /// Ask the provider for all it has; answer with [`Input::Listed`].
    List,
}

/// The controller cannot go on: it must end, and start again from the store.
#[derive(Debug, thiserror::Error)]
#[error("the controller stops, to start again from what is stored: {0}")]
pub struct Fatal(#[from] pub StoreError);

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

#[derive(Debug)]
struct Managed {
    service: Service,
    /// Probes that run, with the address they go to.
    probes: BTreeMap<ReplicaId, SocketAddr>,
    view: Arc<ServiceView>,
    wake_at: Option<Timestamp>,
    /// Whether outputs may have to follow from its state.
    dirty: bool,
    /// The first table in which each draining replica gets no new requests.
    draining: BTreeMap<ReplicaId, TableVersion>,
    /// The first table that has the endpoint where it is now: what the load balancer says of an earlier
    /// one is about another address.
    offered: Option<TableVersion>,
}

/// The controller's state. See the module.
#[derive(Debug)]
pub struct Core<S> {
    options: CoreOptions,
    store: S,
    epoch: Epoch,
    /// The version of the latest table.
    table: TableVersion,
    next_incarnation: u64,
    services: BTreeMap<String, Managed>,
    gone: Vec<ReplicaUid>,
    calls: BTreeSet<(ReplicaUid, OperationKind)>,
    published: Option<Vec<ServiceRoutes>>,
    routes_dirty: bool,
    revision: u64,
    ports_taken: BTreeSet<u16>,
    list_at: Timestamp,
    listing: bool,
    /// Something happened since the list under way was asked for: it may not show it.
    list_again: bool,
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    message: String,
    retry_at: Timestamp,
}

impl<S: Store> Core<S> {
    /// Takes over what the store holds. `published` is the version of the table in force, if there is
    /// one: the load balancer never goes back, so the next table comes after it even if the database
    /// that it came from is lost.
    pub fn new(options: CoreOptions, store: S, held: Held, published: Option<TableVersion>, now: Timestamp) -> Self {
        let Held { epoch, next_incarnation, services } = held;
        let first = TableVersion { epoch: epoch.0, seq: 0 };
        let managed = |mut service: Service| {
            recover(&mut service, now);
            (service.head.name.clone(), Managed::new(service, &options.infra))
        };
        Self {
            services: services.into_iter().map(managed).collect(),
            options,
            store,
            epoch,
            table: published.map_or(first, |published| published.max(first)),
            next_incarnation,
            gone: Vec::new(),
            calls: BTreeSet::new(),
            published: None,
            routes_dirty: true,
            revision: 1,
            ports_taken: BTreeSet::new(),
            list_at: now,
            listing: false,
            list_again: false,
            trouble: None,
        }
    }

    /// Grows with everything that views show.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// This controller's tenure.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Every service, by name.
    pub fn views(&self) -> Vec<Arc<ServiceView>> {
        self.services.values().map(|managed| Arc::clone(&managed.view)).collect()
    }

    /// Every service's state: for checks that look at all of it.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(|managed| &managed.service)
    }

    /// What keeps decisions from being stored, if anything does.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(|trouble| trouble.message.as_str())
    }

    /// Whether something changes soon that the load balancer knows first: an endpoint that is to
    /// listen, a replica that drains.
    pub fn awaits_load(&self) -> bool {
        self.services.values().any(|managed| !managed.draining.is_empty() || managed.awaits_endpoint())
    }

    /// The next moment at which [`Core::flush`] has something to do without any input: after a flush
    /// always later than that flush, or it would be called without end.
    pub fn wake_at(&self) -> Timestamp {
        if let Some(trouble) = &self.trouble {
            return trouble.retry_at;
        }
        let services = self.services.values().filter_map(|managed| managed.wake_at);
        // A list under way is answered, and that is an input.
        let list = (!self.listing).then_some(self.list_at);
        services.chain(list).min().unwrap_or(Timestamp(u64::MAX))
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Result<(), Fatal> {
        match input {
            Input::Observed { observation, seen_at } => self.observed(&observation, seen_at, now),
            Input::Listed { observations, began_at } => self.listed(&observations, began_at, now),
            Input::ListFailed { message } => {
                tracing::warn!("the provider could not say what runs, asking again later: {message}");
                self.listing = false;
                self.list_at = now.plus_ms(STORE_RETRY_MS);
                Ok(())
            }
            Input::Called { service, replica, uid, kind, result } => {
                self.calls.remove(&(uid.clone(), kind));
                if let Err(failure) = &result {
                    tracing::warn!(%service, %replica, "{} of replica {uid} failed: {}", kind.name(), failure.message);
                }
                self.apply_to(&service, &uid, &Event::Called { replica, kind, result }, now)
            }
            Input::Probed { service, replica, uid, result } => {
                self.apply_to(&service, &uid, &Event::Probed { replica, result }, now)
            }
            Input::Load(report) => self.load(&report, now),
        }
    }

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
                "Service {name} exists already. To change it use `update {name}`; to start anew, `down {name}` first."
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
        let managed = Managed::new(service, &self.options.infra);
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

    /// What follows from the state at `now`, each thing once.
    pub fn flush(&mut self, now: Timestamp) -> Result<Vec<Output>, Fatal> {
        let mut outputs = Vec::new();
        outputs.extend(self.gone.drain(..).map(|uid| Output::StopProbe { uid }));
        if self.trouble.as_ref().is_some_and(|trouble| now < trouble.retry_at) {
            // What was stored before the trouble began is routed all the same.
            outputs.extend(self.publish());
            return Ok(outputs);
        }
        if self.trouble.take().is_some() {
            // News may have been lost, so nothing is judged by how long they stayed away, as after a restart;
            // whether the store writes again, the next step shows.
            self.list_soon(now);
            self.revision += 1;
            for managed in self.services.values_mut() {
                recover(&mut managed.service, now);
                managed.dirty = true;
            }
        }
        self.tick_due(now)?;
        if !self.listing && self.list_at <= now {
            (self.listing, self.list_again) = (true, false);
            outputs.push(Output::List);
        }
        // Routes first: a replica is off the routes before it is ended.
        outputs.extend(self.publish());
        if self.trouble.is_none() {
            for managed in self.services.values_mut().filter(|managed| managed.dirty) {
                managed.dirty = false;
                managed.outputs(&mut self.calls, now, &mut outputs);
            }
        }
        Ok(outputs)
    }

    fn list_soon(&mut self, now: Timestamp) {
        self.list_at = now;
        self.list_again = self.listing;
    }

    fn tick_due(&mut self, now: Timestamp) -> Result<(), Fatal> {
        let due: Vec<String> = self
            .services
            .iter()
            .filter(|(_, managed)| managed.dirty || managed.wake_at.is_some_and(|moment| moment <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.apply(&name, &Event::Tick, now)?;
            if let Some(managed) = self.services.get_mut(&name) {
                managed.dirty = true;
                managed.wake_at = managed.service.wake_at(now);
            }
        }
        Ok(())
    }

    fn publish(&mut self) -> Option<Output> {
        if !std::mem::take(&mut self.routes_dirty) {
            return None;
        }
        let services = routes::services(self.services.values().map(|managed| &managed.service));
        if self.published.as_ref() == Some(&services) {
            return None;
        }
        self.table.seq += 1;
        self.published = Some(services.clone());
        for managed in self.services.values_mut() {
            managed.note_table(self.table);
        }
        let table = routes::table(self.table, services);
        Some(Output::Publish(Arc::new(table)))
    }

    /// The last table could not be written: make it again at the next [`Core::flush`].
    pub fn publish_failed(&mut self) {
        self.published = None;
        self.routes_dirty = true;
    }

    fn observed(&mut self, observation: &Observation, seen_at: Timestamp, now: Timestamp) -> Result<(), Fatal> {
        let Some((name, replica)) = self.owner(&observation.uid) else { return Ok(()) };
        let event = Event::Observed { replica, phase: observation.phase.clone(), seen_at };
        self.apply(&name, &event, now)
    }

    fn listed(&mut self, observations: &[Observation], began_at: Timestamp, now: Timestamp) -> Result<(), Fatal> {
        self.listing = false;
        self.list_at = if self.list_again { now } else { now.plus_ms(LIST_INTERVAL_MS) };
        let mut seen = BTreeSet::new();
        for observation in observations {
            let Some((name, replica)) = self.owner(&observation.uid) else {
                tracing::warn!("replica {} runs but belongs to no service; nothing is done to it", observation.uid);
                continue;
            };
            seen.insert(observation.uid.clone());
            let known = self.services.get(&name).is_some_and(|managed| managed.service.replicas.contains_key(&replica));
            let event = if known {
                Event::Observed { replica, phase: observation.phase.clone(), seen_at: began_at }
            } else {
                Event::Orphaned { uid: observation.uid.clone() }
            };
            self.apply(&name, &event, now)?;
        }
        let absent: Vec<(String, ReplicaId)> = self
            .services
            .values()
            .flat_map(|managed| managed.service.alive().map(|replica| (managed.service.head.name.clone(), replica)))
            .filter(|(_, replica)| replica.operation.is_none() && !seen.contains(&replica.uid))
            .map(|(name, replica)| (name, replica.id))
            .collect();
        for (name, replica) in absent {
            self.apply(&name, &Event::Observed { replica, phase: Phase::Absent, seen_at: began_at }, now)?;
        }
        Ok(())
    }

    fn load(&mut self, report: &Report, now: Timestamp) -> Result<(), Fatal> {
        let mut events: Vec<(String, Event)> = Vec::new();
        let mut displaced: Vec<String> = Vec::new();
        let knows = |since: TableVersion| report.table.is_some_and(|table| table >= since);
        for (name, managed) in &self.services {
            let load = report.services.get(name);
            if let Some(load) = load.filter(|_| managed.awaits_endpoint() && managed.offered.is_some_and(knows)) {
                if load.listening {
                    events.push((name.clone(), Event::EndpointListens));
                } else if load.address_in_use {
                    displaced.push(name.clone());
                }
            }
            for (replica, since) in &managed.draining {
                let uid = managed.service.uid(*replica);
                let busy =
                    load.and_then(|load| load.replicas_in_flight.get(uid.as_str())).is_some_and(|count| *count > 0);
                if !busy && knows(*since) {
                    events.push((name.clone(), Event::Drained { replica: *replica }));
                }
            }
        }
        for (name, event) in events {
            self.apply(&name, &event, now)?;
        }
        // One after the other: each takes its port before the next looks for one.
        for name in displaced {
            self.displace(&name, now)?;
        }
        Ok(())
    }

    /// Another program has taken the port of an endpoint that nobody was told of yet.
    fn displace(&mut self, name: &str, now: Timestamp) -> Result<(), Fatal> {
        let Some(managed) = self.services.get_mut(name) else { return Ok(()) };
        self.ports_taken.insert(managed.service.head.listen.port());
        let Ok(listen) = self.free_address(&|_| true) else { return Ok(()) };
        tracing::warn!(service = %name, "the endpoint's port is in use by another program, moving to {listen}");
        self.apply(name, &Event::EndpointMoves { listen }, now)?;
        // Unless that could not be stored, and it stays.
        if let Some(managed) = self.services.get_mut(name).filter(|managed| managed.service.head.listen == listen) {
            managed.offered = None;
        }
        Ok(())
    }

    /// The service that has or had the replica `uid`, and the replica's id.
    fn owner(&self, uid: &ReplicaUid) -> Option<(String, ReplicaId)> {
        let name = uid.as_str().rsplitn(3, '-').nth(2)?;
        let replica = self.services.get(name)?.service.replica_id(uid)?;
        Some((name.to_owned(), replica))
    }

    /// Applies an event that is about the replica `uid`, unless the service of that name is another by now.
    fn apply_to(&mut self, name: &str, uid: &ReplicaUid, event: &Event, now: Timestamp) -> Result<(), Fatal> {
        match self.owner(uid) {
            Some(_) => self.apply(name, event, now),
            None => Ok(()),
        }
    }

    /// Applies one event and stores what changes. What cannot be stored now is undone, and will be
    /// derived again.
    fn apply(&mut self, name: &str, event: &Event, now: Timestamp) -> Result<(), Fatal> {
        match self.try_apply(name, event, now) {
            Ok(()) => Ok(()),
            Err(error) if error.must_exit() => Err(Fatal(error)),
            Err(error) => {
                self.note_trouble(&error, now);
                Ok(())
            }
        }
    }

    fn try_apply(&mut self, name: &str, event: &Event, now: Timestamp) -> Result<(), StoreError> {
        let Some(managed) = self.services.get_mut(name) else { return Ok(()) };
        if self.trouble.is_some() {
            // What happened meanwhile may have been lost: see `flush`.
            recover(&mut managed.service, now);
        }
        let before = managed.service.status();
        let (mut changes, undo) = step(&mut managed.service, event, now);
        let gone = managed.service.is_gone();
        if gone {
            changes = vec![Change::DeleteService { name: name.to_owned() }];
        }
        if changes.is_empty() {
            // A call that failed and changes nothing must still be made again.
            managed.dirty |= matches!(event, Event::Called { .. });
            return Ok(());
        }
        if let Err(error) = self.store.commit(&changes) {
            managed.service.undo(undo);
            return Err(error);
        }
        log_changes(name, &changes, before, managed.service.status());
        if gone {
            if let Some(managed) = self.services.remove(name) {
                self.gone.extend(managed.probes.keys().map(|id| managed.service.uid(*id)));
            }
            self.revision += 1;
            self.routes_dirty = true;
        } else {
            if changes.iter().any(turned_not_ready) {
                // Whether it is gone, the provider knows.
                self.list_soon(now);
            }
            self.changed(name, now);
        }
        Ok(())
    }

    fn user_event(&mut self, name: &str, event: &Event, now: Timestamp) -> Result<Arc<ServiceView>, RequestError> {
        let view = Arc::clone(&self.find(name)?.view);
        self.try_apply(name, event, now)
            .map_err(|error| self.refuse(&error, now).unwrap_or(RequestError::Fatal(Fatal(error))))?;
        Ok(self.services.get(name).map_or(view, |managed| Arc::clone(&managed.view)))
    }

    fn store_for_user(&mut self, changes: &[Change], now: Timestamp) -> Result<(), RequestError> {
        let result = self.store.commit(changes);
        result.map_err(|error| self.refuse(&error, now).unwrap_or(RequestError::Fatal(Fatal(error))))
    }

    /// The refusal that a store's error means to a user; `None` if the controller must end.
    fn refuse(&mut self, error: &StoreError, now: Timestamp) -> Option<RequestError> {
        if error.must_exit() {
            return None;
        }
        self.note_trouble(error, now);
        Some(Refusal::Unavailable(format!("Nothing was changed, because it cannot be stored: {error}")).into())
    }

    fn note_trouble(&mut self, error: &StoreError, now: Timestamp) {
        let message = error.to_string();
        if self.trouble() != Some(message.as_str()) {
            tracing::error!(
                "decisions cannot be stored, traffic is not affected; trying again every second: {message}"
            );
        }
        self.trouble = Some(Trouble { message, retry_at: now.plus_ms(STORE_RETRY_MS) });
        self.revision += 1;
    }

    fn changed(&mut self, name: &str, now: Timestamp) {
        let Some(managed) = self.services.get_mut(name) else { return };
        managed.dirty = true;
        managed.wake_at = managed.service.wake_at(now);
        managed.draining.retain(|id, _| managed.service.replicas.get(id).is_some_and(routes::is_draining));
        managed.view = Arc::new(view::service(&managed.service, &self.options.infra));
        self.routes_dirty = true;
        self.revision += 1;
    }

    fn find(&self, name: &str) -> Result<&Managed, Refusal> {
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

    fn free_address(&self, port_is_free: &dyn Fn(SocketAddr) -> bool) -> Result<SocketAddr, Refusal> {
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

impl Managed {
    fn new(service: Service, infra: &str) -> Self {
        let view = Arc::new(view::service(&service, infra));
        Self {
            service,
            probes: BTreeMap::new(),
            view,
            wake_at: None,
            dirty: true,
            draining: BTreeMap::new(),
            offered: None,
        }
    }

    /// Whether the load balancer is still to say that it listens.
    fn awaits_endpoint(&self) -> bool {
        !self.service.head.endpoint_confirmed && self.service.head.shutdown.is_none()
    }

    fn note_table(&mut self, table: TableVersion) {
        self.offered.get_or_insert(table);
        for replica in self.service.replicas.values().filter(|replica| routes::is_draining(replica)) {
            self.draining.entry(replica.id).or_insert(table);
        }
    }

    /// Calls that are due and probes that should run.
    fn outputs(
        &mut self,
        calls: &mut BTreeSet<(ReplicaUid, OperationKind)>,
        now: Timestamp,
        outputs: &mut Vec<Output>,
    ) {
        let service = &self.service;
        let name = || service.head.name.clone();
        for kind in [OperationKind::Terminate, OperationKind::Launch] {
            for replica in service.due(kind, now).filter(|replica| replica.status != ReplicaStatus::Pending) {
                let (id, uid) = (replica.id, replica.uid.clone());
                if !calls.insert((uid.clone(), kind)) {
                    continue;
                }
                outputs.push(match kind {
                    OperationKind::Launch => {
                        let spec = service.rules.launch.for_replica(&service.head.name, uid, id, replica.version);
                        Output::Launch { service: name(), replica: id, spec: Box::new(spec) }
                    }
                    OperationKind::Terminate => {
                        Output::Terminate { service: name(), replica: id, uid, grace_ms: limits::TERMINATE_GRACE_MS }
                    }
                });
            }
        }
        let wanted: BTreeMap<ReplicaId, SocketAddr> = service
            .replicas
            .values()
            .filter(|replica| replica.status.is_probed())
            .filter_map(|replica| Some((replica.id, replica.address?)))
            .collect();
        for (id, _) in self.probes.iter().filter(|(id, address)| wanted.get(id) != Some(address)) {
            outputs.push(Output::StopProbe { uid: service.uid(*id) });
        }
        for (id, address) in wanted.iter().filter(|(id, address)| self.probes.get(id) != Some(address)) {
            let (uid, rules) = (service.uid(*id), Arc::clone(&service.rules));
            outputs.push(Output::StartProbe { service: name(), replica: *id, uid, address: *address, rules });
        }
        self.probes = wanted;
    }
}

fn turned_not_ready(change: &Change) -> bool {
    matches!(change, Change::UpdateReplica { replica, .. } if replica.status == ReplicaStatus::NotReady)
}

fn log_changes(service: &str, changes: &[Change], before: ServiceStatus, after: ServiceStatus) {
    for change in changes {
        if let Change::InsertReplica { replica, .. } | Change::UpdateReplica { replica, .. } = change {
            let reason = replica.reason.as_deref().unwrap_or("-");
            tracing::info!(service, replica = replica.id.0, status = replica.status.name(), "{reason}");
        }
    }
    if before != after {
        tracing::info!(service, "service {service} was {before}, is {after}");
    }
}
