//! [`Service::wake_at`](crate::Service::wake_at) and [`recover`](crate::recover).

use super::fixture::{Fixture, INITIAL_DELAY_MS, START, ended};
use crate::limits::{DRAIN_MS_MAX, LAUNCH_PAUSE_MS_MAX};
use crate::{OperationKind, Phase, ReplicaId, ReplicaStatus, Stage, Timestamp};

#[test]
fn a_service_with_nothing_to_wait_for_needs_no_waking() {
    assert_eq!(Fixture::ready(3).service.wake_at(START), None);
    assert_eq!(Fixture::new(0).service.wake_at(START), None);
    let fixture = Fixture::new(1);
    assert_eq!(fixture.service.wake_at(fixture.now), None, "the call is due now; its answer is an event");
}

#[test]
fn a_pause_between_launches_wakes_nobody_while_no_launch_is_needed() {
    let mut fixture = Fixture::ready(2);
    fixture.service.head.launch_not_before = fixture.now.plus_ms(5_000);
    assert_eq!(fixture.service.wake_at(fixture.now), None);
}

#[test]
fn a_drain_and_a_pause_each_wake_the_service_at_their_end() {
    let mut fixture = Fixture::ready(1);
    fixture.terminate(1, false);
    assert_eq!(fixture.service.wake_at(fixture.now), Some(fixture.now.plus_ms(DRAIN_MS_MAX)));
    fixture.call_failed(1, OperationKind::Terminate, true);
    assert_eq!(fixture.service.wake_at(fixture.now), Some(fixture.now.plus_ms(500)));
}

#[test]
fn setup_commands_that_never_end_are_over_with_the_initial_delay() {
    let mut fixture = Fixture::new(1);
    fixture.called(1, OperationKind::Launch);
    fixture.observe(1, Phase::SettingUp);
    assert_eq!(fixture.service.wake_at(fixture.now), Some(fixture.now.plus_ms(INITIAL_DELAY_MS + 1)));
    assert_eq!(fixture.pass_ms(INITIAL_DELAY_MS), []);
    fixture.pass_ms(1);
    assert_eq!(fixture.status(1), ReplicaStatus::FailedInitialDelay);
    assert_eq!(fixture.reason(1), "its setup commands did not end within initial_delay_seconds (20 s)");
    assert_eq!(fixture.due(OperationKind::Terminate), [1]);
}

#[test]
fn after_a_restart_times_that_decide_about_failing_start_anew() {
    for (status, later) in [
        (ReplicaStatus::Starting, true),
        (ReplicaStatus::NotReady, true),
        (ReplicaStatus::Ready, false),
        (ReplicaStatus::Provisioning, false),
    ] {
        let mut fixture = Fixture::with_status(status);
        let now = START.plus_ms(3_600_000);
        fixture.recover(now);
        assert_eq!(fixture.replica(1).status, status, "a restart changes no status");
        assert_eq!(fixture.replica(1).status_since, if later { now } else { START }, "{status}");
    }
}

#[test]
fn a_clock_that_was_set_back_makes_no_operation_and_no_launch_wait_longer_than_it_may() {
    let mut fixture = Fixture::ready(1);
    fixture.terminate(1, false);
    for _ in 0..3 {
        let newest = *fixture.ids().last().expect("there is a replica");
        fixture.observe(newest, ended(Stage::Run));
        fixture.pass_ms(LAUNCH_PAUSE_MS_MAX);
    }
    fixture.service.head.launch_not_before = fixture.now.plus_ms(LAUNCH_PAUSE_MS_MAX);
    let year_earlier = Timestamp(1_000);
    fixture.recover(year_earlier);
    let operation = fixture.replica(1).operation.expect("it drains");
    assert!(operation.not_before <= year_earlier.plus_ms(DRAIN_MS_MAX));
    assert!(fixture.service.head.launch_not_before <= year_earlier.plus_ms(LAUNCH_PAUSE_MS_MAX));
}

#[test]
fn a_clock_that_was_set_back_hides_no_absence() {
    let mut fixture = Fixture::new(1);
    fixture.called(1, OperationKind::Launch);
    fixture.recover(Timestamp(1_000));
    fixture.pass_ms(1);
    fixture.observe(1, Phase::Absent);
    assert_eq!(fixture.status(1), ReplicaStatus::Preempted);
}

#[test]
fn a_service_that_recovers_in_good_order_is_left_as_it_is() {
    let mut fixture = Fixture::ready(2);
    let before = fixture.service.clone();
    fixture.recover(fixture.now.plus_ms(5));
    assert_eq!(fixture.service, before);
    assert_eq!(fixture.service.replicas.get(&ReplicaId(1)).map(|replica| replica.status), Some(ReplicaStatus::Ready));
}
