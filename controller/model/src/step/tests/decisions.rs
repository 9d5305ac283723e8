//! What users decide: ending replicas and services; and what follows from the target.

use super::fixture::{Fixture, ended, preempted, running};
use crate::limits::{DRAIN_MS_MAX, SHUTDOWN_DRAIN_MS_MAX, TERMINATE_ATTEMPTS_SHOWN};
use crate::{Event, OperationKind::Terminate, ReplicaId, ReplicaStatus as S, ServiceStatus, Shutdown, Stage};

#[test]
fn a_ready_replica_finishes_its_requests_before_it_is_ended_but_not_for_ever() {
    let mut fixture = Fixture::ready(2);
    fixture.terminate(1, false);
    assert_eq!(fixture.status(1), S::ShuttingDown);
    assert_eq!(fixture.reason(1), "replica 1 was taken down by `down --replica-id`");
    assert_eq!(fixture.ids(), [1, 2, 3], "it is replaced");
    assert_eq!(fixture.due(Terminate), []);
    fixture.pass_ms(DRAIN_MS_MAX - 1);
    assert_eq!(fixture.due(Terminate), []);
    fixture.pass_ms(1);
    assert_eq!(fixture.due(Terminate), [1]);
}

#[test]
fn a_replica_without_requests_is_ended_as_soon_as_that_is_known() {
    let mut fixture = Fixture::ready(1);
    fixture.terminate(1, false);
    fixture.pass_ms(10);
    fixture.apply(&Event::Drained { replica: ReplicaId(1) });
    assert_eq!(fixture.due(Terminate), [1]);
    assert_eq!(fixture.apply(&Event::Drained { replica: ReplicaId(1) }), [], "once is enough");
}

#[test]
fn being_drained_does_not_shorten_the_pause_after_a_call_that_failed() {
    let mut fixture = Fixture::ready(1);
    fixture.terminate(1, false);
    fixture.apply(&Event::Drained { replica: ReplicaId(1) });
    fixture.call_failed(1, Terminate, true);
    assert_eq!(fixture.apply(&Event::Drained { replica: ReplicaId(1) }), []);
    assert_eq!(fixture.due(Terminate), []);
}

#[test]
fn being_drained_ends_no_replica_that_nobody_wants_gone() {
    let mut fixture = Fixture::ready(1);
    assert_eq!(fixture.apply(&Event::Drained { replica: ReplicaId(1) }), []);
    let mut fixture = Fixture::new(1);
    assert_eq!(fixture.apply(&Event::Drained { replica: ReplicaId(1) }), [], "its operation is a launch");
    assert_eq!(fixture.apply(&Event::Drained { replica: ReplicaId(9) }), []);
}

#[test]
fn a_replica_that_never_served_is_ended_at_once() {
    let mut fixture = Fixture::new(1);
    fixture.observe(1, running(1));
    fixture.terminate(1, false);
    assert_eq!((fixture.status(1), fixture.due(Terminate)), (S::ShuttingDown, vec![1]));
}

#[test]
fn taking_down_a_record_of_a_failure_forgets_it() {
    let mut fixture = Fixture::ready(1);
    fixture.observe(1, ended(Stage::Run));
    fixture.terminate(1, false);
    assert_eq!(fixture.status(1), S::Failed, "its resource is still there");
    fixture.called(1, Terminate);
    fixture.terminate(1, false);
    assert_eq!(fixture.ids(), [2]);
    assert_eq!(fixture.terminate(1, true), [], "it is gone");
}

#[test]
fn with_purge_a_replica_is_forgotten_when_its_removal_fails_and_not_before() {
    let mut fixture = Fixture::ready(1);
    fixture.terminate(1, true);
    fixture.pass_ms(DRAIN_MS_MAX);
    assert_eq!(fixture.due(Terminate), [1], "the removal is tried first");
    fixture.call_failed(1, Terminate, true);
    assert_eq!(fixture.ids(), [2]);
}

#[test]
fn a_later_purge_forgets_at_once_what_could_not_be_removed() {
    let mut fixture = Fixture::ready(1);
    fixture.observe(1, preempted());
    fixture.terminate(1, true);
    assert_eq!(fixture.ids(), [1, 2], "its removal has not failed yet");
    let mut fixture = Fixture::ready(1);
    fixture.observe(1, preempted());
    for _ in 0..TERMINATE_ATTEMPTS_SHOWN {
        fixture.call_failed(1, Terminate, true);
    }
    assert_eq!(fixture.status(1), S::FailedCleanup);
    fixture.terminate(1, true);
    assert_eq!(fixture.ids(), [2]);
}

#[test]
fn taking_a_draining_replica_down_again_lets_it_drain_on() {
    let mut fixture = Fixture::ready(1);
    fixture.terminate(1, false);
    let operation = fixture.replica(1).operation;
    fixture.pass_ms(DRAIN_MS_MAX / 2);
    assert_eq!(fixture.terminate(1, false), []);
    assert_eq!(fixture.replica(1).operation, operation);
}

