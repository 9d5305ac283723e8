//! Which signal means what to init. All of them are blocked and read from one descriptor, so that none ever
//! interrupts init between starting a child and knowing it: a SIGTERM that comes then is read afterwards.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::sys;

/// What to do about a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A child has ended.
    Child,
    /// Someone wants init to stop.
    Stop,
    /// The children may want to know.
    Forward,
    /// For init's own terminal handling only.
    Terminal,
}

pub(crate) fn meaning(signal: i32) -> Meaning {
    match signal {
        libc::SIGCHLD => Meaning::Child,
        libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => Meaning::Stop,
        libc::SIGTTIN | libc::SIGTTOU => Meaning::Terminal,
        _ => Meaning::Forward,
    }
}

/// Signals that are left alone: those that the processor raises for a fault of ours, and SIGPIPE, which the runtime
/// ignores and which would only echo our own failed writes.
fn is_taken(signal: i32) -> bool {
    !matches!(
        signal,
        libc::SIGSEGV
            | libc::SIGBUS
            | libc::SIGFPE
            | libc::SIGILL
            | libc::SIGTRAP
            | libc::SIGABRT
            | libc::SIGSYS
            | libc::SIGPIPE
    )
}

/// All signals of this process, to be read.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// From here on no signal that [`meaning`] knows interrupts this thread.
    pub(crate) fn take() -> nix::Result<Self> {
        let taken = sys::signal_set(is_taken);
        taken.thread_set_mask()?;
        Ok(Self(SignalFd::with_flags(&taken, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// The next signal, if one has come.
    pub(crate) fn next(&self) -> Option<i32> {
        let info = self.0.read_signal().ok().flatten()?;
        i32::try_from(info.ssi_signo).ok()
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
