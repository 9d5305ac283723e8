//! Changes that must be refused, each with its own error.
#![allow(clippy::unwrap_used, reason = "in a test, an error is a failure")]

mod samples;

use samples::{insert, launch, replica, rules, service};
use skyserve_model::{Amount, Change, Proven, ReplicaId, ReplicaStatus, Service, Timestamp, Version};
use skyserve_recovery::{Conflict, Remedy, SqliteStore, Store, StoreError};
use std::sync::Arc;
use tempfile::TempDir;

/// A store with the service `my-service`, whose replicas 1 and 2 have lived; 1 is gone.
fn stored() -> (TempDir, SqliteStore, Service) {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(&folder.path().join("skyserve.db")).unwrap().store;
    let mut service = service("my-service", 1);
    store.commit(&[insert(&service)]).unwrap();
    for id in [1, 2] {
        let changes = launch(&mut service, id);
        store.commit(&changes).unwrap();
    }
    service.replicas.remove(&ReplicaId(1));
    store.commit(&[Change::DeleteReplica { service: "my-service".to_owned(), id: ReplicaId(1) }]).unwrap();
    (folder, store, service)
}

fn insert_replica(service: &Service, id: u64) -> Change {
    Change::InsertReplica { service: service.head.name.clone(), replica: replica(service, id) }
}

fn conflict(store: &mut SqliteStore, changes: &[Change]) -> Conflict {
    match store.commit(changes).unwrap_err() {
        StoreError::Conflict(conflict) => {
            assert_eq!(StoreError::from(conflict.clone()).remedy(), Remedy::Refused);
            conflict
        }
        other => panic!("not a conflict: {other}"),
    }
}

#[test]
fn a_replica_id_is_never_used_twice_not_even_after_its_row_is_gone() {
    let (_folder, mut store, service) = stored();
    for id in [1, 2] {
        let expected = Conflict::ReplicaIdUsed { service: "my-service".to_owned(), id: ReplicaId(id) };
        assert_eq!(conflict(&mut store, &[insert_replica(&service, id)]), expected);
    }
}

#[test]
fn an_id_used_and_forgotten_within_one_transaction_is_used() {
    let (_folder, mut store, mut service) = stored();
    let mut changes = launch(&mut service, 3);
    changes.push(Change::DeleteReplica { service: "my-service".to_owned(), id: ReplicaId(3) });
    changes.push(insert_replica(&service, 3));
    assert!(matches!(conflict(&mut store, &changes), Conflict::ReplicaIdUsed { id: ReplicaId(3), .. }));
}

#[test]
fn an_orphan_comes_back_under_its_old_id_but_not_while_a_row_has_it() {
    let (_folder, mut store, service) = stored();
    let orphan = |id| {
        let replica = skyserve_model::Replica { status: ReplicaStatus::Unknown, ..replica(&service, id) };
        Change::InsertReplica { service: "my-service".to_owned(), replica }
    };
    store.commit(&[orphan(1)]).unwrap();
    for id in [1, 2] {
        assert!(matches!(conflict(&mut store, &[orphan(id)]), Conflict::ReplicaIdUsed { .. }));
    }
    // That a low id came back makes none above it free.
    let forget = Change::DeleteReplica { service: "my-service".to_owned(), id: ReplicaId(2) };
    let expected = Conflict::ReplicaIdUsed { service: "my-service".to_owned(), id: ReplicaId(2) };
    assert_eq!(conflict(&mut store, &[forget, insert_replica(&service, 2)]), expected);
}

#[test]
fn an_id_must_be_reserved_before_it_is_used_and_stays_reserved() {
    let (_folder, mut store, mut service) = stored();
    let expected = Conflict::ReplicaIdNotReserved { service: "my-service".to_owned() };
    assert_eq!(conflict(&mut store, &[insert_replica(&service, 3)]), expected);
    service.head.next_replica_id = ReplicaId(2);
    assert_eq!(conflict(&mut store, &[Change::UpdateService(service.head.clone())]), expected);
}

