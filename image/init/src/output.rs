//! Takes what a script prints and puts it in the script's log; in a container also what roles print, and all of it on
//! init's own standard output besides.
//!
//! The pipe is init's, so when init dies a script that goes on printing gets EPIPE; it is started anew by the next
//! init anyway. Giving scripts a file instead would leave its size to them.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::log_file::{LOG_BYTES_MAX, RotatingLog};
use crate::sys;

/// Size of the buffer all scripts' output goes through: what a pipe holds.
pub(crate) const BUFFER_BYTES: usize = 64 * 1024;
/// What one script may print in each [`WINDOW`]; beyond that it waits, so that a script printing without end leaves
/// init the time for its other duties. 10 MiB a second.
const WINDOW_BYTES_MAX: usize = 1024 * 1024;
const WINDOW: Duration = Duration::from_millis(100);

/// The output of one attempt of a script, and of what it left in the background.
#[derive(Debug)]
pub(crate) struct Output {
    pipe: OwnedFd,
    log: RotatingLog,
    is_shown: bool,
    window_start: Instant,
    window_bytes: usize,
}

impl Output {
    /// Reads from `pipe`, which must not block.
    pub(crate) fn new(pipe: OwnedFd, log_path: std::path::PathBuf, is_shown: bool, now: Instant) -> Self {
        Self { pipe, log: RotatingLog::new(log_path, LOG_BYTES_MAX), is_shown, window_start: now, window_bytes: 0 }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.log.write(bytes);
        if self.is_shown {
            show(bytes);
        }
    }

    /// The pipe's descriptor, to be polled, unless the script has to wait: then, until when.
    pub(crate) fn readiness(&mut self, now: Instant) -> Result<RawFd, Instant> {
        if now >= self.window_start + WINDOW {
            self.window_start = now;
            self.window_bytes = 0;
        }
        if self.window_bytes < WINDOW_BYTES_MAX { Ok(self.pipe.as_raw_fd()) } else { Err(self.window_start + WINDOW) }
    }

    /// Moves at most one buffer's worth to the log. False once no writer is left.
    pub(crate) fn pump(&mut self, buffer: &mut [u8]) -> bool {
        match nix::unistd::read(self.pipe.as_fd(), buffer) {
            Ok(0) => false,
            Ok(bytes) => {
                self.window_bytes += bytes;
                self.write(&buffer[..bytes]);
                true
            }
            Err(Errno::EAGAIN | Errno::EINTR) => true,
            Err(_) => false,
        }
    }

    /// Takes what is in the pipe now, at most what it can hold at once: the last words of a script that has ended.
    pub(crate) fn drain(&mut self, buffer: &mut [u8]) {
        let mut taken = 0;
        while taken < BUFFER_BYTES {
            match nix::unistd::read(self.pipe.as_fd(), buffer) {
                Ok(bytes) if bytes > 0 => {
                    taken += bytes;
                    self.write(&buffer[..bytes]);
                }
                _ => return,
            }
        }
    }

    /// A line of init's own between the script's, about its attempts.
    pub(crate) fn note(&mut self, line: &str) {
        self.write(line.as_bytes());
    }
}

/// Writes to standard output what it takes without blocking. When its reader is slow the rest is only in the log.
fn show(bytes: &[u8]) {
    for piece in bytes.chunks(sys::TAKEN_BYTES_MAX) {
        if !sys::takes_a_write(libc::STDOUT_FILENO)
            || std::io::stdout().write_all(piece).and_then(|()| std::io::stdout().flush()).is_err()
        {
            return;
        }
    }
}

/// A pipe: the end to read never blocks, the end to write is for a child.
pub(crate) fn pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    set_nonblocking(read.as_fd())?;
    Ok((read, write))
}

/// A pipe of which neither end blocks: a role must never wait for init. What it prints while init hangs is lost.
pub(crate) fn pipe_for_role() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe()?;
    set_nonblocking(write.as_fd())?;
    Ok((read, write))
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> nix::Result<()> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).map(|_| ())
}
