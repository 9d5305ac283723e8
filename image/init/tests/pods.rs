//! Two pods that have one home at the same time: the first drains, the second starts.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skyserve_init::running;
use support::{TestHome, is_alive, wait_for, wait_until};

#[test]
fn a_successor_starts_and_replays_the_scripts_while_its_predecessor_still_drains() {
    let test = TestHome::new();
    let [first, second] = test.pods();
    let job = test.script("job", "echo \"$SKYSERVE_POD\" >> ran; exec sleep 60\n");
    let run = format!("1={job}");
    // A load balancer that takes as long as it may.
    let roles = ["--grace-ms", "2000", "--role", "loadbalancer=stubborn", "--role", "controller=ready"];
    let mut old = first.start(&[roles.as_slice(), &["--run", &run]].concat());
    let old_pid = old.id() as i32;
    let draining = first.ready_role("loadbalancer");
    wait_until("the first start has succeeded", || test.home.ready_marker().exists());
    wait_until("the job runs", || test.read("ran") == "a\n");
    kill(Pid::from_raw(old_pid), Signal::SIGTERM).unwrap();
    wait_until("it stops", || first.status().is_some_and(|status| status.state == "stopping"));

    let mut new = second.start(&roles);
    second.ready_role("loadbalancer");
    let status = wait_for("the scripts are replayed", || {
        second.status().filter(|status| status.replay.completed_after_ms.is_some())
    });
    assert!(status.restart && status.marker);
    wait_until("the job runs again", || test.read("ran") == "a\nb\n");
    assert!(is_alive(draining), "nothing of the pod that drains was touched");
    assert_eq!(running(&first.home).map(|init| init.pid), Some(old_pid));
    assert_eq!(running(&second.home).map(|init| init.pid), Some(new.id() as i32));

    wait_until("the predecessor has ended", || old.try_wait().unwrap().is_some());
    assert_eq!(running(&first.home), None);
    let after = second.status().unwrap();
    assert!(after.roles.iter().all(|role| role.restarts == 0 && role.pid.is_some_and(is_alive)), "{after:?}");
    kill(Pid::from_raw(new.id() as i32), Signal::SIGTERM).unwrap();
    wait_until("the successor has ended", || new.try_wait().unwrap().is_some());
}
