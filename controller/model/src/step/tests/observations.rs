//! What a provider shows, against every status.

use super::fixture::{Fixture, START, address, ended, preempted, running};
use crate::edit::Edit;
use crate::step::observed;
use crate::{Event, OperationKind, Phase, ReplicaId, ReplicaStatus, Stage, Timestamp};

fn phases() -> [Phase; 7] {
    [
        Phase::Provisioning { reason: Some("pulling the image".to_owned()) },
        Phase::SettingUp,
        running(2),
        ended(Stage::Run),
        ended(Stage::Provision),
        preempted(),
        Phase::Absent,
    ]
}

/// The status that follows from each status (row) and phase (column); the replica that runs at another
/// address than the one shown is the one in the column `running`.
const TABLE: &str = "
status                PROVISIONING         SETTING_UP           RUNNING              ENDED_RUN            ENDED_PROVISION      PREEMPTED            ABSENT
PENDING               PENDING              PENDING              PENDING              PENDING              PENDING              PENDING              PENDING
PROVISIONING          PROVISIONING         STARTING             STARTING             FAILED               FAILED_PROVISION     PREEMPTED            PROVISIONING
STARTING              STARTING             STARTING             STARTING             FAILED               FAILED_PROVISION     PREEMPTED            PREEMPTED
READY                 READY                READY                NOT_READY            FAILED               FAILED_PROVISION     PREEMPTED            READY
NOT_READY             NOT_READY            NOT_READY            NOT_READY            FAILED               FAILED_PROVISION     PREEMPTED            PREEMPTED
SHUTTING_DOWN         SHUTTING_DOWN        SHUTTING_DOWN        SHUTTING_DOWN        SHUTTING_DOWN        SHUTTING_DOWN        SHUTTING_DOWN        SHUTTING_DOWN
FAILED                FAILED               FAILED               FAILED               FAILED               FAILED               FAILED               FAILED
FAILED_INITIAL_DELAY  FAILED_INITIAL_DELAY FAILED_INITIAL_DELAY FAILED_INITIAL_DELAY FAILED_INITIAL_DELAY FAILED_INITIAL_DELAY FAILED_INITIAL_DELAY FAILED_INITIAL_DELAY
FAILED_PROBING        FAILED_PROBING       FAILED_PROBING       FAILED_PROBING       FAILED_PROBING       FAILED_PROBING       FAILED_PROBING       FAILED_PROBING
FAILED_PROVISION      FAILED_PROVISION     FAILED_PROVISION     FAILED_PROVISION     FAILED_PROVISION     FAILED_PROVISION     FAILED_PROVISION     FAILED_PROVISION
FAILED_CLEANUP        FAILED_CLEANUP       FAILED_CLEANUP       FAILED_CLEANUP       FAILED_CLEANUP       FAILED_CLEANUP       FAILED_CLEANUP       FAILED_CLEANUP
PREEMPTED             PREEMPTED            PREEMPTED            PREEMPTED            PREEMPTED            PREEMPTED            PREEMPTED            PREEMPTED
UNKNOWN               UNKNOWN              UNKNOWN              UNKNOWN              UNKNOWN              UNKNOWN              UNKNOWN              UNKNOWN
";

#[test]
fn every_status_and_every_phase_have_one_next_status() {
    let mut rows = 0;
    for line in TABLE.trim().lines().skip(1) {
        let mut cells = line.split_whitespace().map(|name| ReplicaStatus::parse(name).expect("a status"));
        let status = cells.next().expect("a row begins with its status");
        assert_eq!(status, ReplicaStatus::ALL[rows], "the rows are in the order of the statuses");
        for phase in phases() {
            let mut fixture = Fixture::with_status(status);
            let seen_at = START.plus_ms(10);
            let expected = cells.next().expect("a cell for each phase");
            // Without what follows in a whole step: a pending replica would be admitted at once.
            let mut edit = Edit::new(&mut fixture.service);
            observed(&mut edit, ReplicaId(1), &phase, seen_at, seen_at);
            assert_eq!(fixture.status(1), expected, "{status} and {phase:?}");
        }
        rows += 1;
    }
    assert_eq!(rows, ReplicaStatus::ALL.len());
}

