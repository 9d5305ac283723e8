//! Several versions side by side: what an update replaces, in which order, and what becomes of one that fails.

use super::fixture::{Fixture, INITIAL_DELAY_MS, ended, preempted, rules, running, runs};
use crate::limits::{FAILURES_BEFORE_READY_MAX, LAUNCH_PAUSE_MS_MAX};
use crate::{
    Change, Event, OperationKind::Launch, OperationKind::Terminate, ReplicaId, ReplicaStatus as S, ServiceStatus,
    Shutdown, Stage, Timestamp, Version,
};

/// The versions that are stored.
fn versions(fixture: &Fixture) -> Vec<u64> {
    fixture.service.earlier.keys().copied().chain([fixture.service.head.version]).map(|version| version.0).collect()
}

fn shown_as(fixture: &Fixture, id: u64) -> u64 {
    fixture.service.version_of(fixture.replica(id)).0
}

/// Lets the newest version fail until it is given up.
fn fail_newest(fixture: &mut Fixture) {
    for _ in 0..FAILURES_BEFORE_READY_MAX {
        fixture.pass_ms(LAUNCH_PAUSE_MS_MAX);
        let newest = *fixture.ids().last().expect("there is a replica");
        fixture.observe(newest, ended(Stage::Run));
        fixture.called(newest, Terminate);
    }
}

#[test]
fn one_is_replaced_at_a_time_and_none_goes_before_a_new_one_is_ready() {
    let mut fixture = Fixture::ready(3);
    fixture.update(runs("serve 2", 3));
    for round in 0..3 {
        let new = 4 + round;
        assert_eq!(fixture.with(S::Provisioning), [new], "one new one is launched");
        assert_eq!(fixture.with(S::Ready).len(), 3, "and every old one serves");
        assert_eq!(fixture.replica(new).version, Version(2));
        fixture.make_ready(new);
        assert_eq!(fixture.with(S::ShuttingDown), [3 - round], "the newest of the old goes");
        assert_eq!(fixture.reason(3 - round), "version 2 takes the place of version 1");
        assert_eq!(fixture.due(Terminate), [], "after its requests");
        fixture.apply(&Event::Drained { replica: ReplicaId(3 - round) });
        fixture.called(3 - round, Terminate);
    }
    assert_eq!((fixture.ids(), fixture.with(S::Ready)), (vec![4, 5, 6], vec![4, 5, 6]));
    assert_eq!(versions(&fixture), [2], "what version 1 was launched with is forgotten");
    assert!(!fixture.service.is_updating());
}

#[test]
fn a_new_version_its_head_and_its_first_replica_are_one_transaction() {
    let mut fixture = Fixture::ready(1);
    let changes = fixture.update(runs("serve 2", 1));
    assert!(
        matches!(
            changes.as_slice(),
            [Change::InsertVersion { version: Version(2), .. }, Change::UpdateService(_), Change::InsertReplica { .. }]
        ),
        "{changes:?}"
    );
}

#[test]
fn what_needs_no_other_replicas_restarts_none() {
    let mut fixture = Fixture::ready(2);
    let mut other = rules(2);
    other.probe.path = "/health".to_owned();
    other.load_balancing_policy = "round_robin".to_owned();
    fixture.update(other.clone());
    assert_eq!((fixture.ids(), fixture.with(S::Ready)), (vec![1, 2], vec![1, 2]));
    assert_eq!(shown_as(&fixture, 1), 2, "they are version 2's by now");
    assert_eq!(fixture.replica(1).version, Version(1), "but were launched as version 1 says");
    assert_eq!(fixture.service.rules_for(fixture.replica(1)).probe.path, "/health");
    assert!(!fixture.service.is_updating() && fixture.service.head.ever_ready);
    // The probe that version 2 gave them stays theirs while version 3 replaces them.
    fixture.update(runs("serve 3", 2));
    assert_eq!(versions(&fixture), [1, 2, 3]);
    assert_eq!((shown_as(&fixture, 1), shown_as(&fixture, 3)), (2, 3));
    assert_eq!(fixture.service.rules_for(fixture.replica(1)).probe.path, "/health");
}

