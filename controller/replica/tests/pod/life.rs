//! Setup, run, signals, the end.

use crate::support::{Pod, read, until};
use nix::sys::signal::Signal;
use skyserve_model::launch::Stage;
use std::fs;

#[test]
fn commands_run_in_the_workdir_with_skypilots_variables_and_those_of_the_image() {
    let mut pod = Pod::new(Some("env > setup.env"), Some("env > run.env; pwd > run.pwd; exit 3"));
    pod.spec.envs.insert("PORT".into(), "8080".into());
    pod.spec.secrets.insert("TOKEN".into(), "hush".into());
    assert_eq!(pod.start("run").end().0, Some(3));
    let ended = pod.ended();
    assert!(ended.stage == Stage::Run && ended.reason.starts_with("run exited with code 3 after "), "{ended:?}");
    assert_eq!(read(&pod.home("sky_workdir/run.pwd")).trim(), pod.home("sky_workdir").to_str().unwrap());
    let run = read(&pod.home("sky_workdir/run.env"));
    for line in [
        "PORT=8080",
        "SKYPILOT_SERVE_REPLICA_ID=2",
        "SKYPILOT_SERVE_REPLICA_PORT=8080",
        "TOKEN=hush",
        "IMAGE=of the image",
    ] {
        assert!(run.lines().any(|found| found == line), "{line} in {run}");
    }
    assert!(!run.contains("SKYSERVE_"), "{run}");
    assert!(read(&pod.home("sky_workdir/setup.env")).contains("SKYPILOT_SETUP_NODE_RANK=0"));
}

#[test]
fn where_setup_fails_run_is_not_begun() {
    let pod = Pod::new(Some("exit 7"), Some("touch began"));
    let (code, said) = pod.start("run").end();
    assert_eq!(code, Some(7));
    let ended = pod.ended();
    assert!(ended.stage == Stage::Setup && ended.reason.starts_with("setup exited with code 7 after "), "{ended:?}");
    assert!(said.contains("[skyserve] setup exited with code 7 after "), "{said}");
    assert!(!pod.home("sky_workdir/began").exists());
    assert!(!pod.is_running());
}

#[test]
fn it_is_running_from_the_end_of_setup_to_the_end_of_run() {
    let wait = |file: &str| format!("touch {file}.began; until [ -e {file}.go ]; do sleep 0.05; done");
    let pod = Pod::new(Some(&wait("setup")), Some(&wait("run")));
    let replica = pod.start("run");
    until("setup begins", || pod.home("sky_workdir/setup.began").exists());
    assert!(!pod.is_running());
    fs::write(pod.home("sky_workdir/setup.go"), "").unwrap();
    until("it runs", || pod.is_running());
    fs::write(pod.home("sky_workdir/run.go"), "").unwrap();
    assert_eq!(replica.end().0, Some(0));
    assert!(!pod.is_running());
    assert!(pod.ended().reason.starts_with("run exited with code 0 after "), "{:?}", pod.ended());
}

#[test]
fn sigterm_reaches_the_commands_and_everything_they_started_in_the_foreground() {
    let inner = "bash -c 'trap \"touch inner.ended; exit 0\" TERM; touch inner.began; while :; do sleep 0.05; done'";
    let pod = Pod::new(None, Some(&format!("trap 'wait; touch outer.ended; exit 5' TERM\n{inner} &\nwait")));
    let replica = pod.start("run");
    until("the inner command begins", || pod.home("sky_workdir/inner.began").exists());
    replica.signal(Signal::SIGTERM);
    assert_eq!(replica.end().0, Some(5));
    assert!(pod.home("sky_workdir/inner.ended").exists() && pod.home("sky_workdir/outer.ended").exists());
    let ended = pod.ended();
    assert!(ended.stage == Stage::Run && ended.reason.starts_with("terminated, after run had run for "), "{ended:?}");
}

#[test]
fn a_setup_that_ends_well_after_sigterm_is_not_followed_by_run() {
    let pod = Pod::new(Some("trap 'exit 0' TERM; touch began; while :; do sleep 0.05; done"), Some("touch run.began"));
    let replica = pod.start("run");
    until("setup begins", || pod.home("sky_workdir/began").exists());
    replica.signal(Signal::SIGTERM);
    assert_eq!(replica.end().0, Some(143));
    assert!(!pod.home("sky_workdir/run.began").exists());
}

#[test]
fn orphans_are_reaped_while_the_commands_go_on() {
    let pod = Pod::new(None, Some("(sleep 0.01 & echo $! > orphan.next); mv orphan.next orphan; sleep 1000"));
    let replica = pod.start("run");
    until("the orphan is known", || pod.home("sky_workdir/orphan").exists());
    let orphan = read(&pod.home("sky_workdir/orphan"));
    // A zombie would still have its folder.
    until("the orphan is reaped", || !fs::exists(format!("/proc/{}", orphan.trim())).unwrap());
    replica.signal(Signal::SIGTERM);
    assert_eq!(replica.end().0, Some(143));
}

#[test]
fn commands_that_are_killed_are_told_from_those_that_exit() {
    let pod = Pod::new(None, Some("kill -9 $$"));
    assert_eq!(pod.start("run").end().0, Some(137));
    assert!(pod.ended().reason.starts_with("run was killed by SIGKILL after "), "{:?}", pod.ended());
}

#[test]
fn an_image_without_a_shell_is_told_so() {
    let pod = Pod::new(None, Some("true"));
    let mut command = pod.command("run");
    command.env("PATH", pod.path("home"));
    assert_eq!(command.status().unwrap().code(), Some(1));
    let ended = pod.ended();
    assert!(ended.stage == Stage::Provision && ended.reason.contains("neither bash nor sh"), "{ended:?}");
}

#[test]
fn without_bash_the_plain_shell_does() {
    let pod = Pod::new(None, Some("exit 4"));
    std::os::unix::fs::symlink("/bin/sh", pod.home("sh")).unwrap();
    let mut command = pod.command("run");
    command.env("PATH", pod.path("home"));
    assert_eq!(command.status().unwrap().code(), Some(4));
}

#[test]
fn nothing_to_run_is_an_ending_and_so_is_a_launch_that_cannot_be_read() {
    let pod = Pod::new(None, None);
    assert_eq!(pod.start("run").end().0, Some(1));
    assert!(pod.ended().reason.contains("no run commands"), "{:?}", pod.ended());
    let mut broken = pod.command("run");
    fs::write(pod.path("skyserve/launch/launch.json"), "{").unwrap();
    assert_eq!(broken.status().unwrap().code(), Some(1));
    assert_eq!(pod.ended().stage, Stage::Provision);
}

#[test]
fn a_home_that_cannot_be_written_to_is_replaced() {
    let pod = Pod::new(None, Some("echo $HOME > where"));
    fs::write(pod.path("file"), "").unwrap();
    let mut command = pod.command("run");
    command.env("HOME", pod.path("file"));
    assert_eq!(command.status().unwrap().code(), Some(0));
    let where_ = read(&pod.path("skyserve/home/sky_workdir/where"));
    assert_eq!(where_.trim(), pod.path("skyserve/home").to_str().unwrap());
}
