//! A database that is found damaged: it is put aside, and the newest whole state takes its place.
#![allow(clippy::unwrap_used, reason = "in a test, an error is a failure")]

mod samples;

use samples::{home, insert, launch};
use skyserve_model::{Change, Epoch, Head, ReplicaId, Service, Version};
use skyserve_recovery::{Opened, Restored, SqliteStore, Store, StoreError, open_or_restore, take_backup};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[4_096..8_192].fill(0x5a);
    fs::write(path, bytes).unwrap();
}

fn restore(path: &Path, epoch_used: u64) -> (Opened, Restored) {
    let (opened, restored) = open_or_restore(path, Epoch(epoch_used)).unwrap();
    (opened, restored.expect("it was damaged"))
}

/// The services as they are after a restoration: with numbers that were surely never used.
fn restored_from(service: &Service) -> Vec<Service> {
    let mut service = service.clone();
    service.head.next_replica_id = ReplicaId(service.head.next_replica_id.0 + 10_000);
    vec![service]
}

fn kept(folder: &Path, number: u32) -> Vec<String> {
    let entries = fs::read_dir(folder.join("damaged").join(number.to_string())).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_whole_database_is_opened_as_ever() {
    let (folder, path, service) = home();
    let (opened, restored) = open_or_restore(&path, Epoch(70)).unwrap();
    assert_eq!((opened.services, opened.epoch, restored), (vec![service], Epoch(2), None));
    assert!(!folder.path().join("damaged").exists());
}

#[test]
fn a_copy_takes_the_place_of_a_damaged_database_and_no_number_comes_twice() {
    let (folder, path, mut service) = home();
    take_backup(&path).unwrap();
    let before = service.clone();
    let mut opened = SqliteStore::open(&path).unwrap();
    opened.store.commit(&launch(&mut service, 2)).unwrap();
    drop(opened);
    damage(&path);
    let damaged = fs::read(&path).unwrap();
    let (opened, restored) = restore(&path, 5);
    assert_eq!(opened.services, restored_from(&before));
    assert_eq!((opened.epoch, opened.next_incarnation), (Epoch(6), 2 + 10_000), "above every one that was used");
    assert_eq!(restored.transactions_lost, 2, "an epoch and a launch");
    assert_eq!(restored.kept_in, folder.path().join("damaged/1"));
    assert!(restored.backup.unwrap().starts_with(folder.path().join("backups")));
    assert_eq!(fs::read(restored.kept_in.join("skyserve.db")).unwrap(), damaged);
    assert_eq!(kept(folder.path(), 1), ["skyserve.db", "skyserve.db-marks"]);
    drop(opened);
    let (opened, again) = open_or_restore(&path, Epoch(6)).unwrap();
    assert_eq!((opened.services, opened.epoch, again), (restored_from(&before), Epoch(7), None));
    assert!(!folder.path().join("restoring").exists());
}

#[test]
fn an_epoch_that_only_the_marks_know_is_not_taken_again() {
    let (_folder, path, _) = home();
    take_backup(&path).unwrap();
    (0..3).for_each(|_| drop(SqliteStore::open(&path).unwrap()));
    damage(&path);
    assert_eq!(restore(&path, 0).0.epoch, Epoch(5));
}

/// Leaves the database as a power cut would, with its last transactions in its log.
fn with_a_log(path: &Path, work: impl FnOnce(&mut SqliteStore)) {
    let mut store = SqliteStore::open(path).unwrap().store;
    work(&mut store);
    let names = ["skyserve.db", "skyserve.db-wal", "skyserve.db-marks"];
    let files: Vec<Vec<u8>> = names.iter().map(|name| fs::read(path.with_file_name(name)).unwrap()).collect();
    drop(store);
    for (name, bytes) in names.iter().zip(files) {
        fs::write(path.with_file_name(name), bytes).unwrap();
    }
}

#[test]
fn of_a_log_that_is_cut_what_is_whole_is_kept_if_no_copy_is_newer() {
    for newer_copy in [false, true] {
        let (folder, path, mut service) = home();
        take_backup(&path).unwrap();
        let (mut second, mut third) = (service.clone(), service.clone());
        with_a_log(&path, |store| {
            store.commit(&launch(&mut service, 2)).unwrap();
            second = service.clone();
            store.commit(&launch(&mut service, 3)).unwrap();
            third = service.clone();
            if newer_copy {
                take_backup(&path).unwrap();
            }
            store.commit(&launch(&mut service, 4)).unwrap();
        });
        let log = path.with_file_name("skyserve.db-wal");
        let mut bytes = fs::read(&log).unwrap();
        // Each of these transactions is some frames of 24 + 4,096 bytes; damage the middle of the last but one.
        let from_end = if newer_copy { 12 } else { 6 } * 4_120;
        let place = bytes.len() - from_end;
        bytes[place] ^= 1;
        fs::write(&log, bytes).unwrap();
        let (opened, restored) = restore(&path, 0);
        assert!(restored.damage.contains("acknowledged"), "{}", restored.damage);
        assert!(restored.transactions_lost > 0);
        assert_eq!(restored.backup.is_some(), newer_copy);
        let found = &opened.services[0].replicas;
        if newer_copy {
            assert_eq!(opened.services, restored_from(&third));
        } else {
            assert!(!found.is_empty() && found.len() < 4, "{}", found.len());
        }
        assert_eq!(kept(folder.path(), 1), ["skyserve.db", "skyserve.db-marks", "skyserve.db-wal"]);
    }
}

#[test]
fn a_damaged_copy_is_passed_over() {
    let (folder, path, mut service) = home();
    take_backup(&path).unwrap();
    let before = service.clone();
    SqliteStore::open(&path).unwrap().store.commit(&launch(&mut service, 2)).unwrap();
    take_backup(&path).unwrap();
    let mut copies: Vec<PathBuf> =
        fs::read_dir(folder.path().join("backups")).unwrap().map(|entry| entry.unwrap().path()).collect();
    copies.sort();
    assert_eq!(copies.len(), 2);
    damage(&copies[1]);
    damage(&path);
    let (opened, restored) = restore(&path, 0);
    assert_eq!(opened.services, restored_from(&before));
    assert_eq!(restored.backup.as_ref(), Some(&copies[0]));
}

#[test]
fn without_a_whole_copy_nothing_is_changed_and_the_error_says_so() {
    let (folder, path, _) = home();
    damage(&path);
    let before = fs::read(&path).unwrap();
    let error = open_or_restore(&path, Epoch(0)).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }) && error.must_exit(), "{error}");
    assert!(error.to_string().contains("no copy in"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path().join("damaged")).unwrap().count(), 0);
}

