//! What becomes of replicas whose commands misbehave, as `status` shows it.

use crate::home::TestHome;
use crate::wait;
use serde_json::Value;
use std::path::PathBuf;

fn service(home: &TestHome, probe: &str, more: &str) -> PathBuf {
    home.yaml(
        "service.yaml",
        &format!("service:\n  replicas: 1\n  readiness_probe:\n{probe}resources:\n  ports: 8080\n{more}"),
    )
}

const PATIENT: &str = "    path: /\n    initial_delay_seconds: 60\n";

fn launched(home: &TestHome, yaml: &std::path::Path) {
    home.ok(&["up", "-y", "-n", "svc", yaml.to_str().unwrap()]);
}

fn wait_for_replica(home: &TestHome, status: &str) -> Value {
    wait::until(&format!("a replica that is {status}"), || {
        let found = home.replicas("svc", status);
        found
            .into_iter()
            .next()
            .ok_or_else(|| format!("{:#}\n{}", home.service("svc").unwrap_or_default(), home.logs()))
    })
}

fn ended(home: TestHome) {
    home.ok(&["down", "-y", "svc"]);
    home.assert_nothing_left();
}

#[test]
fn commands_that_exit_at_once_fail_and_after_five_the_service_is_failed_with_the_reason() {
    let home = TestHome::new();
    let yaml = service(&home, PATIENT, "run: exit 3\n");
    launched(&home, &yaml);
    let replica = wait_for_replica(&home, "FAILED");
    assert!(replica["status_reason"].as_str().unwrap().contains('3'), "the exit code is in the reason: {replica:#}");
    let service = home.wait_for_status("svc", "FAILED");
    assert!(service["status_reason"].as_str().unwrap().contains("Read its log"), "{service:#}");
    // Nobody is kept waiting for what will not come.
    let address = service["endpoint"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
    assert_eq!(crate::load::get_once(address).unwrap(), 503);
    ended(home);
}

#[test]
fn setup_that_fails_shows_in_the_reason() {
    let home = TestHome::new();
    let yaml = service(&home, PATIENT, "setup: exit 7\nrun: python3 -m http.server 8080\n");
    launched(&home, &yaml);
    let replica = wait_for_replica(&home, "FAILED");
    let reason = replica["status_reason"].as_str().unwrap();
    assert!(reason.contains("setup") && reason.contains('7'), "{reason}");
    ended(home);
}

#[test]
fn a_service_without_run_is_told_what_is_missing() {
    let home = TestHome::new();
    let yaml = service(&home, PATIENT, "setup: echo only this\n");
    let output = home.run(&["up", "-y", "-n", "svc", yaml.to_str().unwrap()]);
    if output.status.success() {
        let replica = wait_for_replica(&home, "FAILED");
        assert!(replica["status_reason"].as_str().unwrap().contains("run"), "{replica:#}");
        ended(home);
    } else {
        assert!(crate::home::text(&output.stderr).contains("run"), "{output:?}");
        home.assert_nothing_left();
    }
}

#[test]
fn a_replica_that_never_becomes_ready_fails_its_initial_delay() {
    let home = TestHome::new();
    let probe = "    path: /\n    initial_delay_seconds: 1\n";
    let yaml = service(&home, probe, "run: sleep 1000\n");
    launched(&home, &yaml);
    let replica = wait_for_replica(&home, "FAILED_INITIAL_DELAY");
    assert!(replica["status_reason"].as_str().unwrap().contains("initial_delay_seconds"), "{replica:#}");
    ended(home);
}

/// Serves until a file appears, then hangs with its socket open.
const HANGS: &str = r#"
import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        while os.path.exists(os.environ["HANG"]):
            time.sleep(0.05)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"#;

#[test]
fn a_replica_that_hangs_is_not_ready_then_replaced() {
    let home = TestHome::new();
    let (server, hang) = (home.yaml("hangs.py", HANGS), home.path().join("hang"));
    let probe = "    path: /\n    timeout_seconds: 1\n    endpoint_probe_interval_seconds: 1\n    consecutive_failure_threshold_timeout: 2\n";
    let yaml =
        service(&home, probe, &format!("envs:\n  HANG: {}\nrun: exec python3 {}\n", hang.display(), server.display()));
    home.up("svc", &yaml);
    std::fs::write(&hang, "").unwrap();
    wait_for_replica(&home, "NOT_READY");
    let failed = wait_for_replica(&home, "FAILED_PROBING");
    std::fs::remove_file(&hang).unwrap();
    let ready = home.wait_for_ready_replicas("svc", 1);
    assert_ne!(ready[0]["id"], failed["id"]);
    ended(home);
}

#[test]
fn commands_that_print_without_end_and_ignore_sigterm_serve_and_go() {
    let home = TestHome::new();
    let more = "run: |\n  trap '' TERM\n  (while true; do echo line after line; done) &\n  (setsid sleep 1000 &)\n  python3 -m http.server 8080\n";
    let yaml = service(&home, PATIENT, more);
    home.up("svc", &yaml);
    ended(home);
}

#[test]
fn workdir_file_mounts_envs_and_secrets_reach_the_replica() {
    let home = TestHome::new();
    let source = home.path().join("source");
    std::fs::create_dir_all(source.join("site")).unwrap();
    std::fs::write(source.join("site/index.html"), "from the workdir").unwrap();
    std::fs::write(home.path().join("extra.txt"), "mounted").unwrap();
    let yaml = home.yaml(
        "files.yaml",
        &format!(
            "service:\n  readiness_probe: /\n  replicas: 1\nresources:\n  ports: 8080\nworkdir: {}\nfile_mounts:\n  site/extra.txt: {}\n\
             envs:\n  COLOUR: red\nsecrets:\n  TOKEN: hush\n\
             run: |\n  echo \"$COLOUR $TOKEN\" > site/env.txt\n  cd site && exec python3 -m http.server 8080\n",
            source.display(),
            home.path().join("extra.txt").display()
        ),
    );
    home.ok(&[
        "up",
        "-y",
        "--wait",
        "-n",
        "svc",
        "--env",
        "COLOUR=blue",
        "--secret",
        "TOKEN=quiet",
        yaml.to_str().unwrap(),
    ]);
    let endpoint = home.endpoint("svc");
    let fetch = |path: &str| {
        let script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode(), end='')";
        crate::home::text(
            &home.command("python3").args(["-c", script, &format!("{endpoint}/{path}")]).output().unwrap().stdout,
        )
    };
    assert_eq!(fetch("index.html"), "from the workdir");
    assert_eq!(fetch("extra.txt"), "mounted");
    assert_eq!(fetch("env.txt"), "blue quiet\n");
    assert!(!source.join("site/env.txt").exists(), "the replica works on a copy");
    assert!(!home.logs().contains("quiet"), "no secret is logged");
    ended(home);
}

/// Answers slowly, once it has noted that it was asked.
const SLOW: &str = r#"
import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            open(os.environ["ASKED"], "w").close()
            time.sleep(1)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"#;

#[test]
fn a_request_in_flight_is_answered_before_its_service_is_taken_down() {
    let home = TestHome::new();
    let (server, asked) = (home.yaml("slow.py", SLOW), home.path().join("asked"));
    let more = format!("envs:\n  ASKED: {}\nrun: exec python3 {}\n", asked.display(), server.display());
    let yaml = service(&home, PATIENT, &more);
    let endpoint = home.up("svc", &yaml);
    let script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).status)";
    let mut request = home.command("python3");
    request.args(["-c", script, &format!("{endpoint}/slow")]).stdout(std::process::Stdio::piped());
    let request = request.spawn().unwrap();
    wait::until_true("the request to arrive", || asked.exists());
    home.ok(&["down", "-y", "svc"]);
    let answer = request.wait_with_output().unwrap();
    assert_eq!(crate::home::text(&answer.stdout), "200\n", "{answer:?}\n{}", home.logs());
    home.assert_nothing_left();
}
