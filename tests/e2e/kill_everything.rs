//! `kill -9` of init and everything under it but the replicas, then a start from what is stored.

use crate::home::{TestHome, binary, http_service};
use crate::load::get_once;
use crate::wait;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Instant;

/// Everything of the replicas that must be the same afterwards.
fn replicas(home: &TestHome, name: &str) -> BTreeSet<String> {
    let shown = home.replicas(name, "READY");
    shown.iter().map(|replica| format!("{} {} {}", replica["id"], replica["uid"], replica["endpoint"])).collect()
}

/// The pids of the shims and of all they run.
fn replica_pids(home: &TestHome) -> BTreeSet<i32> {
    let roles = ["init", "controller", "loadbalancer"];
    let all = home.processes().into_iter();
    all.filter(|process| !roles.iter().any(|role| process.is_role(role))).map(|process| process.pid).collect()
}

#[test]
fn a_runtime_that_was_killed_whole_comes_back_to_the_same_replicas() {
    let home = TestHome::new();
    let yaml =
        home.yaml("two.yaml", &std::fs::read_to_string(http_service()).unwrap().replace("replicas: 1", "replicas: 2"));
    let endpoint = home.up("web", &yaml);
    home.wait_for_ready_replicas("web", 2);
    let address: SocketAddr = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    let (before, pids) = (replicas(&home, "web"), replica_pids(&home));

    home.kill_runtime();
    wait::until_true("the endpoint to be gone", || TcpStream::connect(address).is_err());
    assert_eq!(replica_pids(&home), pids, "the replicas go on by themselves");

    let began = Instant::now();
    let mut init = home.command(binary()).arg("init").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = wait::until("the endpoint to answer", || get_once(address).map_err(|error| error.to_string()));
    println!("from exec of init to the first proxied answer: {} ms", began.elapsed().as_millis());
    assert_eq!(status, 200);

    home.wait_for_ready_replicas("web", 2);
    assert_eq!(replicas(&home, "web"), before, "same ids, uids and addresses");
    assert_eq!(replica_pids(&home), pids, "same processes");
    home.ok(&["down", "-y", "web"]);
    assert!(init.try_wait().unwrap().is_none(), "an init that somebody else started is not ours to end");
    home.ok(&["down", "-y", "-a"]);
    assert!(init.try_wait().unwrap().is_none());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(init.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    wait::until_true("init to end when told", || init.try_wait().unwrap().is_some());
    home.assert_nothing_left();
}

#[test]
fn status_after_a_reboot_starts_the_runtime_again() {
    let home = TestHome::new();
    home.up("web", &http_service());
    // A reboot ends the replicas as well.
    home.processes()
        .iter()
        .filter(|process| process.is_role("init"))
        .for_each(|init| init.kill(nix::sys::signal::Signal::SIGKILL));
    wait::until_true("everything to be killed", || {
        let left = home.processes();
        left.iter().for_each(|process| process.kill(nix::sys::signal::Signal::SIGKILL));
        left.is_empty()
    });
    home.ok(&["status"]);
    wait::until("replica 2 in the place of the one that was killed, whose number is not used again", || {
        let ready = home.replicas("web", "READY");
        if ready.len() == 1 && ready[0]["id"] == 2 { Ok(()) } else { Err(format!("{ready:#?}")) }
    });
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn an_init_that_was_killed_alone_is_started_again_by_the_next_command() {
    let home = TestHome::new();
    let endpoint = home.up("web", &http_service());
    let address: SocketAddr = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    let (init, balancer, pids) = (home.role("init"), home.role("loadbalancer"), replica_pids(&home));
    init.kill(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(get_once(address).unwrap(), 200, "traffic goes on without it");
    home.ok(&["status"]);
    assert_ne!(home.role("init").pid, init.pid);
    wait::until("the endpoint under the new init", || get_once(address).map_err(|error| error.to_string()));
    assert_ne!(home.role("loadbalancer").pid, balancer.pid, "it has a supervisor again");
    home.wait_for_ready_replicas("web", 1);
    assert_eq!(replica_pids(&home), pids, "the replicas are the same");
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}
