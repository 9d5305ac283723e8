//! The replica's working directory, its file mounts, and its environment.

use crate::support::{Home, eventually, running};
use sha2::{Digest, Sha256};
use skyserve_model::launch::{LaunchSpec, Stage};
use std::fs;
use std::path::Path;
use tar::{Builder, Header};

/// A bundle of files; returns its digest.
fn bundle(home: &Home, files: &[(&str, &str)]) -> String {
    let mut tar = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let digest = hex::encode(Sha256::digest(&tar));
    home.bundle(&digest, &tar);
    digest
}

fn with_mounts(home: &Home, uid: &str, run: &str, mounts: &[String]) -> LaunchSpec {
    let mut files = vec![("workdir/server.sh".to_owned(), "echo from the workdir".to_owned())];
    files.extend((0..mounts.len()).map(|index| (format!("mounts/{index}/data.txt"), format!("mount {index}"))));
    let files: Vec<_> = files.iter().map(|(path, content)| (path.as_str(), content.as_str())).collect();
    LaunchSpec {
        bundle: Some(bundle(home, &files)),
        has_workdir: true,
        file_mounts: mounts.to_vec(),
        ..running(uid, run)
    }
}

fn mounts_arrive(home: &Home, names: [&str; 2]) {
    let absolute = home.path().join("elsewhere/deep").display().to_string();
    let mounts = ["./relative".to_owned(), "~/in-home".to_owned(), absolute.clone()];
    let run = format!(
        "bash server.sh; cat relative/data.txt ~/in-home/data.txt {absolute}/data.txt; echo mine > ~/in-home/data.txt; echo done; sleep 1000"
    );
    let (first, second) = (
        home.replica(with_mounts(home, names[0], &run, &mounts)),
        home.replica(with_mounts(home, names[1], &run, &mounts)),
    );
    for replica in [&first, &second] {
        replica.start();
        replica.running();
        eventually("it has read its files", || replica.output().contains("done").then_some(()));
        assert!(replica.output().contains("from the workdir\nmount 0mount 1mount 2done"), "{}", replica.output());
    }
    assert!(!home.path().join("in-home/data.txt").exists(), "the machine's own files stay as they are");
    first.terminate(0);
    assert!(home.path().join("in-home").is_dir(), "the other replica still uses it");
    let mounted = fs::read_to_string(format!("/proc/{}/mounts", second.state().main.unwrap().pid)).unwrap();
    assert!(mounted.contains("/in-home "), "{mounted}");
    second.terminate(0);
    for made in ["in-home", "elsewhere"] {
        assert!(!home.path().join(made).exists(), "{made} was made for the mounts, so it is removed with them");
    }
}

#[test]
fn the_workdir_and_file_mounts_of_every_kind_are_there_and_the_replicas_own() {
    mounts_arrive(&Home::new(), ["files-1-1", "files-1-2"]);
}

#[test]
fn an_unprivileged_user_has_file_mounts_too() {
    mounts_arrive(&Home::unprivileged(), ["user-1-1", "user-1-2"]);
}

#[test]
fn a_mount_that_cannot_be_made_is_named_with_what_to_do() {
    let home = Home::unprivileged();
    let forbidden = if nix::unistd::geteuid().is_root() { "/no-such-folder-of-root/data" } else { "/proc/data" };
    let launch = with_mounts(&home, "forbidden-1-1", "sleep 1000", &[forbidden.to_owned()]);
    let replica = home.replica(launch);
    let exit = replica.start().ended();
    assert_eq!(exit.ended.stage, Stage::Provision);
    assert!(exit.ended.reason.contains(forbidden) && exit.ended.reason.contains("`./data`"), "{exit:?}");
    assert!(!Path::new("/no-such-folder-of-root").exists());
}

#[test]
fn a_hostile_bundle_ends_the_replica_before_anything_runs() {
    let home = Home::new();
    let mut tar = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..17].copy_from_slice(b"workdir/../../esc");
    header.set_size(1);
    header.set_cksum();
    tar.append(&header, &b"x"[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    let digest = hex::encode(Sha256::digest(&tar));
    home.bundle(&digest, &tar);
    let launch = LaunchSpec { bundle: Some(digest), has_workdir: true, ..running("escape-1-1", "touch ran") };
    let replica = home.replica(launch);
    let exit = replica.start().ended();
    assert_eq!(exit.ended.stage, Stage::Provision);
    assert!(exit.ended.reason.contains("workdir/../../esc"), "{exit:?}");
    assert!(!replica.folder.work_dir().join("ran").exists());
}

#[test]
fn commands_see_the_documented_environment_and_nothing_of_the_launcher() {
    let home = Home::new();
    let mut launch = running("env-3-7", "env > run.env; exit 4");
    launch.setup = Some("env > setup.env; pwd; cat; ulimit -S -n > /dev/null".into());
    launch.envs.insert("MODEL".into(), "a b'c\"$HOME\n".into());
    launch.secrets.insert("TOKEN".into(), "hidden".into());
    let replica = home.replica(launch);
    assert!(
        replica.command(&[]).env("LAUNCHER_ONLY", "1").env("CUDA_VISIBLE_DEVICES", "1").status().unwrap().success()
    );
    replica.ended();
    let read = |file: &str| fs::read_to_string(replica.folder.work_dir().join(file)).unwrap();
    let (setup, run) = (read("setup.env"), read("run.env"));
    let expected = [
        "SKYPILOT_NODE_RANK=0",
        "SKYPILOT_NUM_NODES=1",
        "SKYPILOT_NUM_GPUS_PER_NODE=0",
        "SKYPILOT_SERVE_REPLICA_ID=7",
        "SKYPILOT_SERVE_REPLICA_PORT=8080",
        "PORT=8080",
        "PYTHONUNBUFFERED=1",
        "CUDA_VISIBLE_DEVICES=1",
        "TOKEN=hidden",
        "MODEL=a b'c\"$HOME",
        "SKYSERVE_REPLICA_UID=env-3-7",
    ];
    for line in expected {
        assert!(run.lines().any(|found| found == line), "{line} is missing in:\n{run}");
    }
    assert!(run.contains("SKYPILOT_NODE_IPS=127.") && run.contains("SKYPILOT_TASK_ID=sky-"), "{run}");
    assert!(setup.contains("SKYPILOT_SETUP_NODE_RANK=0") && setup.contains("SKYPILOT_SETUP_NODE_IPS=127."), "{setup}");
    assert!(!run.contains("LAUNCHER_ONLY") && !setup.contains("LAUNCHER_ONLY"));
    assert!(replica.output().contains(&replica.folder.work_dir().display().to_string()), "{}", replica.output());
}
