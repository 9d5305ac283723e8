//! Starts processes by fork(2): the user's bash, the probe for port isolation, and the shim itself.
//!
//! The shim has one thread, so a forked child may do anything between fork and exec. Every child that
//! runs the user's commands dies with the shim (PDEATHSIG), leads a session of its own, and reports
//! over a pipe either the listener of its filter or why it could not be started.

#![allow(unsafe_code)]

use crate::pidfd::PidFd;
use crate::seccomp::{Listener, install_filter};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{ForkResult, Pid, fork, getppid, pipe2, setsid};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// How a child's report begins.
const REPORT_LISTENER: u8 = b'L';
const REPORT_ERROR: u8 = b'E';

/// Commands to start.
pub(crate) struct Commands<'a> {
    pub(crate) bash: &'a CStr,
    pub(crate) script: &'a CStr,
    pub(crate) variables: &'a [CString],
    pub(crate) work_dir: &'a Path,
    /// Where standard output and standard error go.
    pub(crate) output: BorrowedFd<'a>,
    /// Whether `bind` and `connect` are reported to us.
    pub(crate) isolated: bool,
}

/// A started bash. It is our child: its pid is not reused before it is waited for.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: Pid,
    pub(crate) listener: Option<Listener>,
}

/// Starts the commands; `prepare` is called with the pid before anything of the user's runs, and if it
/// fails nothing does.
pub(crate) fn start(commands: &Commands<'_>, prepare: impl FnOnce(Pid) -> io::Result<()>) -> io::Result<Started> {
    let (report_read, report_write) = pipe2(OFlag::O_CLOEXEC)?;
    let (go_read, go_write) = pipe2(OFlag::O_CLOEXEC)?;
    let shim = Pid::this();
    // SAFETY: this process has one thread, so the child's copy of its memory is consistent.
    let child = match unsafe { fork()? } {
        ForkResult::Child => {
            drop(go_write);
            let error = become_commands(commands, shim, &report_write, go_read);
            let _ = File::from(report_write).write_all(&[&[REPORT_ERROR], error.to_string().as_bytes()].concat());
            exit_now(1);
        }
        ForkResult::Parent { child } => child,
    };
    drop((report_write, go_read));
    let mut report = File::from(report_read);
    let started = (|| {
        let listener = if commands.isolated { Some(take_listener(child, &mut report)?) } else { None };
        prepare(child)?;
        File::from(go_write).write_all(b"!")?;
        match read_report(&mut report)? {
            None => Ok(Started { pid: child, listener }),
            Some(report) => Err(io::Error::other(error_text(&report))),
        }
    })();
    if started.is_err() {
        // Not waited for here: the caller reaps every child in one place, and this one ends by itself
        // or, if it was kept from it, with the shim.
        let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
    }
    started
}

/// In the child. Returns only if it could not become the commands.
fn become_commands(commands: &Commands<'_>, shim: Pid, report: &OwnedFd, go: OwnedFd) -> io::Error {
    let prepared = (|| {
        setsid()?;
        reset_signals()?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        let null = File::open("/dev/null")?;
        nix::unistd::dup2_stdin(&null)?;
        nix::unistd::dup2_stdout(commands.output)?;
        nix::unistd::dup2_stderr(commands.output)?;
        nix::unistd::chdir(commands.work_dir)?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != shim {
            return Err(io::Error::other("its shim was killed"));
        }
        let listener = if commands.isolated { Some(install_filter()?) } else { None };
        if let Some(listener) = &listener {
            let number = listener.as_raw_fd().to_ne_bytes();
            nix::unistd::write(report, &[&[REPORT_LISTENER], &number[..]].concat())?;
        }
        File::from(go).read_exact(&mut [0])
    })();
    if let Err(error) = prepared {
        return error;
    }
    let arguments = [commands.bash, commands.script];
    match nix::unistd::execve(commands.bash, &arguments, commands.variables) {
        Err(Errno::E2BIG) => io::Error::other("its environment variables are too long for the kernel"),
        Err(error) => error.into(),
    }
}

/// Signals as a program expects them: none blocked, none ignored.
fn reset_signals() -> io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default action runs no code of ours.
        unsafe { sigaction(signal, &default)? };
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// The child's listener, which it names by its own descriptor number.
fn take_listener(child: Pid, report: &mut File) -> io::Result<Listener> {
    match read_report(report)? {
        Some(message) if message[0] == REPORT_LISTENER && message.len() == 5 => {
            let number = i32::from_ne_bytes([message[1], message[2], message[3], message[4]]);
            Ok(Listener::new(PidFd::open(child)?.copy_descriptor(number)?))
        }
        Some(message) => Err(io::Error::other(error_text(&message))),
        None => Err(io::Error::other("it was killed while it was being started")),
    }
}

