//! What several threads do to one service at once, in every order that the memory model allows (loom), up to
//! [`PREEMPTIONS_MAX`] switches of threads in the middle. Each check has a control: the way it must not be done,
//! which loom must find.

use super::*;
use loom::thread;
use skyserve_routes::ReplicaRoute;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bugs of two threads need few switches; each more multiplies the orders.
const PREEMPTIONS_MAX: usize = 3;

fn explore(lives: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(lives);
}

/// Whether loom finds an order in which an assertion of `lives` fails.
fn is_found(lives: impl Fn() + Sync + Send + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| explore(lives))).is_err()
}

fn routes(replicas: &[(&str, ReplicaRouteState)]) -> ServiceRoutes {
    let route = |(number, (uid, state)): (usize, &(&str, ReplicaRouteState))| ReplicaRoute {
        uid: (*uid).to_owned(),
        id: number as u64 + 1,
        address: ([127, 0, 0, 1], 1_000 + number as u16).into(),
        weight: 1,
        state: *state,
    };
    ServiceRoutes {
        name: "svc".to_owned(),
        listen: ([127, 0, 0, 1], 1).into(),
        policy: Policy::LeastLoad,
        stream_timeout_ms: 1_000,
        tls: None,
        replicas: replicas.iter().enumerate().map(route).collect(),
        expects_replicas: true,
    }
}

fn service(replicas: &[(&str, ReplicaRouteState)]) -> Arc<Service> {
    let metrics = Metrics::new().expect("metrics have names of their own");
    Arc::new(Service::new(&routes(replicas), &metrics, Arc::new(Notify::new())))
}

/// Requests in flight at `uid`, as the report to the controller has them.
fn reported(service: &Service, uid: &str) -> u64 {
    service.view().present().filter(|replica| replica.uid == uid).map(|replica| replica.in_flight()).sum()
}

/// One thread gives a request to a replica by `pick`, another takes "a" off the routes by `leave`, and ends it if no
/// request is reported for it.
fn a_request_while_a_replica_leaves(pick: fn(&Arc<Service>) -> Pick, leave: fn(&Service)) {
    let service = service(&[("a", ReplicaRouteState::Ready)]);
    let ended = Arc::new(AtomicBool::new(false));
    let worker = thread::spawn({
        let (service, ended) = (Arc::clone(&service), Arc::clone(&ended));
        move || {
            if let Pick::Replica(lease) = pick(&service) {
                assert!(!ended.load(Ordering::Acquire), "the request goes to '{}', which was ended", lease.replica.uid);
            }
        }
    });
    leave(&service);
    if reported(&service, "a") == 0 {
        ended.store(true, Ordering::Release);
    }
    worker.join().expect("the worker ends");
}

const LEAVES: [fn(&Service); 3] = [
    |service| service.update(&routes(&[("a", ReplicaRouteState::Draining)])),
    |service| service.update(&routes(&[])),
    |service| service.remove(),
];

#[test]
fn a_replica_that_is_reported_without_requests_gets_none_any_more() {
    for leave in LEAVES {
        explore(move || a_request_while_a_replica_leaves(Service::pick, leave));
        explore(move || a_request_while_a_replica_leaves(Service::pick_unreachable, leave));
    }
}

#[test]
fn control_a_choice_by_an_old_view_is_found() {
    for leave in LEAVES {
        assert!(is_found(move || {
            a_request_while_a_replica_leaves(|service| service.pick_from(&service.view.load()), leave);
        }));
    }
}

/// Two threads send again around the turn of a second whose floor is used up but for one.
fn allowed_at_the_turn_of_a_second<B: Send + Sync + 'static>(budget: B, spend: fn(&B, u64) -> bool) -> usize {
    let budget = Arc::new(budget);
    let used = (0..9).filter(|_| spend(&budget, 5_000)).count();
    let earlier = thread::spawn({
        let budget = Arc::clone(&budget);
        move || usize::from(spend(&budget, 4_999))
    });
    let later = usize::from(spend(&budget, 5_000)) + usize::from(spend(&budget, 5_000));
    used + later + earlier.join().expect("the thread ends")
}

#[test]
fn no_more_is_sent_again_in_a_second_than_its_floor() {
    explore(|| assert_eq!(allowed_at_the_turn_of_a_second(RetryBudget::default(), RetryBudget::spend), 10));
}

#[test]
fn control_a_second_and_its_use_in_two_numbers_are_found() {
    fn spend((second, used): &(AtomicU64, AtomicU64), now_ms: u64) -> bool {
        if second.swap(now_ms / 1_000, Relaxed) != now_ms / 1_000 {
            used.store(0, Relaxed);
        }
        used.fetch_add(1, Relaxed) < 10
    }
    assert!(is_found(|| assert!(allowed_at_the_turn_of_a_second(Default::default(), spend) <= 10)));
}

/// How many of two threads that do the same at once succeed.
fn succeed<T: Send + Sync + 'static>(shared: Arc<T>, act: fn(&Arc<T>) -> bool) -> usize {
    let other = thread::spawn({
        let shared = Arc::clone(&shared);
        move || usize::from(act(&shared))
    });
    usize::from(act(&shared)) + other.join().expect("the thread ends")
}

/// How many of two threads may try a replica whose cool-down is over.
fn trials(claim: fn(&Arc<Replica>) -> bool) -> usize {
    let replica = Replica::new("a".to_owned(), 1, ([127, 0, 0, 1], 1).into(), 1);
    replica.connect_failed(1);
    succeed(Arc::new(replica), claim)
}

#[test]
fn after_a_cool_down_one_thread_tries() {
    explore(|| assert_eq!(trials(|replica| replica.claim_trial(10_000)), 1));
}

#[test]
fn control_a_look_and_then_a_claim_are_found() {
    fn claim(replica: &Arc<Replica>) -> bool {
        let free = !replica.is_reachable();
        replica.connected();
        free
    }
    assert!(is_found(|| assert_eq!(trials(claim), 1)));
}

#[test]
fn no_more_connections_are_open_than_allowed() {
    let admit = |service: &Arc<Service>| service.admit_connection(1).map(std::mem::forget).is_some();
    explore(move || assert_eq!(succeed(service(&[]), admit), 1));
}

#[test]
fn control_a_look_at_the_room_and_then_an_entry_are_found() {
    let admit = |service: &Arc<Service>| {
        let room = service.has_room(1);
        service.connections.fetch_add(1, Relaxed);
        room
    };
    assert!(is_found(move || assert_eq!(succeed(service(&[]), admit), 1)));
}
