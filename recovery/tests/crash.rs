//! Controllers that die in the middle, and controllers that go on after another has taken over.
#![allow(clippy::unwrap_used, reason = "in a test, an error is a failure")]

mod samples;

use samples::{PATH_VARIABLE, child, insert, launch, path_from_parent, service};
use skyserve_model::{Change, Epoch, Service};
use skyserve_recovery::{SqliteStore, Store, StoreError};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

/// Replicas that every transaction of the child changes together.
const REPLICAS: u64 = 20;
/// Kills; each hits another moment of a transaction.
const ROUNDS: u32 = 20;

/// Sets every row to `count`, as one transaction's changes.
fn count_up(service: &mut Service, count: u32) -> Vec<Change> {
    service.head.failures_in_a_row = count;
    let mut changes = vec![Change::UpdateService(service.head.clone())];
    for replica in service.replicas.values_mut() {
        if let Some(operation) = &mut replica.operation {
            operation.attempt = count;
        }
        changes.push(Change::UpdateReplica { service: service.head.name.clone(), replica: replica.clone() });
    }
    changes
}

#[test]
#[ignore = "run by another test as a child process, which kills it"]
fn commits_until_killed() {
    let mut opened = SqliteStore::open(&path_from_parent()).unwrap();
    let mut service = opened.services.remove(0);
    let mut stdout = std::io::stdout().lock();
    for count in service.head.failures_in_a_row + 1.. {
        opened.store.commit(&count_up(&mut service, count)).unwrap();
        writeln!(stdout, "stored {count}").unwrap();
        stdout.flush().unwrap();
    }
}

/// Starts a child, kills it once it has reported `reports` commits, and gives the last one reported.
fn kill_after(path: &Path, reports: usize) -> u32 {
    let mut writer = child("commits_until_killed")
        .env(PATH_VARIABLE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(writer.stdout.take().unwrap());
    let mut counts =
        output.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix("stored ")?.parse::<u32>().ok());
    let reported = counts.by_ref().take(reports).last();
    writer.kill().unwrap();
    // What it managed to report before it died was promised too.
    let last = counts.last().or(reported).unwrap();
    writer.wait().unwrap();
    last
}

#[test]
fn a_controller_killed_at_any_moment_leaves_whole_transactions_and_all_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("skyserve.db");
    let mut store = SqliteStore::open(&path).unwrap().store;
    let mut first = service("my-service", 1);
    store.commit(&[insert(&first)]).unwrap();
    for id in 1..=REPLICAS {
        let changes = launch(&mut first, id);
        store.commit(&changes).unwrap();
    }
    drop(store);
    for round in 0..ROUNDS {
        let acknowledged = kill_after(&path, 1 + round as usize % 7);
        let opened = SqliteStore::open(&path).unwrap();
        let stored = &opened.services[0];
        let count = stored.head.failures_in_a_row;
        assert!(count >= acknowledged, "round {round}: {acknowledged} was acknowledged, {count} is stored");
        let attempts = stored.replicas.values().map(|replica| replica.operation.unwrap().attempt);
        assert!(attempts.into_iter().all(|attempt| attempt == count), "round {round}: half of a transaction is stored");
        assert_eq!(stored.replicas.len() as u64, REPLICAS);
    }
}

#[test]
fn an_earlier_controller_that_has_nothing_to_store_is_told_of_a_takeover() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("skyserve.db");
    let first = SqliteStore::open(&path).unwrap().store;
    first.must_be_current().unwrap();
    let second = SqliteStore::open(&path).unwrap().store;
    let error = first.must_be_current().unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }) && error.must_exit(), "{error}");
    second.must_be_current().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(second.must_be_current().unwrap_err(), StoreError::Moved { .. }));
}

#[test]
fn an_earlier_controller_that_goes_on_after_a_takeover_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("skyserve.db");
    let mut earlier = SqliteStore::open(&path).unwrap();
    assert!(earlier.created);
    let mut mine = service("my-service", 1);
    earlier.store.commit(&[insert(&mine)]).unwrap();

    let mut later = SqliteStore::open(&path).unwrap();
    assert!(!later.created);
    assert!(later.epoch > earlier.epoch);
    for _ in 0..2 {
        let error = earlier.store.commit(&launch(&mut mine, 1)).unwrap_err();
        assert!(
            matches!(error, StoreError::Fenced { mine, found, .. } if mine == earlier.epoch && found == later.epoch),
            "{error}"
        );
        assert!(error.must_exit());
    }
    let mut theirs = later.services.remove(0);
    assert!(theirs.replicas.is_empty());
    later.store.commit(&launch(&mut theirs, 1)).unwrap();
    drop(earlier);
    assert_eq!(SqliteStore::open(&path).unwrap().services, vec![theirs]);
}

#[test]
fn every_opening_gets_an_epoch_that_no_other_had() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("skyserve.db");
    let epochs: Vec<Epoch> = (0..5).map(|_| SqliteStore::open(&path).unwrap().epoch).collect();
    assert!(epochs.is_sorted_by(|earlier, later| earlier < later), "{epochs:?}");
}
