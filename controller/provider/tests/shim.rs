//! A shim for the tests to start.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    skyserve_shim::run_command_line(std::env::args_os().skip(1))
}
