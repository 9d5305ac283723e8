//! Terminations: of what runs, of what does not, and of what others hold.

use crate::support::{Site, eventually, is_running, phase, spec, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skyserve_provider::Provider;
use skyserve_provider::process::replica_log_path;
use skyserve_shim::folder::Tombstone;
use skyserve_shim::pidfd::ProcessIdentity;
use std::fs;
use std::process::Command;

#[tokio::test]
async fn nothing_is_left_of_a_terminated_replica_but_its_log() {
    let site = Site::new();
    let provider = site.provider();
    let mut spec = spec(
        "over-1-1",
        "trap '' TERM; mkdir -p locked/in; chmod 500 locked; echo last words; (setsid sleep 1000 &); sleep 1000",
    );
    spec.secrets.insert("TOKEN".into(), "hidden".into());
    provider.launch(&spec).await.unwrap();
    until(&provider, &spec, is_running).await;
    let log = || fs::read_to_string(replica_log_path(&site.home, spec.uid.as_str())).unwrap_or_default();
    eventually("it has printed", || log().contains("last words")).await;
    provider.terminate(&spec.uid, 100).await.unwrap();
    assert_eq!(phase(&provider, &spec).await, None);
    assert_eq!(site.strays(&spec), 0);
    assert!(!site.folder(&spec).dir().exists());
    assert!(log().contains("last words") && log().contains("terminated, after run"), "{}", log());
    provider.terminate(&spec.uid, 100).await.unwrap();
}

#[tokio::test]
async fn a_uid_that_was_terminated_is_never_launched() {
    let site = Site::new();
    let provider = site.provider();
    let (before, after) = (spec("never-1-1", "sleep 1000"), spec("never-1-2", "sleep 1000"));
    provider.terminate(&before.uid, 0).await.unwrap();
    provider.launch(&before).await.unwrap();
    provider.launch(&after).await.unwrap();
    provider.terminate(&after.uid, 0).await.unwrap();
    site.provider().launch(&after).await.unwrap();
    assert_eq!(provider.list().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launch_and_a_termination_at_once_leave_nothing() {
    let site = Site::new();
    let provider = site.provider();
    for number in 1..=12 {
        let spec = spec(&format!("both-1-{number}"), "sleep 1000");
        let (launching, launched) = (provider.clone(), spec.clone());
        let launch = tokio::spawn(async move { launching.launch(&launched).await });
        if number % 2 == 0 {
            eventually("the launch has begun", || site.folder(&spec).dir().exists()).await;
        }
        provider.terminate(&spec.uid, 0).await.unwrap();
        launch.await.unwrap().unwrap();
        provider.terminate(&spec.uid, 0).await.unwrap();
        assert!(!site.folder(&spec).dir().exists(), "{number}");
        assert_eq!(site.strays(&spec), 0);
    }
}

#[tokio::test]
async fn a_termination_cut_off_after_any_step_is_completed_by_the_next() {
    for step in ["tombstone", "signalled", "shim killed", "half removed"] {
        let site = Site::new();
        let provider = site.provider();
        let spec = spec("again-1-1", "trap '' TERM; setsid sleep 1000 & sleep 1000");
        provider.launch(&spec).await.unwrap();
        until(&provider, &spec, is_running).await;
        eventually("all run", || site.strays(&spec) >= 3).await;
        let folder = site.folder(&spec);
        folder.write_tombstone(Tombstone { grace_ms: 0 }).unwrap();
        let shim = Pid::from_raw(site.state(&spec).shim.pid);
        match step {
            "signalled" => kill(shim, Signal::SIGTERM).unwrap(),
            "shim killed" | "half removed" => kill(shim, Signal::SIGKILL).unwrap(),
            _ => {}
        }
        if step == "half removed" {
            fs::remove_file(folder.launch_file()).unwrap();
        }
        site.provider().terminate(&spec.uid, 0).await.unwrap();
        assert!(!folder.dir().exists(), "{step}");
        assert_eq!(site.strays(&spec), 0, "{step}");
    }
}

#[tokio::test]
async fn a_shim_that_does_not_answer_is_killed_after_the_grace() {
    let site = Site::new();
    let provider = site.provider();
    let spec = spec("frozen-1-1", "setsid sleep 1000 & sleep 1000");
    provider.launch(&spec).await.unwrap();
    until(&provider, &spec, is_running).await;
    let shim = site.state(&spec).shim;
    // What a kernel does to a shim that waits for a dead disk cannot be had here; stopping it is as good.
    kill(Pid::from_raw(shim.pid), Signal::SIGSTOP).unwrap();
    let terminated = provider.terminate(&spec.uid, 0);
    tokio::pin!(terminated);
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut terminated).await;
    assert!(early.is_err(), "it is given time");
    assert!(shim.open().unwrap().is_some());
    terminated.await.unwrap();
    assert!(shim.open().unwrap().is_none());
    assert_eq!(site.strays(&spec), 0);
}

#[tokio::test]
async fn a_stranger_that_got_the_shims_pid_is_not_touched() {
    let site = Site::new();
    let provider = site.provider();
    let spec = spec("stranger-1-1", "exit 0");
    provider.launch(&spec).await.unwrap();
    eventually("it has ended", || site.folder(&spec).exit_file().exists()).await;
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = Pid::from_raw(stranger.id().cast_signed());
    let folder = site.folder(&spec);
    eventually("its shim is gone", || !folder.is_locked().unwrap()).await;
    let real = ProcessIdentity::of(pid).unwrap();
    let mut state = site.state(&spec);
    state.shim = ProcessIdentity { start_ticks: real.start_ticks - 1, ..real.clone() };
    state.main = Some(state.shim.clone());
    folder.write_state(&state).unwrap();
    fs::remove_file(folder.exit_file()).unwrap();
    provider.terminate(&spec.uid, 0).await.unwrap();
    assert!(real.open().unwrap().is_some(), "the stranger lives");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}
