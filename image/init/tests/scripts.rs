//! Setup and run scripts: persisted, replayed in order, retried, whatever they do.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod support;

use std::fs;

use nix::sys::signal::Signal;
use skyserve_init::{Requested, request_run};
use skyserve_scripts::{RunId, Scripts};
use support::{TestHome, is_alive, size, wait_until};

const BOTH: [&str; 4] = ["--role", "loadbalancer=ready", "--role", "controller=ready"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [BOTH.as_slice(), more].concat()
}

fn id(number: u64) -> RunId {
    RunId::new(number).unwrap()
}

fn lines(test: &TestHome) -> Vec<String> {
    test.read("trace").lines().map(str::to_owned).collect()
}

#[test]
fn a_first_start_persists_the_scripts_runs_them_and_makes_the_marker_after_success() {
    let test = TestHome::new();
    // Setup sees its own persisted file, and no marker yet.
    let setup = test.script(
        "setup",
        "test -s ~/.sky/.controller_recovery_setup_commands.sh && test ! -e ~/k8s_container_ready && \
         echo setup $FROM_PROFILE >> ~/trace",
    );
    let run = test.script("run", "test -s ~/.sky/.controller_recovery_task_run/sky_job_7 && echo run $PWD >> ~/trace");
    let run = format!("7={run}");
    let init = test.start(&with(&["--setup", &setup, "--run", &run]));
    test.wait_script("run-7", "succeeded");
    wait_until("the marker is made", || test.home.ready_marker().exists());
    let scripts: Vec<String> = lines(&test).into_iter().filter(|line| !line.starts_with("role")).collect();
    assert_eq!(scripts, ["setup yes".to_owned(), format!("run {}", test.home.path().display())]);
    assert!(test.status().is_some_and(|status| !status.restart));
    init.stop();
}

#[test]
fn a_restart_replays_from_disk_load_balancer_first_then_controller_then_setup_then_all_run_scripts() {
    let test = TestHome::new();
    let scripts = Scripts::new(test.home.clone());
    scripts.persist_setup(b"sleep 0.2; echo setup >> ~/trace").unwrap();
    for number in [2, 10] {
        // Each waits for the other: they run at the same time.
        let text = format!(
            "touch ~/here-{number}; until [ -e ~/here-2 ] && [ -e ~/here-10 ]; do sleep 0.01; done; echo run >> ~/trace"
        );
        scripts.persist_run(id(number), text.as_bytes()).unwrap();
    }
    scripts.mark_ready().unwrap();
    let ignored = test.script("setup", "echo from the command line >> ~/trace");
    let init = test.start(&["--role", "loadbalancer=listener", "--role", "controller=ready", "--setup", &ignored]);
    test.wait_script("run-2", "succeeded");
    test.wait_script("run-10", "succeeded");
    let mut order = lines(&test);
    // The two roles start one right after the other; which writes its line first is up to the scheduler.
    order[..2].sort_unstable_by(|one, other| other.cmp(one));
    assert_eq!(order, ["role ready", "role listener", "setup", "run", "run"]);
    assert!(test.log().find("started loadbalancer").unwrap() < test.log().find("started controller").unwrap());
    let status = test.status().unwrap();
    assert!(status.restart && status.replay.scripts == 3 && status.replay.completed_after_ms.is_some());
    let account = fs::read_to_string(test.home.recovery_log()).unwrap();
    let expected = [
        "Starting HA recovery: a setup script and 2 run scripts",
        "=== Controller setup commands completed for recovery ===",
        "HA recovery completed",
        "Total recovery time: ",
    ];
    let places: Vec<usize> = expected.iter().map(|line| account.find(line).expect(line)).collect();
    assert!(places.is_sorted(), "{account}");
    assert_eq!(account.matches("=== Controller task run for service / job (file: ").count(), 2);
    init.stop();
}

#[test]
fn a_home_without_scripts_just_works() {
    let test = TestHome::new();
    let init = test.start(&BOTH);
    wait_until("the marker is made", || test.home.ready_marker().exists());
    init.stop();
    let init = test.start(&BOTH);
    wait_until("the replay is complete", || {
        test.status().is_some_and(|status| status.replay.completed_after_ms.is_some())
    });
    init.stop();
}

