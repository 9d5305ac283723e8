//! `update`, on real processes and under load: no request fails, whatever becomes of the new version or of the
//! controller.

use crate::home::TestHome;
use crate::kill_under_load::under_load;
use crate::wait;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

/// A service whose replicas run `run`, on a port of theirs.
fn yaml(home: &TestHome, replicas: usize, port: u16, run: &str) -> PathBuf {
    home.yaml(
        "web.yaml",
        &format!(
            "service:\n  readiness_probe:\n    path: /\n    endpoint_probe_interval_seconds: 1\n  replicas: {replicas}\n\
             resources:\n  ports: {port}\nrun: |\n  {run}\n"
        ),
    )
}

/// Replicas whose page is `page`.
fn page(home: &TestHome, replicas: usize, port: u16, page: &str) -> PathBuf {
    let run = format!("echo {page} > index.html\n  exec python3 -m http.server {port} --bind 0.0.0.0");
    yaml(home, replicas, port, &run)
}

fn update(home: &TestHome, yaml: &std::path::Path, more: &[&str]) -> String {
    home.ok(&[&["update", "-y", "web", yaml.to_str().unwrap()], more].concat())
}

fn uids(replicas: &[Value]) -> Vec<String> {
    replicas.iter().map(|replica| replica["uid"].as_str().unwrap().to_owned()).collect()
}

