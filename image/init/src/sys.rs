//! The system calls that need `unsafe`: fork and exec, pidfds, raw signal numbers, waiting.
//!
//! Invariants:
//! * Between fork and exec the child calls only async-signal-safe functions and allocates nothing: all
//!   strings are made before the fork. (The parent is single-threaded, its tests are not.)
//! * A child reaches exec with no signal blocked, every disposition at its default, and no descriptor
//!   but its standard streams and those passed on purpose.
//! * init's own descriptors, the lock above all, are closed *by* exec and not before it. So whoever gets the
//!   lock after init was killed knows that every child is in its exec or past it, and can be found by its new
//!   environment (which reads as empty for the rest of the exec, well under a millisecond).
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use libc::{c_char, c_int, pid_t};

/// Room for a process id in an environment entry: ten digits and NUL.
const PID_ROOM_BYTES: usize = 11;
/// Highest signal number of Linux.
pub(crate) const SIGNAL_MAX: c_int = 64;

/// What a pipe that polls as writable takes without blocking (PIPE_BUF).
pub(crate) const TAKEN_BYTES_MAX: usize = 4096;

/// Whether [`TAKEN_BYTES_MAX`] can be written to `fd` now without blocking.
pub(crate) fn takes_a_write(fd: RawFd) -> bool {
    let mut polled = [libc::pollfd { fd, events: libc::POLLOUT, revents: 0 }];
    poll(&mut polled, Some(Duration::ZERO)).is_ok() && polled[0].revents & libc::POLLOUT != 0
}

/// One environment entry, `NAME=value`.
#[derive(Debug)]
pub(crate) struct EnvEntry {
    /// With a NUL at the end.
    bytes: Vec<u8>,
    /// Where the child writes its own process id.
    pid_at: Option<usize>,
}

impl EnvEntry {
    /// `None` when the text has a NUL, which no environment can hold.
    pub(crate) fn new(text: Vec<u8>) -> Option<Self> {
        let text = CString::new(text).ok()?;
        Some(Self { bytes: text.into_bytes_with_nul(), pid_at: None })
    }

    /// `text` followed by the process id of the child, which is known only after the fork.
    pub(crate) fn with_own_pid(text: Vec<u8>) -> Option<Self> {
        let mut entry = Self::new(text)?;
        let pid_at = entry.bytes.len() - 1;
        entry.bytes.resize(pid_at + PID_ROOM_BYTES, 0);
        entry.pid_at = Some(pid_at);
        Some(entry)
    }
}

/// All that a child needs, made ready before the fork.
#[derive(Debug)]
pub(crate) struct Exec<'fd> {
    pub(crate) program: CString,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<EnvEntry>,
    /// Working directory; that of the parent if none.
    pub(crate) cwd: Option<CString>,
    /// Standard input, output, error; inherited if none.
    pub(crate) stdio: Option<[BorrowedFd<'fd>; 3]>,
    /// Get the numbers from 3 on, in this order.
    pub(crate) passed_fds: Vec<BorrowedFd<'fd>>,
    /// Limit on open files, where init has raised its own.
    pub(crate) nofile: Option<(u64, u64)>,
    /// Make the child's group the foreground group of the terminal on standard input.
    pub(crate) take_terminal: bool,
}

