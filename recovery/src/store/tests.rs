use super::opening::{configure, read_epoch, read_version, take_epoch};
use super::*;
use crate::error::Conflict;
use crate::schema::{MIGRATIONS, VERSION};
use skyserve_model::{Head, LaunchTemplate, ProbeRules, Timestamp, VersionRules};
use std::collections::BTreeMap;
use tempfile::TempDir;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("skyserve.db");
    (folder, path)
}

fn open_with(path: &Path, journal: Journal) -> Opened {
    SqliteStore::open_with(path, path.parent().unwrap(), journal).unwrap()
}

fn service(name: &str, incarnation: u64) -> Service {
    let probe = ProbeRules {
        path: "/".to_owned(),
        post_data: None,
        headers: BTreeMap::new(),
        timeout_ms: 1,
        interval_ms: 1,
        initial_delay_ms: 1,
        failure_threshold_ms: 1,
    };
    let launch = LaunchTemplate {
        setup: None,
        run: None,
        envs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        port: 1,
        ports: vec![],
        cpus: None,
        memory_gb: None,
        accelerators: BTreeMap::new(),
        use_spot: false,
        image: None,
        bundle: None,
        has_workdir: false,
        file_mounts: vec![],
    };
    let rules = VersionRules {
        replicas: 1,
        probe,
        launch,
        load_balancing_policy: "round_robin".to_owned(),
        stream_timeout_ms: 1,
        resources: String::new(),
    };
    Service::new(name.to_owned(), incarnation, ([127, 0, 0, 1], 1).into(), rules, Timestamp(1))
}

fn insert(service: &Service, source: &str) -> Change {
    Change::InsertService { head: service.head.clone(), rules: service.rules.clone(), source: source.to_owned() }
}

/// What a power cut at this moment would leave, in a folder of its own. The connection to the original
/// must not be used by anybody else: copying lets go of its locks.
fn power_cut(path: &Path) -> (TempDir, PathBuf) {
    let (folder, copy) = folder();
    for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = entry.unwrap().path();
        if !file.to_string_lossy().ends_with("-shm") {
            fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    (folder, copy)
}

#[test]
fn commits_are_synced_and_references_enforced_with_either_journal() {
    for (journal, mode) in [(Journal::WriteAhead, "wal"), (Journal::Rollback, "truncate")] {
        let (_folder, path) = folder();
        let store = open_with(&path, journal).store;
        let number = |name| store.connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0)).unwrap();
        let stored: String = store.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(stored, mode);
        // 2 is FULL.
        assert_eq!((number("synchronous"), number("foreign_keys")), (2, 1));
        assert_eq!((number("busy_timeout"), number("wal_autocheckpoint")), (2_000, 1_000));
        assert_eq!(number("journal_size_limit"), 16 << 20);
    }
}

#[test]
fn a_database_moved_to_a_network_file_system_and_back_keeps_everything() {
    let (folder, path) = folder();
    let services = vec![service("my-service", 1)];
    open_with(&path, Journal::WriteAhead).store.commit(&[insert(&services[0], "")]).unwrap();
    for journal in [Journal::Rollback, Journal::WriteAhead, Journal::Rollback] {
        let mut opened = open_with(&path, journal);
        assert_eq!(opened.services, services);
        opened.store.commit(&[Change::UpdateService(services[0].head.clone())]).unwrap();
        assert_eq!(folder.path().join("skyserve.db-wal").exists(), journal == Journal::WriteAhead);
    }
}

#[test]
fn a_full_database_fails_whole_transactions_and_goes_on_when_there_is_room() {
    let (_folder, path) = folder();
    let mut store = open_with(&path, Journal::WriteAhead).store;
    let first = service("first", 1);
    store.commit(&[insert(&first, "")]).unwrap();
    let pages: u32 = store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    let limit_pages = |store: &SqliteStore, pages: u32| {
        store.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    };
    limit_pages(&store, pages + 4);
    let second = service("second", 2);
    let changes =
        [Change::UpdateService(Head { ever_ready: true, ..first.head.clone() }), insert(&second, &"x".repeat(1 << 20))];
    for _ in 0..2 {
        let error = store.commit(&changes).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { .. }) && error.is_transient(), "{error}");
        assert_eq!(read::services(&store.connection, &path).unwrap(), vec![first.clone()]);
    }
    limit_pages(&store, pages + 4_000);
    store.commit(&changes).unwrap();
    drop(store);
    let stored = SqliteStore::open(&path).unwrap().services;
    assert_eq!((stored.len(), stored[0].head.ever_ready), (2, true));
}

