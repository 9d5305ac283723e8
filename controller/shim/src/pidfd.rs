//! Processes as descriptors. A pidfd names one process for ever: unlike a pid it is never reused, so
//! a signal sent through it cannot reach a stranger.

#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// One process, whether it still runs or not.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// The process that has this pid now; it may be a stranger, so check who it is *after* this.
    pub fn open(pid: Pid) -> io::Result<Self> {
        Self::open_with(pid, 0)
    }

    /// The thread with this id, which need not lead its process. Kernels before 6.9 only know leaders.
    pub(crate) fn open_thread(tid: Pid) -> io::Result<Self> {
        Self::open_with(tid, libc::PIDFD_THREAD)
    }

    fn open_with(pid: Pid, flags: libc::c_uint) -> io::Result<Self> {
        // SAFETY: takes two integers; a result that is not an error is a descriptor nobody else owns.
        unsafe {
            let descriptor = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), flags))?;
            Ok(Self(OwnedFd::from_raw_fd(descriptor as RawFd)))
        }
    }

    /// Sends `signal`; a process that has ended already is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open, and a null siginfo means "as kill(2) would".
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal as libc::c_int, no_info, 0)
        };
        match Errno::result(result) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A copy of the process's descriptor number `number`. Needs the right to trace the process.
    pub(crate) fn copy_descriptor(&self, number: RawFd) -> io::Result<OwnedFd> {
        // SAFETY: takes integers; a result that is not an error is a new close-on-exec descriptor.
        unsafe {
            let copy = Errno::result(libc::syscall(libc::SYS_pidfd_getfd, self.0.as_raw_fd(), number, 0))?;
            Ok(OwnedFd::from_raw_fd(copy as RawFd))
        }
    }

    /// Waits until the process has ended; `false` if it has not by `deadline`.
    pub fn wait_until(&self, deadline: Instant) -> io::Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut descriptors = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut descriptors, poll_timeout(left)) {
                Ok(0) if Instant::now() >= deadline => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `left` for poll(2), rounded up so that a wait never turns into a busy loop at its end.
pub(crate) fn poll_timeout(left: Duration) -> PollTimeout {
    let milliseconds = left.as_millis().saturating_add(u128::from(!left.is_zero()));
    i32::try_from(milliseconds).ok().and_then(|value| PollTimeout::try_from(value).ok()).unwrap_or(PollTimeout::MAX)
}

/// A process that can be recognised later, also across reboots, however often its pid was reused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Which boot that was.
    pub boot_id: String,
}

impl ProcessIdentity {
    /// The process with this pid.
    pub fn of(pid: Pid) -> io::Result<Self> {
        Ok(Self { pid: pid.as_raw(), start_ticks: start_ticks(pid)?, boot_id: boot_id()? })
    }

    /// The very process, if it still runs; never another one with the same pid.
    pub fn open(&self) -> io::Result<Option<PidFd>> {
        let pid = Pid::from_raw(self.pid);
        if self.pid <= 0 || boot_id()? != self.boot_id {
            return Ok(None);
        }
        let pidfd = match PidFd::open(pid) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Read after the descriptor was opened: what has the pid now is what the descriptor names,
        // or the named process has ended and signals through it go nowhere.
        let is_it = start_ticks(pid).is_ok_and(|ticks| ticks == self.start_ticks);
        // One that has ended but was not waited for still has its pid.
        let runs = is_it && !pidfd.wait_until(Instant::now())?;
        Ok(runs.then_some(pidfd))
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Field 22 of `/proc/<pid>/stat`, counted behind the command name, which may contain anything.
fn start_ticks(pid: Pid) -> io::Result<u64> {
    const FIELDS_BETWEEN_NAME_AND_START: usize = 19;
    let stat = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat"))?).into_owned();
    stat.rsplit_once(')')
        .and_then(|(_, fields)| fields.split_whitespace().nth(FIELDS_BETWEEN_NAME_AND_START)?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("cannot read the start time of process {pid}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_recognised_and_another_with_its_pid_is_not() {
        let me = ProcessIdentity::of(Pid::this()).unwrap();
        assert!(me.open().unwrap().is_some());
        let recycled = ProcessIdentity { start_ticks: me.start_ticks - 1, ..me.clone() };
        assert!(recycled.open().unwrap().is_none());
        let earlier_boot = ProcessIdentity { boot_id: "another".into(), ..me };
        assert!(earlier_boot.open().unwrap().is_none());
    }

    #[test]
    fn a_process_that_has_ended_does_not_run_even_before_it_is_waited_for() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        let identity = ProcessIdentity::of(pid).unwrap();
        assert!(PidFd::open(pid).unwrap().wait_until(Instant::now() + Duration::from_secs(30)).unwrap());
        assert!(identity.open().unwrap().is_none());
        child.wait().unwrap();
    }

    #[test]
    fn waiting_for_a_process_that_runs_on_ends_at_the_deadline() {
        let me = PidFd::open(Pid::this()).unwrap();
        assert!(!me.wait_until(Instant::now() + Duration::from_millis(5)).unwrap());
    }
}
