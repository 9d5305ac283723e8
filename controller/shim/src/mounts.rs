//! Puts file mounts where the service wants them.
//!
//! * A relative destination is a copy below the working directory.
//! * Any other (`~/x`, `/x`) is a bind mount in a mount namespace of the replica's own, so two replicas
//!   never share what they write there and the machine's own files stay as they are. Root needs nothing
//!   for it; other users get a user namespace in which they are themselves.
//!
//! A destination that does not exist is made, and removed with the last replica that used it: removing
//! a folder that is mounted over in another namespace would tear that mount away. Who uses a destination
//! is told by locks on a register file, so it is right however a replica ended.

use crate::folder::{Folder, whole_file};
use nix::fcntl::{FcntlArg, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// Why a file mount could not be placed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error(
        "file mount {destination}: {why}. Use a destination relative to the working directory instead, like `./{name}`"
    )]
    Impossible { destination: String, why: String, name: String },
    #[error("file mount {destination}: the uploaded files do not have it: run `up` or `update` again")]
    Missing { destination: String },
    #[error("file mount {destination}: {source}")]
    Copy { destination: String, source: io::Error },
}

/// The mounts of one replica, undone when it ends.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    placed: Vec<Mountpoint>,
}

impl Mounts {
    /// Places all mounts of an unpacked bundle. From then on this process is in the namespace, and so
    /// is all it starts.
    pub(crate) fn place(&mut self, folder: &Folder, destinations: &[String], home: &Path) -> Result<(), MountError> {
        let mut separate = false;
        for (index, destination) in destinations.iter().enumerate() {
            let source = folder.unpack_dir().join("mounts").join(index.to_string());
            if fs::symlink_metadata(&source).is_err() {
                return Err(MountError::Missing { destination: destination.clone() });
            }
            let copied = |source| MountError::Copy { destination: destination.clone(), source };
            let Some(target) = absolute(destination, home) else {
                place_copy(&source, &folder.work_dir(), Path::new(destination)).map_err(copied)?;
                continue;
            };
            let impossible = |why: String| MountError::Impossible {
                destination: destination.clone(),
                why,
                name: target.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            };
            refuse_vital(&target).and_then(|()| refuse_own(&target, folder)).map_err(|why| impossible(why.into()))?;
            let own = folder.mounts_dir().join(index.to_string());
            fs::create_dir_all(folder.mounts_dir()).and_then(|()| fs::rename(&source, &own)).map_err(copied)?;
            if !separate {
                separate_namespace().map_err(|error| {
                    impossible(format!("this machine does not allow bind mounts to this user ({error})"))
                })?;
                separate = true;
            }
            let mountpoint = Mountpoint::make(&register_dir(folder), &target, own.is_dir())
                .map_err(|error| impossible(format!("cannot make it: {error}")))?;
            self.placed.push(mountpoint);
            mount(Some(&own), &target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
                .map_err(|error| impossible(format!("cannot mount it: {error}")))?;
        }
        Ok(())
    }

    /// Undoes them, once no process of the replica is left.
    pub(crate) fn remove(self) {
        for mountpoint in self.placed.into_iter().rev() {
            let _ = umount2(&mountpoint.target, MntFlags::MNT_DETACH);
            mountpoint.give_up();
        }
    }
}

/// Removes destinations made for a replica whose shim was killed, unless another replica uses them.
pub fn remove_abandoned(folder: &Folder, destinations: &[String], home: &Path) {
    let register_dir = register_dir(folder);
    for target in destinations.iter().rev().filter_map(|destination| absolute(destination, home)) {
        let Ok(register) = Register::open(&register_dir) else { return };
        if let Ok(used) = open_file(&register.file(&target), false) {
            Mountpoint { target, register_dir: register_dir.clone(), used }.release(&register);
        }
    }
}

/// Where a destination that is not relative to the working directory leads.
pub fn absolute(destination: &str, home: &Path) -> Option<PathBuf> {
    match destination.strip_prefix('~') {
        Some("") => Some(home.to_path_buf()),
        Some(below) if below.starts_with('/') => Some(home.join(below.trim_start_matches('/'))),
        _ => Path::new(destination).is_absolute().then(|| Path::new(destination).components().collect()),
    }
}

/// Destinations under which nothing would work any more.
pub fn refuse_vital(target: &Path) -> Result<(), &'static str> {
    if target.components().any(|part| part == Component::ParentDir) {
        return Err("`..` is not allowed in it");
    }
    let vital = ["/", "/proc", "/sys", "/dev", "/bin", "/lib", "/lib64", "/usr", "/etc"];
    if vital.iter().any(|path| target == Path::new(path))
        || ["/proc", "/sys"].iter().any(|path| target.starts_with(path))
    {
        return Err("the system itself needs this folder");
    }
    Ok(())
}

