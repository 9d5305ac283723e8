//! Copies of the database, and what is done when it is found damaged.
//!
//! Invariants:
//! * A copy has its name only once it is whole, checked and synced.
//! * No copy outlives by more than the time to the next one a version that is gone.
//! * Nothing of a damaged database is thrown away: it goes to a folder of its own, in which nothing is changed again.
//! * A database that was restored never gives out an epoch, an incarnation or a replica id that the damaged one may
//!   have given out.

use crate::error::StoreError;
use crate::filesystem::{beside, sync_dir};
use crate::marks::{self, Marks};
use crate::store::{self, Opened, SqliteStore, connect, make_file};
use rusqlite::{Connection, OpenFlags, backup};
use skyserve_model::Epoch;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Copies that are kept: the newest, and others in case that one is damaged too.
const BACKUPS_KEPT: usize = 3;

/// Damaged databases that are kept. With so many the disk is what is to be mended, and nothing is restored any more.
const DAMAGED_MAX: usize = 10;

/// How far the numbers of incarnations and replicas go on behind those of a copy: more than can have been given out
/// between two copies.
const NUMBERS_SKIPPED: u32 = 10_000;

/// What became of a damaged database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What was found.
    pub damage: String,
    /// Where the damaged database is kept.
    pub kept_in: PathBuf,
    /// The copy that took its place; `None`: what of the database itself was whole.
    pub backup: Option<PathBuf>,
    /// Transactions that were acknowledged and are not in it, as far as is known.
    pub transactions_lost: u64,
}

/// The folder of the copies.
fn backups_dir(database: &Path) -> PathBuf {
    database.with_file_name("backups")
}

/// The folder of the damaged databases.
fn damaged_dir(database: &Path) -> PathBuf {
    database.with_file_name("damaged")
}

/// Copies the database at `path`, which may be in use, and removes older copies: those beyond the ones kept, and those
/// with a version that the database no longer has (its secrets go with it).
pub fn take_backup(path: &Path) -> Result<(), StoreError> {
    let folder = backups_dir(path);
    let io = |error: io::Error| StoreError::from_io(&folder, &error);
    make_dir(&folder).map_err(io)?;
    let unfinished = folder.join("unfinished.db");
    remove_database(&unfinished).map_err(io)?;
    let transactions = match copy(path, &unfinished).and_then(|()| store::check_whole(&unfinished)) {
        Ok(transactions) => transactions,
        Err(error) => {
            // On a full disk it is in the way of the database itself.
            let _ = remove_database(&unfinished);
            return Err(error);
        }
    };
    fs::File::open(&unfinished).and_then(|file| file.sync_all()).map_err(io)?;
    let newest = folder.join(format!("skyserve-{transactions:020}.db"));
    fs::rename(&unfinished, &newest).map_err(io)?;
    sync_dir(&folder).map_err(io)?;
    let versions = versions(&newest).map_err(|error| StoreError::from_sqlite(&newest, error))?;
    // One that cannot be read stays in its turn: it may be all that is left of something.
    let is_outdated = |copy: &PathBuf| self::versions(copy).is_ok_and(|its| !its.is_subset(&versions));
    let (outdated, others): (Vec<_>, Vec<_>) = backups(path).map_err(io)?.into_iter().partition(is_outdated);
    outdated.into_iter().chain(others.into_iter().skip(BACKUPS_KEPT)).try_for_each(fs::remove_file).map_err(io)?;
    sync_dir(&folder).map_err(io)
}

/// Which versions of which incarnations are in a copy.
fn versions(copy: &Path) -> rusqlite::Result<BTreeSet<(i64, i64)>> {
    let connection = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = connection.prepare(
        "SELECT services.incarnation, versions.version FROM versions JOIN services ON services.name = versions.service",
    )?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Copies, the newest first.
fn backups(database: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(entries) = if_there(fs::read_dir(backups_dir(database)))? else { return Ok(Vec::new()) };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("skyserve-")));
    found.sort();
    found.reverse();
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let source = connect(from)?;
    make_file(to, &backups_dir(from)).map_err(|error| StoreError::from_io(to, &error))?;
    let mut target = connect(to)?;
    // All at once: a copy in parts begins anew whenever the controller writes.
    backup::Backup::new(&source, &mut target)
        .and_then(|copying| copying.step(-1))
        .and_then(|_| into_one_file(&target))
        .map_err(|error| StoreError::from_sqlite(to, error))
}

/// Leaves no log beside the database, and all of it on its disk.
fn into_one_file(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))
}

/// Opens the database at `path` for the next controller. If it is damaged, it is put aside, and what is newest of what
/// is whole takes its place: the part of it before the damage, or a copy. `epoch_used` is the highest epoch that is
/// known from elsewhere.
pub fn open_or_restore(path: &Path, epoch_used: Epoch) -> Result<(Opened, Option<Restored>), StoreError> {
    match SqliteStore::open(path) {
        Ok(opened) => Ok((opened, None)),
        Err(damage @ StoreError::Damaged { .. }) => {
            let restored = restore(path, epoch_used, damage)?;
            Ok((SqliteStore::open(path)?, Some(restored)))
        }
        Err(error) => Err(error),
    }
}

/// A database that could take the damaged one's place, in a folder of its own.
struct Candidate {
    path: PathBuf,
    transactions: u64,
    backup: Option<PathBuf>,
}

