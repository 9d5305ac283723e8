//! Under constant load, any part of the product may be killed.

use crate::home::{TestHome, http_service};
use crate::load::{Load, Oha, Outcomes, get_once};
use crate::posts;
use crate::processes::{self, Process};
use crate::wait;
use nix::sys::signal::Signal;

const KILLS: usize = 20;
const CLIENTS: usize = 8;
const REQUESTS_BETWEEN_KILLS: usize = 20;

/// Runs `disturb` under the tests' own load and, where it is installed, oha's besides.
pub fn under_load(endpoint: &str, disturb: impl FnOnce()) -> Outcomes {
    let load = Load::start(endpoint, CLIENTS);
    let oha = Oha::installed().then(|| Oha::start(endpoint, CLIENTS));
    disturb();
    let mut outcomes = load.finish();
    println!("own load: {outcomes:?}");
    assert!(outcomes.ok > 0, "the load saw no answer: {outcomes:?}");
    match oha.map(Oha::finish) {
        Some(seen) => {
            println!("oha: {seen:?}");
            assert!(seen.ok > 0, "oha saw no answer: {seen:?}");
            outcomes.add(&seen);
        }
        None => println!("oha is not installed: only the tests' own load was used"),
    }
    outcomes
}

/// Kills a role and waits for its successor, `KILLS` times.
fn kill_again_and_again(home: &TestHome, role: &str, alive: impl Fn()) {
    for _ in 0..KILLS {
        let victim = home.role(role);
        victim.kill(Signal::SIGKILL);
        wait::until_true("a successor", || {
            let now: Vec<Process> = home.processes().into_iter().filter(|process| process.is_role(role)).collect();
            now.len() == 1 && now[0].pid != victim.pid
        });
        alive();
    }
}

#[test]
fn killing_the_controller_twenty_times_fails_no_request() {
    let home = TestHome::new();
    let endpoint = home.up("web", &http_service());
    let before = home.replicas("web", "READY");
    let outcomes = under_load(&endpoint, || {
        kill_again_and_again(&home, "controller", || {
            home.wait_for_status("web", "READY");
        })
    });
    assert_eq!(outcomes.failed(), 0, "{outcomes:?}");
    assert_eq!(home.replicas("web", "READY")[0]["uid"], before[0]["uid"], "the replica is the same");
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn killing_the_load_balancer_twenty_times_refuses_no_connection() {
    let home = TestHome::new();
    let endpoint = home.up("web", &http_service());
    let address: std::net::SocketAddr = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    let outcomes = under_load(&endpoint, || {
        kill_again_and_again(&home, "loadbalancer", || {
            // Some load passes before the next kill; none of it can be refused.
            for _ in 0..REQUESTS_BETWEEN_KILLS {
                assert_eq!(get_once(address).expect("the endpoint answers"), 200);
            }
        })
    });
    assert_eq!(outcomes.refused, 0, "{outcomes:?}");
    assert!(outcomes.statuses.is_empty(), "{outcomes:?}");
    // Each kill may cut what is in flight at that moment: at most one request of each client, here and in oha.
    let in_flight_most = (2 * KILLS * CLIENTS) as u64;
    println!("in flight when the load balancer was killed: {} of {}", outcomes.cut, outcomes.ok);
    assert!(outcomes.cut <= in_flight_most, "{outcomes:?}");
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn a_load_that_sees_the_runtime_stop_in_order_sees_no_failure() {
    let home = TestHome::new();
    let endpoint = home.up("web", &http_service());
    let init = home.role("init");
    let outcomes = under_load(&endpoint, || {
        init.kill(Signal::SIGTERM);
        wait::until_true("the controller to stop", || {
            !home.processes().iter().any(|process| process.is_role("controller"))
        });
        assert!(processes::state(init.pid).is_some(), "init waits for the load balancer, which still serves");
    });
    assert!(outcomes.ok > 0 && outcomes.failed() == 0, "{outcomes:?}");
    wait::until_true("init to end", || processes::state(init.pid).is_none_or(|state| state == 'Z'));
    let left = home.processes();
    assert!(
        left.iter().all(|process| !["init", "controller", "loadbalancer"].iter().any(|role| process.is_role(role))),
        "{left:?}"
    );
    assert!(left.iter().any(|process| process.is_role("shim")), "the replica goes on without the runtime: {left:?}");
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn a_replica_that_is_killed_is_replaced_and_no_post_arrives_twice() {
    let home = TestHome::new();
    let yaml = posts::service(&home, 2);
    let endpoint = home.up("posts", &yaml);
    home.wait_for_ready_replicas("posts", 2);
    let load = posts::Posts::start(&endpoint, CLIENTS);
    for round in 0..3 {
        let uids: Vec<String> =
            home.replicas("posts", "READY").iter().map(|replica| replica["uid"].as_str().unwrap().to_owned()).collect();
        let victim = &uids[round % uids.len()];
        posts::kill_replica(&home, victim);
        wait::until("two other ready replicas", || {
            let ready = home.replicas("posts", "READY");
            let replaced = ready.len() == 2 && ready.iter().all(|replica| replica["uid"] != victim.as_str());
            if replaced { Ok(()) } else { Err(format!("{ready:?}")) }
        });
    }
    let sent = load.finish();
    println!("posts: {} answered, {} not", sent.answered.len(), sent.unanswered);
    posts::assert_none_arrived_twice(&home, &sent);
    home.ok(&["down", "-y", "posts"]);
    home.assert_nothing_left();
}
