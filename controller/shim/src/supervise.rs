//! Watches over a replica's processes: one loop that copies their output, answers their `bind` and
//! `connect` calls, waits for their ends, and passes on the wish that they end.
//!
//! * The shim adopts whatever its descendants leave behind (it is their subreaper), so every process of
//!   the replica is below it until the shim dies.
//! * A process group is only signalled while its leader, our child, has not been waited for: until then
//!   its number belongs to nobody else.
//! * Without anything to do the loop sleeps: no timer runs while the replica just runs.

use crate::address::Place;
use crate::isolation::Isolation;
use crate::output::OutputLog;
use crate::pidfd::poll_timeout;
use crate::seccomp::Listener;
use crate::strays;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpgid, pipe2};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Output read at a time: what a pipe holds.
const OUTPUT_CHUNK_BYTES: usize = 64 << 10;
/// Output read before other events are looked at again, so that endless printing delays nothing.
const OUTPUT_CHUNKS_PER_TURN_MAX: usize = 16;
/// How long killed processes may take to go; the kernel is only slower in the middle of disk operations.
const KILL_WAIT_MS_MAX: u64 = 5_000;

/// Signals that the loop receives instead of being interrupted by them.
fn handled_signals() -> SigSet {
    [Signal::SIGTERM, Signal::SIGCHLD].into_iter().collect()
}

#[derive(Debug)]
pub(crate) struct Supervisor {
    uid: String,
    dir: PathBuf,
    signals: SignalFd,
    output_read: OwnedFd,
    output_write: OwnedFd,
    pub(crate) log: OutputLog,
    listeners: Vec<Listener>,
    isolation: Isolation,
    chunk: Vec<u8>,
    /// The bash that runs now, and how it ended.
    main: Option<Pid>,
    main_status: Option<WaitStatus>,
    childless: bool,
    terminate_asked: bool,
}

