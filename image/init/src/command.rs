//! `skyserve init -- COMMAND`: runs one command as a minimal PID 1 does. Waits for it, forwards signals to it, reaps
//! every orphan, and ends as it ends.

use std::ffi::OsString;
use std::process::ExitCode;

use nix::sys::prctl;

use crate::journal::say;
use crate::signals::{Meaning, Signals, meaning};
use crate::{launch, sys};

/// Who gets the signals that init gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardTo {
    /// The command alone.
    Child,
    /// Its whole process group.
    Group,
}

/// Runs a command to its end. The exit code is the command's, 128 and its number if a signal ended it, 127 if there is
/// no such program, 126 if it cannot be run.
pub fn run_command(argv: &[OsString], forward_to: ForwardTo) -> ExitCode {
    let signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => {
            say(format_args!("cannot take signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    if std::process::id() != 1
        && let Err(error) = prctl::set_child_subreaper(true)
    {
        say(format_args!("cannot adopt orphans, they go to the system's init: {error}"));
    }
    let main = match launch::start_command(argv) {
        Ok(pid) => pid,
        Err(error) => {
            say(format_args!("cannot start the command: {error}"));
            return ExitCode::FAILURE;
        }
    };
    loop {
        let mut polled = [libc::pollfd { fd: signals.raw_fd(), events: libc::POLLIN, revents: 0 }];
        if let Err(error) = sys::poll(&mut polled, None) {
            say(format_args!("cannot wait for signals: {error}"));
            return ExitCode::FAILURE;
        }
        while let Some(signal) = signals.next() {
            match (meaning(signal), forward_to) {
                (Meaning::Stop | Meaning::Forward, ForwardTo::Child) => sys::signal_child(main, signal),
                (Meaning::Stop | Meaning::Forward, ForwardTo::Group) => sys::signal_group(main, signal),
                (Meaning::Child | Meaning::Terminal, _) => {}
            }
        }
        while let Some((pid, exit)) = sys::peek_ended_child() {
            sys::collect(pid);
            if pid == main {
                return ExitCode::from(exit.shell_code());
            }
        }
    }
}