fn refuse_own(target: &Path, folder: &Folder) -> Result<(), &'static str> {
    if folder.dir().starts_with(target) { Err("it would hide the replica's own folder") } else { Ok(()) }
}

/// Enters a mount namespace whose changes nobody else sees.
fn separate_namespace() -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        // The kernel asks for this before an ordinary user may map a group.
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    }
    Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?)
}

/// Moves `source` to `work`/`destination`, into what the workdir has there already.
pub fn place_copy(source: &Path, work: &Path, destination: &Path) -> io::Result<()> {
    if destination.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(io::Error::other("`..` is not allowed in it"));
    }
    let target: PathBuf = work.join(destination).components().collect();
    let parent = target.parent().unwrap_or(work);
    // A link in the workdir may lead out of it; what is written there is not the replica's.
    let inside = |path: &Path| Ok::<_, io::Error>(path.canonicalize()?.starts_with(work.canonicalize()?));
    let existing = parent.ancestors().find(|path| path.exists()).unwrap_or(work);
    if !inside(existing)? {
        return Err(io::Error::other("a link in the workdir leads out of it"));
    }
    fs::create_dir_all(parent)?;
    merge(source, &target)
}

/// Moves `source` to `target`, or goes into folders that are on both sides.
pub fn merge(source: &Path, target: &Path) -> io::Result<()> {
    let (from, to) = (fs::symlink_metadata(source)?, fs::symlink_metadata(target));
    match to {
        Err(_) => move_to(source, target),
        Ok(to) if from.is_dir() && to.is_dir() => {
            for entry in fs::read_dir(source)? {
                let entry = entry?;
                merge(&entry.path(), &target.join(entry.file_name()))?;
            }
            Ok(())
        }
        Ok(to) if to.is_dir() => Err(io::Error::other("the workdir has a folder where a file is to be mounted")),
        Ok(_) if from.is_dir() => Err(io::Error::other("the workdir has a file where a folder is to be mounted")),
        Ok(_) => move_to(source, target),
    }
}

/// Renames; copies to another file system, as a pod's volumes are to each other.
fn move_to(source: &Path, target: &Path) -> io::Result<()> {
    match fs::rename(source, target) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copy_tree(source, target),
        result => result,
    }
}

fn copy_tree(source: &Path, target: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(source)?;
    if metadata.is_symlink() {
        let _ = fs::remove_file(target);
        return std::os::unix::fs::symlink(fs::read_link(source)?, target);
    }
    if !metadata.is_dir() {
        return fs::copy(source, target).map(drop);
    }
    fs::create_dir(target)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        copy_tree(&entry.path(), &target.join(entry.file_name()))?;
    }
    fs::set_permissions(target, metadata.permissions())
}

fn register_dir(folder: &Folder) -> PathBuf {
    folder.dir().join("../.mountpoints")
}

/// The register of destinations that were made. Changed only under its lock, which nobody holds for
/// longer than it takes to make or remove a few folders.
struct Register {
    dir: PathBuf,
    _lock: File,
}

impl Register {
    fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let lock = open_file(&dir.join("lock"), true)?;
        fcntl(&lock, FcntlArg::F_OFD_SETLKW(&whole_file(libc::F_WRLCK)))?;
        Ok(Self { dir: dir.to_path_buf(), _lock: lock })
    }

    fn file(&self, target: &Path) -> PathBuf {
        self.dir.join(hex::encode(&Sha256::digest(target.as_os_str().as_encoded_bytes())[..16]))
    }
}

fn open_file(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(0o600).open(path)
}

/// A destination in use. Its register file lists what was made for it, deepest first, and is locked
/// (shared) by everyone who uses it.
#[derive(Debug)]
struct Mountpoint {
    target: PathBuf,
    register_dir: PathBuf,
    used: File,
}

impl Mountpoint {
    /// Makes sure that `target` exists, as a folder or an empty file.
    fn make(register_dir: &Path, target: &Path, folder: bool) -> io::Result<Self> {
        let register = Register::open(register_dir)?;
        let mut used = open_file(&register.file(target), true)?;
        fcntl(&used, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_RDLCK)))?;
        let mountpoint = |used| Self { target: target.to_path_buf(), register_dir: register_dir.to_path_buf(), used };
        let made = match make_missing(target, folder) {
            Ok(made) => made,
            Err(error) => {
                mountpoint(used).release(&register);
                return Err(error);
            }
        };
        for path in made.iter().rev() {
            used.write_all(&[path.as_os_str().as_encoded_bytes(), b"\n"].concat())?;
        }
        let mountpoint = mountpoint(used);
        if target.is_dir() != folder {
            mountpoint.release(&register);
            let (is, wanted) = if folder { ("file", "folder") } else { ("folder", "file") };
            return Err(io::Error::other(format!("it is a {is} on this machine, but a {wanted} is to be mounted")));
        }
        Ok(mountpoint)
    }

    fn give_up(self) {
        if let Ok(register) = Register::open(&self.register_dir) {
            self.release(&register);
        }
    }

    /// The last one to leave removes what was made and is still empty.
    fn release(mut self, register: &Register) {
        // Fails while another replica still shares it.
        if fcntl(&self.used, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))).is_err() {
            return;
        }
        let mut made = String::new();
        if self.used.rewind().and_then(|()| self.used.read_to_string(&mut made)).is_ok() {
            for path in made.lines().map(Path::new) {
                let is_empty_file = fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0);
                let _ = if is_empty_file { fs::remove_file(path) } else { fs::remove_dir(path) };
            }
        }
        let _ = fs::remove_file(register.file(&self.target));
    }
}

