//! Calls to the provider: when they are due, what their answers mean.

use super::fixture::{Fixture, running};
use crate::limits::{
    CALL_PAUSE_MS_FIRST, CALL_PAUSE_MS_MAX, LAUNCH_ATTEMPTS_MAX, LAUNCHES_AT_ONCE_MAX, TERMINATE_ATTEMPTS_SHOWN,
    backoff_ms,
};
use crate::{Event, OperationKind::Launch, OperationKind::Terminate, ReplicaId, ReplicaStatus as S};

#[test]
fn a_launch_is_due_at_once_and_done_with_its_answer() {
    let mut fixture = Fixture::new(2);
    assert_eq!(fixture.due(Launch), [1, 2]);
    fixture.called(1, Launch);
    assert_eq!(fixture.due(Launch), [2]);
    assert_eq!((fixture.status(1), fixture.replica(1).operation), (S::Provisioning, None));
    assert_eq!(fixture.called(1, Launch), [], "an answer that comes twice changes nothing");
}

#[test]
fn a_launch_that_may_pass_later_is_tried_again_after_a_pause_that_doubles() {
    let mut fixture = Fixture::new(1);
    for attempt in 0..LAUNCH_ATTEMPTS_MAX - 1 {
        assert_eq!(fixture.due(Launch), [1]);
        fixture.call_failed(1, Launch, true);
        assert_eq!((fixture.status(1), fixture.reason(1)), (S::Provisioning, "no capacity; trying again"));
        assert_eq!(fixture.due(Launch), []);
        let pause_ms = CALL_PAUSE_MS_FIRST << attempt;
        fixture.pass_ms(pause_ms - 1);
        assert_eq!(fixture.due(Launch), []);
        fixture.pass_ms(1);
    }
    fixture.call_failed(1, Launch, true);
    assert_eq!((fixture.status(1), fixture.reason(1)), (S::FailedProvision, "no capacity"));
    assert_eq!(fixture.due(Terminate), [1], "what it left half-made is removed");
}

#[test]
fn a_launch_that_can_never_pass_fails_at_once() {
    let mut fixture = Fixture::new(1);
    fixture.call_failed(1, Launch, false);
    assert_eq!((fixture.status(1), fixture.reason(1)), (S::FailedProvision, "no capacity"));
    assert_eq!(fixture.ids(), [1, 2], "another is launched in its place");
}

#[test]
fn a_replica_that_runs_is_not_ended_because_its_launch_was_answered_with_an_error() {
    for retryable in [true, false] {
        let mut fixture = Fixture::new(1);
        fixture.observe(1, running(1));
        fixture.probe(1, true);
        fixture.call_failed(1, Launch, retryable);
        assert_eq!((fixture.status(1), fixture.replica(1).operation), (S::Ready, None));
        assert_eq!(fixture.service.head.failures_in_a_row, 0);
    }
}

#[test]
fn at_most_so_many_are_launched_at_once_and_the_others_wait_as_pending() {
    let more = u32::try_from(LAUNCHES_AT_ONCE_MAX).expect("it is small") + 2;
    let mut fixture = Fixture::new(more);
    let last = u64::from(more);
    assert_eq!(fixture.status(last - 2), S::Provisioning);
    assert_eq!((fixture.status(last), fixture.reason(last)), (S::Pending, "waiting for its turn to be launched"));
    assert_eq!(fixture.pass_ms(1_000), [], "they wait without a step of their own");
    fixture.observe(3, running(3));
    assert_eq!((fixture.status(last - 1), fixture.status(last)), (S::Provisioning, S::Pending));
    assert_eq!(fixture.ids().len(), last as usize, "nothing is launched beyond the target");
}