/// Starts a child in a process group of its own. A child that cannot exec says why on its standard error and
/// exits with 127 (no such file) or 126, as under a shell.
pub(crate) fn spawn(mut exec: Exec<'_>) -> io::Result<pid_t> {
    let argv: Vec<*const c_char> = exec.argv.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]).collect();
    let env: Vec<*mut u8> = exec.env.iter_mut().map(|entry| entry.bytes.as_mut_ptr()).collect();
    let envp: Vec<*const c_char> =
        env.iter().map(|entry| entry.cast_const().cast()).chain([std::ptr::null()]).collect();
    let mut moved_fds: Vec<RawFd> = vec![-1; exec.passed_fds.len()];
    // SAFETY: the child runs `exec_in_child` alone, which keeps to async-signal-safe calls.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let own_pid = std::process::id();
            for (entry, bytes) in exec.env.iter().zip(&env) {
                if let Some(pid_at) = entry.pid_at {
                    // SAFETY: `with_own_pid` made room for PID_ROOM_BYTES at this offset; the memory is this child's copy.
                    write_decimal(
                        unsafe { std::slice::from_raw_parts_mut(bytes.add(pid_at), PID_ROOM_BYTES) },
                        own_pid,
                    );
                }
            }
            // SAFETY: all pointers are to NUL-terminated strings and null-terminated arrays alive in this frame.
            unsafe { exec_in_child(&exec, &argv, &envp, &mut moved_fds) }
        }
        child => {
            // The child does the same; whoever comes first, the group exists before the child is signalled.
            // SAFETY: no memory is involved. Fails harmlessly once the child has called exec.
            unsafe { libc::setpgid(child, child) };
            Ok(child)
        }
    }
}

/// # Safety
/// Only in a just forked child; the arrays end with null.
unsafe fn exec_in_child(exec: &Exec<'_>, argv: &[*const c_char], envp: &[*const c_char], moved: &mut [RawFd]) -> ! {
    // SAFETY: async-signal-safe system calls on numbers and on memory owned by the caller's frame.
    unsafe {
        libc::setpgid(0, 0);
        if exec.take_terminal && libc::isatty(0) == 1 {
            libc::tcsetpgrp(0, libc::getpid());
        }
        if let Some(stdio) = &exec.stdio {
            for (number, fd) in stdio.iter().enumerate() {
                if libc::dup2(fd.as_raw_fd(), number as c_int) < 0 {
                    fail_in_child(b"skyserve init: cannot connect the standard streams\n");
                }
            }
        }
        // First out of the way of the numbers they shall get, then to those numbers; dup2 clears CLOEXEC.
        let first_free = 3 + moved.len() as c_int;
        for (fd, moved) in exec.passed_fds.iter().zip(moved.iter_mut()) {
            *moved = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, first_free);
            if *moved < 0 {
                fail_in_child(b"skyserve init: cannot pass the kept sockets on\n");
            }
        }
        for (index, moved) in moved.iter().enumerate() {
            if libc::dup2(*moved, 3 + index as c_int) < 0 {
                fail_in_child(b"skyserve init: cannot pass the kept sockets on\n");
            }
        }
        close_from_on_exec(first_free);
        if let Some((soft, hard)) = exec.nofile {
            libc::setrlimit(libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: soft, rlim_max: hard });
        }
        if let Some(cwd) = &exec.cwd
            && libc::chdir(cwd.as_ptr()) < 0
        {
            fail_in_child(b"skyserve init: cannot enter the working directory of the child\n");
        }
        for signal in 1..=SIGNAL_MAX {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        libc::execve(exec.program.as_ptr(), argv.as_ptr(), envp.as_ptr());
        let missing = *libc::__errno_location() == libc::ENOENT;
        let program = exec.program.as_bytes();
        for part in
            [b"skyserve init: cannot run ".as_slice(), program, if missing { b": no such file\n" } else { b"\n" }]
        {
            libc::write(2, part.as_ptr().cast(), part.len());
        }
        libc::_exit(if missing { 127 } else { 126 })
    }
}

/// # Safety
/// Only in a just forked child.
unsafe fn fail_in_child(message: &[u8]) -> ! {
    // SAFETY: async-signal-safe, and the message is valid for its length.
    unsafe {
        libc::write(2, message.as_ptr().cast(), message.len());
        libc::_exit(126)
    }
}

