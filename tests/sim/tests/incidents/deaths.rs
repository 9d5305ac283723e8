//! What died, and what became of it.

use super::{A_WHILE_MS, Stand, serving};
use skyserve_controller::core::{Core, Input};
use skyserve_model::{CallFailure, OperationKind, Phase, ReplicaStatus};
use skyserve_sim::{CrashPoint, Side};

/// The controller died after it had stored PREEMPTED and before it had removed what was left and launched another: nobody
/// did either after the restart.
#[test]
fn preempted_rows_were_never_resumed() {
    let mut stand = serving("svc", 2);
    let victim = stand.ready("svc").remove(0);
    stand.shows(&victim, Phase::Preempted { reason: "the spot instance was reclaimed".to_owned() });
    // What follows from it is stored, and nothing of it done.
    stand.with_core(Core::flush).unwrap();
    stand.restart();
    assert!(stand.statuses("svc").contains(&ReplicaStatus::Preempted), "{:?}", stand.statuses("svc"));
    stand.run_for(A_WHILE_MS);
    assert_eq!(stand.terminated, [victim]);
    assert_eq!(stand.statuses("svc"), [ReplicaStatus::Ready, ReplicaStatus::Ready]);
    assert_eq!(stand.resources.len(), 2);
}

/// #9683: an exception in the controller's loop was handled by terminating every replica.
#[test]
fn an_exception_destroyed_every_replica() {
    let mut stand = serving("svc", 3);
    let before = stand.ready("svc");
    let all = stand.resources.clone();
    // The provider fails, says that nothing is there, calls fail that nobody made; the store fails for good.
    stand.lists_fail = true;
    stand.run_for(3 * A_WHILE_MS);
    let began_at = stand.now;
    stand.tell(Input::Listed { observations: Vec::new(), began_at });
    for uid in &before {
        let failure = CallFailure { message: "Traceback (most recent call last)".to_owned(), retryable: false };
        let replica = stand.service("svc").replica_id(uid).unwrap();
        for kind in [OperationKind::Launch, OperationKind::Terminate] {
            let (service, uid, result) = ("svc".to_owned(), uid.clone(), Err(failure.clone()));
            stand.tell(Input::Called { service, replica, uid, kind, result });
        }
    }
    stand.run_for(A_WHILE_MS);
    stand.crash_at(CrashPoint { boundary: 0, side: Side::Before });
    assert!(!super::update(&mut stand, "svc", 1, "serve"), "it cannot be stored, and is not done");
    assert!(stand.has_crashed());
    assert!(stand.terminated.is_empty(), "{:?}", stand.terminated);
    assert_eq!(stand.routed().len(), 3, "requests go on");

    stand.restart();
    stand.lists_fail = false;
    stand.run_for(A_WHILE_MS);
    assert!(stand.terminated.is_empty() && stand.launched.is_empty());
    assert_eq!((stand.ready("svc"), &stand.resources), (before, &all));
}

/// What had died was not started again, and the status went on saying READY. A replica whose death nobody reported is
/// found by its probe and the list. (For the roles see `a_listener_is_kept_across_twenty_kills_of_the_load_balancer` in
/// `image/init/tests/roles.rs`.)
#[test]
fn a_dead_child_was_never_restarted_while_the_status_said_ready() {
    let mut stand = serving("svc", 1);
    let dead = stand.ready("svc").remove(0);
    stand.resources.remove(&dead);
    stand.probe_all();
    let view = |stand: &Stand| stand.core.as_ref().unwrap().views().remove(0);
    let outputs = stand.with_core(Core::flush).unwrap();
    assert!(view(&stand).status != "READY", "{:?} after {outputs:?}", view(&stand));
    stand.now = stand.now.plus_ms(1);
    stand.list();
    stand.run_for(A_WHILE_MS);
    assert_eq!((view(&stand).status.as_str(), view(&stand).replicas_ready), ("READY", 1));
    assert_ne!(stand.ready("svc"), [dead]);
}

/// A replica that left the ready set was ended at once, and a reply that it was streaming broke off. (That the load
/// balancer lets the stream go on is `a_replica_that_leaves_or_drains_finishes_its_stream_and_gets_nothing_new` in
/// `loadbalancer/tests/behaviour/routing.rs`.)
#[test]
fn a_stream_was_cut_when_its_replica_left_the_ready_set() {
    let mut stand = serving("svc", 2);
    let leaving = stand.ready("svc").remove(1);
    stand.in_flight.insert(leaving.to_string(), 1);
    assert!(super::update(&mut stand, "svc", 1, "serve"));
    stand.run_for(A_WHILE_MS);
    assert_eq!(stand.ready("svc").len(), 1);
    assert!(stand.terminated.is_empty(), "its stream goes on");
    // A restart of the controller cuts it as little.
    stand.restart();
    stand.run_for(10_000);
    assert!(stand.terminated.is_empty() && stand.resources.contains_key(&leaving));

    // A probe that fails takes it off the routes, and nothing from it.
    let other = stand.ready("svc").remove(0);
    stand.silent.insert(other.clone());
    stand.probe_all();
    stand.run_for(1_000);
    assert_eq!(stand.service("svc").ready().count(), 0);
    assert!(!stand.terminated.contains(&other), "it is given failure_threshold_ms");
}
