//! Each panic happens in a process of its own: this test program, run again.
#![allow(clippy::unwrap_used, reason = "in a test, an error is a failure")]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// Runs `body` on a runtime as a role does, in the child process that `run` starts for the test of this name.
fn role(body: impl Future<Output = ()>) {
    if std::env::var_os("SKYSERVE_TEST_PANIC").is_none() {
        return;
    }
    skyserve_panics::end_the_process("test");
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(body);
    println!("it went on");
}

/// The signal that ended the process, and whether it went on until its end.
fn run(test: &str) -> (Option<i32>, bool) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env("SKYSERVE_TEST_PANIC", "1")
        .output()
        .unwrap();
    (output.status.signal(), String::from_utf8_lossy(&output.stdout).contains("it went on"))
}

#[test]
#[ignore = "run by another test as a child process"]
fn in_a_task() {
    role(async {
        let _ = tokio::spawn(async { panic!("planted") }).await;
    });
}

#[test]
#[ignore = "run by another test as a child process"]
fn in_a_task_alone() {
    role(async {
        assert!(tokio::spawn(skyserve_panics::alone(async { panic!("planted") })).await.is_err());
    });
}

#[test]
#[ignore = "run by another test as a child process"]
fn after_one_alone() {
    role(async {
        let _ = tokio::spawn(skyserve_panics::alone(async { panic!("planted") })).await;
        let _ = tokio::spawn(async { panic!("planted") }).await;
    });
}

#[test]
fn a_panic_ends_the_role_unless_it_is_alone() {
    const SIGABRT: i32 = 6;
    assert_eq!(run("in_a_task"), (Some(SIGABRT), false));
    assert_eq!(run("in_a_task_alone"), (None, true));
    assert_eq!(run("after_one_alone"), (Some(SIGABRT), false), "the next one is alone no more");
}
