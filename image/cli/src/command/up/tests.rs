use super::*;
use crate::invocation::Overrides;
use crate::testing::{Answer, TestHome, controller_view, ok, refusal, replica, service, shown};
use serde_json::json;
use std::path::PathBuf;

const YAML: &str = "service: {readiness_probe: /}\nresources: {ports: 8080}\nrun: serve $MODEL\nenvs: {MODEL: null}\n";

struct Scene {
    test_home: TestHome,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { test_home: TestHome::new(), folder: tempfile::tempdir().unwrap() };
        std::fs::write(scene.yaml(), YAML).unwrap();
        scene
    }

    fn yaml(&self) -> PathBuf {
        self.folder.path().join("s.yaml")
    }

    fn command(&self, wait: bool) -> Up {
        Up {
            yaml: self.yaml(),
            name: Some("web".into()),
            overrides: Overrides { env: vec!["MODEL=small".into()], ..Overrides::default() },
            assume_yes: true,
            wait,
        }
    }

    fn up(&self, command: Up) -> (Result<(), CommandError>, String) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(shown(async |screen| up(&self.test_home.context, command, screen).await))
    }
}

/// A controller that makes the service; `later` is what becomes of it, poll by poll.
fn controller_with(later: Vec<ServiceView>) -> impl FnMut(&str) -> Answer + Send + 'static {
    let mut later = later.into_iter().peekable();
    let mut made = false;
    move |what| match what {
        "GET /v1/controller" => controller_view(1),
        "POST /v1/services" => {
            made = true;
            Answer::Json(201, json!(service("web", "CONTROLLER_INIT")))
        }
        "GET /v1/services" if !made => ok([(); 0]),
        "GET /v1/services" => ok([service("web", "CONTROLLER_INIT")]),
        _ if what.starts_with("GET /v1/changes") => {
            let view = later.next_if(|_| true).into_iter().collect::<Vec<_>>();
            ok(json!({ "revision": 2, "services": view }))
        }
        _ if what.starts_with("PUT") => Answer::Json(201, json!({})),
        _ => refusal(404, "none"),
    }
}

#[test]
fn a_service_that_was_asked_for_is_shown_with_its_endpoint_and_the_next_commands() {
    let scene = Scene::new();
    let controller = scene.test_home.controller(controller_with(Vec::new()));
    let (outcome, text) = scene.up(scene.command(false));
    outcome.unwrap();
    for expected in ["http://127.0.0.1:30001", "skyserve status web\n", "skyserve logs web 1\n", "skyserve down web\n"]
    {
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
    let request: UpRequest = serde_json::from_slice(&controller.bodies_of("POST /v1/services")[0]).unwrap();
    assert_eq!(request.source, YAML);
    assert_eq!(request.envs, [("MODEL".to_owned(), "small".to_owned())]);
    assert_eq!(request.bundle, None);
}

#[test]
fn waiting_ends_when_the_service_is_ready() {
    let scene = Scene::new();
    let mut starting = service("web", "REPLICA_INIT");
    starting.replicas = vec![replica("web", 1, "STARTING")];
    let _controller = scene.test_home.controller(controller_with(vec![starting, service("web", "READY")]));
    let (outcome, text) = scene.up(scene.command(true));
    outcome.unwrap();
    assert!(text.ends_with("Service web is READY.\n"), "{text}");
}

#[test]
fn waiting_for_a_service_that_fails_is_an_error_with_the_reason_and_the_log() {
    let scene = Scene::new();
    let mut failed = service("web", "FAILED");
    failed.status_reason = Some("run exited with code 3".into());
    failed.replicas = vec![replica("web", 4, "FAILED"), replica("web", 5, "FAILED")];
    let _controller = scene.test_home.controller(controller_with(vec![failed]));
    let error = scene.up(scene.command(true)).0.unwrap_err().to_string();
    assert!(error.contains("run exited with code 3") && error.contains("skyserve logs web 5"), "{error}");
}

#[test]
fn a_service_that_is_taken_down_while_it_is_waited_for_is_an_error() {
    let scene = Scene::new();
    let _controller = scene.test_home.controller(controller_with(Vec::new()));
    let error = scene.up(scene.command(true)).0.unwrap_err().to_string();
    assert!(error.contains("web was taken down"), "{error}");
}

#[test]
fn a_name_that_is_taken_is_an_error_that_names_update() {
    let scene = Scene::new();
    let controller = scene.test_home.controller(|what| match what {
        "GET /v1/controller" => controller_view(1),
        _ => ok(service("web", "READY")),
    });
    let error = scene.up(scene.command(false)).0.unwrap_err().to_string();
    assert!(error.contains("skyserve update web YAML") && error.contains("-n"), "{error}");
    assert!(!controller.asked().iter().any(|what| what.starts_with("POST")));
}

#[test]
fn the_workdir_is_uploaded_before_the_service_is_asked_for() {
    let scene = Scene::new();
    let workdir = scene.folder.path().join("w");
    std::fs::create_dir(&workdir).unwrap();
    std::fs::write(workdir.join("server.py"), "serve").unwrap();
    std::fs::write(scene.yaml(), format!("{YAML}workdir: {}\n", workdir.display())).unwrap();
    let controller = scene.test_home.controller(controller_with(Vec::new()));
    scene.up(scene.command(false)).0.unwrap();
    let request: UpRequest = serde_json::from_slice(&controller.bodies_of("POST /v1/services")[0]).unwrap();
    let uploads = controller.bodies_of(&format!("PUT /v1/bundles/{}", request.bundle.unwrap()));
    assert_eq!(uploads.len(), 1);
    let asked = controller.asked();
    let place = |verb: &str| asked.iter().position(|what| what.starts_with(verb)).unwrap();
    assert!(place("PUT") < place("POST"));
}

#[test]
fn bad_input_is_refused_before_anything_is_asked_or_made() {
    let scene = Scene::new();
    let controller = scene.test_home.controller(controller_with(Vec::new()));
    let refused = |yaml: &str, change: &dyn Fn(&mut Up)| {
        std::fs::write(scene.yaml(), yaml).unwrap();
        let mut command = scene.command(false);
        change(&mut command);
        scene.up(command).0.unwrap_err().to_string()
    };
    let as_is = |_: &mut Up| {};
    assert!(refused("service: 7\n", &as_is).contains("s.yaml"));
    assert!(refused(YAML, &|up| up.overrides = Overrides::default()).contains("MODEL"));
    assert!(refused(YAML, &|up| up.name = Some("9lives".into())).contains("9lives"));
    assert!(refused(&format!("{YAML}workdir: ./gone\n"), &as_is).contains("workdir"));
    std::fs::write(scene.test_home.context.home.config_file(), "serve: [1]\n").unwrap();
    assert!(refused(YAML, &as_is).contains("config.yaml"));
    assert!(controller.asked().is_empty(), "{:?}", controller.asked());
}

#[test]
fn made_up_names_are_valid_and_differ() {
    let names: std::collections::HashSet<String> = (0..8).map(|_| made_up_name()).collect();
    assert!(names.len() > 1);
    assert!(names.iter().all(|name| validate_service_name(name).is_ok()));
}
