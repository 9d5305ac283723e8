//! The controller without its IO: what happened goes in, what is to be done comes out, and between
//! the two every decision is stored. The driver runs it on the real world, `tests/sim` on a simulated
//! one.
//!
//! Invariants:
//! * What is in memory is what the store holds: a step that cannot be stored is undone.
//! * What happened is applied at the next [`Core::flush`], all of one service's in one step and one transaction: each step
//!   looks at all replicas of its service, and each transaction waits for the disk.
//! * Work is derived from the state ([`Core::flush`]), never remembered beside it. What was lost (an
//!   event whose rows could not be stored, a reply that never came) is derived again.
//! * At most one call of a kind is under way for a replica.
//! * Routes are published after the rows they come from are stored.
//!
//! It reads no clock, file or socket.

mod managed;
mod messages;
mod news;
mod requests;
mod updates;

use crate::routes;
use managed::{Managed, log_changes, turned_not_ready};
use skyserve_api::ServiceView;
use skyserve_model::{Change, Epoch, Event, OperationKind, ReplicaUid, Service, Timestamp, recover, step_all};
use skyserve_recovery::{Store, StoreError};
use skyserve_routes::{ServiceRoutes, TableVersion};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

pub use messages::{CoreOptions, Fatal, Held, Input, Output, Outside};
pub use requests::{Refusal, RequestError};
pub use updates::Updated;

