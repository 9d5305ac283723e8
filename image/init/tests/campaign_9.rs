//! Fault campaign 9, scripts: a thousand of them, one that fails, one that never ends. The rest of it is in
//! `scripts.rs`, and in `recovery/scripts`, whose tests stop the machine between any two steps of persisting one.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod support;

use skyserve_scripts::{RunId, Scripts};
use support::{TestHome, wait_until};

const SCRIPTS: u64 = 1_000;
const FAILS: u64 = 500;
const NEVER_ENDS: u64 = 600;

#[test]
#[ignore = "campaign: benches/faults/run 9"]
fn campaign_9_a_thousand_scripts_are_replayed_whatever_one_of_them_does() {
    let test = TestHome::new();
    let scripts = Scripts::new(test.home.clone());
    for number in 1..=SCRIPTS {
        let text = match number {
            FAILS => "exit 3".to_owned(),
            NEVER_ENDS => "exec sleep 600".to_owned(),
            _ => format!("echo {number} >> ~/ran"),
        };
        scripts.persist_run(RunId::new(number).unwrap(), text.as_bytes()).unwrap();
    }
    for start in 1..=2_usize {
        let init = test.start(&["--role", "loadbalancer=ready", "--role", "controller=ready"]);
        let others = SCRIPTS as usize - 2;
        wait_until("all have run", || test.read("ran").lines().count() >= start * others);
        test.wait_script(&format!("run-{NEVER_ENDS}"), "running");
        wait_until("the one that fails is tried again", || {
            test.script_status(&format!("run-{FAILS}")).is_some_and(|run| run.attempts >= 2)
        });
        let status = test.status().unwrap();
        let states = |state: &str| status.scripts.iter().filter(|script| script.state == state).count();
        assert_eq!((status.scripts.len(), states("succeeded")), (SCRIPTS as usize, others));
        assert_eq!(test.read("ran").lines().count(), start * others, "each ran once a start");
        init.stop();
        assert_eq!(test.processes(), [] as [i32; 0]);
    }
}
