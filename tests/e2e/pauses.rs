//! Fault campaign 8: roles that are stopped for a while and go on.

use crate::home::{TestHome, http_service};
use crate::load::Load;
use crate::processes;
use crate::wait;
use nix::sys::signal::Signal;
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