/// How often the provider is asked for all it has: finds what its reports missed.
const LIST_INTERVAL_MS: u64 = 60_000;
/// Pause between tables that are published because the load balancer cannot read the one that is there.
const PUBLISH_AGAIN_MS: u64 = 5_000;
/// Pause before the store is tried again after it could not write.
const STORE_RETRY_MS: u64 = 1_000;

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
    metrics_address: Option<SocketAddr>,
    publish_again_at: Timestamp,
    list_at: Timestamp,
    listing: bool,
    /// Whether the provider has told all that it has since this controller began.
    has_listed: bool,
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
            (service.head.name.clone(), Managed::new(service, &options))
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
            metrics_address: None,
            publish_again_at: now,
            list_at: now,
            listing: false,
            has_listed: false,
            list_again: false,
            trouble: None,
        }
    }

    /// Grows with everything that views show.
    /// Whether the provider has told all that it has. Until then a service that is asked for may get numbers that replicas
    /// have which this controller has not seen.
    pub fn has_listed(&self) -> bool {
        self.has_listed
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// This controller's tenure.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where the load balancer serves metrics and health, once it has said so.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Every service, by name.
    pub fn views(&self) -> Vec<Arc<ServiceView>> {
        self.services.values().map(|managed| Arc::clone(&managed.view)).collect()
    }

    /// Every service's state: for checks that look at all of it.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(|managed| &managed.service)
    }

    pub fn store(&self) -> &S {
        &self.store
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
            Input::Observed { observation, seen_at } => {
                self.observed(&observation, seen_at);
                Ok(())
            }
            Input::Listed { observations, began_at } => {
                self.listed(&observations, began_at, now);
                Ok(())
            }
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
                self.note_of(&service, &uid, Event::Called { replica, kind, result });
                Ok(())
            }
            Input::Probed { service, replica, uid, address, result } => {
                // A probe of an address that the replica has left says nothing about it.
                let probing = self.services.get(&service).and_then(|managed| managed.probes.get(&replica));
                if probing.map(|probing| probing.address) != Some(address) {
                    return Ok(());
                }
                self.note_of(&service, &uid, Event::Probed { replica, result });
                Ok(())
            }
            Input::Load(report) => self.load(&report, now),
            Input::Exposed { service, outside } => {
                self.exposed(&service, outside, now);
                Ok(())
            }
        }
    }

    /// What follows from the state at `now`, each thing once.
    pub fn flush(&mut self, now: Timestamp) -> Result<Vec<Output>, Fatal> {
        if self.trouble.as_ref().is_some_and(|trouble| now < trouble.retry_at) {
            self.apply_noted(now)?;
            // What was stored before the trouble began is routed and shown all the same.
            let mut outputs = self.stop_probes_of_gone();
            outputs.extend(self.publish());
            self.refresh_views();
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
        self.tick_due(now);
        self.apply_noted(now)?;
        let mut outputs = self.stop_probes_of_gone();
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
        self.refresh_views();
        Ok(outputs)
    }

    /// Makes the views that have fallen behind, once for however many changes.
    fn refresh_views(&mut self) {
        for managed in self.services.values_mut().filter(|managed| managed.view_stale) {
            managed.refresh_view(&self.options.infra);
        }
    }

    fn list_soon(&mut self, now: Timestamp) {
        self.list_at = now;
        self.list_again = self.listing;
    }

    fn stop_probes_of_gone(&mut self) -> Vec<Output> {
        self.gone.drain(..).map(|uid| Output::StopProbe { uid }).collect()
    }

    /// Notes a tick for each service whose time has come, to be applied with what has happened to it.
    fn tick_due(&mut self, now: Timestamp) {
        let is_due = |managed: &Managed| managed.dirty || managed.wake_at.is_some_and(|moment| moment <= now);
        for managed in self.services.values_mut().filter(|managed| is_due(managed)) {
            managed.noted.push(Event::Tick);
            managed.dirty = true;
        }
    }

    /// Applies what has happened to services since it was last applied.
    fn apply_noted(&mut self, now: Timestamp) -> Result<(), Fatal> {
        let noted = self.services.iter().filter(|(_, managed)| !managed.noted.is_empty());
        let names: Vec<String> = noted.map(|(name, _)| name.clone()).collect();
        names.iter().try_for_each(|name| self.apply_noted_of(name, now))
    }

    fn apply_noted_of(&mut self, name: &str, now: Timestamp) -> Result<(), Fatal> {
        let Some(managed) = self.services.get_mut(name) else { return Ok(()) };
        let events = std::mem::take(&mut managed.noted);
        if events.is_empty() {
            return Ok(());
        }
        self.apply(name, &events, now)?;
        if let Some(managed) = self.services.get_mut(name).filter(|_| events.contains(&Event::Tick)) {
            managed.wake_at = managed.service.wake_at(now);
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

    /// Notes an event that is about the replica `uid`, unless the service of that name is another by now.
    fn note_of(&mut self, name: &str, uid: &ReplicaUid, event: Event) {
        if self.owner(uid).is_some() {
            self.note(name, event);
        }
    }

    /// Notes what has happened to a service: it is applied at the next flush, or before what a user asks for.
    fn note(&mut self, name: &str, event: Event) {
        if let Some(managed) = self.services.get_mut(name) {
            managed.noted.push(event);
        }
    }

    /// Applies events of one service and stores what changes. What cannot be stored now is undone, and will be
    /// derived again.
    fn apply(&mut self, name: &str, events: &[Event], now: Timestamp) -> Result<(), Fatal> {
        match self.try_apply(name, events, now) {
            Ok(()) => Ok(()),
            Err(error) if error.must_exit() => Err(Fatal(error)),
            Err(error) if error.is_transient() => {
                self.note_trouble(&error, now);
                Ok(())
            }
            // The store works and will never take this: that concerns this service alone.
            Err(error) => {
                tracing::error!(service = name, "a decision about service {name} cannot be stored: {error}");
                Ok(())
            }
        }
    }

    fn try_apply(&mut self, name: &str, events: &[Event], now: Timestamp) -> Result<(), StoreError> {
        let Some(managed) = self.services.get_mut(name) else { return Ok(()) };
        if self.trouble.is_some() {
            // What happened meanwhile may have been lost: see `flush`.
            recover(&mut managed.service, now);
        }
        let before = managed.service.status();
        let (mut changes, undo) = step_all(&mut managed.service, events, now);
        let gone = managed.service.is_gone();
        if gone {
            changes = vec![Change::DeleteService { name: name.to_owned() }];
        }
        // A call that failed and changes nothing must still be made again.
        managed.dirty |= events.iter().any(|event| matches!(event, Event::Called { .. }));
        if changes.is_empty() {
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
        managed.view_stale = true;
        self.routes_dirty = true;
        self.revision += 1;
    }
}
