//! The route table's file: when it changes, whether it may be taken, and why not.
//!
//! Invariants:
//! * A table is taken only if it is whole, of a known format and newer than the one in force; nothing
//!   else ever replaces the one in force.
//! * The folder is watched, not the file: the file is replaced by rename.
//! * A change that no notification tells of is found by the next periodic check.

use notify::{RecursiveMode, Watcher};
use skyserve_routes::{RouteTable, TableVersion};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Notify;

/// Watches the file and judges what is in it.
#[derive(Debug)]
pub(crate) struct TableFile {
    path: PathBuf,
    in_force: Option<TableVersion>,
    error: Option<String>,
    last_seen: Option<Fingerprint>,
    watcher: Option<notify::RecommendedWatcher>,
    changed: Arc<Notify>,
}

/// What tells one file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl From<Metadata> for Fingerprint {
    fn from(metadata: Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { inode: metadata.ino(), bytes: metadata.len(), modified }
    }
}

/// What a look at the file came to.
#[derive(Debug)]
pub(crate) enum Look {
    /// A newer table, now to be put in force.
    New(RouteTable),
    /// The one in force stays, as before.
    Same,
    /// The one in force stays, for a reason that was not there before.
    Rejected,
}

impl TableFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        let changed = Arc::new(Notify::new());
        Self { path, in_force: None, error: None, last_seen: None, watcher: None, changed }
    }

    pub(crate) fn in_force(&self) -> Option<TableVersion> {
        self.in_force
    }

    /// Why the newest file was not taken.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Told when the folder's content changed.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Starts to watch the folder, if it is not watched yet.
    pub(crate) fn watch(&mut self) {
        if self.watcher.is_some() {
            return;
        }
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
            _ => PathBuf::from("."),
        };
        match watcher(&folder, self.path.file_name().map(Path::new), Arc::clone(&self.changed)) {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                // What changed before the watch began.
                self.changed.notify_one();
            }
            Err(error) => {
                tracing::debug!(folder = %folder.display(), %error, "cannot watch the route table's folder yet")
            }
        }
    }

    /// Looks at the file if it changed since the last look.
    pub(crate) fn look(&mut self) -> Look {
        let seen = std::fs::metadata(&self.path).ok().map(Fingerprint::from);
        if seen.is_some() && seen == self.last_seen {
            return Look::Same;
        }
        self.last_seen = seen;
        match skyserve_routes::read(&self.path) {
            Ok(table) => self.judge(table),
            Err(error) => self.reject(error.to_string()),
        }
    }

    fn judge(&mut self, table: RouteTable) -> Look {
        let (found, in_force) = (table.version(), self.in_force);
        match in_force {
            Some(in_force) if found < in_force => self.reject(format!(
                "the route table {} is older (epoch {}, seq {}) than the one in force (epoch {}, seq {})",
                self.path.display(),
                found.epoch,
                found.seq,
                in_force.epoch,
                in_force.seq
            )),
            Some(in_force) if found == in_force => {
                self.error = None;
                Look::Same
            }
            _ => {
                self.error = None;
                self.in_force = Some(found);
                Look::New(table)
            }
        }
    }

    fn reject(&mut self, error: String) -> Look {
        if self.error.as_deref() == Some(error.as_str()) {
            return Look::Same;
        }
        match self.in_force {
            Some(in_force) => tracing::warn!(
                error,
                epoch = in_force.epoch,
                seq = in_force.seq,
                "keeping the route table in force; the controller publishes a new one when it can"
            ),
            None => tracing::warn!(error, "no route table yet; waiting for the controller to publish one"),
        }
        self.error = Some(error);
        Look::Rejected
    }
}

fn watcher(folder: &Path, file: Option<&Path>, changed: Arc<Notify>) -> notify::Result<notify::RecommendedWatcher> {
    let file = file.map(Path::to_path_buf);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error (such as a full event queue) may hide a change: look then, too.
        let concerns_file = event.as_ref().map_or(true, |event| {
            !event.kind.is_access()
                && (event.paths.is_empty()
                    || event.paths.iter().any(|path| path.file_name() == file.as_deref().map(Path::as_os_str)))
        });
        if concerns_file {
            changed.notify_one();
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;
    use skyserve_routes::{FORMAT, encode, publish};

    fn table(epoch: u64, seq: u64) -> RouteTable {
        RouteTable { format: FORMAT, epoch, seq, services: Vec::new() }
    }

    fn file() -> (tempfile::TempDir, TableFile) {
        let temp = tempfile::tempdir().unwrap();
        let file = TableFile::new(temp.path().join("routes.json"));
        (temp, file)
    }

    #[test]
    fn only_newer_tables_are_taken() {
        let (_temp, mut file) = file();
        for (epoch, seq, taken) in [(2, 5, true), (2, 6, true), (2, 4, false), (1, 99, false), (3, 1, true)] {
            // Not by `publish`, which would not put an older one there.
            std::fs::write(&file.path, encode(&table(epoch, seq))).unwrap();
            assert_eq!(matches!(file.look(), Look::New(_)), taken, "epoch {epoch} seq {seq}");
            assert_eq!(file.error().is_none(), taken);
        }
        assert_eq!(file.in_force(), Some(TableVersion { epoch: 3, seq: 1 }));
    }

    #[test]
    fn a_missing_or_torn_file_leaves_the_table_in_force_and_is_told_once() {
        let (_temp, mut file) = file();
        publish(&file.path, &table(1, 1)).unwrap();
        assert!(matches!(file.look(), Look::New(_)));
        std::fs::remove_file(&file.path).unwrap();
        assert!(matches!(file.look(), Look::Rejected));
        assert!(matches!(file.look(), Look::Same));
        std::fs::write(&file.path, b"{\"checksum\":").unwrap();
        assert!(matches!(file.look(), Look::Rejected));
        assert_eq!(file.in_force(), Some(TableVersion { epoch: 1, seq: 1 }));
        publish(&file.path, &table(1, 1)).unwrap();
        assert!(matches!(file.look(), Look::Same));
        assert_eq!(file.error(), None, "the table in force is back");
    }

    #[test]
    fn a_newer_format_is_not_taken() {
        let (_temp, mut file) = file();
        publish(&file.path, &RouteTable { format: FORMAT + 1, ..table(1, 1) }).unwrap();
        assert!(matches!(file.look(), Look::Rejected));
        assert_eq!(file.in_force(), None);
    }
}
