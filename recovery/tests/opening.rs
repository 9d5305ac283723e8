//! Files that are not as they should be: each is refused with a sentence that says what to do, and
//! left as it was.
#![allow(clippy::unwrap_used, reason = "in a test, an error is a failure")]

mod samples;

use rusqlite::Connection;
use samples::launch;
use skyserve_recovery::{Remedy, SqliteStore, Store, StoreError};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A database with one service and one replica.
fn stored() -> (TempDir, PathBuf) {
    let (folder, path, _) = samples::home();
    (folder, path)
}

fn execute(path: &Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "foreign_keys", "OFF").unwrap();
    connection.execute_batch(sql).unwrap();
}

/// Every file of the folder but SQLite's shared memory, which holds nothing that lasts.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| !path.to_string_lossy().ends_with("-shm"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_not_one_byte_of_it_changes() {
    let (folder, path) = stored();
    execute(&path, "PRAGMA user_version = 7; CREATE TABLE later (x)");
    let before = contents(folder.path());
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 7, supported: 3, .. }), "{error}");
    assert!(error.to_string().contains("newer SkyServe"), "{error}");
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn a_log_that_a_newer_version_left_behind_is_not_moved_into_its_database() {
    let (folder, path) = stored();
    // A copy made while the database is open is what a power cut leaves.
    let crashed = tempfile::tempdir().unwrap();
    let newer = Connection::open(&path).unwrap();
    newer.execute_batch("BEGIN; PRAGMA user_version = 7; CREATE TABLE later (x); COMMIT").unwrap();
    for (from, bytes) in contents(folder.path()) {
        fs::write(crashed.path().join(from.file_name().unwrap()), bytes).unwrap();
    }
    drop(newer);
    let before = contents(crashed.path());
    assert!(before.values().len() == 3 && before.values().all(|bytes| !bytes.is_empty()));
    let error = SqliteStore::open(&crashed.path().join("skyserve.db")).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 7, .. }), "{error}");
    assert_eq!(contents(crashed.path()), before);
}

#[test]
fn a_database_of_another_program_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (name, sql) in
        [("tables.db", "CREATE TABLE theirs (x)"), ("version.db", "PRAGMA user_version = 1; CREATE TABLE x (y)")]
    {
        let path = folder.path().join(name);
        execute(&path, sql);
        let before = contents(folder.path());
        let error = SqliteStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::NotOurs { .. }), "{error}");
        assert_eq!(contents(folder.path()), before);
    }
}

#[test]
fn a_file_that_is_no_database_is_damage_and_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("skyserve.db");
    fs::write(&path, "not a database, but somebody may miss it ".repeat(200)).unwrap();
    let before = contents(folder.path());
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }) && error.must_exit(), "{error}");
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn a_damaged_page_is_found_when_the_database_is_opened() {
    for table in ["replicas", "sqlite_autoindex_replicas_1"] {
        let (_folder, path) = stored();
        let select = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        let page: usize =
            Connection::open(&path).unwrap().query_row(select, [table], |row| row.get::<_, u32>(0)).unwrap() as usize;
        let mut bytes = fs::read(&path).unwrap();
        bytes[(page - 1) * 4096..page * 4096].fill(0x5a);
        fs::write(&path, bytes).unwrap();
        let error = SqliteStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
}

#[test]
fn a_value_that_this_version_does_not_know_is_named_with_its_row() {
    let cases = [
        ("UPDATE replicas SET status = 'DANCING'", "replicas", "status", "DANCING"),
        ("UPDATE replicas SET operation_kind = 'dance'", "replicas", "operation_kind", "dance"),
        ("UPDATE replicas SET address = 'nowhere'", "replicas", "address", "nowhere"),
        ("UPDATE replicas SET status_since = -1", "replicas", "status_since", "negative"),
        ("UPDATE replicas SET uid = 'my-service-2-1'", "replicas", "uid", "my-service-1-1"),
        ("UPDATE replicas SET id = 9, uid = 'my-service-1-9'", "replicas", "id", "next replica id is 2"),
        ("UPDATE services SET failures_in_a_row = 1 << 40", "services", "failures_in_a_row", "out of range"),
        ("UPDATE services SET listen = 'x'", "services", "listen", "not an address"),
        ("UPDATE versions SET rules = '{}'", "services", "rules", "missing field"),
        ("DELETE FROM versions", "services", "rules", "version 1 is not stored"),
        ("UPDATE replicas SET service = 'other'", "replicas", "service", "no service `other`"),
        ("DELETE FROM meta", "meta", "", "missing"),
        ("UPDATE meta SET next_incarnation = 1", "meta", "", "my-service"),
    ];
    for (sql, table, column, problem) in cases {
        let (_folder, path) = stored();
        execute(&path, sql);
        let error = SqliteStore::open(&path).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, StoreError::Damaged { .. }), "{sql}: {message}");
        for expected in [&format!("table {table}"), column, problem] {
            assert!(message.contains(expected), "{sql}: `{expected}` is not in: {message}");
        }
    }
}

