//! How a replica ended, for the controller and for a person.

use crate::places::Places;
use crate::say;
use skyserve_init::Exit;
use skyserve_model::launch::{Ended, Stage};
use std::fs;
use std::time::Duration;

/// Exit code where no command of the user's has one.
pub(crate) const FAILED_CODE: u8 = 1;
/// Longest reason: the kubelet takes 4096 bytes of a termination message, and JSON's escapes take some.
const REASON_CHARS_MAX: usize = 1024;
/// As a shell has it: 128 and SIGKILL, be it the shell that was killed or what it waited for.
const KILLED_CODE: u8 = 137;
/// What the kernel counts about the memory of this container.
const MEMORY_EVENTS: &str = "/sys/fs/cgroup/memory.events";

/// Says it where the kubelet takes it from, and in the container's log.
pub(crate) fn tell(places: &Places, ended: &Ended) {
    say(&format!("{}.", ended.reason));
    let short = Ended { stage: ended.stage, reason: ended.reason.chars().take(REASON_CHARS_MAX).collect() };
    let written = serde_json::to_vec(&short)
        .map_err(std::io::Error::from)
        .and_then(|json| fs::write(&places.termination_log, [&json, b"\n".as_slice()].concat()));
    if let Err(error) = written {
        say(&format!("cannot write {}: {error}", places.termination_log.display()));
    }
}

pub(crate) fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Provision => "provisioning",
        Stage::Setup => "setup",
        Stage::Run => "run",
    }
}

/// How the commands of a stage ended.
pub(crate) fn of_commands(stage: Stage, exit: Exit, took: Duration) -> Ended {
    let (name, took) = (name(stage), took.as_secs());
    let mut reason = match exit {
        Exit::Code(code) => format!("{name} exited with code {code} after {took} s"),
        Exit::Signal(_) => format!("{name} {exit} after {took} s"),
    };
    if exit.shell_code() == KILLED_CODE
        && fs::read_to_string(MEMORY_EVENTS).is_ok_and(|events| was_out_of_memory(&events))
    {
        reason.push_str("; the container went over its memory limit: raise `memory` in the task's resources");
    }
    Ended { stage, reason }
}

/// Whether the kernel has killed a process of the container for its memory.
fn was_out_of_memory(events: &str) -> bool {
    events.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_sentences() {
        let after = Duration::from_millis(12_700);
        assert_eq!(of_commands(Stage::Run, Exit::Code(3), after).reason, "run exited with code 3 after 12 s");
        assert_eq!(of_commands(Stage::Setup, Exit::Signal(15), after).reason, "setup was killed by SIGTERM after 12 s");
    }

    #[test]
    fn memory_kills_are_told_from_others() {
        assert!(was_out_of_memory("low 0\noom 3\noom_kill 1\noom_group_kill 0\n"));
        assert!(!was_out_of_memory("oom_kill 0\noom_group_kill 0\n"));
    }
}
