//! What a probe's result means, against every status.

use super::fixture::{FAILURE_THRESHOLD_MS, Fixture, INITIAL_DELAY_MS, running};
use crate::edit::Edit;
use crate::step::probed;
use crate::{Event, OperationKind, Phase, ReplicaId, ReplicaStatus as S, step_all};

/// For each status: after a probe that passed, after one that failed, and after one that failed when
/// the replica had had its time.
const TABLE: [(S, S, S, S); 13] = [
    (S::Pending, S::Pending, S::Pending, S::Pending),
    (S::Provisioning, S::Provisioning, S::Provisioning, S::Provisioning),
    (S::Starting, S::Ready, S::Starting, S::FailedInitialDelay),
    (S::Ready, S::Ready, S::NotReady, S::NotReady),
    (S::NotReady, S::Ready, S::NotReady, S::FailedProbing),
    (S::ShuttingDown, S::ShuttingDown, S::ShuttingDown, S::ShuttingDown),
    (S::Failed, S::Failed, S::Failed, S::Failed),
    (S::FailedInitialDelay, S::FailedInitialDelay, S::FailedInitialDelay, S::FailedInitialDelay),
    (S::FailedProbing, S::FailedProbing, S::FailedProbing, S::FailedProbing),
    (S::FailedProvision, S::FailedProvision, S::FailedProvision, S::FailedProvision),
    (S::FailedCleanup, S::FailedCleanup, S::FailedCleanup, S::FailedCleanup),
    (S::Preempted, S::Preempted, S::Preempted, S::Preempted),
    (S::Unknown, S::Unknown, S::Unknown, S::Unknown),
];

fn after(status: S, passes: bool, waited_ms: u64) -> S {
    let mut fixture = Fixture::with_status(status);
    let now = fixture.now.plus_ms(waited_ms);
    let result = if passes { Ok(()) } else { Err("it answered 503".to_owned()) };
    // Without what follows in a whole step: a pending replica would be admitted at once.
    let mut edit = Edit::new(&mut fixture.service);
    probed(&mut edit, ReplicaId(1), &result, now);
    fixture.status(1)
}

#[test]
fn every_status_and_every_result_have_one_next_status() {
    for (row, expected) in TABLE.into_iter().zip(S::ALL) {
        let (status, passed, failed, failed_late) = row;
        assert_eq!(status, expected, "the rows are in the order of the statuses");
        assert_eq!(after(status, true, 1), passed, "{status} passes");
        assert_eq!(after(status, true, INITIAL_DELAY_MS * 2), passed, "{status} passes late");
        assert_eq!(after(status, false, 1), failed, "{status} fails");
        assert_eq!(after(status, false, INITIAL_DELAY_MS * 2), failed_late, "{status} fails late");
    }
}

#[test]
fn a_replica_is_ready_only_by_a_probe_that_passed() {
    let mut fixture = Fixture::new(1);
    fixture.called(1, OperationKind::Launch);
    fixture.observe(1, running(1));
    assert_eq!(fixture.reason(1), "waiting for its first readiness probe to pass");
    fixture.probe(1, false);
    assert_eq!(fixture.status(1), S::Starting);
    assert_eq!(fixture.reason(1), "waiting for its first readiness probe to pass: it answered 503");
    assert_eq!(fixture.replica(1).first_ready_at, None);
    fixture.pass_ms(7);
    fixture.probe(1, true);
    assert_eq!((fixture.status(1), fixture.reason(1)), (S::Ready, ""));
    assert_eq!(fixture.replica(1).first_ready_at, Some(fixture.now));
    assert_eq!(fixture.service.head.ready_since, Some(fixture.now));
    assert!(fixture.service.head.ever_ready);
}

#[test]
fn the_initial_delay_is_over_after_its_last_millisecond() {
    let mut fixture = Fixture::new(1);
    fixture.called(1, OperationKind::Launch);
    fixture.observe(1, running(1));
    fixture.pass_ms(INITIAL_DELAY_MS);
    fixture.probe(1, false);
    assert_eq!(fixture.status(1), S::Starting, "SkyServe: current_delay_seconds > initial_delay_seconds");
    fixture.pass_ms(1);
    fixture.probe(1, false);
    assert_eq!(fixture.status(1), S::FailedInitialDelay);
    assert_eq!(
        fixture.reason(1),
        "it was not ready within initial_delay_seconds (20 s); its last probe: it answered 503"
    );
    assert_eq!(fixture.due(OperationKind::Terminate), [1]);
}

#[test]
fn a_replica_that_was_ready_may_fail_for_its_threshold_and_one_pass_starts_it_anew() {
    let mut fixture = Fixture::ready(1);
    fixture.probe(1, false);
    assert_eq!((fixture.status(1), fixture.reason(1)), (S::NotReady, "its readiness probe fails: it answered 503"));
    fixture.pass_ms(FAILURE_THRESHOLD_MS - 1);
    fixture.probe(1, false);
    assert_eq!(fixture.status(1), S::NotReady);
    fixture.probe(1, true);
    assert_eq!(fixture.status(1), S::Ready);
    fixture.probe(1, false);
    fixture.pass_ms(FAILURE_THRESHOLD_MS - 1);
    fixture.probe(1, false);
    assert_eq!(fixture.status(1), S::NotReady, "the threshold counts from the latest first failure");
    fixture.pass_ms(1);
    fixture.probe(1, false);
    assert_eq!(fixture.status(1), S::FailedProbing);
    assert_eq!(fixture.reason(1), "its readiness probe failed for 9 s; the last one: it answered 503");
    assert_eq!(fixture.ids(), [1, 2], "it is replaced at once");
}

#[test]
fn uptime_runs_while_any_replica_is_ready() {
    let mut fixture = Fixture::ready(2);
    let since = fixture.service.head.ready_since;
    fixture.pass_ms(50);
    fixture.probe(1, false);
    assert_eq!(fixture.service.head.ready_since, since);
    fixture.probe(2, false);
    assert_eq!(fixture.service.head.ready_since, None);
    fixture.pass_ms(50);
    fixture.probe(1, true);
    assert_eq!(fixture.service.head.ready_since, Some(fixture.now));
}

#[test]
fn a_replica_without_an_address_is_not_ready_whatever_a_probe_says() {
    let mut fixture = Fixture::new(1);
    fixture.observe(1, Phase::SettingUp);
    assert_eq!(fixture.probe(1, true), []);
    assert_eq!(fixture.status(1), S::Starting);
}

#[test]
fn a_result_for_a_replica_without_a_row_changes_nothing() {
    let mut fixture = Fixture::ready(1);
    assert_eq!(fixture.probe(44, true), []);
    assert_eq!(fixture.probe(44, false), []);
    assert_eq!(fixture.observe(44, Phase::SettingUp), []);
}

#[test]
fn a_probe_that_passes_again_and_a_place_that_is_known_are_no_news() {
    let mut fixture = Fixture::with_status(S::Ready);
    let address = fixture.service.replicas[&ReplicaId(1)].address.unwrap();
    let news = [
        Event::Probed { replica: ReplicaId(1), result: Ok(()) },
        Event::Observed { replica: ReplicaId(1), phase: Phase::Running { address }, seen_at: fixture.now },
    ];
    let before = fixture.service.clone();
    let (changes, _undo) = step_all(&mut fixture.service, &news, fixture.now);
    assert_eq!((changes, fixture.service), (Vec::new(), before), "so nothing is derived from it");
}
