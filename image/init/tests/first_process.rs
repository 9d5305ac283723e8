//! Init as PID 1 of a process namespace: exit codes, signals, orphans. Each check has a control that shows it can fail.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod support;

use std::fs;
use std::process::Stdio;

use support::{HARNESS, TestHome, command_of, leave_orphans, unshare, wait_until};

/// 1,000 orphans, whose zombies have a second to go.
fn thousand_orphans() -> String {
    leave_orphans(1_000, 20)
}

/// Runs a shell script as the one command of init, which is PID 1.
fn under_init(unshare: &[&str], mode: &str, script: &str, argument: &str) -> Option<i32> {
    support::under_init(unshare, mode, "sh", script, argument).status().unwrap().code()
}

#[test]
fn each_of_256_exit_codes_is_passed_on() {
    let Some(unshare) = unshare() else { return };
    for code in 0..256 {
        assert_eq!(under_init(&unshare, "command", &format!("exit {code}"), ""), Some(code));
    }
}

#[test]
fn the_exit_code_check_notices_a_first_process_that_swallows_them() {
    let Some(unshare) = unshare() else { return };
    let words = [unshare.as_slice(), &["sh", "-c", "sh -c 'exit 7'; :"]].concat();
    assert_ne!(command_of(&words).stdin(Stdio::null()).status().unwrap().code(), Some(7));
}

#[test]
fn a_command_that_a_signal_ends_gives_128_and_its_number_and_a_missing_one_gives_127() {
    let Some(unshare) = unshare() else { return };
    for (script, code) in [("kill -9 $$", 137), ("kill -15 $$", 143), ("kill -40 $$", 168)] {
        assert_eq!(under_init(&unshare, "command", script, ""), Some(code));
    }
    for (program, code) in [("/nonexistent", 127), ("no-such-program-anywhere", 127), ("/etc", 126)] {
        let words = [unshare.as_slice(), &[HARNESS, "command", program]].concat();
        assert_eq!(command_of(&words).stderr(Stdio::null()).status().unwrap().code(), Some(code), "{program}");
    }
}

#[test]
fn a_thousand_orphans_leave_no_zombie() {
    let Some(unshare) = unshare() else { return };
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    assert_eq!(under_init(&unshare, "command", &thousand_orphans(), support::path_text(&count)), Some(0));
    assert_eq!(fs::read_to_string(count).unwrap().trim(), "0");
}

#[test]
fn the_zombie_check_notices_a_first_process_that_does_not_reap() {
    let Some(unshare) = unshare() else { return };
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    // PID 1 becomes a sleep, which waits for nobody; it is killed with the namespace once the count is written.
    let script = format!("sh -c '{}' sh \"$1\" & exec sleep 60", thousand_orphans().replace('\'', "'\\''"));
    let words = [unshare.as_slice(), &["sh", "-c", &script, "sh", support::path_text(&count)]].concat();
    let mut child = command_of(&words).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut zombies = 0;
    wait_until("zombies are counted", || {
        zombies = fs::read_to_string(&count).unwrap_or_default().trim().parse().unwrap_or(0);
        zombies > 0
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(zombies >= 1000, "{zombies}");
}

/// The command and its child, in one group, both note that they got a signal which the child sends to init. When the
/// child is not meant to get it, it waits for it in vain for a moment.
fn who_got(unshare: &[&str], mode: &str, signal: &str, tries: u32) -> (bool, bool) {
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        r#"
        cd "$1"; trap 'touch command' {signal}
        sh -c 'trap "touch child" {signal}; kill -{signal} 1
               tries=0; while [ ! -e child ] && [ $tries -lt {tries} ]; do sleep 0.01; tries=$((tries+1)); done'
        while [ ! -e command ]; do sleep 0.01; done; exit 0"#
    );
    assert_eq!(under_init(unshare, mode, &script, support::path_text(folder.path())), Some(0), "{signal}");
    (folder.path().join("command").exists(), folder.path().join("child").exists())
}

#[test]
fn every_signal_reaches_the_command_alone_or_its_whole_group_as_asked() {
    let Some(unshare) = unshare() else { return };
    for signal in ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT", "WINCH", "ALRM", "PWR", "RTMIN"] {
        assert_eq!(who_got(&unshare, "command", signal, 5), (true, false), "{signal}");
        assert_eq!(who_got(&unshare, "command-group", signal, 1000), (true, true), "{signal}");
    }
}

#[test]
fn as_first_process_init_runs_the_scripts_reaps_their_orphans_and_stops_in_order() {
    let Some(unshare) = unshare() else { return };
    let test = TestHome::new();
    let count = test.home.path().join("count");
    // The last thing this script does is to stop init; SIGTERM then ends the script.
    let orphans =
        format!("set -- '{}'\n{}\nkill -TERM 1; sleep 60", count.display(), thousand_orphans().replace("exit 0", ""));
    let run = format!("1={}", test.script("orphans", &orphans));
    let words = [
        unshare.as_slice(),
        &[HARNESS, "init", "--role", "loadbalancer=listener", "--role", "controller=ready", "--run", &run],
    ]
    .concat();
    let mut command = command_of(&words);
    let status = test.with_environment(&mut command).stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(fs::read_to_string(count).unwrap().trim(), "0");
    let status = test.status().unwrap();
    assert_eq!((status.pid, status.state.as_str()), (1, "stopped"));
    assert!(!test.home.init_lock().exists());
}
