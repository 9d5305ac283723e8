//! The command line: `up`, `status`, `logs`, `down`, `check`, called as `skyserve …` or, through a link
//! named `sky`, as `sky serve …`.
//!
//! [`parse`] says what a command line means; the binary carries out roles itself and hands commands for
//! a person to [`run`]. Everything about services is asked of the controller, over its Unix socket or by port-forward
//! to its pod; this crate never opens the database and never touches a replica. On a cluster it makes and removes the
//! controller itself (`cluster`).
//!
//! Invariants:
//! * A YAML is judged, and every local file looked for, before anything is changed.
//! * Results go to stdout, everything else to stderr; a reader that goes away is no failure.
//! * Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
#![forbid(unsafe_code)]

mod args;
mod bundle;
mod client;
mod cluster;
mod command;
mod controller;
mod duration;
mod invocation;
mod judge;
mod output;
mod placement;
mod progress;
mod prompt;
mod runtime;
mod source;
mod table;
#[cfg(test)]
mod testing;
mod watch;

pub use invocation::{InitArgs, Invocation, UserCommand, parse};

use command::{CommandError, Context};
use invocation::Action;
use output::{Colour, Screen, Style};
use placement::Placement;
use skyserve_home::Home;
use std::io::IsTerminal;
use std::process::ExitCode;

/// Carries out a command for a person, and prints what there is to say.
pub fn run(command: UserCommand) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let is_terminal = stdout.is_terminal();
    let mut screen = Screen { out: &mut stdout, style: Style::of(is_terminal), is_terminal };
    match attempt(command, &mut screen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(CommandError::Output(error)) if output::is_reader_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(text) = error.message() {
                output::message(&format!("{} {text}", Style::of_messages().paint(Colour::Red, "error:")));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn attempt(command: UserCommand, screen: &mut Screen<'_>) -> Result<(), CommandError> {
    // One thread is plenty for one request at a time.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let home = Home::from_env()?;
    let UserCommand { called_as, action } = command;
    let placement = match (&action, Placement::of(&home)) {
        (_, Ok(placement)) => placement,
        // These do nothing anywhere. But where a service would run counts in what is said of it.
        (Action::Check(_), Err(error)) => {
            output::warning(&format!("{error}; the YAML is judged for a service on this machine"));
            Placement::Local
        }
        (Action::Refuse(_), Err(_)) => Placement::Local,
        (_, Err(error)) => return Err(error.into()),
    };
    let outcome = runtime.block_on(command::carry_out(&Context { home, called_as, placement }, action, screen));
    // An interrupted command may have left a thread that waits.
    runtime.shutdown_background();
    outcome
}
