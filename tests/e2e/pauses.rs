//! Fault campaign 8: roles that are stopped for a while and go on, and roles that the kernel kills for want of memory.

use crate::home::{TestHome, http_service};
use crate::load::Load;
use crate::processes::{self, Process};
use crate::wait;
use nix::sys::signal::Signal;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// How long a role is stopped.
fn pauses() -> &'static [u64] {
    let long = std::env::var("FAULTS").is_ok_and(|form| form == "long");
    if long { &[1, 10, 60] } else { &[1, 10] }
}

#[test]
#[ignore = "campaign: benches/faults/run 8"]
fn campaign_8_a_role_that_is_stopped_for_a_while_goes_on_and_nothing_is_decided_wrongly() {
    let home = TestHome::new();
    let endpoint = home.up("web", &http_service());
    let before = home.wait_for_ready_replicas("web", 1).remove(0);
    for role in ["init", "controller", "loadbalancer", "shim"] {
        for seconds in pauses() {
            let process = home.role(role);
            let load = Load::start(&endpoint, 2);
            process.kill(Signal::SIGSTOP);
            wait::until_true("the role to be stopped", || processes::state(process.pid) == Some('T'));
            // The pause is the fault itself.
            std::thread::sleep(Duration::from_secs(*seconds));
            process.kill(Signal::SIGCONT);
            home.wait_for_status("web", "READY");
            let after = home.wait_for_ready_replicas("web", 1).remove(0);
            assert_eq!((&before["id"], &before["address"]), (&after["id"], &after["address"]), "{role}, {seconds} s");
            assert_eq!(home.role(role).pid, process.pid, "{role} was not started again");
            let outcomes = load.finish();
            assert!(outcomes.ok > 0 && outcomes.failed() == 0, "{role}, {seconds} s: {outcomes:?}");
            println!("{role} stopped for {seconds} s: {} requests, 0 failed", outcomes.ok);
        }
    }
    assert_eq!(home.service("web").unwrap()["replicas"].as_array().unwrap().len(), 1, "nothing was launched");
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

/// A memory cgroup (v1) of the test's own, with room for next to nothing.
struct Cramped(PathBuf);

impl Cramped {
    fn new() -> Option<Self> {
        let folder = PathBuf::from(format!("/sys/fs/cgroup/memory/skyserve-test-{}", std::process::id()));
        let made = fs::create_dir(&folder).and_then(|()| fs::write(folder.join("memory.limit_in_bytes"), "262144"));
        if made.is_err() {
            eprintln!("NOT TESTED: no memory cgroup (v1) can be made here, so nothing runs out of memory");
            return None;
        }
        Some(Self(folder))
    }

    fn hold(&self, process: &Process) {
        fs::write(self.0.join("cgroup.procs"), process.pid.to_string()).unwrap();
    }

    /// How many processes the kernel has killed here.
    fn killed(&self) -> u64 {
        let control = fs::read_to_string(self.0.join("memory.oom_control")).unwrap();
        control.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap().parse().unwrap()
    }
}

impl Drop for Cramped {
    fn drop(&mut self) {
        // It is empty once its last process is gone.
        wait::until_true("the cgroup to be empty", || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
#[ignore = "campaign: benches/faults/run 8"]
fn campaign_8_a_role_that_runs_out_of_memory_is_started_again() {
    let Some(cramped) = Cramped::new() else { return };
    let home = TestHome::new();
    let endpoint = home.up("web", &http_service());
    let before = home.wait_for_ready_replicas("web", 1).remove(0);
    for (role, kills) in [("controller", 1), ("loadbalancer", 2)] {
        let process = home.role(role);
        cramped.hold(&process);
        let load = Load::start(&endpoint, 32);
        wait::until_true("the kernel to kill it", || {
            // Work, for which it needs memory.
            home.run(&["status", "-o", "json"]);
            cramped.killed() >= kills
        });
        wait::until_true("another to be started", || home.role(role).pid != process.pid);
        home.wait_for_status("web", "READY");
        let after = home.wait_for_ready_replicas("web", 1).remove(0);
        assert_eq!((&before["id"], &before["address"]), (&after["id"], &after["address"]), "{role}");
        let outcomes = load.finish();
        assert_eq!((outcomes.refused, outcomes.statuses.len()), (0, 0), "{role}: {outcomes:?}");
        assert!(role == "loadbalancer" || outcomes.cut == 0, "{role}: {outcomes:?}");
        println!("{role} out of memory: {} requests, {} cut, 0 refused", outcomes.ok, outcomes.cut);
    }
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}
