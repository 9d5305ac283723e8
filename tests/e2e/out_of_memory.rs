//! Fault campaign 8: roles that the kernel ends because their memory cgroup is full.

use crate::home::{TestHome, http_service, stop};
use crate::kill_under_load::under_load;
use crate::load::get_once;
use crate::processes::{self, Process};
use crate::wait;
use nix::sys::signal::Signal;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const GONE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// A memory cgroup (v1) of one process. Its memory so far is charged to where it came from, so what the limit stops is
/// whatever it asks for next.
struct Squeeze {
    folder: PathBuf,
}

impl Squeeze {
    /// `None`, with the reason on the terminal, where no such cgroup can be made.
    fn of(process: &Process) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let memory = own.lines().find_map(|line| line.split_once(":memory:/").map(|(_, path)| path));
        let Some(memory) = memory else {
            println!("not tested: there is no memory controller of cgroup v1 here");
            return None;
        };
        let folder = Path::new("/sys/fs/cgroup/memory").join(memory).join(format!("skyserve-test-{}", process.pid));
        if let Err(error) = fs::create_dir(&folder) {
            println!("not tested: {} cannot be made ({error})", folder.display());
            return None;
        }
        let squeeze = Self { folder };
        squeeze.set("memory.limit_in_bytes", "65536");
        squeeze.set("cgroup.procs", &process.pid.to_string());
        Some(squeeze)
    }

    fn set(&self, file: &str, value: &str) {
        fs::write(self.folder.join(file), value).unwrap_or_else(|error| panic!("{file} = {value}: {error}"));
    }

    fn kills(&self) -> u64 {
        let control = fs::read_to_string(self.folder.join("memory.oom_control")).unwrap();
        control.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap().parse().unwrap()
    }
}

impl Drop for Squeeze {
    fn drop(&mut self) {
        // Whoever is in it still, after a failure, goes to where it came from.
        let processes = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for pid in processes.lines() {
            let _ = fs::write(self.folder.parent().unwrap().join("cgroup.procs"), pid);
        }
        // One that was just killed is in it until it was waited for.
        let deadline = Instant::now() + GONE_WITHIN;
        while fs::remove_dir(&self.folder).is_err() && Instant::now() < deadline {
            std::thread::sleep(LOOK_PAUSE);
        }
    }
}

/// Squeezes a role and gives it work until the kernel has killed it, and waits for its successor.
fn run_out_of_memory(home: &TestHome, role: &str, mut work: impl FnMut()) -> bool {
    let victim = home.role(role);
    let Some(squeeze) = Squeeze::of(&victim) else { return false };
    wait::until_true("the kernel to kill it", || {
        work();
        processes::state(victim.pid).is_none_or(|state| state == 'Z')
    });
    wait::until_true("the kernel to say so", || squeeze.kills() == 1);
    true
}

#[test]
#[ignore = "campaign: benches/faults/run 8"]
fn campaign_8_a_role_that_has_no_memory_left_is_killed_and_comes_back() {
    let home = TestHome::new();
    let endpoint = home.up("web", &http_service());
    let address: SocketAddr = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    let before = home.wait_for_ready_replicas("web", 1).remove(0);
    let is_same = || {
        home.wait_for_status("web", "READY");
        let after = home.wait_for_ready_replicas("web", 1).remove(0);
        assert_eq!((&before["id"], &before["address"]), (&after["id"], &after["address"]));
    };

    let outcomes = under_load(&endpoint, || {
        if run_out_of_memory(&home, "controller", || drop(home.run(&["status"]))) {
            is_same();
        }
    });
    assert_eq!(outcomes.failed(), 0, "{outcomes:?}");
    println!("controller: {} requests, 0 failed", outcomes.ok);

    let outcomes = under_load(&endpoint, || {
        if run_out_of_memory(&home, "loadbalancer", || drop(get_once(address))) {
            is_same();
        }
    });
    assert_eq!((outcomes.refused, outcomes.statuses.len()), (0, 0), "{outcomes:?}");
    println!("load balancer: {} requests, {} in flight cut, 0 refused", outcomes.ok, outcomes.cut);

    // Init needs memory when it starts something.
    run_out_of_memory(&home, "init", || {
        if let Some(controller) = home.processes().into_iter().find(|process| process.is_role("controller")) {
            controller.kill(Signal::SIGKILL);
        }
    });
    home.kill_runtime();
    let init = home.init();
    is_same();
    home.ok(&["down", "-y", "web"]);
    stop(init);
    home.assert_nothing_left();
}
