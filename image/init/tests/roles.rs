//! Roles are started, restarted and stopped; what they gave init to keep outlives them.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod support;

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{TestHome, is_alive, wait_until};

const BOTH: [&str; 4] = ["--role", "loadbalancer=listener", "--role", "controller=ready"];

fn kill_9(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// Who answers on the load balancer's port.
fn answering_pid(test: &TestHome) -> i32 {
    let port: u16 = test.read("port").parse().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the connection is never refused");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.parse().unwrap_or(0)
}

#[test]
fn a_listener_is_kept_across_twenty_kills_of_the_load_balancer_and_nobody_is_refused() {
    let test = TestHome::new();
    let init = test.start(&BOTH);
    let mut pid = test.ready_role("loadbalancer", None);
    let controller = test.ready_role("controller", None);
    assert_eq!(answering_pid(&test), pid);
    for _ in 0..20 {
        kill_9(pid);
        // Connects at once, most often while no load balancer runs at all.
        let answered = answering_pid(&test);
        pid = test.ready_role("loadbalancer", Some(pid));
        assert!(answered == pid || answered == 0, "{answered} {pid}");
    }
    assert_eq!(test.role("loadbalancer").unwrap().kept, ["http"]);
    assert_eq!(test.role("controller").unwrap().pid, Some(controller));
    init.stop();
}

#[test]
fn a_role_that_the_others_need_is_asked_to_stop_once_they_are_gone() {
    let test = TestHome::new();
    let init = test.start(&["--grace-ms", "700", "--last-role", "follower=ready", "--role", "loadbalancer=stubborn"]);
    let follower = test.ready_role("follower", None);
    let balancer = test.ready_role("loadbalancer", None);
    init.signal(Signal::SIGTERM);
    wait_until("the one that does not stop is killed", || {
        assert!(is_alive(follower) || !is_alive(balancer), "the follower went first");
        !is_alive(balancer)
    });
    init.stop();
}

#[test]
fn a_dropped_listener_is_closed() {
    let test = TestHome::new();
    let init = test.start(&BOTH);
    let pid = test.ready_role("loadbalancer", None);
    let port: u16 = test.read("port").parse().unwrap();
    // On SIGTERM this role drops its listener, then ends; it is started again and binds another one.
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    test.ready_role("loadbalancer", Some(pid));
    assert_ne!(test.read("port").parse::<u16>().unwrap(), port);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert_eq!(test.role("loadbalancer").unwrap().kept.len(), 1);
    init.stop();
}

#[test]
fn a_role_that_ends_at_once_is_restarted_with_growing_pauses_and_disturbs_no_other() {
    let test = TestHome::new();
    let init = test.start(&["--role", "loadbalancer=listener", "--role", "controller=failing"]);
    let load_balancer = test.ready_role("loadbalancer", None);
    let started = Instant::now();
    wait_until("eight restarts", || test.role("controller").is_some_and(|role| role.restarts >= 8));
    // 10 + 20 + 40 + 80 + 4 × 100 ms, of which the first may have passed before.
    assert!(started.elapsed() > Duration::from_millis(450), "{:?}", started.elapsed());
    let controller = test.role("controller").unwrap();
    assert_eq!(controller.last_end.as_deref(), Some("ended with exit code 3"));
    assert!(!controller.ready && !test.home.ready_marker().exists());
    assert_eq!(answering_pid(&test), load_balancer);
    init.stop();
}

#[test]
fn a_role_that_ignores_sigterm_is_killed_after_its_grace() {
    let test = TestHome::new();
    let init = test.start(&["--grace-ms", "300", "--role", "controller=stubborn"]);
    test.ready_role("controller", None);
    let started = Instant::now();
    init.stop();
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(test.log().contains("controller has not stopped in time"));
}

#[test]
fn a_second_sigterm_leaves_no_more_grace() {
    let test = TestHome::new();
    let init = test.start(&["--grace-ms", "60000", "--role", "controller=stubborn"]);
    let controller = test.ready_role("controller", None);
    init.signal(Signal::SIGTERM);
    wait_until("init is stopping", || test.status().is_some_and(|status| status.state == "stopping"));
    assert!(is_alive(controller));
    // Those that come at once are the same wish; a later one is another.
    wait_until("the controller is killed", || {
        init.signal(Signal::SIGTERM);
        !is_alive(controller)
    });
    init.stop();
    assert!(test.log().contains("again: ending everything now"));
}

#[test]
fn the_check_for_processes_left_behind_notices_them() {
    let test = TestHome::new();
    let init = test.start(&BOTH);
    let roles = [test.ready_role("loadbalancer", None), test.ready_role("controller", None)];
    init.kill();
    assert!(roles.iter().all(|pid| test.processes().contains(pid)));
}

#[test]
fn init_killed_and_started_again_ends_its_old_roles_and_starts_new_ones() {
    let test = TestHome::new();
    let init = test.start(&BOTH);
    let old = [test.ready_role("loadbalancer", None), test.ready_role("controller", None)];
    init.kill();
    assert!(old.iter().all(|pid| is_alive(*pid)), "what init started outlives it");
    let init = test.start(&BOTH);
    let new = [test.ready_role("loadbalancer", Some(old[0])), test.ready_role("controller", Some(old[1]))];
    assert!(old.iter().all(|pid| !is_alive(*pid)));
    assert_eq!(answering_pid(&test), new[0]);
    init.stop();
}

#[test]
fn sigterm_at_any_moment_of_the_start_leaves_no_process_behind() {
    for round in 0..40_u64 {
        let test = TestHome::new();
        let run = test.script("run", "sleep 60 & sleep 60");
        let run = format!("1={run}");
        let arguments = [BOTH.as_slice(), &["--run", &run]].concat();
        let mut init = test.start(&arguments);
        // From before init takes its signals (then they end it at once) to after everything runs.
        std::thread::sleep(Duration::from_micros(round * 600));
        init.signal(Signal::SIGTERM);
        init.wait();
        assert_eq!(test.processes(), Vec::<i32>::new(), "round {round}: {}", test.log());
    }
}

#[test]
fn messages_from_a_process_that_is_not_the_role_itself_are_not_believed() {
    let test = TestHome::new();
    let init = test.start(&["--role", "controller=failing"]);
    wait_until("init listens", || test.home.notify_socket().exists());
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    socket.send_to(b"READY=1", test.home.notify_socket()).unwrap();
    wait_until("restarts", || test.role("controller").is_some_and(|role| role.restarts >= 2));
    assert!(!test.home.ready_marker().exists());
    init.stop();
}
