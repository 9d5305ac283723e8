use super::*;
use crate::invocation::Overrides;
use crate::testing::{Answer, TestHome, controller_view, ok, refusal, replica, service, shown};
use serde_json::json;
use skyserve_api::{ChangeView, UpdateMode};

const YAML: &str = "service: {readiness_probe: /, replicas: 2}\nresources: {ports: 8080}\nrun: serve\n";

struct Scene {
    test_home: TestHome,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { test_home: TestHome::new(), folder: tempfile::tempdir().unwrap() };
        std::fs::write(scene.folder.path().join("s.yaml"), YAML).unwrap();
        scene
    }

    fn update(&self, wait: bool) -> (Result<(), CommandError>, String) {
        let command = Update {
            name: "web".into(),
            yaml: self.folder.path().join("s.yaml"),
            overrides: Overrides::default(),
            mode: UpdateMode::Rolling,
            assume_yes: true,
            wait,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(shown(async |screen| update(&self.test_home.context, &command, screen).await))
    }
}

fn plan_of(changes: &[&str], replicas_replaced: usize) -> UpdatePlan {
    let change = |what: &&str| ChangeView { what: (*what).to_owned(), needs_new_replicas: replicas_replaced > 0 };
    let nothing_to_do = changes.is_empty();
    UpdatePlan { version: 3, changes: changes.iter().map(change).collect(), replicas_replaced, nothing_to_do }
}

fn updated(rollout: &str) -> ServiceView {
    ServiceView { version: 4, rollout: rollout.to_owned(), replicas_wanted: 2, ..service("web", "READY") }
}

/// A controller with the service at version 3; `later` is what becomes of it, poll by poll.
fn controller_with(plan: UpdatePlan, later: Vec<ServiceView>) -> impl FnMut(&str) -> Answer + Send + 'static {
    let mut later = later.into_iter().peekable();
    move |what| match what {
        "GET /v1/controller" => controller_view(1),
        "GET /v1/services" => ok([service("web", "READY")]),
        "POST /v1/services/web/plan" => ok(&plan),
        "PUT /v1/services/web" => Answer::Json(202, json!(updated("under_way"))),
        _ if what.starts_with("GET /v1/changes") => {
            let view = later.next_if(|_| true).into_iter().collect::<Vec<_>>();
            ok(json!({ "revision": 2, "services": view }))
        }
        _ => refusal(404, "none"),
    }
}

#[test]
fn an_update_is_of_the_version_that_was_shown() {
    let scene = Scene::new();
    let controller = scene.test_home.controller(controller_with(plan_of(&["run"], 2), Vec::new()));
    let (outcome, text) = scene.update(false);
    outcome.unwrap();
    assert!(text.contains("updated to version 4. 2 replicas are replaced, one at a time"), "{text}");
    assert!(text.contains("skyserve status web\n"), "{text}");
    let request: UpdateRequest = serde_json::from_slice(&controller.bodies_of("PUT /v1/services/web")[0]).unwrap();
    assert_eq!((request.expected_version, request.up.source.as_str()), (Some(3), YAML));
    let plan: UpdateRequest = serde_json::from_slice(&controller.bodies_of("POST /v1/services/web/plan")[0]).unwrap();
    assert_eq!(plan.expected_version, None);
}

#[test]
fn a_yaml_that_changes_nothing_is_said_to_and_asks_for_nothing() {
    let scene = Scene::new();
    let controller = scene.test_home.controller(controller_with(plan_of(&[], 0), Vec::new()));
    let (outcome, text) = scene.update(false);
    outcome.unwrap();
    assert_eq!(text, "Service web is what the YAML asks for (version 3); nothing changes.\n");
    assert!(!controller.asked().iter().any(|what| what.starts_with("PUT")));
}

#[test]
fn a_person_is_shown_each_change_and_what_becomes_of_the_replicas() {
    let text = changes("web", &plan_of(&["replicas: 2 → 4", "run"], 2), Style::Plain);
    assert_eq!(
        text,
        "What changes in service web (version 3 to 4):\n  replicas: 2 → 4\n  run\n2 replicas are replaced, one at a time; an \
         old one goes once a new one is READY.\n"
    );
    let text = changes("web", &plan_of(&["replicas: 2 → 4"], 0), Style::Plain);
    assert!(text.ends_with("No replica that runs is restarted.\n"), "{text}");
    let again = UpdatePlan { nothing_to_do: false, ..plan_of(&[], 0) };
    assert!(changes("web", &again, Style::Plain).contains("what was given up is launched again"));
}

#[test]
fn waiting_ends_when_every_replica_is_of_the_new_version_and_ready() {
    let scene = Scene::new();
    let too_few = ServiceView { replicas_ready: 1, ..updated("done") };
    let done = ServiceView { replicas_ready: 2, ..updated("done") };
    let later = vec![updated("under_way"), too_few, done];
    let _controller = scene.test_home.controller(controller_with(plan_of(&["run"], 2), later));
    let (outcome, text) = scene.update(true);
    outcome.unwrap();
    assert_eq!(text, "Service web is at version 4, and 2 replicas are READY.\n");
}

#[test]
fn waiting_for_a_version_that_fails_is_an_error_with_the_reason_and_the_log() {
    let scene = Scene::new();
    let mut failed = updated("failed");
    failed.status_reason = Some("run exited with code 3".into());
    let of_version = |id, version| skyserve_api::ReplicaView { version, ..replica("web", id, "FAILED") };
    failed.replicas = vec![of_version(1, 3), of_version(6, 4), of_version(7, 3)];
    let _controller = scene.test_home.controller(controller_with(plan_of(&["run"], 2), vec![failed]));
    let error = scene.update(true).0.unwrap_err().to_string();
    assert!(error.contains("version 4 of service web failed: run exited with code 3"), "{error}");
    assert!(error.contains("skyserve logs web 6"), "{error}");
}

#[test]
fn waiting_ends_when_somebody_elses_update_takes_its_place() {
    let scene = Scene::new();
    let later = vec![ServiceView { version: 5, ..updated("under_way") }];
    let _controller = scene.test_home.controller(controller_with(plan_of(&["run"], 2), later));
    let error = scene.update(true).0.unwrap_err().to_string();
    assert!(error.contains("updated to version 5 before version 4 was done"), "{error}");
}

#[test]
fn a_service_that_does_not_exist_is_an_error_that_names_up_and_those_that_do() {
    let scene = Scene::new();
    let _controller = scene.test_home.controller(|what| match what {
        "GET /v1/controller" => controller_view(1),
        "GET /v1/services" => ok([service("other", "READY")]),
        _ => refusal(404, "none"),
    });
    let error = scene.update(false).0.unwrap_err().to_string();
    assert!(error.contains("skyserve up YAML -n web") && error.contains("existing services: other"), "{error}");
    let error = Scene::new().update(false).0.unwrap_err().to_string();
    assert!(error.contains("there are no services"), "{error}");
}

#[test]
fn an_update_whose_reply_was_lost_is_asked_for_again_in_the_same_words() {
    let scene = Scene::new();
    let mut lost = false;
    let mut rest = controller_with(plan_of(&["run"], 2), Vec::new());
    let controller = scene.test_home.controller(move |what| match what {
        "PUT /v1/services/web" if !std::mem::replace(&mut lost, true) => Answer::HangUp,
        _ => rest(what),
    });
    scene.update(false).0.unwrap();
    let bodies = controller.bodies_of("PUT /v1/services/web");
    assert!(bodies.len() == 2 && bodies[0] == bodies[1], "{bodies:?}");
}
