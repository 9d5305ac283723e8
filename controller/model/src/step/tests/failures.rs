//! Failures in a row: the pause before the next launch, and giving up.

use super::fixture::{Fixture, INITIAL_DELAY_MS, ended, preempted, running};
use crate::limits::{
    FAILED_RECORDS_MAX, FAILURES_BEFORE_READY_MAX, HEALTHY_AFTER_MS, LAUNCH_PAUSE_MS_MAX,
    PROVISION_FAILURES_BEFORE_READY_MAX,
};
use crate::{OperationKind, ReplicaStatus, ServiceStatus, Stage};

/// Ends the newest replica by itself and forgets its resource; gives the pause until the next launch.
fn fall_over(fixture: &mut Fixture, stage: Stage) -> u64 {
    let newest = *fixture.ids().last().expect("there is a replica");
    fixture.observe(newest, ended(stage));
    fixture.called(newest, OperationKind::Terminate);
    let pause_ms = fixture.service.head.launch_not_before.since_ms(fixture.now);
    if pause_ms > 0 {
        assert_eq!(fixture.ids().last(), Some(&newest), "nothing is launched during the pause");
        assert_eq!(fixture.service.wake_at(fixture.now), Some(fixture.service.head.launch_not_before));
        assert_eq!(fixture.pass_ms(pause_ms - 1), []);
        fixture.pass_ms(1);
    }
    pause_ms
}

#[test]
fn the_first_failure_is_replaced_at_once_and_later_ones_after_a_pause_that_doubles() {
    let mut fixture = Fixture::ready(1);
    let pauses: Vec<u64> = (0..12).map(|_| fall_over(&mut fixture, Stage::Run)).collect();
    let expected = [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000, 300_000];
    assert_eq!(pauses, expected);
    assert_eq!(pauses.last(), Some(&LAUNCH_PAUSE_MS_MAX));
    assert_eq!(fixture.service.head.given_up, None, "it was ready once, so its commands can work");
}

#[test]
fn a_replica_that_was_healthy_for_long_starts_a_new_count() {
    let mut fixture = Fixture::ready(1);
    for _ in 0..4 {
        fall_over(&mut fixture, Stage::Run);
    }
    let newest = *fixture.ids().last().expect("there is a replica");
    fixture.make_ready(newest);
    fixture.pass_ms(HEALTHY_AFTER_MS - 1);
    let mut early = fixture.clone();
    assert_eq!(fall_over(&mut early, Stage::Run), 8_000);
    fixture.pass_ms(1);
    assert_eq!(fall_over(&mut fixture, Stage::Run), 0);
}

#[test]
fn launching_is_given_up_when_the_commands_fail_again_and_again_before_any_was_ready() {
    let mut fixture = Fixture::new(1);
    for _ in 0..FAILURES_BEFORE_READY_MAX - 1 {
        fall_over(&mut fixture, Stage::Setup);
        assert_eq!(fixture.service.head.given_up, None);
    }
    let last = *fixture.ids().last().expect("there is a replica");
    fixture.observe(last, ended(Stage::Run));
    assert_eq!(fixture.service.status(), ServiceStatus::Failed);
    let reason = fixture.service.status_reason().expect("FAILED has a reason");
    assert_eq!(
        reason,
        "5 replicas in a row failed before any was ready, so no more are launched; the last, replica 5: it exited with \
         code 3 after 12 s. Read its log, mend what is wrong, then `update` the service"
    );
    fixture.called(last, OperationKind::Terminate);
    assert_eq!(fixture.service.wake_at(fixture.now), None);
    fixture.pass_ms(LAUNCH_PAUSE_MS_MAX * 100);
    assert_eq!(fixture.ids(), [1, 2, 3, 4, 5]);
}

#[test]
fn replicas_that_are_never_ready_in_time_are_given_up_like_those_that_end() {
    let mut fixture = Fixture::new(1);
    for id in 1..=u64::from(FAILURES_BEFORE_READY_MAX) {
        fixture.called(id, OperationKind::Launch);
        fixture.observe(id, running(1));
        fixture.pass_ms(INITIAL_DELAY_MS + 1);
        fixture.probe(id, false);
        assert_eq!(fixture.status(id), ReplicaStatus::FailedInitialDelay);
        fixture.called(id, OperationKind::Terminate);
        fixture.pass_ms(LAUNCH_PAUSE_MS_MAX);
    }
    assert_eq!(fixture.service.status(), ServiceStatus::Failed);
}