#[test]
fn a_termination_is_tried_for_ever_and_shown_when_it_goes_on_failing() {
    let mut fixture = Fixture::ready(1);
    fixture.observe(1, super::fixture::preempted());
    for attempt in 0..TERMINATE_ATTEMPTS_SHOWN + 20 {
        let shown = attempt >= TERMINATE_ATTEMPTS_SHOWN;
        assert_eq!(fixture.status(1), if shown { S::FailedCleanup } else { S::Preempted }, "attempt {attempt}");
        assert_eq!(fixture.due(Terminate), [1]);
        fixture.call_failed(1, Terminate, attempt % 2 == 0);
        assert_eq!(fixture.due(Terminate), []);
        fixture.pass_ms(backoff_ms(CALL_PAUSE_MS_FIRST, CALL_PAUSE_MS_MAX, attempt));
    }
    assert_eq!(fixture.reason(1), "no capacity");
    assert_eq!(fixture.status(2), S::Provisioning, "its replacement does not wait for that");
    fixture.called(1, Terminate);
    assert_eq!(fixture.ids(), [2], "FAILED_CLEANUP ends once the resource is gone");
}

#[test]
fn a_replica_that_goes_on_being_taken_down_says_from_the_first_failure_on_what_keeps_it() {
    let mut fixture = Fixture::ready(1);
    fixture.apply(&Event::Shutdown { purge: false });
    assert_eq!(fixture.reason(1), "the service is being taken down");
    fixture.call_failed(1, Terminate, true);
    assert_eq!((fixture.status(1), fixture.reason(1)), (S::ShuttingDown, "no capacity; trying again"));
    // What a replica failed of is the reason that its record keeps.
    let mut fixture = Fixture::ready(1);
    fixture.observe(1, super::fixture::ended(crate::Stage::Run));
    let reason = fixture.reason(1).to_owned();
    fixture.call_failed(1, Terminate, true);
    assert_eq!(fixture.reason(1), reason);
}

#[test]
fn without_purge_no_replica_is_forgotten_whose_removal_failed() {
    let mut failed = Fixture::ready(1);
    failed.observe(1, super::fixture::ended(crate::Stage::Run));
    let mut taken_away = Fixture::ready(1);
    taken_away.observe(1, super::fixture::preempted());
    let mut orphan = Fixture::new(0);
    orphan.apply(&Event::Orphaned { uid: orphan.service.uid(ReplicaId(1)) });
    let mut taken_down = Fixture::ready(1);
    taken_down.terminate(1, false);
    for mut fixture in [failed, taken_away, orphan, taken_down] {
        let status = fixture.status(1);
        fixture.call_failed(1, Terminate, false);
        assert_eq!(fixture.status(1), status);
        assert_eq!(fixture.replica(1).operation.map(|operation| operation.attempt), Some(1), "{status}");
    }
}

#[test]
fn pauses_between_calls_double_up_to_their_bound() {
    let pauses: Vec<u64> = (0..9).map(|attempt| backoff_ms(CALL_PAUSE_MS_FIRST, CALL_PAUSE_MS_MAX, attempt)).collect();
    assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
    for attempt in [63, 64, 65, u32::MAX] {
        assert_eq!(backoff_ms(CALL_PAUSE_MS_FIRST, CALL_PAUSE_MS_MAX, attempt), CALL_PAUSE_MS_MAX, "{attempt}");
    }
}

#[test]
fn the_answer_of_a_launch_says_nothing_once_the_replica_is_to_go() {
    let mut fixture = Fixture::new(1);
    fixture.terminate(1, false);
    assert_eq!(fixture.called(1, Launch), []);
    assert_eq!(fixture.call_failed(1, Launch, false), []);
    assert_eq!((fixture.status(1), fixture.due(Terminate)), (S::ShuttingDown, vec![1]));
}

#[test]
fn the_answer_of_a_termination_that_nobody_asked_for_says_nothing() {
    let mut fixture = Fixture::ready(1);
    assert_eq!(fixture.called(1, Terminate), []);
    assert_eq!(fixture.call_failed(1, Terminate, false), []);
    assert_eq!(fixture.status(1), S::Ready);
}

#[test]
fn a_replica_that_fell_over_stays_as_a_record_and_one_that_was_taken_down_does_not() {
    let mut fixture = Fixture::ready(2);
    fixture.observe(1, super::fixture::ended(crate::Stage::Run));
    fixture.called(1, Terminate);
    assert_eq!((fixture.status(1), fixture.replica(1).operation), (S::Failed, None));
    assert_eq!(fixture.reason(1), "it exited with code 3 after 12 s");
    fixture.terminate(2, false);
    fixture.called(2, Terminate);
    assert_eq!(fixture.ids(), [1, 3, 4]);
}
