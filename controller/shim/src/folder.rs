//! The folder of one replica: the only thing that the shim, the provider and the command line share.
//!
//! * `launch.json`: what to run. Written once, before the shim starts, never changed.
//! * `lock`: locked by the shim for its life. Locked means alive; there is no other proof.
//! * `state.json`: how far it is. Its first version is the claim: it is written under the lock, before
//!   anything of the user's runs. Where it exists, nobody may start the replica again.
//! * `exit.json`: how it ended. Written last, once nothing of the replica runs any more.
//! * `terminate`: nobody may start the replica any more; written before it is made to end.
//! * `output.log`, `output.log.1`, …: what it printed; `shim.log`: what the shim itself had to say.
//! * `work/`: its working directory; `mounts/`: file mounts placed elsewhere; `setup.sh`, `run.sh`.
//!
//! Files that others read are replaced by rename, so a reader sees the old or the new, never a part.

use crate::pidfd::ProcessIdentity;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skyserve_model::launch::{Ended, LaunchSpec, Phase, Stage};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The folder of one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    dir: PathBuf,
}

/// `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub shim: ProcessIdentity,
    /// When the shim claimed the replica, in milliseconds since the Unix epoch.
    pub claimed_unix_ms: u64,
    pub phase: Phase,
    /// The bash that runs `setup` or `run`.
    pub main: Option<ProcessIdentity>,
    /// Control groups made for this replica.
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    /// What could not be done as asked, for a person.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// `exit.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub ended: Ended,
    pub unix_ms: u64,
}

/// `terminate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// How long the replica may take to end by itself.
    pub grace_ms: u64,
}

/// Held for a shim's life; released by the kernel however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Folder {
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    pub fn launch_file(&self) -> PathBuf {
        self.dir.join("launch.json")
    }
    pub fn lock_file(&self) -> PathBuf {
        self.dir.join("lock")
    }
    pub fn state_file(&self) -> PathBuf {
        self.dir.join("state.json")
    }
    pub fn exit_file(&self) -> PathBuf {
        self.dir.join("exit.json")
    }
    /// Space set aside for `exit.json`, so that a full disk cannot hide how a replica ended.
    pub fn exit_reserve(&self) -> PathBuf {
        self.dir.join("exit.json.reserve")
    }
    pub fn tombstone_file(&self) -> PathBuf {
        self.dir.join("terminate")
    }
    pub fn output_log(&self) -> PathBuf {
        self.dir.join("output.log")
    }
    pub fn shim_log(&self) -> PathBuf {
        self.dir.join("shim.log")
    }
    pub fn work_dir(&self) -> PathBuf {
        self.dir.join("work")
    }
    /// Where a bundle is unpacked before its parts go to their places.
    pub fn unpack_dir(&self) -> PathBuf {
        self.dir.join("unpacked")
    }
    pub fn mounts_dir(&self) -> PathBuf {
        self.dir.join("mounts")
    }
    /// The user's commands, as a file: they may be longer than the kernel allows one argument to be.
    pub fn script(&self, stage: Stage) -> PathBuf {
        self.dir.join(if stage == Stage::Setup { "setup.sh" } else { "run.sh" })
    }
    /// `~/.sky/serve/bundles`, beside the folder that holds all replicas.
    pub fn bundles_dir(&self) -> PathBuf {
        self.dir.join("../../bundles")
    }

    pub fn read_launch(&self) -> io::Result<Option<LaunchSpec>> {
        read_json(&self.launch_file())
    }
    pub fn read_state(&self) -> io::Result<Option<State>> {
        read_json(&self.state_file())
    }
    pub fn read_exit(&self) -> io::Result<Option<Exit>> {
        read_json(&self.exit_file())
    }
    /// What the tombstone says; an error also where it is empty, which is all that fits a full disk.
    pub fn read_tombstone(&self) -> io::Result<Option<Tombstone>> {
        read_json(&self.tombstone_file())
    }

    /// Writes `launch.json` for good. The file holds secrets, so it is readable by its owner alone.
    pub fn write_launch(&self, spec: &LaunchSpec) -> io::Result<()> {
        write_json_durably(&self.launch_file(), spec)
    }
    pub fn write_state(&self, state: &State) -> io::Result<()> {
        write_json_durably(&self.state_file(), state)
    }
    pub fn write_tombstone(&self, tombstone: Tombstone) -> io::Result<()> {
        write_json_durably(&self.tombstone_file(), &tombstone)
    }

    /// Sets space aside for [`Folder::write_exit`].
    pub fn reserve_exit(&self) -> io::Result<()> {
        write_durably(&self.exit_reserve(), &[b' '; EXIT_BYTES_MAX])
    }

    /// Writes `exit.json` for good, into the space set aside if there is any.
    pub fn write_exit(&self, exit: &Exit) -> io::Result<()> {
        let mut text = serde_json::to_vec(exit)?;
        let reserve = self.exit_reserve();
        if text.len() > EXIT_BYTES_MAX || !reserve.exists() {
            return write_durably(&self.exit_file(), &text);
        }
        // Overwritten in its whole length, blanks behind the text: no block is given back or taken.
        text.resize(EXIT_BYTES_MAX, b' ');
        let mut file = OpenOptions::new().write(true).open(&reserve)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&reserve, self.exit_file())?;
        sync_dir(&self.dir)
    }

    /// Takes the lock; `None` if somebody else has it. The folder must exist.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.lock_file())?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
            Ok(_) => Ok(Some(Lock { _file: file })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether somebody has the lock. Asks without taking it, so it never gets in a shim's way.
    pub fn is_locked(&self) -> io::Result<bool> {
        let file = match File::open(self.lock_file()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        // A shared lock needs no write access to ask for, and conflicts with the shim's exclusive one.
        let mut answer = whole_file(libc::F_RDLCK);
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut answer))?;
        Ok(i32::from(answer.l_type) != libc::F_UNLCK)
    }
}

/// Longest `exit.json` that fits the space set aside: one block of most file systems.
const EXIT_BYTES_MAX: usize = 4096;

/// A lock description for a whole file, owned by the open file rather than the process: it is kept
/// across forks and given up when the last descriptor closes.
pub(crate) fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))
}

fn write_json_durably<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_durably(path, &serde_json::to_vec(value)?)
}

/// Replaces the file at `path`: after this returns the new content survives a power failure, and at
/// no moment does anybody see a part of it. Readable by its owner alone.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    // Two writers at once never share it.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".new.{}.{}", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // On a full disk the torn file only takes space; the next attempt starts afresh.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes what was created, renamed or removed in a folder survive a power failure.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_exclusive_and_asking_for_it_does_not_take_it() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::at(temp.path());
        assert!(!folder.is_locked().unwrap());
        let lock = folder.lock().unwrap().expect("free");
        assert!(folder.lock().unwrap().is_none());
        assert!(folder.is_locked().unwrap());
        drop(lock);
        assert!(!folder.is_locked().unwrap());
        assert!(folder.lock().unwrap().is_some());
    }

    #[test]
    fn an_exit_record_reads_back_from_the_space_set_aside() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::at(temp.path());
        let exit = Exit { ended: Ended { stage: Stage::Run, reason: "x".into() }, unix_ms: 5 };
        folder.reserve_exit().unwrap();
        folder.write_exit(&exit).unwrap();
        assert_eq!(folder.read_exit().unwrap(), Some(exit));
        assert!(!folder.exit_reserve().exists());
    }
}