#[test]
fn a_locked_database_is_tried_again_and_then_works() {
    let (_folder, path) = folder();
    let mut store = open_with(&path, Journal::WriteAhead).store;
    store.connection.busy_timeout(Duration::ZERO).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = service("first", 1);
    let error = store.commit(&[insert(&first, "")]).unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }) && error.is_transient(), "{error}");
    // No change needs no transaction.
    store.commit(&[]).unwrap();
    other.execute_batch("ROLLBACK").unwrap();
    store.commit(&[insert(&first, "")]).unwrap();
}

#[test]
fn a_power_cut_after_any_statement_of_a_migration_leaves_the_format_before_it() {
    for (version, statements) in MIGRATIONS.iter().enumerate() {
        for done in 0..=statements.len() {
            let (_folder, path) = folder();
            let mut connection = Connection::open(&path).unwrap();
            configure(&connection, &path, Journal::WriteAhead).unwrap();
            for (number, earlier) in (1_u32..).zip(&MIGRATIONS[..version]) {
                earlier.iter().for_each(|statement| connection.execute_batch(statement).unwrap());
                connection.pragma_update(None, "user_version", number).unwrap();
            }
            // A cache this small makes SQLite write before it commits.
            connection.pragma_update(None, "cache_size", 1).unwrap();
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
            for statement in &statements[..done] {
                transaction.execute_batch(statement).unwrap();
            }
            let (_crashed, copy) = power_cut(&path);
            assert_eq!(read_version(&Connection::open(&copy).unwrap(), &copy).unwrap() as usize, version);
            let mut opened = SqliteStore::open(&copy).unwrap();
            opened.store.commit(&[insert(&service("my-service", 1), "")]).unwrap();
        }
    }
}

#[test]
fn a_power_cut_after_any_change_of_a_transaction_leaves_none_of_them() {
    for journal in [Journal::WriteAhead, Journal::Rollback] {
        let (_folder, path) = folder();
        let mut store = open_with(&path, journal).store;
        let first = service("first", 1);
        store.commit(&[insert(&first, "")]).unwrap();
        store.connection.pragma_update(None, "cache_size", 1).unwrap();
        let log = path.with_extension(if journal == Journal::WriteAhead { "db-wal" } else { "db-journal" });
        let bytes_before = fs::metadata(&log).map_or(0, |log| log.len());
        let transaction = store.connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        let writer = Writer { connection: &transaction, path: &path };
        for incarnation in 2..6 {
            let other = service(&format!("service-{incarnation}"), incarnation);
            writer.apply(&insert(&other, &"x".repeat(200_000))).unwrap();
            assert!(fs::metadata(&log).unwrap().len() > bytes_before, "nothing was written yet: a cut proves nothing");
            let (_crashed, copy) = power_cut(&path);
            let opened = open_with(&copy, journal);
            assert_eq!((opened.services, opened.next_incarnation), (vec![first.clone()], 2));
        }
    }
}

#[test]
fn a_database_that_takes_another_journal_than_it_must_have_is_refused() {
    let connection = Connection::open_in_memory().unwrap();
    let error = configure(&connection, Path::new("x.db"), Journal::WriteAhead).unwrap_err();
    assert!(error.to_string().contains("stays `memory`"), "{error}");
}

#[test]
fn no_epoch_is_taken_from_a_database_that_a_newer_version_has_just_migrated() {
    let (_folder, path) = folder();
    let mut connection = open_with(&path, Journal::WriteAhead).store.connection;
    connection.pragma_update(None, "user_version", VERSION + 1).unwrap();
    let error = take_epoch(&mut connection, &path).unwrap_err();
    assert!(matches!(error, StoreError::Newer { .. }), "{error}");
    assert_eq!(read_epoch(&connection, &path).unwrap(), FIRST_EPOCH);
}

#[test]
fn an_error_says_what_helps() {
    let path = Path::new("/home/sky/skyserve.db");
    let sqlite = |code| StoreError::from_sqlite(path, rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
    let transient = [
        ffi::SQLITE_FULL,
        ffi::SQLITE_IOERR_SHMSIZE,
        ffi::SQLITE_BUSY,
        ffi::SQLITE_LOCKED,
        ffi::SQLITE_READONLY,
        ffi::SQLITE_CANTOPEN,
    ];
    let final_ones = [
        ffi::SQLITE_READONLY_DBMOVED,
        ffi::SQLITE_IOERR_FSYNC,
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_CORRUPT,
        ffi::SQLITE_NOTADB,
        ffi::SQLITE_MISUSE,
    ];
    for code in transient.into_iter().chain(final_ones) {
        let error = sqlite(code);
        let is_final = final_ones.contains(&code);
        let found = (error.is_transient(), error.must_exit(), error.loses_connection());
        assert_eq!(found, (!is_final, is_final, is_final), "{code}: {error}");
        assert!(error.to_string().contains("/home/sky/skyserve.db"), "{error}");
    }
    let refused = StoreError::from(Conflict::ServiceExists { name: "x".to_owned() });
    assert!(!refused.is_transient() && !refused.must_exit());
}
