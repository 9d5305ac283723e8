//! The seed's persisted scripts: run once they are on disk, replayed on every restart.

use crate::home::{TestHome, binary, stop};
use crate::wait;
use nix::sys::signal::Signal;
use std::fs;

/// A script that notes its name, then runs `rest`.
fn script(home: &TestHome, name: &str, rest: &str) -> String {
    let notes = home.path().join("notes");
    let path = home.yaml(&format!("{name}.sh"), &format!("echo {name} >> {}\n{rest}\n", notes.display()));
    path.to_str().unwrap().to_owned()
}

fn notes(home: &TestHome) -> Vec<String> {
    let notes = fs::read_to_string(home.path().join("notes")).unwrap_or_default();
    notes.lines().map(str::to_owned).collect()
}

#[test]
fn scripts_are_kept_run_and_replayed_in_order_after_a_kill() {
    let home = TestHome::new();
    let setup = script(&home, "setup", "");
    let (first, second) = (script(&home, "first", "sleep 1000"), script(&home, "second", "exit 0"));
    let mut init = home
        .command(binary())
        .args(["init", "--setup", &setup, "--run", &format!("1={first}"), "--run", &format!("2={second}")])
        .spawn()
        .unwrap();
    wait::until_true("the marker of a first start that succeeded", || home.path().join("k8s_container_ready").exists());
    wait::until(
        "all three scripts",
        || if notes(&home).len() == 3 { Ok(()) } else { Err(format!("{:?}", notes(&home))) },
    );
    assert_eq!(notes(&home)[0], "setup", "run scripts wait for setup: {:?}", notes(&home));
    assert!(home.path().join(".sky/.controller_recovery_setup_commands.sh").exists());
    assert!(home.path().join(".sky/.controller_recovery_task_run/sky_job_1").exists());

    // Everything dies, as with a pod; the next start is given nothing and knows all.
    init.kill().unwrap();
    init.wait().unwrap();
    home.processes().iter().for_each(|process| process.kill(Signal::SIGKILL));
    wait::until_true("everything to be gone", || home.processes().is_empty());
    fs::remove_file(home.path().join("notes")).unwrap();
    let init = home.init();
    wait::until("the replay of all three", || {
        if notes(&home).len() == 3 { Ok(()) } else { Err(format!("{:?}", notes(&home))) }
    });
    assert_eq!(notes(&home)[0], "setup", "{:?}", notes(&home));
    assert!(home.processes().iter().any(|process| process.is_role("loadbalancer")));
    stop(init);
    home.assert_nothing_left();
}

#[test]
fn a_script_that_fails_is_tried_again_and_hides_no_other() {
    let home = TestHome::new();
    let (bad, good) = (script(&home, "bad", "exit 9"), script(&home, "good", "sleep 1000"));
    let init = home
        .command(binary())
        .args(["init", "--run", &format!("1={bad}"), "--run", &format!("2={good}")])
        .spawn()
        .unwrap();
    wait::until("the failing script's second try, and the other one", || {
        let notes = notes(&home);
        let tried = notes.iter().filter(|note| *note == "bad").count();
        if tried >= 2 && notes.iter().any(|note| note == "good") { Ok(()) } else { Err(format!("{notes:?}")) }
    });
    assert_eq!(notes(&home).iter().filter(|note| *note == "good").count(), 1, "one that runs is left alone");
    stop(init);
    home.assert_nothing_left();
}