impl Supervisor {
    /// Takes charge of all processes that this one will start.
    pub(crate) fn new(uid: &str, dir: PathBuf, log: OutputLog) -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let signals = handled_signals();
        signals.thread_set_mask()?;
        let (output_read, output_write) = pipe2(OFlag::O_CLOEXEC)?;
        // Only our end must never wait: a program whose output does not block may lose some.
        nix::fcntl::fcntl(&output_read, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self {
            uid: uid.to_owned(),
            dir,
            signals: SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?,
            output_read,
            output_write,
            log,
            listeners: Vec::new(),
            isolation: Isolation::default(),
            chunk: vec![0; OUTPUT_CHUNK_BYTES],
            main: None,
            main_status: None,
            childless: false,
            terminate_asked: false,
        })
    }

    /// Where started commands write to.
    pub(crate) fn output(&self) -> BorrowedFd<'_> {
        self.output_write.as_fd()
    }

    /// Whether the shim was told to end the replica. Looks without waiting.
    pub(crate) fn is_terminate_asked(&mut self) -> bool {
        self.read_signals();
        self.terminate_asked
    }

    /// Watches over `main`, which was just started.
    pub(crate) fn adopt(&mut self, main: Pid, listener: Option<Listener>) {
        self.main = Some(main);
        self.main_status = None;
        self.childless = false;
        self.listeners.extend(listener);
    }

    /// Runs until the main process has ended (`Some`: how) or the shim is told to end it (`None`).
    pub(crate) fn wait_for_main(
        &mut self,
        place: &Place,
        ends_all: impl Fn(&WaitStatus) -> bool,
    ) -> Option<WaitStatus> {
        loop {
            self.turn(place, PollTimeout::NONE);
            if self.terminate_asked {
                return None;
            }
            self.reap(&ends_all);
            if let Some(status) = self.main_status.take() {
                return Some(status);
            }
        }
    }

    /// Asks every process of the replica to end, kills those that have not after `grace`, and returns
    /// once none is left: an empty list, or those that even killing did not end.
    pub(crate) fn end_everything(&mut self, place: &Place, grace: Duration) -> Vec<Pid> {
        self.ask_to_end();
        let deadline = Instant::now() + grace;
        self.reap(&|_| false);
        while !self.childless && Instant::now() < deadline {
            self.turn(place, poll_timeout(deadline.saturating_duration_since(Instant::now())));
            self.reap(&|_| false);
        }
        let deadline = Instant::now() + Duration::from_millis(KILL_WAIT_MS_MAX);
        while !self.childless && Instant::now() < deadline {
            // What they leave behind becomes our child, and is killed in the next round.
            for child in children() {
                let _ = kill(child, Signal::SIGKILL);
            }
            self.turn(place, poll_timeout(deadline.saturating_duration_since(Instant::now())));
            self.reap(&|_| false);
        }
        let left = strays::end_all(&self.uid, &self.dir, deadline).unwrap_or_default();
        self.copy_output();
        left
    }

    /// The main process's group, and every process of the replica outside of it.
    fn ask_to_end(&mut self) {
        if let Some(main) = self.main {
            let _ = killpg(main, Signal::SIGTERM);
            // A stopped process would not notice before it is killed.
            let _ = killpg(main, Signal::SIGCONT);
        }
        for stray in strays::find(&self.uid, &self.dir).unwrap_or_default() {
            if self.main.is_none() || getpgid(Some(stray.pid)).ok() != self.main {
                let _ = stray.pidfd.signal(Signal::SIGTERM);
                let _ = stray.pidfd.signal(Signal::SIGCONT);
            }
        }
    }

    /// Waits for something to happen, and deals with it.
    fn turn(&mut self, place: &Place, timeout: PollTimeout) {
        let mut descriptors = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.output_read.as_fd(), PollFlags::POLLIN),
        ];
        descriptors.extend(self.listeners.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        if poll(&mut descriptors, timeout).is_err() {
            return;
        }
        let events: Vec<PollFlags> =
            descriptors.iter().map(|descriptor| descriptor.revents().unwrap_or(PollFlags::empty())).collect();
        if events[0].contains(PollFlags::POLLIN) {
            self.read_signals();
        }
        if events[1].contains(PollFlags::POLLIN) {
            self.copy_output();
        }
        let mut gone = Vec::new();
        for (index, event) in events[2..].iter().enumerate() {
            if event.contains(PollFlags::POLLIN) {
                if let Err(error) = self.isolation.serve(&self.listeners[index], place) {
                    // Kept, it would be ready again at once, for ever.
                    self.log.note(&format!("calls to bind and connect cannot be answered any more: {error}"));
                    gone.push(index);
                }
            } else if event.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
                gone.push(index);
            }
        }
        for index in gone.into_iter().rev() {
            self.listeners.remove(index);
        }
    }

    fn read_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            self.terminate_asked |= signal.ssi_signo == Signal::SIGTERM as u32;
        }
    }

    fn copy_output(&mut self) {
        for _ in 0..OUTPUT_CHUNKS_PER_TURN_MAX {
            match nix::unistd::read(&self.output_read, &mut self.chunk) {
                Ok(count) if count > 0 => self.log.write(&self.chunk[..count]),
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Waits for every child that has ended. If the main process's end is that of all (`ends_all`), its
    /// group is told while its number is still its own.
    fn reap(&mut self, ends_all: &dyn Fn(&WaitStatus) -> bool) {
        loop {
            let peeked = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT);
            let status = match peeked {
                Ok(WaitStatus::StillAlive) => return,
                Err(Errno::EINTR) => continue,
                Err(_) => {
                    self.childless = true;
                    return;
                }
                Ok(status) => status,
            };
            let Some(pid) = status.pid() else { return };
            if self.main == Some(pid) {
                if ends_all(&status) {
                    let _ = killpg(pid, Signal::SIGTERM);
                }
                self.main = None;
                self.main_status = Some(status);
            }
            let _ = waitpid(pid, None);
        }
    }
}

/// Our children that have not been waited for, so their pids are theirs.
fn children() -> Vec<Pid> {
    let me = Pid::this();
    if let Ok(list) = fs::read_to_string(format!("/proc/{me}/task/{me}/children")) {
        return list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect();
    }
    // Kernels built without that list.
    let parent_of = |pid: &str| {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat).into_owned();
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<i32>().ok()
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| parent_of(name) == Some(me.as_raw()))
        .filter_map(|name| name.parse().ok())
        .map(Pid::from_raw)
        .collect()
}
