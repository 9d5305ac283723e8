//! Disks that are full or read-only, for real: a small tmpfs in a mount namespace of a child's own,
//! which the kernel removes with the child.
#![allow(clippy::unwrap_used, reason = "in a test, an error is a failure")]

mod samples;

use nix::mount::{MsFlags, mount};
use samples::{PATH_VARIABLE, child, insert, launch, path_from_parent, service};
use skyserve_model::{Change, Service};
use skyserve_recovery::{SqliteStore, Store, StoreError};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// Room for the database, its log and its shared memory, but not for much more.
const DISK: &str = "size=1m";

/// Runs the ignored test `name` on a small disk of its own; says so and passes where the kernel gives
/// an ordinary user no namespaces (`a_full_database_...` in `store/tests.rs` runs everywhere).
fn on_a_small_disk(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let namespace = ["--user", "--map-root-user", "--mount", "--"];
    if !Command::new("unshare").args(namespace).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine allows no user namespaces");
        return;
    }
    let test = child(name);
    let output = Command::new("unshare")
        .args(namespace)
        .arg(test.get_program())
        .args(test.get_args())
        .env(PATH_VARIABLE, folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn on_a_full_disk_commits_fail_whole_and_go_on_when_there_is_space() {
    on_a_small_disk("fills_the_disk_while_committing");
}

#[test]
fn a_store_opens_on_a_full_disk_as_soon_as_there_is_space() {
    on_a_small_disk("fills_the_disk_before_opening");
}

#[test]
fn a_read_only_disk_is_named_and_the_store_opens_when_it_is_writable_again() {
    on_a_small_disk("makes_the_disk_read_only");
}

fn mount_disk(folder: &Path) {
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(DISK)).unwrap();
}

fn remount(folder: &Path, flags: MsFlags) {
    mount(None::<&str>, folder, None::<&str>, MsFlags::MS_REMOUNT | flags, Some(DISK)).unwrap();
}

/// Takes every byte that is left on the disk.
fn fill(folder: &Path) {
    let mut ballast = File::create(folder.join("ballast")).unwrap();
    for bytes in [4096, 1] {
        while ballast.write_all(&vec![0; bytes]).is_ok() {}
    }
}

/// Commits a long reason for one replica after the other until the disk is full.
fn commit_until_full(store: &mut SqliteStore, service: &mut Service) -> StoreError {
    loop {
        let (id, before) = (service.head.next_replica_id.0, service.clone());
        let mut changes = launch(service, id);
        let Some(Change::InsertReplica { replica, .. }) = changes.last_mut() else { unreachable!() };
        replica.reason = Some("x".repeat(30_000));
        service.replicas.insert(replica.id, replica.clone());
        if let Err(error) = store.commit(&changes) {
            *service = before;
            return error;
        }
    }
}

#[test]
#[ignore = "run by another test in a namespace of its own"]
fn fills_the_disk_while_committing() {
    let folder = path_from_parent();
    mount_disk(&folder);
    let path = folder.join("skyserve.db");
    fs::write(folder.join("ballast"), vec![0; 256 << 10]).unwrap();
    let mut store = SqliteStore::open(&path).unwrap().store;
    let mut service = service("my-service", 1);
    store.commit(&[insert(&service)]).unwrap();
    for _ in 0..3 {
        let error = commit_until_full(&mut store, &mut service);
        assert!(matches!(error, StoreError::DiskFull { .. }) && error.is_transient(), "{error}");
        assert!(error.to_string().contains("disk is full"), "{error}");
    }
    fs::remove_file(folder.join("ballast")).unwrap();
    let id = service.head.next_replica_id.0;
    store.commit(&launch(&mut service, id)).unwrap();
    drop(store);
    assert_eq!(SqliteStore::open(&path).unwrap().services, vec![service]);
}

#[test]
#[ignore = "run by another test in a namespace of its own"]
fn fills_the_disk_before_opening() {
    let folder = path_from_parent();
    mount_disk(&folder);
    let path = folder.join("skyserve.db");
    for _ in 0..2 {
        fill(&folder);
        let error = SqliteStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { .. }) && error.is_transient(), "{error}");
        fs::remove_file(folder.join("ballast")).unwrap();
        SqliteStore::open(&path).unwrap();
    }
}

#[test]
#[ignore = "run by another test in a namespace of its own"]
fn makes_the_disk_read_only() {
    let folder = path_from_parent();
    mount_disk(&folder);
    let path = folder.join("skyserve.db");
    remount(&folder, MsFlags::MS_RDONLY);
    let refused = || {
        let error = SqliteStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly { .. }) && error.is_transient(), "{error:?}");
        assert!(error.to_string().contains("read-only"), "{error}");
    };
    refused();
    remount(&folder, MsFlags::empty());
    let service = service("my-service", 1);
    SqliteStore::open(&path).unwrap().store.commit(&[insert(&service)]).unwrap();
    remount(&folder, MsFlags::MS_RDONLY);
    refused();
    remount(&folder, MsFlags::empty());
    assert_eq!(SqliteStore::open(&path).unwrap().services, vec![service]);
}
