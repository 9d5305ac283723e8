//! One service as the proxy sees it: its replicas in force, its queue, its counters.
//!
//! Invariants:
//! * A [`View`] never changes; a new table puts another in its place, so an exchange in flight is never
//!   disturbed by one.
//! * A replica that stays in the table keeps its load and its cool-down; so does one that comes back.
//! * A [`Lease`] counts as one request in flight until it is dropped, however the exchange ends.
//! * A thread that gives a replica a request by an old view is seen by whoever reads the replica's requests in
//!   flight under the new one; so once they read 0, a replica that left gets no request any more and may be ended.

use crate::clock::now_ms;
use crate::metrics::{Metrics, ServiceMetrics};
use crate::policy;
use crate::replica::Replica;
use crate::retry::RetryBudget;
use crate::sync::{self, ArcSwap, AtomicBool, AtomicU64, AtomicUsize, Ordering, Ordering::Relaxed};
use skyserve_routes::{Policy, ReplicaRouteState, ServiceRoutes};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

static NEXT_REPLICA_KEY: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

/// A service, from the first table that names it to the end of its last connection.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) metrics: ServiceMetrics,
    pub(crate) budget: RetryBudget,
    /// Told whenever a replica may have become available.
    pub(crate) changed: Notify,
    /// Requests waiting for a replica.
    pub(crate) queued: AtomicUsize,
    /// Whether a waiting request has taken on to try the replicas that could not be reached.
    pub(crate) probed: AtomicBool,
    /// Told whenever a request starts to wait, for the controller.
    pub(crate) wakes: Arc<Notify>,
    view: ArcSwap<View>,
    /// Counts the views: grows once each is in force.
    views: AtomicU64,
    cursor: AtomicUsize,
    connections: AtomicUsize,
    removed: AtomicBool,
}

/// What one table says about a service.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) policy: Policy,
    pub(crate) stream_timeout: Duration,
    /// Whether a replica is on its way when none is ready.
    pub(crate) expects_replicas: bool,
    /// Replicas that get new requests.
    pub(crate) ready: Vec<Candidate>,
    /// All replicas of the table, and departed ones, until a later view finds them without requests.
    replicas: Vec<Arc<Replica>>,
}

/// A replica that gets new requests, and its share.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) replica: Arc<Replica>,
    weight: f64,
}

/// What choosing a replica comes to.
#[derive(Debug)]
pub(crate) enum Pick {
    Replica(Lease),
    /// There are ready replicas, and none could be reached lately.
    NoneReachable,
    NoneReady,
}

impl Service {
    pub(crate) fn new(routes: &ServiceRoutes, metrics: &Metrics, wakes: Arc<Notify>) -> Self {
        let view = View {
            policy: routes.policy,
            stream_timeout: Duration::from_millis(routes.stream_timeout_ms),
            expects_replicas: routes.expects_replicas,
            ready: Vec::new(),
            replicas: Vec::new(),
        };
        let service = Self {
            name: routes.name.clone(),
            metrics: metrics.service(&routes.name),
            budget: RetryBudget::default(),
            changed: Notify::new(),
            queued: AtomicUsize::new(0),
            probed: AtomicBool::new(false),
            wakes,
            view: ArcSwap::from_pointee(view),
            views: AtomicU64::new(0),
            cursor: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            removed: AtomicBool::new(false),
        };
        service.update(routes);
        service
    }

    /// Puts a table's routes in force. Only the control thread calls this.
    pub(crate) fn update(&self, routes: &ServiceRoutes) {
        let old = self.view.load_full();
        let new = View::next(&old, routes);
        let same_set = new.ready_keys() == old.ready_keys();
        if !same_set && routes.policy == Policy::RoundRobin {
            // SkyServe shuffles here, so that the first replica of the list does not get the first
            // request after every change; starting anywhere does the same.
            self.cursor.store(RandomState::new().hash_one(0) as usize / 2, Relaxed);
        }
        self.removed.store(false, Relaxed);
        self.put_in_force(new);
    }

    /// The service is in no table any more. Exchanges in flight go on to their end.
    pub(crate) fn remove(&self) {
        self.removed.store(true, Relaxed);
        let old = self.view.load_full();
        old.replicas.iter().for_each(|replica| replica.retire(true));
        self.put_in_force(View {
            policy: old.policy,
            stream_timeout: old.stream_timeout,
            expects_replicas: false,
            ready: Vec::new(),
            replicas: old.replicas.clone(),
        });
    }

    fn put_in_force(&self, view: View) {
        self.view.store(Arc::new(view));
        self.views.fetch_add(1, Ordering::Release);
        // Either the requests in flight that this thread reads from now on hold a request that another thread
        // is giving by the old view, or that thread sees that the view is old: see `is_outdated`.
        sync::fence(Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Relaxed)
    }

    pub(crate) fn view(&self) -> sync::Guard<Arc<View>> {
        self.view.load()
    }

    /// Chooses a replica for a request by the service's policy, among those that can be reached.
    pub(crate) fn pick(self: &Arc<Self>) -> Pick {
        self.pick_by(|view| self.pick_from(view))
    }

    /// Chooses again as long as another view came into force meanwhile.
    fn pick_by(&self, choose: impl Fn(&View) -> Pick) -> Pick {
        loop {
            let views = self.views.load(Ordering::Acquire);
            match choose(&self.view.load()) {
                Pick::Replica(lease) if self.is_outdated(views) => drop(lease),
                pick => return pick,
            }
        }
    }