#[test]
fn a_failing_setup_is_reported_and_retried_and_stops_neither_role_while_run_scripts_wait() {
    let test = TestHome::new();
    let setup = test.script("setup", "echo attempt >> ~/trace; test -e ~/repaired");
    let run = format!("1={}", test.script("run", "echo run >> ~/trace"));
    let init = test.start(&with(&["--setup", &setup, "--run", &run]));
    wait_until("three attempts", || test.script_status("setup").is_some_and(|setup| setup.attempts >= 3));
    let [load_balancer, controller] = ["loadbalancer", "controller"].map(|role| test.role(role).unwrap());
    assert!(load_balancer.ready && controller.ready && controller.restarts == 0);
    assert_eq!(test.script_status("run-1").unwrap().state, "waiting");
    assert_eq!(test.script_status("setup").unwrap().last_end.as_deref(), Some("ended with exit code 1"));
    assert!(!test.home.ready_marker().exists());
    fs::write(test.home.path().join("repaired"), "").unwrap();
    test.wait_script("run-1", "succeeded");
    wait_until("the marker is made", || test.home.ready_marker().exists());
    assert_eq!(lines(&test).last().unwrap(), "run");
    init.stop();
}

#[test]
fn failing_and_damaged_run_scripts_hide_no_other() {
    let test = TestHome::new();
    let scripts = Scripts::new(test.home.clone());
    scripts.persist_run(id(1), b"kill -9 $$").unwrap();
    scripts.persist_run(id(2), b"true").unwrap();
    scripts.persist_run(id(3), b"sleep 60").unwrap();
    scripts.persist_run(id(5), b"#!/bin/cat\nprinted by cat\n").unwrap();
    fs::write(scripts.run_path(id(4)), b"").unwrap();
    let init = test.start(&BOTH);
    test.wait_script("run-2", "succeeded");
    test.wait_script("run-3", "running");
    test.wait_script("run-5", "succeeded");
    wait_until("the third is retried", || test.script_status("run-1").is_some_and(|run| run.attempts >= 2));
    wait_until("the empty one is reported", || {
        test.script_status("run-4").is_some_and(|run| run.last_end.is_some_and(|end| end.contains("it is empty")))
    });
    assert_eq!(test.script_status("run-1").unwrap().last_end.as_deref(), Some("was killed by SIGKILL"));
    assert!(fs::read_to_string(test.home.run_log(5)).unwrap().ends_with("printed by cat\n"));
    init.stop();
}

#[test]
fn a_script_printing_without_end_fills_no_disk_and_keeps_init_responsive() {
    let test = TestHome::new();
    let run = format!("1={}", test.script("run", "echo first; yes"));
    let init = test.start(&with(&["--run", &run]));
    wait_until("its log is rotated", || test.home.run_log(1).with_extension("log.1").exists());
    let logs = fs::read_dir(test.home.log_dir()).unwrap().flatten().map(|log| log.path());
    let sizes: Vec<u64> = logs.filter(|log| log.to_str().unwrap().contains("run-1")).map(size).collect();
    assert!(sizes.len() <= 3 && sizes.iter().all(|bytes| *bytes <= 10 * 1024 * 1024), "{sizes:?}");
    init.stop();
}