/// Marks every descriptor from `first` on to be closed by exec. Kernels before 5.11 cannot: there, our own
/// descriptors are closed all the same, as each is opened with CLOEXEC.
fn close_from_on_exec(first: c_int) {
    // SAFETY: changes flags of descriptors only; async-signal-safe.
    unsafe { libc::syscall(libc::SYS_close_range, first, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

fn write_decimal(room: &mut [u8], number: u32) {
    let mut digits = [0_u8; PID_ROOM_BYTES];
    let mut length = 0;
    let mut rest = number;
    loop {
        digits[length] = b'0' + (rest % 10) as u8;
        length += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    for (to, digit) in room.iter_mut().zip(digits[..length].iter().rev()) {
        *to = *digit;
    }
}

/// Lets a command start as leader of a session of its own, with no descriptor but its standard streams.
pub(crate) fn detach(command: &mut Command) {
    // SAFETY: the closure makes two async-signal-safe system calls.
    unsafe {
        command.pre_exec(|| {
            if libc::setsid() < 0 {
                return Err(io::Error::last_os_error());
            }
            close_from_on_exec(3);
            Ok(())
        });
    }
}

/// Takes ownership of descriptors that a received message installed in this process.
pub(crate) fn own(fds: &[RawFd]) -> Vec<OwnedFd> {
    // SAFETY: the kernel has just made these for us and nobody else knows their numbers.
    fds.iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }).collect()
}

/// A handle on a process that stays with that very process when its id is reused.
pub(crate) fn pidfd_open(pid: pid_t) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved; the result is a new descriptor of ours (the kernel sets CLOEXEC).
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Signals the process behind a pidfd.
pub(crate) fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed and means "as kill does".
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Signals a child that has not been waited for, so that its id is certainly still its own.
pub(crate) fn signal_child(pid: pid_t, signal: c_int) {
    debug_assert!(pid > 1);
    // SAFETY: no memory is involved. The only failure is that the child is gone.
    unsafe { libc::kill(pid, signal) };
}

/// Signals the process group led by a child that has not been waited for.
pub(crate) fn signal_group(leader: pid_t, signal: c_int) {
    debug_assert!(leader > 1);
    // SAFETY: as above.
    unsafe { libc::kill(-leader, signal) };
}

/// A set of all signals for which `include` holds.
pub(crate) fn signal_set(include: impl Fn(c_int) -> bool) -> nix::sys::signal::SigSet {
    // SAFETY: sigemptyset initialises the set before it is used; the set is then a valid one.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in (1..=SIGNAL_MAX).filter(|signal| include(*signal)) {
            libc::sigaddset(&mut set, signal);
        }
        nix::sys::signal::SigSet::from_sigset_t_unchecked(set)
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// As a shell has it: 128 and more for a signal.
    pub fn shell_code(self) -> u8 {
        let code = match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        };
        (code & 0xff) as u8
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "ended with exit code {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(formatter, "was killed by {name}"),
                Err(_) => write!(formatter, "was killed by signal {signal}"),
            },
        }
    }
}

/// A child that has ended, and how. It has not been waited for: its id and its group's are still its own.
pub(crate) fn peek_ended_child() -> Option<(pid_t, Exit)> {
    // SAFETY: an all-zero siginfo is valid, and waitid fills it; pid and status are valid for its result.
    let (pid, status, code) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let result = libc::waitid(libc::P_ALL, 0, &mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT);
        if result != 0 {
            return None;
        }
        (info.si_pid(), info.si_status(), info.si_code)
    };
    (pid > 0).then_some((pid, if code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) }))
}

/// Waits for a child that [`peek_ended_child`] has shown; from here on its id may be reused.
pub(crate) fn collect(pid: pid_t) {
    // SAFETY: a null status is allowed. It cannot fail: the child has ended and nobody else waits for it.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
}

/// Waits until one of the descriptors has something to say, or the time is over. An interrupted wait is a short one.
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<()> {
    // Rounded up, so that a timer has certainly run out when the wait ends; never so long as to overflow.
    let timeout_ms = match timeout {
        Some(wait) => c_int::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX),
        None => -1,
    };
    // SAFETY: pointer and length are those of one slice.
    let result = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
    if result >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}
