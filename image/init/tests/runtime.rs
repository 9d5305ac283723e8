//! Init as the background runtime of a home: one at a time, found, stopped, and clear about what is wrong.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use skyserve_init::{BackgroundError, Stopped, running, spawn_background, stop};
use support::{HARNESS, TestHome, command_of, is_alive, unshare, wait_until};

const ARGUMENTS: [&str; 5] = ["init", "--role", "loadbalancer=listener", "--role", "controller=ready"];
const STOP_WAIT: Duration = Duration::from_secs(20);

#[test]
fn it_starts_in_the_background_is_found_and_stops_without_a_trace() {
    let test = TestHome::new();
    assert_eq!(stop(&test.home, STOP_WAIT).unwrap(), Stopped::WasNotRunning);
    // A descriptor that passes through exec, as a careless caller may have one.
    let stray = test.home.path().join("stray");
    let _stray = nix::unistd::dup(fs::File::create(&stray).unwrap()).unwrap();
    let spawned = spawn_background(HARNESS.as_ref(), &test.home, &ARGUMENTS).unwrap();
    assert!(spawned.here);
    let init = spawned.init;
    assert_eq!(running(&test.home), Some(init));
    let again = spawn_background(HARNESS.as_ref(), &test.home, &ARGUMENTS).unwrap();
    assert_eq!((again.init, again.here), (init, false));
    // A session of its own, in the home, with its output in the log and no other descriptor of ours.
    let pid = init.pid;
    let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).unwrap();
    assert_eq!(session.as_raw(), pid);
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), test.home.path());
    assert_eq!(fs::read_link(format!("/proc/{pid}/fd/2")).unwrap(), test.home.init_log());
    let mut descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    assert!(!descriptors.any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|path| path == stray)));
    test.ready_role("loadbalancer", None);
    assert_eq!(stop(&test.home, STOP_WAIT).unwrap(), Stopped::Stopped(init));
    assert_eq!(running(&test.home), None);
    assert_eq!(test.processes(), Vec::<i32>::new());
    assert!(!test.home.init_lock().exists() && !test.home.notify_socket().exists());
}

#[test]
fn sockets_of_roles_that_were_killed_are_gone_after_a_stop() {
    let test = TestHome::new();
    let init = test.start(&ARGUMENTS[1..]);
    test.ready_role("loadbalancer", None);
    test.ready_role("controller", None);
    let sockets = [test.home.control_socket(), test.home.load_balancer_socket()];
    // As a role leaves them that had no time to remove them.
    sockets.iter().for_each(|socket| drop(std::os::unix::net::UnixListener::bind(socket).unwrap()));
    init.stop();
    assert!(sockets.iter().all(|socket| !socket.exists()));
}

#[test]
fn a_second_runtime_on_the_same_home_is_refused_and_disturbs_nothing() {
    let test = TestHome::new();
    let init = test.start(&ARGUMENTS[1..]);
    let roles = [test.ready_role("loadbalancer", None), test.ready_role("controller", None)];
    let mut second = Command::new(HARNESS);
    let output = test.with_environment(second.args(ARGUMENTS)).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("process {}", init.pid())) && said.contains("already running"), "{said}");
    assert!(test.home.notify_socket().exists());
    assert_eq!(running(&test.home).map(|init| init.pid), Some(init.pid()));
    assert_eq!(roles, [test.ready_role("loadbalancer", None), test.ready_role("controller", None)]);
    init.stop();
}

#[test]
fn a_strangers_process_id_in_the_lock_file_is_never_signalled() {
    let test = TestHome::new();
    let mut stranger = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
    fs::write(test.home.init_lock(), format!("{}\n", stranger.id())).unwrap();
    assert_eq!(running(&test.home), None);
    assert_eq!(stop(&test.home, STOP_WAIT).unwrap(), Stopped::WasNotRunning);
    // Nor when a live init holds the lock, and only the number is the stranger's.
    let init = test.start(&ARGUMENTS[1..]);
    test.ready_role("controller", None);
    fs::write(test.home.init_lock(), format!("{}\n", stranger.id())).unwrap();
    assert_eq!(stop(&test.home, STOP_WAIT).unwrap(), Stopped::WasNotRunning);
    assert!(is_alive(stranger.id() as i32));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    init.stop();
}

#[test]
fn a_runtime_that_cannot_start_says_why_to_who_started_it() {
    let test = TestHome::new();
    let arguments = ["init", "--role", "controller=ready", "--setup", "/nonexistent/setup.sh"];
    let error = spawn_background(HARNESS.as_ref(), &test.home, &arguments).unwrap_err();
    assert!(matches!(error, BackgroundError::EndedAtOnce { .. }));
    assert!(error.to_string().contains("/nonexistent/setup.sh"), "{error}");
    assert!(!test.home.init_lock().exists());
    assert_eq!(test.processes(), Vec::<i32>::new());
}

/// What init says, as PID 1 of a namespace in which the home is a file system of its own, prepared like this.
fn said_on_a_home_that_is(prepare: &str) -> Option<String> {
    let unshare = unshare()?;
    let test = TestHome::new();
    let script = format!("mount -t tmpfs -o size=64k none \"$HOME\" && cd / && {prepare} && exec \"$@\"");
    let words = [unshare.as_slice(), &["sh", "-c", &script, "sh", HARNESS], &ARGUMENTS].concat();
    let output = test.with_environment(&mut command_of(&words)).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!test.home.notify_socket().exists());
    Some(String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_full_disk_and_a_read_only_home_are_named_at_the_start() {
    let full = "head -c 1000000 /dev/zero > \"$HOME/fill\" 2>/dev/null; true";
    if let Some(said) = said_on_a_home_that_is(full) {
        assert!(said.contains("cannot write") && said.contains("init.lock: No space left on device"), "{said}");
    }
    if let Some(said) = said_on_a_home_that_is("mount -o remount,ro none \"$HOME\"") {
        assert!(said.contains("cannot make the folder") && said.contains("Read-only file system"), "{said}");
    }
}

#[test]
fn logs_and_status_that_cannot_be_written_do_not_stop_the_supervision() {
    let test = TestHome::new();
    let init = test.start(&["--role", "loadbalancer=listener"]);
    let pid = test.ready_role("loadbalancer", None);
    // Folders where files should be: fails for root too.
    fs::remove_file(test.home.init_status()).unwrap();
    fs::create_dir_all(test.home.init_status().join("full")).unwrap();
    let log = test.home.log_dir().join("loadbalancer.log");
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("it is started again", || test.log().matches("loadbalancer is ready").count() == 2);
    assert!(test.log().contains("cannot write"));
    init.stop();
}

#[test]
fn idle_it_sleeps_and_is_small() {
    let test = TestHome::new();
    let init = test.start(&ARGUMENTS[1..]);
    test.ready_role("controller", None);
    wait_until("the marker is made", || test.home.ready_marker().exists());
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", init.pid())).unwrap();
        let rest: Vec<u64> =
            stat.rsplit_once(") ").unwrap().1.split(' ').filter_map(|word| word.parse().ok()).collect();
        // After the state: utime and stime are the 11th and 12th.
        rest[10] + rest[11]
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(ticks() - before <= 1, "init is busy while idle");
    let status = fs::read_to_string(format!("/proc/{}/status", init.pid())).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let rss_kib: u64 = rss.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(rss_kib <= 6 * 1024, "{rss_kib} KiB");
    init.stop();
}
