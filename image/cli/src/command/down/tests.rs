use super::*;
use crate::testing::{Answer, TestHome, controller_view, ok, refusal, replica, service, shown};
use serde_json::json;

fn run(test_home: &TestHome, command: &Down) -> (Result<(), CommandError>, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(shown(async |screen| down(&test_home.context, command, screen).await))
}

fn stop(test_home: &TestHome, purge: bool) -> (Result<(), CommandError>, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let command = StopRuntime { names: Vec::new(), purge, assume_yes: true };
    runtime.block_on(shown(async |screen| stop_runtime(&test_home.context, &command, screen).await))
}

fn services(names: &[&str]) -> Command {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Down { target: DownTarget::Services(names), purge: false, assume_yes: true }
}

type Command = Down;

/// A controller whose services are gone one poll after they were taken down.
fn controller_of(names: &'static [&'static str]) -> impl FnMut(&str) -> Answer + Send + 'static {
    let mut left: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut going: Vec<String> = Vec::new();
    move |what| match what {
        "GET /v1/controller" => controller_view(1),
        "GET /v1/services" => ok(left.iter().map(|name| service(name, "READY")).collect::<Vec<_>>()),
        _ if what.starts_with("GET /v1/changes") => {
            left.retain(|name| !going.contains(name));
            ok(json!({ "revision": 2, "services": left.iter().map(|name| service(name, "READY")).collect::<Vec<_>>() }))
        }
        _ => {
            let name = what.trim_start_matches("DELETE /v1/services/").split('?').next().unwrap().to_owned();
            let view = service(&name, "SHUTTING_DOWN");
            going.push(name);
            Answer::Json(202, json!(view))
        }
    }
}

fn deleted(asked: &[String]) -> Vec<&str> {
    asked.iter().filter_map(|what| what.strip_prefix("DELETE /v1/services/")).collect()
}

#[test]
fn a_name_means_the_service_of_exactly_that_name() {
    let test_home = TestHome::new();
    let controller = test_home.controller(controller_of(&["my-svc", "my.svc"]));
    let (outcome, _) = run(&test_home, &services(&["my_svc"]));
    assert_eq!(outcome.unwrap_err().to_string(), "no service my_svc; existing services: my-svc, my.svc");
    let (outcome, text) = run(&test_home, &services(&["my-svc"]));
    outcome.unwrap();
    assert_eq!(text, "Service my-svc is down.\n");
    assert_eq!(deleted(&controller.asked()), ["my-svc?purge=false"]);
}

#[test]
fn patterns_match_as_in_a_shell_and_each_service_once() {
    let test_home = TestHome::new();
    let controller = test_home.controller(controller_of(&["test-1", "test-2", "web"]));
    run(&test_home, &services(&["test-*", "test-[12]", "w?b"])).0.unwrap();
    assert_eq!(deleted(&controller.asked()), ["test-1?purge=false", "test-2?purge=false", "web?purge=false"]);
}

#[test]
fn one_unknown_name_among_others_takes_nothing_down() {
    let test_home = TestHome::new();
    let controller = test_home.controller(controller_of(&["a", "b"]));
    let (outcome, _) = run(&test_home, &services(&["a", "c", "d*"]));
    assert_eq!(outcome.unwrap_err().to_string(), "no service c, d* (nothing was taken down); existing services: a, b");
    assert!(deleted(&controller.asked()).is_empty());
}

#[test]
fn all_without_services_is_no_failure() {
    let test_home = TestHome::new();
    let command = Down { target: DownTarget::All, purge: false, assume_yes: true };
    let (outcome, text) = run(&test_home, &command);
    outcome.unwrap();
    assert_eq!(text, "No existing services.\n");
}

#[test]
fn without_a_terminal_and_without_y_nothing_is_done() {
    let test_home = TestHome::new();
    let controller = test_home.controller(controller_of(&["a"]));
    let command = Down { assume_yes: false, ..services(&["a"]) };
    // Test runners have no terminal at their standard input; a person who runs this has, and is not asked.
    if !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        assert!(run(&test_home, &command).0.unwrap_err().to_string().contains("add -y"));
        assert!(deleted(&controller.asked()).is_empty());
    }
}

#[test]
fn a_service_that_cannot_be_cleaned_up_names_purge() {
    let test_home = TestHome::new();
    let _controller = test_home.controller(|what| match what {
        "GET /v1/controller" => controller_view(1),
        "GET /v1/services" => {
            let mut stuck = service("a", "FAILED_CLEANUP");
            stuck.status_reason = Some("replica 1 cannot be removed: read-only file system".into());
            ok([stuck])
        }
        _ => Answer::Json(202, json!(service("a", "SHUTTING_DOWN"))),
    });
    let error = run(&test_home, &services(&["a"])).0.unwrap_err().to_string();
    assert!(error.contains("read-only file system") && error.contains("skyserve down a --purge"), "{error}");
}

#[test]
fn a_replica_is_taken_down_by_its_number_and_waited_for() {
    let test_home = TestHome::new();
    let mut polls = 0;
    let controller = test_home.controller(move |what| match what {
        "GET /v1/controller" => controller_view(1),
        _ if what.starts_with("DELETE") => Answer::Json(202, json!(replica("a", 1, "SHUTTING_DOWN"))),
        _ => {
            polls += 1;
            let mut view = service("a", "READY");
            view.replicas = if polls < 3 { vec![replica("a", 1, "READY")] } else { vec![replica("a", 2, "STARTING")] };
            let services = [view];
            if what.starts_with("GET /v1/changes") {
                ok(json!({ "revision": polls, "services": services }))
            } else {
                ok(services)
            }
        }
    });
    let target = |id| Down { target: DownTarget::Replica { service: "a".into(), id }, purge: true, assume_yes: true };
    let (outcome, _) = run(&test_home, &target(9));
    assert_eq!(outcome.unwrap_err().to_string(), "service a has no replica 9; its replicas: 1");
    let (outcome, text) = run(&test_home, &target(1));
    outcome.unwrap();
    assert_eq!(text, "Replica 1 of service a is down.\n");
    assert_eq!(deleted(&controller.asked()), ["a/replicas/1?purge=true"]);
}

#[test]
fn the_controller_stays_while_it_has_services_unless_purged() {
    let test_home = TestHome::new();
    let controller = test_home.controller(controller_of(&["a", "b"]));
    let error = stop(&test_home, false).0.unwrap_err().to_string();
    assert!(error.contains("existing services: a, b") && error.contains("--purge"), "{error}");
    assert!(deleted(&controller.asked()).is_empty());
    stop(&test_home, true).0.unwrap();
    assert_eq!(deleted(&controller.asked()), ["a?purge=true", "b?purge=true"]);
}

#[test]
fn a_controller_that_is_not_there_needs_no_taking_down() {
    let (outcome, text) = stop(&TestHome::new(), false);
    outcome.unwrap();
    assert_eq!(text, "The controller is not running, and there are no services.\n");
}

#[test]
fn a_refused_removal_is_told_in_the_controllers_words() {
    let test_home = TestHome::new();
    let _controller = test_home.controller(|what| match what {
        "GET /v1/controller" => controller_view(1),
        "GET /v1/services" => ok([service("a", "READY")]),
        _ => refusal(409, "an update is under way"),
    });
    assert_eq!(run(&test_home, &services(&["a"])).0.unwrap_err().to_string(), "an update is under way");
}
