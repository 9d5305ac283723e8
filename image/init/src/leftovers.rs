//! Finds processes that an init of this home started and has not ended: after `kill -9` of init, its children live on.
//!
//! Each child gets `SKYSERVE_HOME_ROLE=<home>:<name>:<its own pid>` in its environment, written between fork and
//! exec. Its descendants inherit the entry, with an id that is not theirs. So the kernel's own record of each
//! environment tells, without any file of ours that could be lost or stale:
//! * which process *is* a role: the id in its entry is its own;
//! * which processes a script has left behind: all with that script's entry.
//!
//! Children are not made to die with init (PR_SET_PDEATHSIG): a load balancer goes on serving until its successor is
//! about to start, which is better than not serving until someone starts init again.
//!
//! Replica shims inherit the controller's entry, but never are the controller; they are never touched.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::sys;

/// Name of the environment entry.
pub(crate) const MARK_VARIABLE: &str = "SKYSERVE_HOME_ROLE";
/// Names of scripts begin with this, as no role's does.
pub(crate) const SCRIPT_PREFIX: &str = "script-";
/// Most of an environment that is looked through; the kernel's own bound for one string is 128 KiB.
const ENVIRONMENT_BYTES_MAX: u64 = 1024 * 1024;
/// How long a killed process may take to be gone: it may have much memory to give back.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// A process with an entry of this home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) pid: i32,
    pub(crate) name: String,
    /// Whether it is the child itself and not a descendant.
    pub(crate) is_child: bool,
}

impl Marked {
    pub(crate) fn is_role(&self, name: &str) -> bool {
        self.is_child && self.name == name
    }

    pub(crate) fn is_of_script(&self) -> bool {
        self.name.starts_with(SCRIPT_PREFIX)
    }
}

/// The text of the entry up to the process id.
pub(crate) fn mark(home: &Path, name: &str) -> Vec<u8> {
    [MARK_VARIABLE.as_bytes(), b"=", home.as_os_str().as_bytes(), b":", name.as_bytes(), b":"].concat()
}

/// All processes with an entry of this home; without /proc, none.
pub(crate) fn scan(home: &Path) -> Vec<Marked> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let own_user = nix::unistd::geteuid().as_raw();
    let own_pid = std::process::id() as i32;
    let mut environment = Vec::new();
    let mut found = Vec::new();
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if pid == own_pid || process.metadata().is_ok_and(|metadata| metadata.uid() != own_user) {
            continue;
        }
        found.extend(look_at(pid, home, &mut environment));
    }
    found
}

/// Sends a signal to a process found, if it still is what it was found to be. Says whether it was sent.
pub(crate) fn signal(marked: &Marked, home: &Path, signal: i32) -> io::Result<bool> {
    let Some(pidfd) = open(marked, home)? else { return Ok(false) };
    match sys::pidfd_signal(pidfd.as_fd(), signal) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        result => Ok(result.is_ok()),
    }
}

/// Kills processes found and waits until they are gone. Says which could not be killed, and why.
pub(crate) fn kill<'a>(found: impl Iterator<Item = &'a Marked>, home: &Path) -> Vec<(&'a Marked, io::Error)> {
    let mut dying = Vec::new();
    let mut failed = Vec::new();
    for marked in found {
        match open(marked, home).and_then(|pidfd| pidfd.map(send_kill).transpose()) {
            Ok(pidfd) => dying.extend(pidfd.map(|pidfd| (marked, pidfd))),
            Err(error) => failed.push((marked, error)),
        }
    }
    let deadline = Instant::now() + KILL_WAIT;
    for (marked, pidfd) in dying {
        match wait_until_gone(pidfd.as_fd(), deadline) {
            Ok(true) => {}
            Ok(false) => failed.push((marked, io::ErrorKind::TimedOut.into())),
            Err(error) => failed.push((marked, error)),
        }
    }
    failed
}

fn send_kill(pidfd: OwnedFd) -> io::Result<OwnedFd> {
    match sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(pidfd),
    }
}