#[test]
fn another_number_of_replicas_launches_or_ends_the_difference() {
    let mut fixture = Fixture::ready(2);
    fixture.update(rules(4));
    assert_eq!((fixture.with(S::Ready), fixture.with(S::Provisioning)), (vec![1, 2], vec![3, 4]));
    [3, 4].into_iter().for_each(|id| fixture.make_ready(id));
    fixture.update(rules(1));
    assert_eq!((fixture.with(S::Ready), fixture.with(S::ShuttingDown)), (vec![1], vec![2, 3, 4]));
    assert_eq!(fixture.reason(4), "the service has more replicas than it needs");
    fixture.update(rules(0));
    assert_eq!(fixture.with(S::Ready), []);
    assert_eq!(fixture.service.status(), ServiceStatus::NoReplica);
}

#[test]
fn a_version_that_fails_takes_nothing_from_the_one_that_serves() {
    let mut fixture = Fixture::ready(2);
    fixture.update(runs("broken", 2));
    fail_newest(&mut fixture);
    assert_eq!(fixture.with(S::Ready), [1, 2]);
    assert_eq!(fixture.service.status(), ServiceStatus::Ready);
    assert_eq!(
        fixture.service.status_reason().as_deref(),
        Some(
            "the update to version 2 failed, and version 1 goes on serving: 5 replicas in a row failed before any was \
             ready, so no more are launched of version 2; the last, replica 7: it exited with code 3 after 12 s. Read \
             its log, mend what is wrong, then `update` the service again"
        )
    );
    assert_eq!(fixture.service.wake_at(fixture.now), None, "nothing more is tried");
    assert_eq!(fixture.pass_ms(LAUNCH_PAUSE_MS_MAX * 100), []);
    [1, 2].into_iter().for_each(|id| drop(fixture.probe(id, false)));
    let reason = fixture.service.status_reason().unwrap_or_default();
    assert!(reason.starts_with("the update to version 2 failed"), "{reason}");
}

#[test]
fn while_it_is_tried_the_reason_says_how_far_it_is() {
    let mut fixture = Fixture::ready(2);
    fixture.update(runs("serve 2", 2));
    let reason = |fixture: &Fixture| fixture.service.status_reason().unwrap_or_default();
    assert_eq!(reason(&fixture), "version 2 is being rolled out: 0 of 2 replicas are READY");
    fixture.observe(3, ended(Stage::Run));
    assert_eq!(
        reason(&fixture),
        "version 2 is being rolled out: 0 of 2 replicas are READY; its replica 3 is FAILED: it exited with code 3 after \
         12 s"
    );
    fixture.make_ready(4);
    assert_eq!(reason(&fixture), "version 2 is being rolled out: 1 of 2 replicas are READY");
    fixture.make_ready(5);
    assert_eq!(fixture.service.status_reason(), None);
}

#[test]
fn what_the_serving_version_loses_meanwhile_is_launched_again_as_it_was() {
    let mut fixture = Fixture::ready(2);
    fixture.update(runs("serve 2", 3));
    assert_eq!(fixture.ids(), [1, 2, 3]);
    fixture.observe(1, preempted());
    assert_eq!(fixture.ids(), [1, 2, 3, 4]);
    assert_eq!((fixture.replica(3).version, fixture.replica(4).version), (Version(2), Version(1)));
    fixture.called(1, Terminate);
    fixture.make_ready(4);
    assert_eq!(fixture.with(S::Ready), [2, 4], "as many as it had: three are asked for of version 2 only");
    fail_newest_but(&mut fixture, 3);
    fixture.observe(2, ended(Stage::Run));
    fixture.called(2, Terminate);
    let last = *fixture.ids().last().expect("there is a replica");
    assert_eq!(fixture.replica(last).version, Version(1), "also after version 2 was given up");
    assert_eq!(fixture.service.status(), ServiceStatus::Ready);
}

/// As [`fail_newest`], from the replica `first` on, which is not the newest of all.
fn fail_newest_but(fixture: &mut Fixture, first: u64) {
    fixture.observe(first, ended(Stage::Run));
    fixture.called(first, Terminate);
    for _ in 1..FAILURES_BEFORE_READY_MAX {
        fixture.pass_ms(LAUNCH_PAUSE_MS_MAX);
        let newest = *fixture.ids().last().expect("there is a replica");
        fixture.observe(newest, ended(Stage::Run));
        fixture.called(newest, Terminate);
    }
    assert!(fixture.service.head.given_up.is_some());
}