/// One message; `None` at the end, which a successful exec brings about. A message is far shorter than
/// what a pipe passes on in one piece.
fn read_report(report: &mut File) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0; 512];
    let count = report.read(&mut buffer)?;
    Ok((count > 0).then(|| buffer[..count].to_vec()))
}

fn error_text(report: &[u8]) -> String {
    String::from_utf8_lossy(report.get(1..).unwrap_or_default()).into_owned()
}

/// Runs `attempt` in a filtered child, serves its calls with `serve`, and returns whether the
/// child succeeded. Shows what this machine allows before anything depends on it.
pub(crate) fn probe_isolation(
    attempt: impl FnOnce() -> bool,
    mut serve: impl FnMut(&Listener) -> io::Result<()>,
) -> io::Result<bool> {
    let (report_read, report_write) = pipe2(OFlag::O_CLOEXEC)?;
    let (go_read, go_write) = pipe2(OFlag::O_CLOEXEC)?;
    let shim = Pid::this();
    // SAFETY: this process has one thread, so the child's copy of its memory is consistent.
    let child = match unsafe { fork()? } {
        ForkResult::Child => {
            drop(go_write);
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            if getppid() != shim {
                exit_now(1);
            }
            // Kept open for the parent to copy.
            let filter = install_filter();
            let message = match &filter {
                Ok(listener) => [&[REPORT_LISTENER], &listener.as_raw_fd().to_ne_bytes()[..]].concat(),
                Err(error) => [&[REPORT_ERROR], error.to_string().as_bytes()].concat(),
            };
            let _ = nix::unistd::write(&report_write, &message);
            let told = File::from(go_read).read_exact(&mut [0]);
            exit_now(if told.is_ok() && attempt() { 0 } else { 1 });
        }
        ForkResult::Parent { child } => child,
    };
    drop((report_write, go_read));
    let result = (|| {
        let listener = take_listener(child, &mut File::from(report_read))?;
        File::from(go_write).write_all(b"!")?;
        let pidfd = PidFd::open(child)?;
        serve_until_exit(&listener, &pidfd, &mut serve)
    })();
    let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
    let status = nix::sys::wait::waitpid(child, None)?;
    result.map(|()| status == nix::sys::wait::WaitStatus::Exited(child, 0))
}

/// How long the probe may take: it makes one system call.
const PROBE_MS_MAX: u16 = 2_000;

fn serve_until_exit(
    listener: &Listener,
    process: &PidFd,
    serve: &mut impl FnMut(&Listener) -> io::Result<()>,
) -> io::Result<()> {
    use nix::poll::{PollFd, PollFlags, poll};
    loop {
        let mut descriptors =
            [PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        if poll(&mut descriptors, PROBE_MS_MAX)? == 0 {
            return Err(io::Error::other("a reported call was not answered in time"));
        }
        let ready =
            |index: usize| descriptors[index].revents().is_some_and(|events| events.contains(PollFlags::POLLIN));
        if ready(1) {
            return Ok(());
        }
        if ready(0) {
            serve(listener)?;
        }
    }
}

/// In which of two processes [`detach`] returned.
pub(crate) enum Side {
    /// The caller's child: wait until the other one reports, then end with this code.
    Starter { code: u8 },
    /// The one that lives on. Writing its exit code into the pipe lets the starter end.
    Shim { report: OwnedFd },
}

/// Splits off a process that belongs to nobody: a session of its own, no parent that waits for it, no
/// terminal. The caller's child remains until the other one has reported, so whoever started it knows
/// how far things are, and has a child that ends at once.
pub(crate) fn detach() -> io::Result<Side> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: this process has one thread, so the child's copy of its memory is consistent.
    match unsafe { fork()? } {
        ForkResult::Child => {
            drop(read);
            setsid()?;
            Ok(Side::Shim { report: write })
        }
        ForkResult::Parent { .. } => {
            drop(write);
            let mut code = [1];
            // Nothing to read means that it was killed; that is a failure to start.
            let _ = File::from(read).read_exact(&mut code);
            Ok(Side::Starter { code: code[0] })
        }
    }
}

/// Closes everything but standard input, output and error: a shim outlives whoever launched it, and must
/// not keep that one's listeners or locks alive.
pub(crate) fn close_inherited() {
    // SAFETY: called first of all, before this process has opened a descriptor that it relies on. Where
    // the call is missing (before Linux 5.9), launchers that close on exec leave nothing to close.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
    }
}

/// Ends a forked child without running what the parent has registered for its own end.
fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing after it runs.
    unsafe { libc::_exit(code) }
}