#[test]
fn absence_counts_only_after_the_launch_has_been_answered() {
    let mut fixture = Fixture::new(1);
    fixture.observe(1, Phase::Absent);
    assert_eq!(fixture.status(1), ReplicaStatus::Provisioning, "the launch is under way");
    fixture.now = fixture.now.plus_ms(5);
    fixture.called(1, OperationKind::Launch);
    let older = Event::Observed { replica: ReplicaId(1), phase: Phase::Absent, seen_at: Timestamp(START.0 + 5) };
    fixture.apply(&older);
    assert_eq!(fixture.status(1), ReplicaStatus::Provisioning, "the list began before the answer");
    fixture.now = fixture.now.plus_ms(1);
    fixture.observe(1, Phase::Absent);
    assert_eq!(fixture.status(1), ReplicaStatus::Preempted);
    assert_eq!(fixture.reason(1), "its resource is gone, and nothing of ours removed it");
}

#[test]
fn a_list_without_a_replica_whose_probes_pass_takes_it_off_nothing() {
    let mut fixture = Fixture::ready(2);
    for _ in 0..3 {
        fixture.now = fixture.now.plus_ms(1_000);
        assert_eq!(fixture.observe(1, Phase::Absent), []);
        assert_eq!(fixture.observe(2, Phase::Absent), []);
    }
    fixture.probe(1, false);
    fixture.now = fixture.now.plus_ms(1);
    fixture.observe(1, Phase::Absent);
    assert_eq!(fixture.status(1), ReplicaStatus::Preempted, "its probes fail too");
    assert_eq!(fixture.status(2), ReplicaStatus::Ready);
}

#[test]
fn a_replica_that_is_observed_again_and_again_is_written_once() {
    let mut fixture = Fixture::ready(1);
    assert_eq!(fixture.observe(1, running(1)), []);
    assert_eq!(fixture.observe(1, Phase::SettingUp), []);
    assert_eq!(fixture.observe(1, Phase::Provisioning { reason: None }), []);
    assert_eq!(fixture.status(1), ReplicaStatus::Ready);
}

#[test]
fn late_news_of_the_setup_do_not_hide_that_it_runs() {
    let mut fixture = Fixture::new(1);
    fixture.observe(1, running(1));
    assert_eq!(fixture.observe(1, Phase::SettingUp), []);
    assert_eq!(fixture.reason(1), "waiting for its first readiness probe to pass");
}

#[test]
fn a_replica_that_moves_gets_no_requests_until_a_probe_passes_at_its_new_address() {
    let mut fixture = Fixture::ready(1);
    fixture.observe(1, running(9));
    assert_eq!((fixture.status(1), fixture.reason(1)), (ReplicaStatus::NotReady, "it moved to 127.0.1.9:8080"));
    assert_eq!(fixture.replica(1).address, Some(address(9)));
    fixture.probe(1, true);
    assert_eq!(fixture.status(1), ReplicaStatus::Ready);
}

#[test]
fn what_a_provider_waits_for_is_shown() {
    let mut fixture = Fixture::new(1);
    fixture.observe(1, Phase::Provisioning { reason: Some("pulling the image".to_owned()) });
    assert_eq!((fixture.status(1), fixture.reason(1)), (ReplicaStatus::Provisioning, "pulling the image"));
}

#[test]
fn news_of_a_replica_that_no_row_has_change_nothing() {
    let mut fixture = Fixture::ready(1);
    for phase in phases() {
        assert_eq!(fixture.observe(12, phase), []);
    }
}

#[test]
fn an_orphan_is_recorded_and_then_removed() {
    let mut fixture = Fixture::ready(1);
    let uid = fixture.service.uid(ReplicaId(5));
    fixture.apply(&Event::Orphaned { uid });
    assert_eq!(fixture.status(5), ReplicaStatus::Unknown);
    assert_eq!(fixture.reason(5), "it was found at the provider without a record here; it is being removed");
    assert_eq!(fixture.due(OperationKind::Terminate), [5]);
    assert_eq!(fixture.service.head.next_replica_id, ReplicaId(6), "its id is used");
    fixture.called(5, OperationKind::Terminate);
    assert_eq!(fixture.ids(), [1]);
}

#[test]
fn a_resource_of_another_service_is_no_orphan_of_this_one() {
    let mut fixture = Fixture::ready(1);
    let earlier = crate::ReplicaUid::new("svc", 6, ReplicaId(5));
    assert_eq!(fixture.apply(&Event::Orphaned { uid: earlier }), []);
    for absurd in [1 << 53, u64::MAX] {
        let uid = fixture.service.uid(ReplicaId(absurd));
        assert_eq!(fixture.apply(&Event::Orphaned { uid }), [], "ids would run out");
    }
    let known = fixture.service.uid(ReplicaId(1));
    assert_eq!(fixture.apply(&Event::Orphaned { uid: known }), [], "a row knows it");
    assert_eq!(fixture.status(1), ReplicaStatus::Ready);
}