#[test]
fn with_its_service_a_draining_replica_goes_sooner() {
    let mut fixture = Fixture::ready(1);
    fixture.terminate(1, false);
    fixture.apply(&Event::Shutdown { purge: false });
    assert_eq!(fixture.due(Terminate), [2], "which was launched in its place and has not served");
    fixture.pass_ms(SHUTDOWN_DRAIN_MS_MAX);
    assert_eq!(fixture.due(Terminate), [1, 2]);
    // A call that failed has its pause all the same.
    fixture.call_failed(1, Terminate, true);
    let pause = fixture.replica(1).operation;
    fixture.terminate(1, false);
    assert_eq!(fixture.replica(1).operation, pause);
}

#[test]
fn a_service_is_taken_down_whole_and_is_gone_with_its_last_replica() {
    let mut fixture = Fixture::ready(2);
    fixture.observe(2, ended(Stage::Run));
    fixture.called(2, Terminate);
    fixture.apply(&Event::Shutdown { purge: false });
    assert_eq!(fixture.service.head.shutdown, Some(Shutdown { since: fixture.now, purge: false }));
    assert_eq!(fixture.service.target(), 0);
    assert_eq!(fixture.ids(), [1, 3], "the record of replica 2 is forgotten");
    assert_eq!((fixture.status(1), fixture.status(3)), (S::ShuttingDown, S::ShuttingDown));
    assert_eq!(fixture.reason(1), "the service is being taken down");
    assert_eq!(fixture.due(Terminate), [3], "replica 1 drains");
    fixture.called(3, Terminate);
    fixture.pass_ms(DRAIN_MS_MAX);
    assert!(!fixture.service.is_gone());
    fixture.called(1, Terminate);
    assert!(fixture.service.is_gone());
}

#[test]
fn a_second_down_keeps_the_first_ones_time_and_may_add_purge() {
    let mut fixture = Fixture::ready(1);
    let since = fixture.now;
    fixture.apply(&Event::Shutdown { purge: false });
    fixture.pass_ms(100);
    assert_eq!(fixture.apply(&Event::Shutdown { purge: false }), []);
    fixture.apply(&Event::Shutdown { purge: true });
    assert_eq!(fixture.service.head.shutdown, Some(Shutdown { since, purge: true }));
    fixture.apply(&Event::Shutdown { purge: false });
    assert_eq!(fixture.service.head.shutdown, Some(Shutdown { since, purge: true }));
    fixture.pass_ms(DRAIN_MS_MAX);
    fixture.call_failed(1, Terminate, false);
    assert!(fixture.service.is_gone());
}

#[test]
fn a_replica_that_failed_while_its_service_goes_leaves_no_record() {
    let mut fixture = Fixture::ready(1);
    fixture.observe(1, ended(Stage::Run));
    fixture.apply(&Event::Shutdown { purge: false });
    assert_eq!(fixture.status(1), S::Failed);
    fixture.called(1, Terminate);
    fixture.called(2, Terminate);
    assert!(fixture.service.is_gone());
    assert_eq!(fixture.service.status(), ServiceStatus::ShuttingDown);
}

#[test]
fn the_least_far_in_their_life_go_first_and_of_those_the_newest() {
    // SkyServe's order: PENDING, PROVISIONING, STARTING, NOT_READY, READY; then by id, descending.
    let mut fixture = Fixture::ready(8);
    let mut rules = (*fixture.service.rules).clone();
    for (id, status) in [
        (1, S::Pending),
        (2, S::Provisioning),
        (3, S::Provisioning),
        (4, S::Starting),
        (5, S::NotReady),
        (6, S::NotReady),
    ] {
        fixture.service.replicas.get_mut(&ReplicaId(id)).expect("it exists").status = status;
    }
    let mut order = Vec::new();
    for target in (0..8).rev() {
        rules.replicas = target;
        fixture.service.rules = std::sync::Arc::new(rules.clone());
        let before: Vec<u64> = fixture.service.alive().map(|replica| replica.id.0).collect();
        let mut edit = crate::edit::Edit::new(&mut fixture.service);
        crate::step::reconcile::scale(&mut edit, fixture.now);
        let after: Vec<u64> = fixture.service.alive().map(|replica| replica.id.0).collect();
        order.extend(before.into_iter().filter(|id| !after.contains(id)));
    }
    assert_eq!(order, [1, 3, 2, 4, 6, 5, 8, 7]);
    assert!(fixture.service.replicas.values().all(|replica| replica.status == S::ShuttingDown));
    assert_eq!(fixture.reason(7), "the service has more replicas than it needs");
    let purges = |replica: &crate::Replica| replica.operation.is_some_and(|operation| operation.purge);
    assert!(!fixture.service.replicas.values().any(purges), "nobody asked to forget them");
}

#[test]
fn the_endpoint_moves_only_before_anybody_was_told_of_it() {
    let mut fixture = Fixture::new(1);
    let other = super::fixture::address(201);
    fixture.apply(&Event::EndpointMoves { listen: other });
    assert_eq!(fixture.service.head.listen, other);
    fixture.apply(&Event::EndpointListens);
    assert_eq!(fixture.apply(&Event::EndpointListens), []);
    assert_eq!(fixture.apply(&Event::EndpointMoves { listen: super::fixture::address(202) }), []);
    assert_eq!(fixture.service.head.listen, other);
}