/// Waits until the process behind a pidfd has ended. False when the deadline came first.
pub(crate) fn wait_until_gone(pidfd: BorrowedFd<'_>, deadline: Instant) -> io::Result<bool> {
    loop {
        let mut polled = [libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        let left = deadline.saturating_duration_since(Instant::now());
        sys::poll(&mut polled, Some(left))?;
        if polled[0].revents != 0 {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// A handle on the process, taken before it is looked at a second time: what was seen then is what it stays with.
fn open(marked: &Marked, home: &Path) -> io::Result<Option<OwnedFd>> {
    let pidfd = match sys::pidfd_open(marked.pid) {
        Ok(pidfd) => pidfd,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok((look_at(marked.pid, home, &mut Vec::new()).as_ref() == Some(marked)).then_some(pidfd))
}

fn look_at(pid: i32, home: &Path, environment: &mut Vec<u8>) -> Option<Marked> {
    environment.clear();
    let file = File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(ENVIRONMENT_BYTES_MAX).read_to_end(environment).ok()?;
    environment.split(|byte| *byte == 0).find_map(|entry| parse(pid, entry, home))
}

fn parse(pid: i32, entry: &[u8], home: &Path) -> Option<Marked> {
    let value = entry.strip_prefix(MARK_VARIABLE.as_bytes())?.strip_prefix(b"=")?;
    let rest = value.strip_prefix(home.as_os_str().as_bytes())?.strip_prefix(b":")?;
    let (name, marked_pid) = std::str::from_utf8(rest).ok()?.split_once(':')?;
    Some(Marked { pid, name: name.to_owned(), is_child: marked_pid.parse() == Ok(pid) })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    struct KilledOnDrop(Child);

    impl Drop for KilledOnDrop {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A process with this entry, as soon as its environment shows.
    fn marked_process(entry_value: &str) -> KilledOnDrop {
        let child = KilledOnDrop(Command::new("sleep").arg("60").env(MARK_VARIABLE, entry_value).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(5);
        let environ = format!("/proc/{}/environ", child.0.id());
        while !String::from_utf8_lossy(&fs::read(&environ).unwrap()).contains(entry_value) {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
        child
    }

    #[test]
    fn descendants_are_told_from_the_child_and_other_homes_are_not_seen() {
        let home = Path::new("/leftovers-test/one");
        let descendant = marked_process("/leftovers-test/one:controller:1");
        let _other_home = marked_process("/leftovers-test/one-more:controller:1");
        let found = scan(home);
        let expected = Marked { pid: descendant.0.id() as i32, name: "controller".to_owned(), is_child: false };
        assert_eq!(found, [expected]);
        assert!(!found[0].is_role("controller"));
    }

    #[test]
    fn the_entry_names_the_child_itself_when_the_id_is_its_own() {
        let home = Path::new("/h");
        let marked = parse(42, b"SKYSERVE_HOME_ROLE=/h:loadbalancer:42", home).unwrap();
        assert!(marked.is_role("loadbalancer") && !marked.is_of_script());
        assert!(!parse(43, b"SKYSERVE_HOME_ROLE=/h:loadbalancer:42", home).unwrap().is_child);
        assert_eq!(parse(42, b"SKYSERVE_HOME_ROLE=/h:loadbalancer", home), None);
    }

    #[test]
    fn a_process_that_is_not_what_was_found_is_not_signalled() {
        let home = Path::new("/leftovers-test/two");
        let mut child = marked_process("/leftovers-test/two:script-setup:1");
        let found = scan(home).pop().unwrap();
        let stranger = Marked { name: "script-run-1".to_owned(), ..found.clone() };
        assert!(!signal(&stranger, home, libc::SIGKILL).unwrap());
        assert!(child.0.try_wait().unwrap().is_none());
        assert!(kill([&found].into_iter(), home).is_empty());
        assert!(!child.0.wait().unwrap().success());
    }
}
