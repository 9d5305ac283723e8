//! The `skyserve` binary: finds out which role it is, reads the configuration that the role needs, and
//! runs it. Nothing else is decided here.
#![forbid(unsafe_code)]

mod configuration;
mod role;

use skyserve_cli::Invocation;
use std::process::ExitCode;

fn main() -> ExitCode {
    match skyserve_cli::parse(std::env::args_os()) {
        Ok(Invocation::User(command)) => skyserve_cli::run(command),
        Ok(Invocation::Init(arguments)) => role::init(arguments),
        Ok(Invocation::Controller) => role::controller(),
        Ok(Invocation::LoadBalancer) => role::load_balancer(),
        Ok(Invocation::Follower) => role::follower(),
        // It forks: nothing above has opened a file or started a thread.
        Ok(Invocation::Shim { arguments }) => skyserve_shim::run_command_line(arguments.into_iter()),
        // As PID 1 it takes signals before anything else.
        Ok(Invocation::Replica { arguments }) => skyserve_replica::run_command_line(arguments.into_iter()),
        Ok(Invocation::Image) => {
            println!("{}", skyserve_manifests::names::DEFAULT_CONTROLLER_IMAGE);
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}
