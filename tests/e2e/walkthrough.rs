//! The seed document's walkthrough, typed as it stands, and the life of a service around it.

use crate::home::{TestHome, binary, http_service, text};
use crate::wait;
use std::fs;
use std::process::{Child, Stdio};

#[test]
fn the_seeds_walkthrough_works_as_typed() {
    let home = TestHome::new();
    let bin = home.path().join("bin");
    fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(binary(), bin.join("sky")).unwrap();
    fs::copy(http_service(), home.path().join("http_service.yaml")).unwrap();
    // Steps 2, 3 and 6 of the document; `yes` answers the confirmation, `timeout` stands for the person
    // who watches until STATUS is READY.
    let script = r#"
        set -eu
        cd "$HOME"
        yes | sky serve up -n my-http-service http_service.yaml
        timeout 60 bash -c 'until sky serve status my-http-service | grep -w READY; do sleep 0.2; done'
        ENDPOINT=$(sky serve status my-http-service --endpoint)
        echo "Service endpoint: $ENDPOINT"
        python3 -c "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())" $ENDPOINT
        echo "Re-checking service endpoint: $ENDPOINT"
        python3 -c "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())" $ENDPOINT
        yes | sky serve down my-http-service
        sky serve status
    "#;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = home.command("bash").env("PATH", path).args(["-c", script]).output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}\n{}", home.logs());
    assert!(stdout.contains("Service endpoint: http://127.0.0.1:"), "{stdout}");
    assert_eq!(
        stdout.matches("Directory listing for /").count() / 2,
        2,
        "both requests see http.server's page: {stdout}"
    );
    assert!(stdout.contains("No existing services."), "{stdout}");
    home.assert_nothing_left();
}

#[test]
fn up_prints_the_endpoint_and_down_leaves_nothing() {
    let home = TestHome::new();
    let printed = home.ok(&["up", "-y", "--wait", "-n", "my-http-service", http_service().to_str().unwrap()]);
    let endpoint = home.endpoint("my-http-service");
    assert!(printed.contains(&endpoint), "{printed}");
    for next in ["status my-http-service", "logs my-http-service", "down my-http-service"] {
        assert!(printed.contains(next), "`up` names what to do next ({next}): {printed}");
    }
    let table = home.ok(&["status"]);
    for column in ["NAME", "VERSION", "UPTIME", "STATUS", "REPLICAS", "ENDPOINT", "SERVICE_NAME", "LAUNCHED", "INFRA"] {
        assert!(table.contains(column), "{table}");
    }
    assert!(table.contains("1/1"), "{table}");
    home.ok(&["down", "-y", "my-http-service"]);
    home.assert_nothing_left();
    assert!(home.ok(&["status"]).contains("No existing services."));
    assert!(home.processes().is_empty(), "asking for the status of nothing starts nothing");
}

#[test]
fn a_service_that_exists_is_refused_with_the_way_to_change_it() {
    let home = TestHome::new();
    home.up("web", &http_service());
    let said = home.refused(&["up", "-y", "-n", "web", http_service().to_str().unwrap()]);
    assert!(said.contains("update"), "{said}");
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn two_services_live_beside_each_other_and_go_one_by_one() {
    let home = TestHome::new();
    let first = home.up("first", &http_service());
    let second = home.up("second", &http_service());
    assert_ne!(first, second);
    home.ok(&["down", "-y", "first"]);
    assert!(home.service("first").is_none());
    assert_eq!(home.wait_for_status("second", "READY")["endpoint"], second.as_str());
    let refused = home.refused(&["down", "-y", "first"]);
    assert!(refused.contains("second"), "an unknown name is answered with those that exist: {refused}");
    home.ok(&["down", "-y", "-a"]);
    home.assert_nothing_left();
}

#[test]
fn the_controllers_name_is_taken_down_only_without_services_or_with_purge() {
    let home = TestHome::new();
    home.up("web", &http_service());
    let sky = home.path().join("sky");
    std::os::unix::fs::symlink(binary(), &sky).unwrap();
    for typed in [&["down", "-y", "sky-serve-controller"][..], &["serve", "down", "-y", "sky-serve-controller"]] {
        let refused = home.command(&sky).args(typed).output().unwrap();
        assert!(!refused.status.success());
        let said = text(&refused.stdout) + &text(&refused.stderr);
        assert!(said.contains("web") && said.contains("--purge"), "the refusal names the services: {said}");
    }
    let purged = home.command(&sky).args(["down", "-y", "--purge", "sky-serve-controller"]).output().unwrap();
    assert!(purged.status.success(), "{}", text(&purged.stderr));
    home.assert_nothing_left();
}

#[test]
fn one_replica_can_be_taken_down_and_is_replaced_by_another() {
    let home = TestHome::new();
    home.up("web", &http_service());
    home.ok(&["down", "-y", "web", "--replica-id", "1"]);
    let ready = wait::until("replica 2 to be ready alone", || {
        let ready = home.replicas("web", "READY");
        if ready.len() == 1 && ready[0]["id"] == 2 { Ok(ready) } else { Err(format!("{ready:?}")) }
    });
    assert_eq!(ready[0]["id"], 2);
    home.ok(&["down", "-y", "web"]);
    home.assert_nothing_left();
}

#[test]
fn logs_show_what_a_replica_and_the_roles_print() {
    let home = TestHome::new();
    let yaml = home.yaml(
        "talk.yaml",
        "service:\n  readiness_probe: /\n  replicas: 1\nresources:\n  ports: 8080\nsetup: echo setting up\n\
         run: |\n  echo replica $SKYPILOT_SERVE_REPLICA_ID of $SKYPILOT_NUM_NODES\n  exec python3 -m http.server 8080\n",
    );
    home.up("talk", &yaml);
    let replica = home.ok(&["logs", "talk", "1", "--no-follow"]);
    assert!(replica.contains("setting up") && replica.contains("replica 1 of 1"), "{replica}");
    assert!(home.ok(&["logs", "talk", "--controller", "--no-follow"]).contains("talk"));
    home.ok(&["logs", "talk", "--load-balancer", "--no-follow", "--tail", "5"]);
    home.ok(&["down", "-y", "talk"]);
    home.assert_nothing_left();
}

/// Runs the same command several times at once, to their ends.
fn at_once(home: &TestHome, times: usize, arguments: &[&str]) -> Vec<std::process::Output> {
    let start =
        |_| home.command(binary()).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started: Vec<Child> = (0..times).map(start).collect();
    started.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

#[test]
fn of_several_ups_of_one_name_at_once_one_wins_and_of_several_downs_none_hurries() {
    let home = TestHome::new();
    let yaml = http_service();
    let ups = at_once(&home, 4, &["up", "-y", "--wait", "-n", "web", yaml.to_str().unwrap()]);
    let said: Vec<String> = ups.iter().map(|output| text(&output.stderr)).collect();
    assert_eq!(ups.iter().filter(|output| output.status.success()).count(), 1, "{said:#?}\n{}", home.logs());
    assert!(ups.iter().zip(&said).all(|(output, said)| output.status.success() || said.contains("already exists")));
    home.wait_for_status("web", "READY");
    at_once(&home, 3, &["down", "-y", "web"]);
    wait::until_true("the service to be gone", || home.service("web").is_none());
    home.assert_nothing_left();
    assert!(!home.logs().contains("ending everything now"), "{}", home.logs());
}