fn restore(path: &Path, epoch_used: Epoch, damage: StoreError) -> Result<Restored, StoreError> {
    let io = |error: io::Error| StoreError::from_io(path, &error);
    let number = next_damaged(path).map_err(io)?;
    let marks = Marks::read(path).unwrap_or_default();
    let work = path.with_file_name("restoring");
    let _ = fs::remove_dir_all(&work);
    make_dir(&work).map_err(io)?;
    let chosen = choose(path, &work)?;
    let (number, chosen) = match (number, chosen) {
        (Some(number), Some(chosen)) => (number, chosen),
        (number, _) => {
            let _ = fs::remove_dir_all(&work);
            return Err(hopeless(path, damage, number.is_none()));
        }
    };
    let floor = Floor { epoch: epoch_used.0.max(marks.epoch), transactions: marks.transactions };
    floor.raise(&chosen.path).map_err(|error| StoreError::from_sqlite(&chosen.path, error))?;
    let kept_in = damaged_dir(path).join(number.to_string());
    put_aside(path, &kept_in).map_err(io)?;
    fs::rename(&chosen.path, path).map_err(io)?;
    path.parent().map_or(Ok(()), sync_dir).map_err(io)?;
    let _ = fs::remove_dir_all(&work);
    Ok(Restored {
        damage: damage.to_string(),
        kept_in,
        backup: chosen.backup,
        transactions_lost: marks.transactions.saturating_sub(chosen.transactions),
    })
}

/// The damage, and why nothing takes the database's place.
fn hopeless(path: &Path, damage: StoreError, too_often: bool) -> StoreError {
    let StoreError::Damaged { path: found_in, place, problem } = damage else { return damage };
    let why = if too_often {
        format!("{DAMAGED_MAX} damaged ones are kept in {} already: mend the disk", damaged_dir(path).display())
    } else {
        format!("no copy in {} is whole", backups_dir(path).display())
    };
    StoreError::Damaged { path: found_in, place, problem: format!("{problem}; {why}") }
}

/// The name of the next folder for a damaged database, unless there are too many.
fn next_damaged(path: &Path) -> io::Result<Option<usize>> {
    let folder = damaged_dir(path);
    make_dir(&folder)?;
    let count = fs::read_dir(&folder)?.count();
    Ok((count < DAMAGED_MAX).then_some(count + 1))
}

/// The newest whole database among what is left of the one at `path`, and its copies.
fn choose(path: &Path, work: &Path) -> Result<Option<Candidate>, StoreError> {
    let io = |error: io::Error| StoreError::from_io(path, &error);
    let left = whole_copy(path, &work.join("left.db"), None);
    for backup in backups(path).map_err(io)? {
        let Some(copy) = whole_copy(&backup, &work.join("backup.db"), Some(backup.clone())) else { continue };
        return Ok(Some(match left {
            Some(left) if left.transactions >= copy.transactions => left,
            _ => copy,
        }));
    }
    Ok(left)
}

/// A copy of the database's files, if all that it holds is as it was stored.
fn whole_copy(from: &Path, to: &Path, backup: Option<PathBuf>) -> Option<Candidate> {
    remove_database(to).ok()?;
    for suffix in ["", "-wal", "-journal"] {
        let copied = if_there(fs::copy(beside(from, suffix), beside(to, suffix))).ok()?;
        if suffix.is_empty() {
            copied?;
        }
    }
    // A file that is empty is a new database to SQLite, and none to us.
    let transactions = store::check_whole(to).ok().filter(|transactions| *transactions > 0)?;
    Some(Candidate { path: to.to_path_buf(), transactions, backup })
}

/// What must not be given out again.
struct Floor {
    epoch: u64,
    transactions: u64,
}

impl Floor {
    fn raise(&self, database: &Path) -> rusqlite::Result<()> {
        let mut connection = Connection::open(database)?;
        let transaction = connection.transaction()?;
        let (epoch, transactions) = (self.epoch.cast_signed(), self.transactions.cast_signed());
        transaction.execute(
            "UPDATE meta SET epoch = max(epoch, ?1), transactions = max(transactions, ?2), \
             next_incarnation = next_incarnation + ?3",
            (epoch, transactions, NUMBERS_SKIPPED),
        )?;
        transaction.execute("UPDATE services SET next_replica_id = next_replica_id + ?1", [NUMBERS_SKIPPED])?;
        crate::seal::seal_all(&transaction)?;
        transaction.commit()?;
        into_one_file(&connection)
    }
}

/// Moves a damaged database to `folder`. Its file itself stays until another takes its place, so that after a crash
/// nobody takes it for one that is yet to be made; and so do its marks, which say that it is not whole.
fn put_aside(path: &Path, folder: &Path) -> io::Result<()> {
    make_dir(folder)?;
    let kept = folder.join(path.file_name().unwrap_or_default());
    if_there(fs::hard_link(path, &kept).or_else(|_| fs::copy(path, &kept).map(drop)))?;
    if_there(fs::copy(beside(path, marks::SUFFIX), beside(&kept, marks::SUFFIX)))?;
    for suffix in ["-wal", "-journal"] {
        if_there(fs::rename(beside(path, suffix), beside(&kept, suffix)))?;
    }
    let _ = fs::remove_file(beside(path, "-shm"));
    sync_dir(folder)
}

/// `None` if what it is about is not there.
fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

fn make_dir(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Removes a database that is not in use, with what SQLite keeps beside it.
fn remove_database(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal", marks::SUFFIX] {
        if_there(fs::remove_file(beside(path, suffix)))?;
    }
    Ok(())
}
