//! Fault campaign 7, PID 1: every signal that is forwarded, many orphans, ids that are used again, an output that
//! nobody reads. What is short of it is in `first_process.rs`.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod support;

use std::fs;

use support::{HARNESS, TestHome, leave_orphans, path_text, unshare};

/// Runs a script as the one command of init, which is PID 1.
fn under_init(unshare: &[&str], mode: &str, script: &str, argument: &str) -> Option<i32> {
    support::under_init(unshare, mode, "bash", script, argument).status().unwrap().code()
}

/// The same in the environment of a home, which is also its argument.
fn under_init_of(test: &TestHome, unshare: &[&str], script: &str) -> Option<i32> {
    let mut command = support::under_init(unshare, "command", "bash", script, path_text(test.home.path()));
    test.with_environment(&mut command).status().unwrap().code()
}

/// Signals that init passes on: all but those that nobody can take, those that it takes as its own (SIGCHLD, and the
/// terminal's SIGTTIN and SIGTTOU), and those of a fault.
fn forwarded() -> Vec<i32> {
    let own = [libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD, libc::SIGTTIN, libc::SIGTTOU];
    let faults = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGSYS,
        libc::SIGPIPE,
    ];
    // 32 and 33 are the C library's.
    let all = (1..=31).chain(34..=64);
    all.filter(|signal| !own.contains(signal) && !faults.contains(signal)).collect()
}

/// Sends every signal to init, one after the other, and says which of them its command got, and which the command's
/// child.
fn received(unshare: &[&str], mode: &str) -> (Vec<i32>, Vec<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let all: Vec<String> = forwarded().iter().map(ToString::to_string).collect();
    let all = all.join(" ");
    // Both note what they get. The child sends, and waits until the command has the signal, without another process, which
    // would be in the group too. (A shell has what it starts in the background ignore some signals.)
    let script = format!(
        r#"
        cd "$1"; mkdir command child
        for signal in {all}; do trap "touch command/$signal" $signal; done
        mkfifo never
        env --default-signal bash -c 'exec 9<>never
            for signal in {all}; do trap "touch child/$signal" $signal; done
            for signal in {all}; do
                kill -$signal 1; tries=0
                while [ ! -e command/$signal ] && [ $tries -lt 1000 ]; do tries=$((tries+1)); read -t 0.01 -u 9; done
            done' &
        child=$!
        while kill -0 $child 2>/dev/null; do wait $child; done
        exit 0"#
    );
    assert_eq!(under_init(unshare, mode, &script, path_text(folder.path())), Some(0));
    let got = |who: &str| {
        let names = fs::read_dir(folder.path().join(who)).unwrap();
        let mut got: Vec<i32> =
            names.map(|name| name.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
        got.sort_unstable();
        got
    };
    (got("command"), got("child"))
}

#[test]
#[ignore = "campaign: benches/faults/run 7"]
fn campaign_7_every_signal_reaches_the_child_alone_or_its_group() {
    let Some(unshare) = unshare() else { return };
    let (command, child) = received(&unshare, "command");
    assert_eq!((command, child), (forwarded(), vec![]), "to the child alone");
    let (command, child) = received(&unshare, "command-group");
    assert_eq!((command, child), (forwarded(), forwarded()), "to its group");
    println!("{} signals to a child, and to a group", forwarded().len());
}

#[test]
#[ignore = "campaign: benches/faults/run 7"]
fn campaign_7_ten_thousand_orphans_leave_no_zombie() {
    let Some(unshare) = unshare() else { return };
    let folder = tempfile::tempdir().unwrap();
    let zombies = folder.path().join("zombies");
    assert_eq!(under_init(&unshare, "command", &leave_orphans(10_000, 100), path_text(&zombies)), Some(0));
    assert_eq!(fs::read_to_string(zombies).unwrap().trim(), "0");
}

/// What the script of [`campaign_7_a_process_with_the_id_of_one_that_init_knew_is_left_alone`] found out.
const SAME_ID: &str = "the bystander has the id of the script that ended\n";
const LEFT_ALONE: &str = "the bystander lives\n";
const CONTROL: &str = "killing by number hits the bystander\n";

#[test]
#[ignore = "campaign: benches/faults/run 7"]
fn campaign_7_a_process_with_the_id_of_one_that_init_knew_is_left_alone() {
    let Some(unshare) = unshare() else { return };
    let test = TestHome::new();
    let run = format!("1={}", test.script("run", "echo $$ > ~/pid.new; mv ~/pid.new ~/pid; exec sleep 300"));
    let roles = format!("{HARNESS} init --role loadbalancer=ready --role controller=ready");
    let end = "until_gone() { while kill -0 $1 2>/dev/null; do sleep 0.01; done; }";
    // An init is killed, and so is its script; a bystander gets the script's id; another init takes over.
    let script = format!(
        r#"
        cd "$1"; {end}
        : 2>/dev/null >> /proc/sys/kernel/ns_last_pid || {{ echo no > unwritable; exit 0; }}
        {roles} --run {run} & init=$!
        while [ ! -e pid ]; do sleep 0.01; done
        script=$(cat pid); kill -9 $init $script; wait $init; until_gone $script
        tries=0; bystander=
        while [ "$bystander" != $script ] && [ $tries -lt 1000 ]; do
            [ -n "$bystander" ] && {{ kill -9 $bystander; wait $bystander; }}
            tries=$((tries+1)); echo $((script-1)) > /proc/sys/kernel/ns_last_pid; sleep 300 & bystander=$!
        done
        [ $bystander = $script ] && echo "{}" >> found
        rm pid; {roles} & init=$!
        while [ ! -e pid ]; do sleep 0.01; done
        kill -TERM $init; wait $init
        kill -0 $bystander && echo "{}" >> found
        kill -9 $script; wait $bystander
        kill -0 $bystander || echo "{}" >> found
        exit 0"#,
        SAME_ID.trim_end(),
        LEFT_ALONE.trim_end(),
        CONTROL.trim_end(),
    );
    assert_eq!(under_init_of(&test, &unshare, &script), Some(0));
    if test.home.path().join("unwritable").exists() {
        eprintln!("NOT TESTED: ns_last_pid cannot be written here, so no process id was used again");
        return;
    }
    assert_eq!(test.read("found"), [SAME_ID, LEFT_ALONE, CONTROL].concat());
}

#[test]
#[ignore = "campaign: benches/faults/run 7"]
fn campaign_7_an_output_that_nobody_reads_holds_up_nothing() {
    let Some(unshare) = unshare() else { return };
    // What init prints goes into a pipe that is full, which nobody reads; what it starts is reaped and ended all the same.
    let test = TestHome::new();
    let run = format!("1={}", test.script("run", "touch ~/ran; echo this fails >&2; exit 3"));
    let script = format!(
        r#"
        cd "$1"; mkfifo pipe; exec 5<>pipe
        timeout 1 dd if=/dev/zero of=/proc/self/fd/5 bs=4096 2>/dev/null
        {HARNESS} init --role loadbalancer=ready --role controller=failing --run {run} >&5 2>&5 & init=$!
        while [ ! -e ran ]; do sleep 0.01; done
        kill -TERM $init
        tries=0; while kill -0 $init 2>/dev/null && [ $tries -lt 1500 ]; do tries=$((tries+1)); sleep 0.01; done
        kill -0 $init 2>/dev/null && {{ echo stuck > found; kill -9 $init; exit 0; }}
        wait $init; echo "ended with $?" > found
        exit 0"#
    );
    assert_eq!(under_init_of(&test, &unshare, &script), Some(0));
    assert_eq!(test.read("found"), "ended with 0\n");
}
