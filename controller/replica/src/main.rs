//! `skyserve replica` as a program of its own.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    skyserve_replica::run_command_line(std::env::args_os().skip(1))
}