#[test]
fn launching_goes_on_when_one_that_was_slower_becomes_ready_after_all() {
    let mut fixture = Fixture::new(6);
    for id in 1..=5 {
        fixture.observe(id, ended(Stage::Run));
        fixture.called(id, OperationKind::Terminate);
    }
    assert!(fixture.service.head.given_up.is_some());
    let slow = *fixture.ids().iter().find(|id| fixture.status(**id).is_alive()).expect("one is on its way");
    fixture.make_ready(slow);
    assert_eq!(fixture.service.head.given_up, None);
    fixture.pass_ms(LAUNCH_PAUSE_MS_MAX);
    assert_eq!(fixture.service.alive().count(), 6, "`replicas: 6` is kept again");
}

#[test]
fn a_provider_without_room_is_given_more_time() {
    let mut fixture = Fixture::new(1);
    for _ in 0..PROVISION_FAILURES_BEFORE_READY_MAX - 1 {
        fall_over(&mut fixture, Stage::Provision);
    }
    assert_eq!(fixture.service.head.given_up, None);
    assert_eq!(fixture.service.status(), ServiceStatus::ControllerInit, "it goes on trying");
    let newest = *fixture.ids().last().expect("there is a replica");
    fixture.observe(newest, ended(Stage::Provision));
    assert_eq!(fixture.service.status(), ServiceStatus::Failed);
}

#[test]
fn only_the_newest_records_of_failed_replicas_are_kept() {
    let mut fixture = Fixture::ready(1);
    for _ in 0..FAILED_RECORDS_MAX + 3 {
        fall_over(&mut fixture, Stage::Run);
    }
    assert_eq!(fixture.ids(), [4, 5, 6, 7, 8, 9]);
    assert_eq!(fixture.status(9), ReplicaStatus::Provisioning);
}

#[test]
fn a_record_whose_resource_is_still_there_is_never_forgotten() {
    let mut fixture = Fixture::ready(1);
    fixture.observe(1, ended(Stage::Run));
    for _ in 0..FAILED_RECORDS_MAX + 3 {
        fall_over(&mut fixture, Stage::Run);
    }
    assert!(fixture.ids().contains(&1));
    assert_eq!(fixture.due(OperationKind::Terminate), [1]);
}

#[test]
fn a_replica_that_was_taken_away_is_replaced_at_once_and_is_no_failure() {
    let mut fixture = Fixture::ready(1);
    for id in 1..20 {
        fixture.observe(id, preempted());
        assert_eq!((fixture.status(id), fixture.reason(id)), (ReplicaStatus::Preempted, "the node was reclaimed"));
        assert_eq!(fixture.status(id + 1), ReplicaStatus::Provisioning);
        fixture.called(id, OperationKind::Terminate);
        assert_eq!(fixture.ids(), [id + 1], "it leaves no record");
        fixture.make_ready(id + 1);
    }
    assert_eq!(fixture.service.head.failures_in_a_row, 0);
}

#[test]
fn replicas_that_are_taken_away_before_they_are_ready_are_launched_after_pauses_and_never_given_up() {
    let mut fixture = Fixture::new(1);
    let mut pauses = Vec::new();
    for id in 1..=12 {
        fixture.observe(id, preempted());
        fixture.called(id, OperationKind::Terminate);
        pauses.push(fixture.service.head.launch_not_before.since_ms(fixture.now));
        fixture.pass_ms(LAUNCH_PAUSE_MS_MAX);
    }
    assert_eq!(pauses[..5], [0, 1_000, 2_000, 4_000, 8_000]);
    assert_eq!(pauses.last(), Some(&LAUNCH_PAUSE_MS_MAX));
    assert_eq!(fixture.service.head.given_up, None);
    assert_eq!(fixture.ids(), [13]);
}
