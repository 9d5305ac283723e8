use super::*;
use crate::testing::{Answer, TestHome, controller_view, ok, refusal, replica, service, shown};
use serde_json::Value;

fn asked(names: &[&str], form: StatusForm) -> Status {
    Status { names: names.iter().map(|name| (*name).to_owned()).collect(), form, watch: false }
}

const TABLE: StatusForm = StatusForm::Table { verbose: false };

fn run(test_home: &TestHome, command: &Status) -> (Result<(), CommandError>, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(shown(async |screen| status(&test_home.context, command, screen).await))
}

fn two_services(what: &str) -> Answer {
    match what {
        "GET /v1/controller" => controller_view(1),
        "GET /v1/services" => ok([service("api", "REPLICA_INIT"), service("web", "READY")]),
        _ => refusal(404, "none"),
    }
}

#[test]
fn nothing_running_and_no_services_is_no_failure() {
    let test_home = TestHome::new();
    let (outcome, text) = run(&test_home, &asked(&[], TABLE));
    assert!(outcome.is_ok());
    assert_eq!(text, "No existing services.\n");
    let (outcome, _) = run(&test_home, &asked(&["web"], TABLE));
    assert_eq!(outcome.unwrap_err().to_string(), "service web does not exist; there are no services");
}

#[test]
fn only_the_services_asked_for_are_shown() {
    let test_home = TestHome::new();
    let _controller = test_home.controller(two_services);
    let (outcome, text) = run(&test_home, &asked(&["web"], TABLE));
    outcome.unwrap();
    assert!(text.contains("web") && !text.contains("api"), "{text}");
    let (outcome, _) = run(&test_home, &asked(&["wob"], TABLE));
    assert_eq!(outcome.unwrap_err().to_string(), "service wob does not exist; existing services: api, web");
}

#[test]
fn the_endpoint_is_printed_alone_and_only_for_one_service() {
    let test_home = TestHome::new();
    let _controller = test_home.controller(two_services);
    let (outcome, text) = run(&test_home, &asked(&["web"], StatusForm::Endpoint));
    outcome.unwrap();
    assert_eq!(text, "http://127.0.0.1:30001\n");
    let (outcome, text) = run(&test_home, &asked(&[], StatusForm::Endpoint));
    assert!(outcome.unwrap_err().to_string().contains("name it"));
    assert_eq!(text, "");
}

#[test]
fn json_has_every_documented_field() {
    let test_home = TestHome::new();
    let _controller = test_home.controller(|what| match what {
        "GET /v1/controller" => controller_view(1),
        _ => {
            let mut web = service("web", "READY");
            web.replicas = vec![replica("web", 1, "READY")];
            ok([web])
        }
    });
    let (outcome, text) = run(&test_home, &asked(&[], StatusForm::Json));
    outcome.unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&document), ["services"]);
    let service = &document["services"][0];
    assert_eq!(
        keys(service),
        [
            "created_at_ms",
            "endpoint",
            "endpoint_listens",
            "load_balancing_policy",
            "name",
            "ready_since_ms",
            "replicas",
            "replicas_ready",
            "replicas_wanted",
            "requested_resources",
            "rollout",
            "status",
            "status_reason",
            "version"
        ]
    );
    assert_eq!(
        keys(&service["replicas"][0]),
        [
            "endpoint",
            "first_ready_at_ms",
            "id",
            "infra",
            "launched_at_ms",
            "resources",
            "status",
            "status_reason",
            "uid",
            "version"
        ]
    );
}

/// A reader that leaves after two lines.
struct TwoLines(Vec<u8>);

impl std::io::Write for TwoLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.iter().filter(|byte| **byte == b'\n').count() == 2 {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn watching_shows_each_change_once_and_ends_when_nobody_reads() {
    let test_home = TestHome::new();
    let mut revision = 0;
    let _controller = test_home.controller(move |what| match what {
        "GET /v1/controller" => controller_view(1),
        "GET /v1/services" => ok([service("web", "REPLICA_INIT")]),
        _ => {
            revision += 1;
            // The first two polls bring nothing new, nor does any after the fourth.
            let status = match revision {
                1..3 => "REPLICA_INIT",
                3 => "READY",
                _ => "NO_REPLICA",
            };
            ok(serde_json::json!({ "revision": revision, "services": [service("web", status)] }))
        }
    });
    let command = Status { names: Vec::new(), form: StatusForm::Json, watch: true };
    let mut out = TwoLines(Vec::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Client::new(test_home.context.home.control_socket());
    let ended = runtime.block_on(async {
        let mut screen = Screen { out: &mut out, style: crate::output::Style::Plain, is_terminal: false };
        watch(&test_home.context, &command, &client, &mut screen).await
    });
    assert!(matches!(ended, Err(CommandError::Output(error)) if crate::output::is_reader_gone(&error)));
    let text = String::from_utf8(out.0).unwrap();
    let statuses: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let statuses: Vec<&str> = statuses.iter().map(|value| value["services"][0]["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["REPLICA_INIT", "READY"]);
}