#[test]
fn failures_of_the_serving_version_are_not_counted_against_the_new_one() {
    let mut fixture = Fixture::ready(1);
    fixture.update(runs("serve 2", 1));
    for _ in 0..FAILURES_BEFORE_READY_MAX + 1 {
        let serving: Vec<u64> = fixture
            .service
            .alive()
            .filter(|replica| replica.version == Version(1))
            .map(|replica| replica.id.0)
            .collect();
        let serving = *serving.last().expect("version 1 has a replica");
        fixture.observe(serving, ended(Stage::Run));
        fixture.called(serving, Terminate);
        fixture.pass_ms(LAUNCH_PAUSE_MS_MAX);
    }
    let head = &fixture.service.head;
    assert_eq!((head.failures_in_a_row, &head.given_up), (0, &None));
    assert_eq!(head.proven.map(|proven| proven.failures_in_a_row), Some(FAILURES_BEFORE_READY_MAX + 1));
}

#[test]
fn going_back_to_the_version_that_serves_is_done_at_once() {
    let mut fixture = Fixture::ready(2);
    fixture.update(runs("broken", 2));
    fail_newest(&mut fixture);
    fixture.update(rules(2));
    assert_eq!((fixture.with(S::Ready), shown_as(&fixture, 1)), (vec![1, 2], 3));
    assert_eq!((fixture.service.status_reason(), fixture.service.is_updating()), (None, false));
    assert_eq!(fixture.ids(), [1, 2], "records of the version that failed go with it");
    assert_eq!(versions(&fixture), [1, 3]);
}

#[test]
fn a_version_that_was_superseded_before_it_was_ready_goes_at_once() {
    let mut fixture = Fixture::ready(2);
    fixture.update(runs("serve 2", 2));
    fixture.observe(3, running(3));
    fixture.update(runs("serve 3", 2));
    assert_eq!((fixture.status(3), fixture.due(Terminate)), (S::ShuttingDown, vec![3]));
    assert_eq!((fixture.with(S::Ready), fixture.replica(4).version), (vec![1, 2], Version(3)));
    assert_eq!(fixture.service.head.proven.map(|proven| proven.version), Some(Version(1)));
}

#[test]
fn a_version_that_never_served_is_replaced_whole() {
    let mut fixture = Fixture::new(3);
    fixture.observe(1, running(1));
    fixture.update(runs("serve 2", 3));
    assert_eq!((fixture.with(S::ShuttingDown), fixture.with(S::Provisioning)), (vec![1, 2, 3], vec![4, 5, 6]));
    assert_eq!(fixture.service.head.proven, None);
}

#[test]
fn a_version_that_was_given_up_is_tried_again_by_any_update() {
    let mut fixture = Fixture::new(1);
    fail_newest(&mut fixture);
    assert_eq!(fixture.service.status(), ServiceStatus::Failed);
    fixture.update(rules(1));
    assert_eq!(fixture.service.head.given_up, None);
    assert_eq!(fixture.with(S::Provisioning), [6]);
}

#[test]
fn an_update_in_the_middle_of_another_keeps_as_many_ready_as_there_are() {
    let mut fixture = Fixture::ready(3);
    fixture.update(runs("serve 2", 3));
    fixture.make_ready(4);
    fixture.called(3, Terminate);
    assert_eq!((fixture.with(S::Ready), fixture.with(S::Provisioning)), (vec![1, 2, 4], vec![5]));
    fixture.update(runs("serve 3", 3));
    assert_eq!(fixture.with(S::Ready), [1, 2, 4]);
    assert_eq!(fixture.status(5), S::ShuttingDown, "what is not ready yet makes room");
    for id in 6..9 {
        fixture.make_ready(id);
        assert_eq!(fixture.with(S::Ready).len(), 3);
    }
    assert_eq!(fixture.with(S::Ready), [6, 7, 8]);
}

#[test]
fn with_fewer_replicas_in_the_middle_of_an_update_one_that_has_not_been_ready_makes_room() {
    let mut fixture = Fixture::ready(4);
    fixture.update(runs("serve 2", 4));
    for id in [5, 6] {
        fixture.make_ready(id);
        let going = fixture.with(S::ShuttingDown)[0];
        fixture.apply(&Event::Drained { replica: ReplicaId(going) });
        fixture.called(going, Terminate);
    }
    [5, 6].into_iter().for_each(|id| drop(fixture.probe(id, false)));
    assert_eq!((fixture.with(S::Ready), fixture.with(S::NotReady)), (vec![1, 2], vec![5, 6]));
    assert_eq!(fixture.with(S::Provisioning), [7]);
    fixture.update(runs("serve 2", 3));
    assert_eq!((fixture.with(S::Ready), fixture.with(S::NotReady)), (vec![1, 2], vec![5, 6]));
    assert_eq!(fixture.with(S::ShuttingDown), [7]);
}

