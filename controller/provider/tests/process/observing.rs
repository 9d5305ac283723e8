//! What is reported of replicas, and when.

use crate::support::{Site, eventually, is_running, reported, spec, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skyserve_model::launch::{Ended, Phase, Stage};
use skyserve_provider::Provider;
use std::time::{Duration, Instant};

/// Shorter than the slow look at everything, so a report within it came from an event.
const PROMPT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn each_step_of_a_replica_is_reported_as_it_happens() {
    let site = Site::new();
    let provider = site.provider();
    let mut reports = provider.observe();
    let mut spec = spec("steps-1-1", "while [ ! -e ../../../../../go ]; do sleep 0.02; done; exit 3");
    spec.setup = Some("while [ ! -e ../../../../../set-up ]; do sleep 0.02; done".into());
    let since = Instant::now();
    provider.launch(&spec).await.unwrap();
    reported(&mut reports, &spec, |phase| matches!(phase, Phase::SettingUp).then_some(())).await;
    std::fs::write(site.path().join("set-up"), "").unwrap();
    reported(&mut reports, &spec, |phase| matches!(phase, Phase::Running { .. }).then_some(())).await;
    std::fs::write(site.path().join("go"), "").unwrap();
    let ended = reported(&mut reports, &spec, |phase| match phase {
        Phase::Ended(ended) => Some(ended.clone()),
        _ => None,
    })
    .await;
    assert_eq!(ended.stage, Stage::Run);
    assert!(ended.reason.starts_with("run exited with code 3"), "{ended:?}");
    provider.terminate(&spec.uid, 0).await.unwrap();
    reported(&mut reports, &spec, |phase| (*phase == Phase::Absent).then_some(())).await;
    assert!(since.elapsed() < PROMPT, "by events, not by looking now and then: {:?}", since.elapsed());
}

#[tokio::test]
async fn a_killed_shim_is_reported_and_nothing_of_its_replica_goes_on() {
    let site = Site::new();
    let provider = site.provider();
    let mut reports = provider.observe();
    let spec = spec("murdered-1-1", "setsid sleep 1000 & sleep 1000");
    provider.launch(&spec).await.unwrap();
    reported(&mut reports, &spec, |phase| matches!(phase, Phase::Running { .. }).then_some(())).await;
    eventually("all run", || site.strays(&spec) >= 3).await;
    let since = Instant::now();
    kill(Pid::from_raw(site.state(&spec).shim.pid), Signal::SIGKILL).unwrap();
    let reason = reported(&mut reports, &spec, |phase| match phase {
        Phase::Ended(Ended { stage: Stage::Run, reason }) => Some(reason.clone()),
        _ => None,
    })
    .await;
    assert_eq!(reason, skyserve_shim::SHIM_KILLED);
    assert!(since.elapsed() < PROMPT);
    eventually("the rest is ended without anybody asking", || site.strays(&spec) == 0).await;
    eventually("it is recorded", || site.folder(&spec).read_exit().unwrap().is_some()).await;
}

#[tokio::test]
async fn a_new_controller_is_told_the_present_phase_of_every_replica() {
    let site = Site::new();
    let (runs, ended) = (spec("told-1-1", "sleep 1000"), spec("told-1-2", "exit 7"));
    {
        let provider = site.provider();
        provider.launch(&runs).await.unwrap();
        provider.launch(&ended).await.unwrap();
        until(&provider, &runs, is_running).await;
    }
    eventually("it ends while no controller is there", || site.folder(&ended).exit_file().exists()).await;
    let provider = site.provider();
    let mut reports = provider.observe();
    reported(&mut reports, &runs, |phase| matches!(phase, Phase::Running { .. }).then_some(())).await;
    let mut reports = provider.observe();
    reported(&mut reports, &ended, |phase| match phase {
        Phase::Ended(ended) => ended.reason.starts_with("run exited with code 7").then_some(()),
        _ => None,
    })
    .await;
    provider.terminate(&runs.uid, 0).await.unwrap();
}