/// Makes `target` and the folders above it; returns what was made, topmost first.
fn make_missing(target: &Path, folder: bool) -> io::Result<Vec<PathBuf>> {
    let mut missing: Vec<_> = target.ancestors().take_while(|path| !path.exists()).map(Path::to_path_buf).collect();
    missing.reverse();
    for (index, path) in missing.iter().enumerate() {
        let made = if !folder && index + 1 == missing.len() {
            OpenOptions::new().write(true).create_new(true).open(path).map(drop)
        } else {
            fs::create_dir(path)
        };
        if let Err(error) = made {
            for path in missing[..index].iter().rev() {
                let _ = fs::remove_dir(path);
            }
            return Err(error);
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_destination_stays_until_its_last_user_leaves() {
        let temp = tempfile::tempdir().unwrap();
        let (register, target) = (temp.path().join("register"), temp.path().join("a/b"));
        let first = Mountpoint::make(&register, &target, true).unwrap();
        let second = Mountpoint::make(&register, &target, true).unwrap();
        first.give_up();
        assert!(target.is_dir());
        second.give_up();
        assert!(!temp.path().join("a").exists());
        assert_eq!(fs::read_dir(&register).unwrap().count(), 1, "only the lock is left");
    }

    #[test]
    fn a_destination_that_was_there_or_is_used_stays() {
        let temp = tempfile::tempdir().unwrap();
        let register = temp.path().join("register");
        let (there, used) = (temp.path().join("there"), temp.path().join("used"));
        fs::create_dir(&there).unwrap();
        Mountpoint::make(&register, &there, true).unwrap().give_up();
        assert!(there.is_dir());
        let mountpoint = Mountpoint::make(&register, &used, true).unwrap();
        fs::write(used.join("file"), "x").unwrap();
        mountpoint.give_up();
        assert!(used.join("file").exists());
    }

    #[test]
    fn destinations_are_told_apart_and_vital_ones_refused() {
        let home = Path::new("/home/me");
        assert_eq!(absolute("~/data", home), Some("/home/me/data".into()));
        assert_eq!(absolute("/data/", home), Some("/data".into()));
        assert_eq!(absolute("data/x", home), None);
        let folder = Folder::at("/home/me/.sky/serve/replicas/x-1-1");
        for bad in ["/", "/etc", "/proc/1", "/home/me/.sky", "/home/me", "/data/../etc"] {
            let refused = refuse_vital(Path::new(bad)).and_then(|()| refuse_own(Path::new(bad), &folder));
            assert!(refused.is_err(), "{bad}");
        }
        assert!(refuse_vital(Path::new("/data")).is_ok());
    }

    #[test]
    fn a_copy_to_another_file_system_keeps_links_and_modes() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        fs::create_dir_all(from.join("bin")).unwrap();
        fs::write(from.join("bin/tool"), "x").unwrap();
        fs::set_permissions(from.join("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("bin/tool", from.join("latest")).unwrap();
        copy_tree(&from, &to).unwrap();
        assert_eq!(fs::metadata(to.join("bin/tool")).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_link(to.join("latest")).unwrap(), Path::new("bin/tool"));
    }

    #[test]
    fn a_copy_merges_into_the_workdir_and_never_leaves_it() {
        let temp = tempfile::tempdir().unwrap();
        let (work, source) = (temp.path().join("work"), temp.path().join("source"));
        fs::create_dir_all(work.join("data")).unwrap();
        fs::write(work.join("data/old"), "old").unwrap();
        fs::create_dir(&source).unwrap();
        fs::write(source.join("new"), "new").unwrap();
        place_copy(&source, &work, Path::new("./data")).unwrap();
        assert_eq!(fs::read_to_string(work.join("data/old")).unwrap(), "old");
        assert_eq!(fs::read_to_string(work.join("data/new")).unwrap(), "new");
        std::os::unix::fs::symlink("/tmp", work.join("out")).unwrap();
        fs::write(source.with_file_name("file"), "x").unwrap();
        assert!(place_copy(&source.with_file_name("file"), &work, Path::new("out/x")).is_err());
        assert!(place_copy(&source.with_file_name("file"), &work, Path::new("../x")).is_err());
    }
}