#[test]
fn the_record_of_a_failure_is_kept_until_its_version_has_been_replaced() {
    let mut fixture = Fixture::ready(2);
    fixture.observe(2, ended(Stage::Run));
    fixture.called(2, Terminate);
    fixture.make_ready(3);
    fixture.update(runs("serve 2", 2));
    fixture.make_ready(4);
    assert!(fixture.service.is_updating() && fixture.service.head.ever_ready);
    assert_eq!(fixture.status(2), S::Failed, "while the update is under way");
    fixture.make_ready(5);
    assert!(!fixture.service.is_updating());
    fixture.pass_ms(LAUNCH_PAUSE_MS_MAX);
    assert!(!fixture.ids().contains(&2));
}

#[test]
fn whether_a_version_was_ever_ready_outlives_its_replicas() {
    let lost = |fixture: &mut Fixture, id| {
        fixture.observe(id, preempted());
        fixture.called(id, Terminate);
        assert!(!fixture.ids().contains(&id));
    };
    let mut fixture = Fixture::ready(1);
    assert!(!fixture.service.was_ever_ready(&runs("serve 2", 1)));
    lost(&mut fixture, 1);
    assert!(fixture.service.was_ever_ready(&rules(5)), "the newest was");
    let mut fixture = Fixture::ready(1);
    fixture.update(runs("serve 2", 1));
    lost(&mut fixture, 1);
    assert!(fixture.service.was_ever_ready(&rules(1)), "the one that serves was");
    assert!(!fixture.service.was_ever_ready(&runs("serve 2", 1)));
}

#[test]
fn fewer_replicas_of_another_version_end_the_surplus_at_once_and_the_rest_one_by_one() {
    let mut fixture = Fixture::ready(4);
    fixture.update(runs("serve 2", 2));
    assert_eq!((fixture.with(S::Ready), fixture.with(S::Provisioning)), (vec![1, 2], vec![5]));
    fixture.make_ready(5);
    assert_eq!(fixture.with(S::Ready), [1, 5]);
}

#[test]
fn each_version_has_the_patience_that_it_asks_for() {
    let mut fixture = Fixture::new(1);
    fixture.observe(1, crate::Phase::SettingUp);
    let mut patient = rules(1);
    patient.probe.initial_delay_ms = INITIAL_DELAY_MS * 3;
    fixture.update(patient);
    fixture.pass_ms(INITIAL_DELAY_MS + 1);
    assert_eq!(fixture.status(1), S::Starting);
    fixture.pass_ms(INITIAL_DELAY_MS * 2);
    assert_eq!(fixture.status(1), S::FailedInitialDelay);
    assert!(fixture.reason(1).contains("60 s"), "{}", fixture.reason(1));
}

#[test]
fn a_service_that_goes_is_not_updated() {
    let mut fixture = Fixture::ready(1);
    fixture.apply(&Event::Shutdown { purge: false });
    assert_eq!(fixture.update(runs("serve 2", 1)), []);
    assert_eq!(fixture.service.head.version, Version(1));
    assert!(matches!(fixture.service.head.shutdown, Some(Shutdown { .. })));
}

#[test]
fn a_restart_in_the_middle_goes_on_and_waits_no_longer_than_ever() {
    let mut fixture = Fixture::ready(1);
    fixture.update(runs("serve 2", 1));
    fixture.service.head.proven.as_mut().expect("version 1 serves").launch_not_before = Timestamp(u64::MAX);
    fixture.recover(Timestamp(5_000));
    let proven = fixture.service.head.proven.expect("it is kept");
    assert_eq!(proven.launch_not_before, Timestamp(5_000 + LAUNCH_PAUSE_MS_MAX));
    assert_eq!(fixture.due(Launch), [], "its launch was decided later by the clock of then");
    fixture.make_ready(2);
    assert_eq!(fixture.with(S::Ready), [2]);
}