#[test]
fn an_empty_file_is_not_what_was_whole_of_a_database() {
    let (_folder, path, _) = home();
    fs::write(&path, "").unwrap();
    let error = open_or_restore(&path, Epoch(0)).unwrap_err();
    assert!(error.to_string().contains("no copy in"), "{error}");
}

#[test]
fn copies_that_cannot_be_looked_at_are_not_taken_for_none() {
    let (folder, path, _) = home();
    damage(&path);
    fs::write(folder.path().join("backups"), "").unwrap();
    let error = open_or_restore(&path, Epoch(0)).unwrap_err();
    assert!(!matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn a_database_that_was_removed_comes_back_from_its_copy() {
    let (_folder, path, service) = home();
    take_backup(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let (opened, restored) = restore(&path, 0);
    assert_eq!(opened.services, restored_from(&service));
    assert!(restored.backup.is_some());
}

#[test]
fn a_disk_that_damages_again_and_again_is_not_filled_with_what_it_damaged() {
    let (_folder, path, _) = home();
    take_backup(&path).unwrap();
    for _ in 0..10 {
        damage(&path);
        restore(&path, 0);
    }
    damage(&path);
    let error = open_or_restore(&path, Epoch(0)).unwrap_err();
    assert!(error.to_string().contains("10 damaged ones are kept"), "{error}");
}

#[test]
fn copies_are_few_for_their_user_alone_and_outlive_no_version() {
    let (folder, path, mut service) = home();
    let copies = || fs::read_dir(folder.path().join("backups")).unwrap().count();
    for id in 2..7 {
        SqliteStore::open(&path).unwrap().store.commit(&launch(&mut service, id)).unwrap();
        take_backup(&path).unwrap();
    }
    assert_eq!(copies(), 3);
    let copied = |changes: &[Change]| {
        SqliteStore::open(&path).unwrap().store.commit(changes).unwrap();
        take_backup(&path).unwrap();
        copies()
    };
    let [other, next, last] = [2, 3, 4].map(|incarnation| samples::service("other", incarnation));
    let end = || Change::DeleteService { name: "other".to_owned() };
    assert_eq!(copied(&[insert(&other)]), 3, "more versions are no reason to remove any");
    assert_eq!(copied(&[end()]), 3, "of the four only the one goes that had it");
    assert_eq!([copied(&[insert(&next)]), copied(&[]), copied(&[])], [3, 3, 3]);
    assert_eq!(copied(&[end(), insert(&last)]), 1, "one of the same name is another");
    assert_eq!([copied(&[]), copied(&[])], [2, 3]);
    // An update, and no replica has the version before any more.
    let (service, version, rules) = (last.head.name.clone(), Version(2), last.rules.clone());
    let head = Head { version, ..last.head.clone() };
    let gone = Change::DeleteVersion { service: service.clone(), version: Version(1) };
    let insert = Change::InsertVersion { service, version, rules, source: String::new() };
    assert_eq!(copied(&[insert, Change::UpdateService(head), gone]), 1);
    for entry in fs::read_dir(folder.path().join("backups")).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_copy_of_a_database_in_use_is_whole_and_disturbs_nobody() {
    let (_folder, path, mut service) = home();
    let mut opened = SqliteStore::open(&path).unwrap();
    for id in 2..20 {
        let copying = std::thread::spawn({
            let path = path.clone();
            move || take_backup(&path)
        });
        opened.store.commit(&launch(&mut service, id)).unwrap();
        copying.join().unwrap().unwrap();
    }
    drop(opened);
    assert_eq!(SqliteStore::open(&path).unwrap().services, vec![service]);
}
