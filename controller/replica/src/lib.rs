//! `skyserve replica`: what runs of ours in a replica's pod.
//!
//! * `prepare`, in the init container (the controller's image): puts this very binary where the user's container
//!   finds it, and fetches the uploaded files. See `prepare`.
//! * `run`, as PID 1 of the user's container (any image): puts the files in place, runs `setup`, then `run`; forwards
//!   signals, reaps orphans, and says how it ended. See `run`.
//! * `is-running`, as that container's startup probe: whether `setup` is over.
//!
//! Invariants:
//! * The user's image needs a shell and nothing else: no C library, no name service, no files of ours.
//! * The pod is the replica: once its commands have ended nothing is started again.
//! * However it ends, one line of JSON in the container's termination message says in which stage and why.
#![forbid(unsafe_code)]

mod ending;
mod fetch;
mod files;
mod identity;
mod places;
mod prepare;
mod run;
mod running;

use places::Places;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// The controller's files, as `http://IP:PORT`, where `--bundle-url` does not say.
const BUNDLE_URL_VARIABLE: &str = "SKYSERVE_BUNDLE_URL";
/// Wrong usage.
const USAGE_CODE: u8 = 2;

/// What one of them was told.
#[derive(Debug, Default)]
struct Told {
    action: Option<String>,
    places: Places,
    bundle_url: Option<String>,
}

/// `skyserve replica` with its arguments: `prepare [--bundle-url URL]`, `run`, or `is-running`; for tests also
/// `--root FOLDER` and `--termination-log FILE`.
pub fn run_command_line(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let told = match parse(arguments) {
        Ok(told) => told,
        Err(message) => {
            eprintln!("skyserve replica: {message}");
            return ExitCode::from(USAGE_CODE);
        }
    };
    match told.action.as_deref() {
        Some("prepare") => {
            let url = told.bundle_url.or_else(|| std::env::var(BUNDLE_URL_VARIABLE).ok());
            prepare::prepare(&told.places, url.as_deref())
        }
        Some("run") => run::run(&told.places),
        Some("is-running") if running::is_running(&told.places) => ExitCode::SUCCESS,
        Some("is-running") => ExitCode::FAILURE,
        _ => {
            eprintln!("skyserve replica: say `prepare`, `run` or `is-running`");
            ExitCode::from(USAGE_CODE)
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Told, String> {
    let mut told = Told::default();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{} needs a value", argument.display()));
        match argument.to_str() {
            Some("--root") => told.places.root = PathBuf::from(value()?),
            Some("--termination-log") => told.places.termination_log = PathBuf::from(value()?),
            Some("--bundle-url") => told.bundle_url = Some(value()?.to_string_lossy().into_owned()),
            Some(action) if told.action.is_none() && !action.starts_with('-') => told.action = Some(action.to_owned()),
            _ => return Err(format!("unknown argument {argument:?}")),
        }
    }
    Ok(told)
}

/// A line of ours among the output of the user's commands.
fn say(text: &str) {
    eprintln!("[skyserve] {text}");
}