#[test]
fn a_new_database_is_for_its_user_alone_and_an_empty_file_counts_as_new() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("skyserve.db");
    fs::write(&path, "").unwrap();
    assert!(SqliteStore::open(&path).unwrap().created);
    fs::remove_file(&path).unwrap();
    fs::remove_file(path.with_extension("db-marks")).unwrap();
    let opened = SqliteStore::open(&path).unwrap();
    assert!(opened.created);
    assert_eq!((opened.next_incarnation, opened.services.len()), (1, 0));
    for name in ["skyserve.db", "skyserve.db-wal", "skyserve.db-shm", "skyserve.db-marks"] {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_missing_folder_is_an_error_that_names_it_and_may_pass() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").join("skyserve.db");
    let error = SqliteStore::open(&path).unwrap_err();
    assert_eq!(error.remedy(), Remedy::TryAgainLater);
    assert!(error.to_string().contains("missing/skyserve.db"), "{error}");
    fs::create_dir(path.parent().unwrap()).unwrap();
    SqliteStore::open(&path).unwrap();
}

#[test]
fn a_database_that_was_removed_or_replaced_takes_no_more_writes() {
    for replace in [false, true] {
        let (folder, path) = stored();
        let mut opened = SqliteStore::open(&path).unwrap();
        let mut service = opened.services.remove(0);
        fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        if replace {
            fs::write(&path, "").unwrap();
        }
        let error = opened.store.commit(&launch(&mut service, 2)).unwrap_err();
        assert!(matches!(error, StoreError::Moved { .. }) && error.must_exit(), "{error}");
        let error = opened.store.commit(&launch(&mut service, 3)).unwrap_err();
        assert!(matches!(error, StoreError::FailedEarlier { .. }), "{error}");
    }
}

/// The first format, as its release wrote it: what a later one adds is taken away again.
const FIRST_FORMAT: &str = "
    DROP TRIGGER services_sealed; DROP TRIGGER services_removed;
    DROP TRIGGER versions_sealed; DROP TRIGGER versions_removed;
    DROP TRIGGER replicas_sealed; DROP TRIGGER replicas_removed;
    ALTER TABLE services DROP COLUMN seal;
    ALTER TABLE versions DROP COLUMN seal;
    ALTER TABLE replicas DROP COLUMN seal;
    ALTER TABLE meta DROP COLUMN seal;
    ALTER TABLE meta DROP COLUMN seals;
    ALTER TABLE meta DROP COLUMN schema;
    ALTER TABLE meta DROP COLUMN transactions;
    ALTER TABLE services DROP COLUMN proven_launch_not_before;
    ALTER TABLE services DROP COLUMN proven_failures_in_a_row;
    ALTER TABLE services DROP COLUMN proven_version;
    PRAGMA user_version = 1";

#[test]
fn a_database_of_the_first_format_is_brought_up_to_date_with_all_that_it_holds() {
    let (_folder, path) = stored();
    let before = SqliteStore::open(&path).unwrap().services;
    execute(&path, FIRST_FORMAT);
    fs::remove_file(path.with_extension("db-marks")).unwrap();
    assert_eq!(SqliteStore::open(&path).unwrap().services, before);
    let version: u32 =
        Connection::open(&path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 3);
}

#[test]
fn versions_that_do_not_fit_their_service_are_damage() {
    for (sql, problem) in [
        ("UPDATE services SET version = 0", "version 0 is not stored"),
        ("UPDATE replicas SET version = 3", "version 3 is not stored"),
        (
            "UPDATE services SET proven_version = 4, proven_failures_in_a_row = 0, proven_launch_not_before = 0",
            "version 4 is not stored",
        ),
    ] {
        let (_folder, path) = stored();
        execute(&path, sql);
        let error = SqliteStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{sql}: {error}");
        assert!(error.to_string().contains(problem), "{sql}: {error}");
    }
}
