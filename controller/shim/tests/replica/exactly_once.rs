//! A replica is started once, whatever is repeated, raced or killed.

use crate::support::{Home, eventually, running, spec};
use nix::sys::signal::{Signal, kill};
use skyserve_model::launch::Stage;
use skyserve_shim::folder::Tombstone;
use skyserve_shim::{CrashPoint, SHIM_KILLED};

const COUNTED: &str = "echo started >> starts; exec sleep 1000";

#[test]
fn of_many_shims_started_at_once_one_runs_the_commands() {
    let home = Home::new();
    let replica = home.replica(running("race-1-1", COUNTED));
    let mut starters: Vec<_> = (0..16).map(|_| replica.command(&[]).spawn().unwrap()).collect();
    for starter in &mut starters {
        assert!(starter.wait().unwrap().success());
    }
    eventually("it was started", || (replica.lines("starts") > 0).then_some(()));
    assert!(replica.start_with(&[]).success());
    replica.terminate(0);
    assert!(replica.start_with(&[]).success());
    assert_eq!(replica.lines("starts"), 1);
}

#[test]
fn a_shim_killed_at_any_point_is_followed_by_one_that_starts_nothing_twice() {
    for (name, point) in CrashPoint::ALL {
        let home = Home::new();
        let mut launch = running("crash-1-1", "echo started >> starts; exec sleep 1000");
        launch.setup = Some("echo set up >> setups".into());
        if point == CrashPoint::Ended {
            launch.run = Some("echo started >> starts".into());
        }
        let replica = home.replica(launch);
        replica.start_with(&["--crash-at", name]);
        eventually(&format!("the shim died at {name}"), || {
            let started = point == CrashPoint::Locked || replica.folder.state_file().exists();
            (started && !replica.folder.is_locked().unwrap()).then_some(())
        });
        assert!(replica.folder.read_exit().unwrap().is_none(), "{name}");
        replica.start();
        if point == CrashPoint::Locked {
            // Nothing was claimed: this one is the first that starts it.
            replica.running();
            eventually("it was started", || (replica.lines("starts") == 1).then_some(()));
            replica.terminate(0);
            continue;
        }
        let exit = replica.ended();
        assert_eq!(exit.ended.reason, SHIM_KILLED, "{name}");
        let stage = match point {
            CrashPoint::Locked | CrashPoint::Claimed | CrashPoint::Unpacked => Stage::Provision,
            CrashPoint::SetupStarted => Stage::Setup,
            CrashPoint::RunStarted | CrashPoint::Ended => Stage::Run,
        };
        assert_eq!(exit.ended.stage, stage, "{name}");
        assert!(replica.lines("starts") <= 1 && replica.lines("setups") <= 1, "{name}");
        assert_eq!(replica.strays(), [], "{name}");
    }
}

#[test]
fn a_killed_shim_takes_bash_along_and_the_next_one_ends_the_rest() {
    let home = Home::new();
    let replica = home.replica(running("killed-1-1", "setsid sleep 1000 & (setsid sleep 1000 &) & sleep 1000 & wait"));
    replica.start();
    replica.running();
    eventually("all run", || (replica.strays().len() >= 4).then_some(()));
    kill(replica.shim(), Signal::SIGKILL).unwrap();
    eventually("bash is gone", || replica.state().main.unwrap().open().unwrap().is_none().then_some(()));
    assert_ne!(replica.strays(), [], "what has sessions of its own survives the shim");
    replica.start();
    assert_eq!(replica.ended().ended.reason, SHIM_KILLED);
    assert_eq!(replica.strays(), []);
}

#[test]
fn a_terminated_replica_and_one_never_launched_are_not_started() {
    let home = Home::new();
    let replica = home.replica(running("late-1-1", COUNTED));
    replica.folder.write_tombstone(Tombstone { grace_ms: 0 }).unwrap();
    replica.start();
    assert!(!replica.folder.state_file().exists());
    let bare = home.replica(spec("bare-1-1"));
    std::fs::remove_file(bare.folder.launch_file()).unwrap();
    bare.start();
    assert!(!bare.folder.state_file().exists());
    std::fs::remove_dir_all(bare.folder.dir()).unwrap();
    assert_eq!(bare.start_with(&[]).code(), Some(2), "ENOENT");
}