fn body(endpoint: &str) -> String {
    let mut stream = TcpStream::connect(endpoint.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Kills the controller once a replica of version 2 is there as `moment` says, and waits until the update is done all the
/// same.
fn update_with_a_dead_controller_when(moment: impl Fn(&Value) -> bool) {
    let home = TestHome::new();
    let endpoint = home.up("web", &page(&home, 2, 8080, "one"));
    let old = uids(&home.wait_for_ready_replicas("web", 2));
    // Another port besides: each replica is reached where it listens.
    let next = page(&home, 2, 9090, "two");
    let outcomes = under_load(&endpoint, || {
        let victim = home.role("controller");
        assert!(update(&home, &next, &[]).contains("updated to version 2"));
        wait::until("the first replica of version 2", || {
            let service = home.service("web").unwrap_or_default();
            let replicas = service["replicas"].as_array().cloned().unwrap_or_default();
            let is_there = replicas.iter().any(|replica| replica["version"] == 2 && moment(replica));
            if is_there { Ok(()) } else { Err(format!("{replicas:?}")) }
        });
        victim.kill(Signal::SIGKILL);
        wait::until("two READY replicas of version 2", || {
            let service = home.service("web").unwrap_or_default();
            let done = service["rollout"] == "done" && service["replicas_ready"] == 2 && service["status"] == "READY";
            if done { Ok(()) } else { Err(format!("{service:#}\n{}", home.logs())) }
        });
    });
    assert_eq!(outcomes.failed(), 0, "{outcomes:?}");
    let new = home.wait_for_ready_replicas("web", 2);
    assert!(new.iter().all(|replica| replica["version"] == 2), "{new:#?}");
    assert!(uids(&new).iter().all(|uid| !old.contains(uid)), "{new:#?}");
    assert_eq!((home.endpoint("web"), body(&endpoint).trim()), (endpoint.clone(), "two"));
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn an_update_fails_no_request_and_goes_on_when_the_controller_dies_as_the_first_new_replica_is_launched() {
    update_with_a_dead_controller_when(|_| true);
}

#[test]
fn an_update_fails_no_request_and_goes_on_when_the_controller_dies_as_the_first_new_replica_is_ready() {
    update_with_a_dead_controller_when(|replica| replica["status"] == "READY");
}

#[test]
fn a_version_that_fails_takes_nothing_from_the_one_that_serves_and_the_way_back_restarts_nothing() {
    let home = TestHome::new();
    let endpoint = home.up("web", &page(&home, 2, 8080, "one"));
    let before = uids(&home.wait_for_ready_replicas("web", 2));
    let outcomes = under_load(&endpoint, || {
        let broken = yaml(&home, 2, 8080, "exit 3");
        let said = home.refused(&["update", "-y", "--wait", "web", broken.to_str().unwrap()]);
        for part in ["version 2 of service web failed", "version 1 goes on serving", "code 3", "logs web"] {
            assert!(said.contains(part), "{part} is missing in: {said}");
        }
        let failed = home.wait_for_status("web", "READY");
        assert_eq!((&failed["rollout"], &failed["version"]), (&"failed".into(), &2.into()));
        assert_eq!(uids(&home.replicas("web", "READY")), before);
        assert!(update(&home, &page(&home, 2, 8080, "one"), &["--wait"]).contains("version 3"));
    });
    assert_eq!(outcomes.failed(), 0, "{outcomes:?}");
    let after = home.wait_for_ready_replicas("web", 2);
    assert_eq!(uids(&after), before);
    assert!(after.iter().all(|replica| replica["version"] == 3), "{after:#?}");
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn another_number_of_replicas_or_another_probe_restarts_none() {
    let home = TestHome::new();
    let endpoint = home.up("web", &page(&home, 2, 8080, "one"));
    let before = uids(&home.wait_for_ready_replicas("web", 2));
    let outcomes = under_load(&endpoint, || {
        let said = update(&home, &page(&home, 3, 8080, "one"), &["--wait"]);
        assert!(said.contains("version 2, and 3 replicas are READY"), "{said}");
        let three = uids(&home.wait_for_ready_replicas("web", 3));
        assert!(before.iter().all(|uid| three.contains(uid)), "{three:?}");
        let same = update(&home, &page(&home, 3, 8080, "one"), &[]);
        assert!(same.contains("nothing changes"), "{same}");
        let patient = std::fs::read_to_string(page(&home, 2, 8080, "one")).unwrap();
        let patient = patient.replace("path: /", "path: /index.html\n    initial_delay_seconds: 77");
        update(&home, &home.yaml("web.yaml", &patient), &["--wait"]);
        wait::until("two to be left", || {
            let left = home.service("web").unwrap()["replicas"].as_array().unwrap().len();
            if left == 2 { Ok(()) } else { Err(format!("{left} are there")) }
        });
        assert_eq!(uids(&home.wait_for_ready_replicas("web", 2)), before);
    });
    assert_eq!(outcomes.failed(), 0, "{outcomes:?}");
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn a_probe_that_the_replicas_which_serve_do_not_pass_is_refused_before_it_takes_them_off_the_endpoint() {
    let home = TestHome::new();
    let endpoint = home.up("web", &page(&home, 1, 8080, "one"));
    let before = uids(&home.wait_for_ready_replicas("web", 1));
    let outcomes = under_load(&endpoint, || {
        let wrong = std::fs::read_to_string(page(&home, 1, 8080, "one")).unwrap().replace("path: /", "path: /gone");
        let wrong = home.yaml("web.yaml", &wrong);
        let said = home.refused(&["update", "-y", "web", wrong.to_str().unwrap()]);
        for part in ["404", "/gone", "Nothing was changed", "readiness_probe"] {
            assert!(said.contains(part), "{part} is missing in: {said}");
        }
    });
    assert_eq!(outcomes.failed(), 0, "{outcomes:?}");
    let service = home.wait_for_status("web", "READY");
    assert_eq!((&service["version"], uids(&home.replicas("web", "READY"))), (&1.into(), before));
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn a_mode_that_is_not_there_yet_and_a_service_that_does_not_exist_are_refused_with_what_to_do() {
    let home = TestHome::new();
    let yaml = page(&home, 1, 8080, "one");
    let yaml = yaml.to_str().unwrap();
    let said = home.refused(&["update", "-y", "web", yaml, "--mode", "blue_green"]);
    assert!(said.contains("rolling"), "{said}");
    let said = home.refused(&["update", "-y", "web", yaml]);
    assert!(said.contains("up YAML -n web"), "{said}");
    assert!(home.processes().is_empty(), "what was refused started nothing");
}
