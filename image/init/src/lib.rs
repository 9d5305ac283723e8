//! `skyserve init`: PID 1 of the controller container, and the background runtime on any other machine.
//!
//! It starts the load balancer, then the controller, then the setup script, then all run scripts; keeps the roles
//! running and their listeners open; reaps orphans, forwards signals, and stops everything in order. It has one thread
//! and no tokio, parses nothing from the network, and depends on nothing of ours but the home's paths and its scripts.
//!
//! * [`run`] is that role; [`run_command`] is the same reaping and forwarding around one command (`init -- COMMAND`), and
//!   [`Guardian`] around several.
//! * [`spawn_background`], [`running`], [`stop`] and [`request_run`] are for the command line.
//! * [`read_status`] tells what init supervises.
#![deny(unsafe_code)]

mod background;
mod backoff;
mod command;
mod fd_store;
mod journal;
mod launch;
mod leftovers;
mod lock;
mod log_file;
mod notify;
mod options;
mod output;
mod signals;
mod status;
mod supervisor;
mod sys;

use std::process::ExitCode;

pub use background::{BackgroundError, Requested, Spawned, Stopped, request_run, spawn_background, stop};
pub use command::{ForwardTo, Guardian, run_command};
pub use lock::{RunningInit, running};
pub use options::{CONTROLLER, FOLLOWER, LOAD_BALANCER, Options, RestartBounds, Role, Timing};
pub use status::{InitStatus, ReplayStatus, RoleStatus, ScriptStatus, read_status};
pub use sys::Exit;

/// Runs a home until told to stop by SIGTERM, SIGINT or SIGQUIT. The exit code is 0 after a stop in order, and 1 when it
/// could not start; standard error then says why.
pub fn run(options: Options) -> ExitCode {
    match supervisor::Supervisor::new(options).and_then(supervisor::Supervisor::run) {
        Ok(code) => code,
        Err(error) => {
            journal::say(format_args!("{error}"));
            ExitCode::FAILURE
        }
    }
}
