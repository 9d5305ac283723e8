//! Looking at processes through /proc, and killing the ones that belong to a test's home.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;

/// One process of a test's home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub command: Vec<String>,
}

impl Process {
    /// Whether it is the role `name` of the product (`init`, `controller`, `loadbalancer`, `shim`).
    pub fn is_role(&self, name: &str) -> bool {
        self.command.first().is_some_and(|program| program.ends_with("/skyserve"))
            && self.command.get(1).is_some_and(|role| role == name)
    }

    pub fn kill(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid), signal);
    }
}

/// Every live process whose HOME is `home`.
pub fn of_home(home: &Path) -> Vec<Process> {
    let wanted = format!("HOME={}", home.display());
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != std::process::id() as i32)
        .filter_map(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let ours = environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes());
            if !ours || state(pid)? == 'Z' {
                return None;
            }
            let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let words = command.split(|byte| *byte == 0).filter(|word| !word.is_empty());
            Some(Process { pid, command: words.map(|word| String::from_utf8_lossy(word).into_owned()).collect() })
        })
        .collect()
}

/// The state letter of a process; `None` if it is gone.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}
