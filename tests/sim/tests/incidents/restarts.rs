//! What a restart of the controller forgot.

use super::{A_WHILE_MS, serving, update, with_a_crash_at_each_commit};
use skyserve_model::{Ended, Phase, ReplicaId, ReplicaUid, Stage, Version};

/// #8562: the recovered controller took version 1 for the newest, so every replica of version 2 was outdated.
#[test]
fn the_version_was_forgotten_after_a_restart_and_all_replicas_were_churned() {
    let mut stand = serving("svc", 3);
    assert!(update(&mut stand, "svc", 3, "serve more"));
    stand.run_for(A_WHILE_MS);
    let before = stand.ready("svc");
    assert_eq!(before.len(), 3);

    for _ in 0..3 {
        stand.restart();
        stand.run_for(A_WHILE_MS);
        assert_eq!(stand.service("svc").head.version, Version(2));
        assert_eq!(stand.ready("svc"), before, "they are the same");
        assert!(stand.launched.is_empty() && stand.terminated.is_empty(), "{:?}", stand.terminated);
    }
}

/// Ids were counted in memory: after a restart the next replica was number 1 again, and its row took the place of a live
/// one's, whose machine nobody knew of any more.
#[test]
fn replica_ids_began_at_1_again_and_a_live_row_was_overwritten() {
    let mut stand = serving("svc", 2);
    stand.restart();
    stand.run_for(A_WHILE_MS);
    let victim = stand.ready("svc").remove(1);
    let ended = Ended { stage: Stage::Run, reason: "run was killed by signal 9".to_owned() };
    stand.resources.insert(victim.clone(), Phase::Ended(ended.clone()));
    stand.shows(&victim, Phase::Ended(ended));
    stand.run_for(A_WHILE_MS);
    let ids: Vec<u64> = stand.service("svc").ready().map(|replica| replica.id.0).collect();
    assert_eq!(ids, [1, 3], "1 is as it was, and the other's successor has a number of its own");
    assert_eq!(stand.resources.len(), 2);

    // Nor when everything of the service has gone meanwhile.
    let gone = stand.service("svc").head.next_replica_id;
    stand.restart();
    assert_eq!(stand.service("svc").head.next_replica_id, gone);
    assert!(gone > ReplicaId(3));
}

/// The number of replicas was in memory alone: a service scaled to 4 was back at 2 after a restart.
#[test]
fn the_scale_was_forgotten_on_restart() {
    let mut stand = serving("svc", 2);
    assert!(update(&mut stand, "svc", 4, "serve"));
    // Before anything of it is carried out.
    stand.restart();
    stand.run_for(A_WHILE_MS);
    assert_eq!(stand.ready("svc").len(), 4);
    assert!(update(&mut stand, "svc", 1, "serve"));
    stand.restart();
    stand.run_for(A_WHILE_MS);
    assert_eq!(stand.ready("svc").len(), 1);
    assert_eq!(stand.resources.len(), 1);
}

/// #8547: `update` raised the version in one transaction and stored its spec in the next; a crash between them left a
/// version whose spec was NULL, on which every later start failed.
#[test]
fn a_spec_was_null_after_a_crash_between_the_version_and_the_update() {
    let act = |stand: &mut super::Stand| {
        update(stand, "svc", 3, "serve more");
        stand.run_for(A_WHILE_MS);
    };
    with_a_crash_at_each_commit(
        || serving("svc", 3),
        act,
        |stand| {
            let service = stand.service("svc");
            let expected = if service.head.version == Version(1) { "serve" } else { "serve more" };
            assert_eq!(service.rules.launch.run.as_deref(), Some(expected));
            assert!(service.ready().all(|replica| replica.version == service.head.version), "{service:?}");
            assert_eq!((stand.ready("svc").len(), stand.resources.len()), (3, 3));
        },
    );
}

/// An older copy of the database was put back: a service that it does not know still runs. The next service got that one's
/// incarnation, and with it its replica, which ran what nobody had asked for.
#[test]
fn a_replica_of_a_service_that_was_lost_was_taken_for_a_new_ones() {
    for listed in [true, false] {
        let mut stand = serving("svc", 1);
        let lost = ReplicaUid::new("web", 2, ReplicaId(1));
        let phase = Phase::Running { address: "10.0.0.9:8080".parse().unwrap() };
        if listed {
            stand.resources.insert(lost.clone(), phase);
            stand.list();
        } else {
            stand.shows(&lost, phase);
        }
        super::up(&mut stand, "web", 1);
        assert_eq!(stand.ready("web"), [ReplicaUid::new("web", 3, ReplicaId(1))]);
        assert!(!stand.terminated.contains(&lost), "what is not known is left alone");
        // A name that nobody can have been given changes nothing.
        stand.shows(&ReplicaUid::parse("web-18446744073709551615-1").unwrap(), Phase::Absent);
        super::up(&mut stand, "next", 1);
        assert_eq!(stand.ready("next"), [ReplicaUid::new("next", 4, ReplicaId(1))]);
    }
}
