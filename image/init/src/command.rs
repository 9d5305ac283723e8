//! `skyserve init -- COMMAND`: runs one command as a minimal PID 1 does. Waits for it, forwards signals to it, reaps
//! every orphan, and ends as it ends. [`Guardian`] is the same for a program that is more than that.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::prctl;

use crate::journal::say;
use crate::launch;
use crate::signals::{Meaning, Signals, meaning};
use crate::sys::{self, Exit};

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
    let started = Guardian::take().and_then(|guardian| Ok((guardian, launch::start_command(argv)?)));
    let exit = started.and_then(|(mut guardian, main)| guardian.wait_for(main, forward_to));
    match exit {
        Ok(exit) => ExitCode::from(exit.shell_code()),
        Err(error) => {
            say(format_args!("cannot run the command: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What a minimal PID 1 does, around one command after another. From its making on every signal of this thread is
/// its own.
#[derive(Debug)]
pub struct Guardian {
    signals: Signals,
    stop_asked: bool,
}

impl Guardian {
    /// Takes the signals of this process, and the orphans below it.
    pub fn take() -> io::Result<Self> {
        let signals = Signals::take()?;
        if std::process::id() != 1
            && let Err(error) = prctl::set_child_subreaper(true)
        {
            say(format_args!("cannot adopt orphans, they go to the system's init: {error}"));
        }
        Ok(Self { signals, stop_asked: false })
    }

    /// Runs `program arguments…` in a process group of its own, with this environment alone, in `dir`; its input is
    /// empty, its output this process's.
    pub fn run(&mut self, argv: &[OsString], environment: &BTreeMap<String, OsString>, dir: &Path) -> io::Result<Exit> {
        let main = launch::start_command_in(argv, environment, dir)?;
        self.wait_for(main, ForwardTo::Group)
    }

    /// Whether somebody has asked this process to stop.
    pub fn is_stop_asked(&mut self) -> bool {
        while let Some(signal) = self.signals.next() {
            self.stop_asked |= meaning(signal) == Meaning::Stop;
        }
        self.stop_asked
    }

    fn wait_for(&mut self, main: i32, forward_to: ForwardTo) -> io::Result<Exit> {
        loop {
            let mut polled = [libc::pollfd { fd: self.signals.raw_fd(), events: libc::POLLIN, revents: 0 }];
            sys::poll(&mut polled, None)?;
            while let Some(signal) = self.signals.next() {
                self.stop_asked |= meaning(signal) == Meaning::Stop;
                match (meaning(signal), forward_to) {
                    (Meaning::Stop | Meaning::Forward, ForwardTo::Child) => sys::signal_child(main, signal),
                    (Meaning::Stop | Meaning::Forward, ForwardTo::Group) => sys::signal_group(main, signal),
                    (Meaning::Child | Meaning::Terminal, _) => {}
                }
            }
            while let Some((pid, exit)) = sys::peek_ended_child() {
                sys::collect(pid);
                if pid == main {
                    return Ok(exit);
                }
            }
        }
    }
}
