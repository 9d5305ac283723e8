//! What happened to users of SkyServe, one test each, named after it. The numbers are SkyPilot's issues
//! (github.com/skypilot-org/skypilot).

// Helpers of tests fail like tests: by panicking.
#![allow(clippy::unwrap_used)]

mod deaths;
mod removal;
mod restarts;
mod storage;

use skyserve_sim::stand::Stand;
use skyserve_sim::{CrashPoint, Side, rules};

/// Longer than the pause between two lists.
const A_WHILE_MS: u64 = 70_000;

/// A service with READY replicas.
fn serving(name: &str, replicas: u32) -> Stand {
    let mut stand = Stand::new();
    up(&mut stand, name, replicas);
    stand
}

fn up(stand: &mut Stand, name: &str, replicas: u32) {
    let now = stand.now;
    let core = stand.core.as_mut().unwrap();
    core.up(name, rules(replicas, "serve"), "a YAML".to_owned(), &|_| true, now).unwrap();
    stand.run_for(1_000);
    assert_eq!(stand.ready(name).len(), replicas as usize, "{:?}", stand.service(name));
}

/// `update`, whatever comes of it.
fn update(stand: &mut Stand, name: &str, replicas: u32, run: &str) -> bool {
    let (now, rules) = (stand.now, rules(replicas, run));
    let Some(core) = stand.core.as_mut() else { return false };
    let updated = core.update(name, rules, "another YAML".to_owned(), None, now);
    let died = matches!(updated, Err(skyserve_controller::core::RequestError::Fatal(_)));
    if died {
        stand.core = None;
    }
    updated.is_ok()
}

/// Plays `act` with a crash before and after each commit that it makes, each time anew.
fn with_a_crash_at_each_commit(prepare: impl Fn() -> Stand, act: impl Fn(&mut Stand), check: impl Fn(Stand)) {
    let mut crashes = 0;
    for side in [Side::Before, Side::After] {
        for boundary in 0.. {
            let mut stand = prepare();
            stand.crash_at(CrashPoint { boundary, side });
            act(&mut stand);
            if !stand.has_crashed() {
                break;
            }
            crashes += 1;
            stand.restart();
            stand.run_for(A_WHILE_MS);
            check(stand);
        }
    }
    assert!(crashes >= 2, "it has a commit to crash at");
}