#[test]
fn a_replica_bears_its_own_services_uid() {
    let (_folder, mut store, mut service) = stored();
    let mut changes = launch(&mut service, 3);
    let uid = service.uid(ReplicaId(4));
    if let Some(Change::InsertReplica { replica, .. }) = changes.last_mut() {
        replica.uid = uid;
    }
    assert!(matches!(conflict(&mut store, &changes), Conflict::ForeignUid { id: ReplicaId(3), .. }));
}

#[test]
fn a_name_that_is_taken_and_an_incarnation_that_was_used_are_refused() {
    let (folder, mut store, mut first) = stored();
    let taken = Conflict::ServiceExists { name: "my-service".to_owned() };
    assert_eq!(conflict(&mut store, &[insert(&service("my-service", 2))]), taken);
    let used = Conflict::IncarnationUsed { service: "other".to_owned(), incarnation: 1, next: 2 };
    assert_eq!(conflict(&mut store, &[insert(&service("other", 1))]), used);

    store.commit(&[Change::DeleteService { name: "my-service".to_owned() }]).unwrap();
    first.head.next_replica_id = ReplicaId(1);
    assert!(matches!(conflict(&mut store, &[insert(&first)]), Conflict::IncarnationUsed { .. }));
    drop(store);
    let opened = SqliteStore::open(&folder.path().join("skyserve.db")).unwrap();
    assert_eq!((opened.next_incarnation, opened.services), (2, vec![]));
}

#[test]
fn a_service_that_is_deleted_takes_its_versions_and_replicas_with_it() {
    let (_folder, mut store, _) = stored();
    assert!(store.source("my-service", Version(1)).unwrap().is_some());
    store.commit(&[Change::DeleteService { name: "my-service".to_owned() }]).unwrap();
    assert_eq!(store.source("my-service", Version(1)).unwrap(), None);
    let mut again = service("my-service", 2);
    store.commit(&[insert(&again)]).unwrap();
    store.commit(&launch(&mut again, 1)).unwrap();
}

/// The changes of an update, without its replicas.
fn next_version(service: &mut Service, proven: Option<u64>) -> [Change; 2] {
    let before = service.head.version;
    service.head.version = Version(before.0 + 1);
    service.earlier.insert(before, Arc::clone(&service.rules));
    service.head.proven = proven.map(|version| Proven {
        version: Version(version),
        failures_in_a_row: 2,
        launch_not_before: Timestamp(5),
    });
    let (service, head) = (service.head.name.clone(), service.head.clone());
    let (version, rules, source) = (head.version, Arc::new(rules()), format!("# version {}", head.version));
    [Change::InsertVersion { service, version, rules, source }, Change::UpdateService(head)]
}

#[test]
fn versions_live_side_by_side_and_one_goes_once_nothing_needs_it() {
    let (folder, mut store, mut service) = stored();
    let name = || "my-service".to_owned();
    store.commit(&next_version(&mut service, Some(1))).unwrap();
    let delete = |version| Change::DeleteVersion { service: name(), version: Version(version) };
    // It serves in the newest one's place; then replica 2 was launched as it.
    let needed = |store: &mut SqliteStore| {
        let error = store.commit(&[delete(1)]).unwrap_err();
        assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    };
    needed(&mut store);
    drop(store);
    let opened = SqliteStore::open(&folder.path().join("skyserve.db")).unwrap();
    assert_eq!(opened.services, [service.clone()]);
    let mut store = opened.store;
    service.head.proven = None;
    store.commit(&[Change::UpdateService(service.head.clone())]).unwrap();
    needed(&mut store);
    let forget = Change::DeleteReplica { service: name(), id: ReplicaId(2) };
    store.commit(&[forget, delete(1)]).unwrap();
    assert_eq!(store.source("my-service", Version(1)).unwrap(), None);
    assert_eq!(store.source("my-service", Version(2)).unwrap().as_deref(), Some("# version 2"));
}