    /// Whether another view has come into force since there were `views`. A lease that was taken before this says no
    /// is seen by whoever puts a view in force later.
    fn is_outdated(&self, views: u64) -> bool {
        sync::fence(Ordering::SeqCst);
        self.views.load(Relaxed) != views
    }

    fn pick_from(self: &Arc<Self>, view: &View) -> Pick {
        if view.ready.is_empty() {
            return Pick::NoneReady;
        }
        let all_reachable = Cell::new(true);
        let chosen = policy::choose(view.policy, &self.cursor, view.ready.len(), |index| {
            let reachable = view.ready[index].replica.is_reachable();
            all_reachable.set(all_reachable.get() && reachable);
            reachable.then(|| view.ready[index].load())
        });
        let trial = || {
            let now_ms = now_ms();
            view.ready.iter().find(|candidate| candidate.replica.claim_trial(now_ms))
        };
        let candidate = if all_reachable.get() { None } else { trial() };
        match candidate.or(chosen.map(|index| &view.ready[index])) {
            Some(candidate) => Pick::Replica(self.lease(candidate)),
            None => Pick::NoneReachable,
        }
    }

    /// Chooses among all ready replicas, whether or not they could be reached lately.
    pub(crate) fn pick_unreachable(self: &Arc<Self>) -> Pick {
        self.pick_by(|view| {
            let load = |index: usize| Some(view.ready[index].load());
            let chosen = policy::choose(view.policy, &self.cursor, view.ready.len(), load);
            chosen.map_or(Pick::NoneReady, |index| Pick::Replica(self.lease(&view.ready[index])))
        })
    }

    fn lease(self: &Arc<Self>, candidate: &Candidate) -> Lease {
        candidate.replica.begin();
        self.metrics.in_flight.inc();
        Lease { replica: Arc::clone(&candidate.replica), service: Arc::clone(self) }
    }

    /// A connect to one of the replicas succeeded: if it was not expected, waiting requests may go.
    pub(crate) fn replica_connected(&self, replica: &Replica) {
        if replica.connected() {
            self.changed.notify_waiters();
        }
    }

    /// Counts a connection, unless the service has `connections_max`.
    pub(crate) fn admit_connection(self: &Arc<Self>, connections_max: usize) -> Option<ConnectionGuard> {
        let admitted =
            self.connections.fetch_update(Relaxed, Relaxed, |open| (open < connections_max).then_some(open + 1));
        admitted.ok()?;
        self.metrics.connections.inc();
        self.metrics.connections_total.inc();
        Some(ConnectionGuard { service: Arc::clone(self) })
    }

    /// Whether so many connections are open that none should be kept for later requests.
    pub(crate) fn is_crowded(&self, connections_max: usize) -> bool {
        self.connections.load(Relaxed) >= connections_max - connections_max / 8
    }

    pub(crate) fn has_room(&self, connections_max: usize) -> bool {
        self.connections.load(Relaxed) < connections_max
    }
}

impl View {
    fn next(old: &View, routes: &ServiceRoutes) -> View {
        let mut replicas: Vec<Arc<Replica>> = Vec::with_capacity(routes.replicas.len());
        let mut ready = Vec::new();
        for route in &routes.replicas {
            let known = old.replicas.iter().find(|known| known.uid == route.uid && known.address == route.address);
            let replica = known.cloned().unwrap_or_else(|| {
                let key = NEXT_REPLICA_KEY.fetch_add(1, Relaxed);
                Arc::new(Replica::new(route.uid.clone(), route.id, route.address, key))
            });
            replica.retire(false);
            if route.state == ReplicaRouteState::Ready && route.weight > 0 {
                ready.push(Candidate { replica: Arc::clone(&replica), weight: f64::from(route.weight) });
            }
            replicas.push(replica);
        }
        let staying: BTreeSet<u64> = replicas.iter().map(|replica| replica.key).collect();
        for departed in old.replicas.iter().filter(|replica| !staying.contains(&replica.key)) {
            // One that was in force until now may be given a request this very moment.
            if !departed.is_retired() || departed.in_flight() > 0 {
                replicas.push(Arc::clone(departed));
            }
            departed.retire(true);
        }
        let mut view = View {
            policy: routes.policy,
            stream_timeout: Duration::from_millis(routes.stream_timeout_ms),
            expects_replicas: routes.expects_replicas,
            ready,
            replicas,
        };
        if view.ready_keys() == old.ready_keys() {
            // The same replicas in another order keep their order, so that the rotation goes on.
            let place = |key| old.ready.iter().position(|candidate| candidate.replica.key == key);
            view.ready.sort_by_key(|candidate| place(candidate.replica.key));
        }
        view
    }

    /// The replicas of the table, and departed ones that have requests in flight.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.replicas.iter().filter(|replica| !replica.is_retired() || replica.in_flight() > 0)
    }

    fn ready_keys(&self) -> BTreeSet<u64> {
        self.ready.iter().map(|candidate| candidate.replica.key).collect()
    }
}

impl Candidate {
    fn load(&self) -> f64 {
        self.replica.in_flight() as f64 / self.weight
    }
}

/// A replica's promise to answer one request.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) replica: Arc<Replica>,
    service: Arc<Service>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.replica.end();
        self.service.metrics.in_flight.dec();
    }
}

/// One open connection of a client.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    service: Arc<Service>,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.service.connections.fetch_sub(1, Relaxed);
        self.service.metrics.connections.dec();
    }
}

#[cfg(all(test, skyserve_loom))]
mod interleavings;