#[test]
fn a_script_and_all_it_spawned_are_ended_even_what_ignores_sigterm_or_left_its_group() {
    let test = TestHome::new();
    let text = "trap '' TERM\n\
                setsid sh -c 'trap \"\" TERM; echo $$ > ~/session; while :; do sleep 60; done' &\n\
                (sh -c 'echo $$ > ~/orphan; exec sleep 60' &)\n\
                while :; do sleep 60; done";
    let run = format!("1={}", test.script("stubborn", text));
    // This one succeeds, and leaves a daemon that is to go on until init stops.
    let daemon = format!("2={}", test.script("daemon", "setsid sh -c 'echo $$ > ~/daemon; exec sleep 60' & exit 0"));
    let init = test.start(&with(&["--grace-ms", "300", "--run", &run, "--run", &daemon]));
    test.wait_script("run-2", "succeeded");
    let mut pids = Vec::new();
    for name in ["session", "orphan", "daemon"] {
        wait_until("it runs", || test.read(name).ends_with('\n'));
        pids.push(test.read(name).trim().parse().unwrap());
    }
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    init.stop();
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn a_failed_attempt_leaves_nothing_in_the_way_of_the_next() {
    let test = TestHome::new();
    // Each attempt leaves a process in its group and fails as long as one of an attempt before is alive.
    let text = "if [ -e ~/old ]; then kill -0 $(cat ~/old) && echo alive >> ~/trace || exit 0; fi\n\
                sleep 60 & echo $! > ~/old; exit 1";
    let run = format!("1={}", test.script("run", text));
    let init = test.start(&with(&["--run", &run]));
    test.wait_script("run-1", "succeeded");
    assert!(!test.read("trace").contains("alive"));
    init.stop();
}

#[test]
fn a_run_script_given_to_a_running_init_is_kept_and_started() {
    let test = TestHome::new();
    assert_eq!(request_run(&test.home, id(1), b"echo one >> ~/trace").unwrap(), Requested::AtNextStart);
    let init = test.start(&BOTH);
    test.wait_script("run-1", "succeeded");
    assert_eq!(request_run(&test.home, id(2), b"echo two >> ~/trace").unwrap(), Requested::Now);
    test.wait_script("run-2", "succeeded");
    // Kept again, it is run again; only asked for again, it is not.
    assert_eq!(request_run(&test.home, id(2), b"echo second two >> ~/trace").unwrap(), Requested::Now);
    wait_until("it has run again", || lines(&test).last().is_some_and(|line| line == "second two"));
    test.wait_script("run-2", "succeeded");
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    socket.send_to(b"X_SKYSERVE_RUN=2", test.home.notify_socket()).unwrap();
    assert_eq!(request_run(&test.home, id(3), b"true").unwrap(), Requested::Now);
    test.wait_script("run-3", "succeeded");
    assert_eq!(test.script_status("run-2").unwrap().attempts, 2);
    assert!(Scripts::new(test.home.clone()).run_path(id(2)).exists());
    init.stop();
}

#[test]
fn init_raises_its_own_limit_on_open_files_and_not_that_of_its_children() {
    let test = TestHome::new();
    let run = format!("1={}", test.script("run", "ulimit -Sn > ~/limit"));
    let init = test.start_by(&["sh", "-c", "ulimit -Sn 300 && exec \"$@\"", "sh"], &with(&["--run", &run]));
    test.wait_script("run-1", "succeeded");
    assert_eq!(test.read("limit"), "300\n");
    let limits = fs::read_to_string(format!("/proc/{}/limits", init.pid())).unwrap();
    let own = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert!(own.split_whitespace().next().unwrap().parse::<u64>().unwrap() > 300, "{own}");
    init.stop();
}

#[test]
fn init_killed_at_any_moment_between_persisting_and_running_loses_no_script() {
    for round in 0..20_u64 {
        let test = TestHome::new();
        let setup = test.script("setup", "echo setup >> ~/trace");
        let run = format!("1={}", test.script("run", "echo run >> ~/trace"));
        let init = test.start(&with(&["--setup", &setup, "--run", &run]));
        wait_until("the scripts are kept", || Scripts::new(test.home.clone()).run_path(id(1)).exists());
        std::thread::sleep(std::time::Duration::from_millis(round));
        init.kill();
        let init = test.start(&BOTH);
        test.wait_script("setup", "succeeded");
        test.wait_script("run-1", "succeeded");
        wait_until("the marker is made", || test.home.ready_marker().exists());
        init.stop();
    }
}

#[test]
fn after_init_was_killed_its_scripts_are_ended_before_they_are_replayed() {
    let test = TestHome::new();
    let text = "if [ -e ~/pid ] && grep -q sleep /proc/$(cat ~/pid)/cmdline; then echo twice >> ~/trace; fi; echo $$ > ~/pid; exec sleep 60";
    let run = format!("1={}", test.script("run", text));
    let init = test.start(&with(&["--run", &run]));
    wait_until("it runs", || test.read("pid").ends_with('\n'));
    let first = test.read("pid");
    init.kill();
    assert!(is_alive(first.trim().parse().unwrap()));
    let init = test.start(&BOTH);
    wait_until("it runs again", || test.read("pid").ends_with('\n') && test.read("pid") != first);
    assert!(!test.read("trace").contains("twice"));
    init.stop();
}

#[test]
fn signals_are_forwarded_to_scripts() {
    let test = TestHome::new();
    let run = format!(
        "1={}",
        test.script("run", "trap 'echo hup >> ~/trace; exit 0' HUP; touch ~/waiting; while :; do sleep 0.01; done")
    );
    let init = test.start(&["--grace-ms", "100", "--role", "controller=stubborn", "--run", &run]);
    wait_until("it waits", || test.home.path().join("waiting").exists());
    init.signal(Signal::SIGHUP);
    test.wait_script("run-1", "succeeded");
    assert!(test.read("trace").ends_with("hup\n"));
    init.stop();
}
