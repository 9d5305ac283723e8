//! Launches that are repeated, raced, or go on after a crash between any two steps.

use crate::support::{Site, eventually, how_ended, is_running, phase, spec, until};
use skyserve_model::launch::Phase;
use skyserve_provider::Provider;
use std::fs;

const COUNTED: &str = "echo started >> ../../../../../starts; exec sleep 1000";

#[tokio::test]
async fn another_controller_adopts_a_replica_with_the_same_processes() {
    let site = Site::new();
    let spec = spec("adopted-1-1", COUNTED);
    let first = site.provider();
    first.launch(&spec).await.unwrap();
    until(&first, &spec, is_running).await;
    let before = site.state(&spec);
    drop(first);
    let second = site.provider();
    until(&second, &spec, is_running).await;
    second.launch(&spec).await.unwrap();
    assert_eq!(site.state(&spec), before);
    eventually("it was started", || site.lines("starts") == 1).await;
    second.terminate(&spec.uid, 0).await.unwrap();
    assert_eq!(site.lines("starts"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn launches_of_one_uid_that_race_start_it_once() {
    let site = Site::new();
    let spec = spec("raced-1-1", COUNTED);
    let launches: Vec<_> = (0..8)
        .map(|_| {
            let (provider, spec) = (site.provider(), spec.clone());
            tokio::spawn(async move { provider.launch(&spec).await })
        })
        .collect();
    for launch in launches {
        launch.await.unwrap().unwrap();
    }
    let provider = site.provider();
    until(&provider, &spec, is_running).await;
    eventually("it was started", || site.lines("starts") > 0).await;
    provider.terminate(&spec.uid, 0).await.unwrap();
    assert_eq!(site.lines("starts"), 1);
}

#[tokio::test]
async fn a_launch_cut_off_after_any_step_is_completed_by_the_next() {
    for step in ["folder", "torn", "written", "locked", "claimed"] {
        let site = Site::new();
        let provider = site.provider();
        let spec = spec("cut-1-1", COUNTED);
        let folder = site.folder(&spec);
        fs::create_dir(folder.dir()).unwrap();
        match step {
            "folder" => {}
            "torn" => fs::write(folder.dir().join("launch.json.new.1.1"), "{").unwrap(),
            _ => folder.write_launch(&spec).unwrap(),
        }
        if ["locked", "claimed"].contains(&step) {
            let shim = env!("CARGO_BIN_EXE_skyserve-provider-shim");
            let mut command = std::process::Command::new(shim);
            command.arg("--dir").arg(folder.dir()).args(["--crash-at", step]).status().unwrap();
            eventually("that shim is gone", || !folder.is_locked().unwrap()).await;
        }
        if step == "claimed" {
            // Whether the commands ran cannot be known, so they are not started again.
            eventually("it was claimed", || folder.state_file().exists()).await;
            provider.launch(&spec).await.unwrap();
            let ended = until(&provider, &spec, how_ended).await;
            assert_eq!(ended.reason, skyserve_shim::SHIM_KILLED);
            continue;
        }
        assert!(matches!(phase(&provider, &spec).await, Some(Phase::Provisioning { .. })), "{step}");
        provider.launch(&spec).await.unwrap();
        until(&provider, &spec, is_running).await;
        eventually("it was started", || site.lines("starts") == 1).await;
        provider.terminate(&spec.uid, 0).await.unwrap();
    }
}

#[tokio::test]
async fn the_shim_is_in_nobodys_process_group_and_nobodys_child() {
    let site = Site::new();
    let provider = site.provider();
    let spec = spec("alone-1-1", "sleep 1000");
    provider.launch(&spec).await.unwrap();
    let shim = site.state(&spec).shim.pid;
    let stat = fs::read_to_string(format!("/proc/{shim}/stat")).unwrap();
    let fields: Vec<i32> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .skip(1)
        .take(3)
        .map(|field| field.parse().unwrap())
        .collect();
    let [parent, group, session] = fields[..] else { panic!("{stat}") };
    assert_eq!((group, session), (shim, shim));
    assert_ne!(parent, std::process::id().cast_signed());
    provider.terminate(&spec.uid, 0).await.unwrap();
}
