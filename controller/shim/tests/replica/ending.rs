//! How replicas end: by themselves, or because they are told to.

use crate::support::{Home, eventually, get, running, spec};
use skyserve_model::launch::Stage;
use skyserve_model::launch::{Amount, LaunchSpec};
use skyserve_shim::{OUTPUT_BYTES_MAX, OUTPUT_PARTS_MAX, output_part};
use std::fs;
use std::time::{Duration, Instant};

/// A tree of processes that do everything to survive: they ignore SIGTERM, leave the session, the
/// process group and their parents, and overwrite the title by which one might know them.
const HOSTILE: &str = r#"
trap '' TERM
setsid bash -c "trap '' TERM; sleep 1000 & sleep 1000" &
(setsid bash -c "trap '' TERM; while true; do sleep 1000; done" &) &
bash -c "(bash -c 'exec -a innocent sleep 1000' &) ; exit" &
echo ready > ready
while true; do sleep 1000; done
"#;

#[test]
fn nothing_is_left_of_processes_that_ignore_sigterm_leave_their_session_and_fork_twice() {
    let home = Home::new();
    let replica = home.replica(running("hostile-1-1", HOSTILE));
    replica.start();
    // The control: the scan does find them while they run.
    eventually("the tree stands", || (replica.lines("ready") == 1 && replica.strays().len() >= 7).then_some(()));
    let exit = replica.terminate(100);
    assert!(exit.ended.reason.starts_with("terminated"), "{exit:?}");
    assert_eq!(replica.strays(), []);
}

#[test]
fn a_replica_may_use_its_grace_to_end_by_itself() {
    let home = Home::new();
    let run = "trap 'echo finishing; sleep 0.2; echo finished; exit 0' TERM; echo up; while true; do sleep 0.05; done";
    let replica = home.replica(running("graceful-1-1", run));
    replica.start();
    eventually("it is up", || replica.output().contains("up").then_some(()));
    let since = Instant::now();
    replica.terminate(20_000);
    assert!(since.elapsed() < Duration::from_secs(15), "it did not wait for the whole grace");
    assert!(replica.output().contains("finished"), "{}", replica.output());
}

#[test]
fn the_exit_record_says_which_commands_ended_and_how() {
    let home = Home::new();
    let with_setup = |uid, setup: &str, run: Option<&str>| LaunchSpec {
        setup: Some(setup.into()),
        run: run.map(Into::into),
        ..spec(uid)
    };
    let cases = [
        (running("a-1-1", "exit 3"), Stage::Run, "run exited with code 3"),
        (running("b-1-1", "true"), Stage::Run, "run exited with code 0"),
        (running("c-1-1", "kill -SEGV $$"), Stage::Run, "run was ended by signal 11 (SIGSEGV)"),
        (with_setup("d-1-1", "echo no; false", Some("touch ran")), Stage::Setup, "setup exited with code 1"),
        (with_setup("e-1-1", "true", None), Stage::Run, "there are no run commands, so nothing serves requests"),
        (running("f-1-1", "false\nno-such-command\ntrue"), Stage::Run, "run exited with code 0"),
    ];
    for (launch, stage, reason) in cases {
        let replica = home.replica(launch);
        let exit = replica.start().ended();
        assert_eq!(exit.ended.stage, stage, "{exit:?}");
        assert!(exit.ended.reason.starts_with(reason), "{exit:?}");
        assert!(!replica.folder.work_dir().join("ran").exists());
        assert!(replica.output().contains(&exit.ended.reason), "the log ends with it: {}", replica.output());
    }
}

#[test]
fn what_setup_leaves_in_the_background_lives_until_the_replica_ends() {
    let home = Home::new();
    let mut launch = running("daemon-1-1", "kill -0 $(cat daemon) && echo it lives; exit 5");
    launch.setup = Some("setsid sleep 1000 & echo $! > daemon".into());
    let replica = home.replica(launch);
    let exit = replica.start().ended();
    assert!(exit.ended.reason.starts_with("run exited with code 5"), "{exit:?}");
    assert!(replica.output().contains("it lives"), "{}", replica.output());
    assert_eq!(replica.strays(), []);
}

#[test]
fn output_without_end_stays_within_its_bound_and_the_replica_can_be_ended() {
    let home = Home::new();
    let replica = home.replica(running("chatty-1-1", "yes 'a line that is printed without end'"));
    replica.start();
    let size = || -> u64 {
        let parts = (0..OUTPUT_PARTS_MAX + 2).map(|number| output_part(&replica.folder.output_log(), number));
        parts.filter_map(|part| fs::metadata(part).ok()).map(|part| part.len()).sum()
    };
    let last = output_part(&replica.folder.output_log(), OUTPUT_PARTS_MAX - 1);
    eventually("every part was filled", || last.exists().then_some(()));
    assert!(size() <= OUTPUT_BYTES_MAX);
    replica.terminate(0);
    assert!(size() <= OUTPUT_BYTES_MAX);
}

#[test]
fn a_stopped_replica_is_ended_too() {
    let home = Home::new();
    let replica = home.replica(running("stopped-1-1", "echo up; kill -STOP $$; sleep 1000"));
    replica.start();
    eventually("it is up", || replica.output().contains("up").then_some(()));
    replica.terminate(200);
    assert_eq!(replica.strays(), []);
}

#[test]
fn an_idle_shim_is_small_and_uses_no_cpu() {
    let home = Home::new();
    let replica = home.replica(running("small-1-1", "exec python3 -m http.server 8080"));
    replica.start();
    assert!(get(replica.running()).contains("200"));
    eventually("it has logged the request", || replica.output().contains("GET /").then_some(()));
    let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", replica.shim())).unwrap();
    let kilobytes: u64 = read("status")
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    assert!(kilobytes <= 4096, "{kilobytes} kB");
    let switches = || -> u64 {
        let status = read("status");
        status.lines().filter_map(|line| line.split_once("ctxt_switches:")?.1.trim().parse::<u64>().ok()).sum()
    };
    let before = switches();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(switches() - before, 0, "it sleeps while its replica serves nobody");
    replica.terminate(1_000);
}

#[test]
fn a_memory_limit_that_is_exceeded_is_named_where_limits_can_be_set() {
    let home = Home::new();
    let mut launch = running("hungry-1-1", "python3 -c 'x = bytearray(300 << 20)'");
    launch.memory_gb = Some(Amount { value: 0.05, or_more: false });
    let replica = home.replica(launch);
    let exit = replica.start().ended();
    let state = replica.state();
    if state.notes.is_empty() {
        assert!(exit.ended.reason.contains("over its memory limit of 0.05 GB"), "{exit:?}");
        assert!(!state.cgroups.is_empty());
    } else {
        assert!(state.notes[0].contains("memory are not limited"), "{state:?}");
        assert!(exit.ended.reason.contains("code 0"), "without a limit it succeeds: {exit:?}");
    }
    assert!(state.cgroups.iter().all(|group| !group.exists()));
}