#[test]
fn a_version_is_never_used_twice_and_a_service_never_goes_back() {
    let (_folder, mut store, mut service) = stored();
    let first = service.head.clone();
    let [insert, update] = next_version(&mut service, None);
    store.commit(&[insert.clone(), update]).unwrap();
    let used = |version, newest| Conflict::VersionUsed {
        service: "my-service".to_owned(),
        version: Version(version),
        newest: Version(newest),
    };
    assert_eq!(conflict(&mut store, std::slice::from_ref(&insert)), used(2, 2));
    let error = store.commit(&[Change::UpdateService(first)]).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
}

#[test]
fn a_version_that_serves_in_anothers_place_must_be_an_earlier_one_that_is_stored() {
    for proven in [2, 3, 9] {
        let (_folder, mut store, mut service) = stored();
        let error = store.commit(&next_version(&mut service, Some(proven))).unwrap_err();
        assert!(matches!(error, StoreError::Missing { .. }), "{proven}: {error}");
    }
}

#[test]
fn changing_what_is_not_there_is_an_error_after_which_the_stored_state_counts() {
    let (_folder, mut store, service) = stored();
    let name = || "my-service".to_owned();
    let earlier = samples::service("my-service", 7);
    let mut next_version = service.head.clone();
    next_version.version = Version(2);
    for change in [
        Change::UpdateReplica { service: name(), replica: replica(&service, 1) },
        Change::UpdateReplica { service: name(), replica: replica(&earlier, 2) },
        Change::DeleteReplica { service: name(), id: ReplicaId(1) },
        Change::DeleteService { name: "other".to_owned() },
        Change::UpdateService(earlier.head.clone()),
        Change::InsertReplica { service: "other".to_owned(), replica: replica(&service, 3) },
        Change::UpdateService(next_version),
    ] {
        let error = store.commit(std::slice::from_ref(&change)).unwrap_err();
        assert!(matches!(error, StoreError::Missing { .. }) && error.must_exit(), "{change:?}: {error}");
    }
}

#[test]
fn rules_and_numbers_that_would_not_read_back_are_refused() {
    let (_folder, mut store, _) = stored();
    let mut endless = service("endless", 2);
    let mut rules = rules();
    rules.launch.cpus = Some(Amount { value: f64::INFINITY, or_more: false });
    endless.rules = Arc::new(rules);
    let mut late = service("late", 2);
    late.head.created_at = skyserve_model::Timestamp(u64::MAX);
    for service in [endless, late] {
        let error = store.commit(&[insert(&service)]).unwrap_err();
        assert!(matches!(error, StoreError::Unstorable { .. }), "{error}");
        assert!(error.to_string().contains(&service.head.name), "{error}");
    }
}

#[test]
fn what_a_deleted_service_held_is_in_no_file_once_the_store_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(&folder.path().join("skyserve.db")).unwrap().store;
    let Change::InsertService { head, rules, .. } = insert(&service("my-service", 1)) else { unreachable!() };
    let holds = |word: &str| {
        let files =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
        files.into_iter().any(|bytes| bytes.windows(word.len()).any(|window| window == word.as_bytes()))
    };
    // Long enough for pages of its own, as a YAML with scripts is.
    let source = format!("secrets: {{TOKEN: zebra9zebra}} # {}", "x".repeat(20_000));
    store.commit(&[Change::InsertService { head, rules, source }]).unwrap();
    assert!(holds("zebra9zebra"), "the check can find it");
    store.commit(&[Change::DeleteService { name: "my-service".to_owned() }]).unwrap();
    drop(store);
    assert!(!holds("zebra9zebra"));
}

#[test]
fn what_a_version_held_is_in_no_file_once_it_was_forgotten_and_the_store_is_closed() {
    let (folder, mut store, mut service) = stored();
    let [Change::InsertVersion { service: name, version, rules, .. }, update] = next_version(&mut service, None) else {
        unreachable!()
    };
    let source = format!("secrets: {{TOKEN: zebra9zebra}} # {}", "x".repeat(20_000));
    store.commit(&[Change::InsertVersion { service: name.clone(), version, rules, source }, update]).unwrap();
    store.commit(&next_version(&mut service, None)).unwrap();
    store.commit(&[Change::DeleteVersion { service: name, version }]).unwrap();
    drop(store);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(11).any(|window| window == b"zebra9zebra"));
    }
}
