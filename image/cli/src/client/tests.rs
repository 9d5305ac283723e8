use super::*;
use crate::testing::{Answer, FakeController, controller_view, ok, refusal, service};
use serde_json::json;
use std::io::Write;

struct Scene {
    temp: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { temp: tempfile::tempdir().unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.temp.path().join("control.sock")
    }

    /// Answers `METHOD /path` for the nth time it is asked.
    fn controller(&self, mut answer: impl FnMut(&str, usize) -> Answer + Send + 'static) -> FakeController {
        let mut counts = std::collections::HashMap::new();
        FakeController::start(&self.socket(), move |what| {
            let count = counts.entry(what.to_owned()).or_insert(0);
            *count += 1;
            answer(what, *count)
        })
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }
}

fn request() -> UpRequest {
    UpRequest {
        name: "web".into(),
        source: "run: true".into(),
        file_name: "s.yaml".into(),
        envs: Vec::new(),
        secrets: Vec::new(),
        bundle: None,
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_service_that_is_made_is_returned() {
    let scene = Scene::new();
    let controller = scene.controller(|_, _| Answer::Json(201, json!(service("web", "CONTROLLER_INIT"))));
    let Created::New(view) = run(scene.client().create(&request(), 0)).unwrap() else { panic!() };
    assert_eq!(view.name, "web");
    let bodies = controller.bodies_of("POST /v1/services");
    assert_eq!(serde_json::from_slice::<UpRequest>(&bodies[0]).unwrap().source, "run: true");
}

#[test]
fn a_taken_name_is_told_at_once() {
    let scene = Scene::new();
    let controller = scene.controller(|_, _| refusal(409, "exists"));
    assert!(matches!(run(scene.client().create(&request(), 0)).unwrap(), Created::NameTaken));
    assert_eq!(controller.asked(), ["POST /v1/services"]);
}

#[test]
fn a_refusal_carries_the_controllers_words_and_details_and_is_not_repeated() {
    let scene = Scene::new();
    let controller = scene.controller(|_, _| Answer::Json(400, json!({ "error": "no", "details": ["a", "b"] })));
    let error = run(scene.client().create(&request(), 0)).unwrap_err();
    assert_eq!(error.to_string(), "no\n  a\n  b");
    assert_eq!(controller.asked().len(), 1);
}

#[test]
fn a_controller_that_is_not_there_yet_is_tried_again() {
    let scene = Scene::new();
    let client = scene.client();
    let (services, _controller) = run(async {
        tokio::join!(client.services(), async {
            // The first attempt has failed by then; were it later, the test would pass as well.
            tokio::time::sleep(RETRY_PAUSE / 2).await;
            scene.controller(|_, _| ok([service("web", "READY")]))
        })
    });
    assert_eq!(services.unwrap()[0].name, "web");
}

#[test]
fn a_lost_reply_to_a_read_is_asked_for_again() {
    let scene = Scene::new();
    let _controller = scene.controller(|_, count| if count < 3 { Answer::HangUp } else { controller_view(5) });
    assert_eq!(run(scene.client().controller()).unwrap().revision, 5);
}

#[test]
fn a_lost_reply_to_a_new_service_that_was_made_is_followed_up_and_never_sent_twice() {
    let scene = Scene::new();
    let controller = scene.controller(|what, count| match (what, count) {
        ("POST /v1/services", _) => Answer::HangUp,
        // The controller restarts meanwhile.
        (_, 1) => Answer::HangUp,
        _ => ok(service("web", "CONTROLLER_INIT")),
    });
    let Created::New(view) = run(scene.client().create(&request(), 1_000)).unwrap() else { panic!() };
    assert_eq!(view.name, "web");
    assert_eq!(controller.bodies_of("POST /v1/services").len(), 1);
}

#[test]
fn a_lost_request_that_had_no_effect_is_sent_again() {
    let scene = Scene::new();
    let controller = scene.controller(|what, count| match (what, count) {
        ("POST /v1/services", 1) => Answer::HangUp,
        ("POST /v1/services", _) => Answer::Json(201, json!(service("web", "CONTROLLER_INIT"))),
        _ => refusal(404, "none"),
    });
    assert!(matches!(run(scene.client().create(&request(), 0)).unwrap(), Created::New(_)));
    assert_eq!(controller.asked(), ["POST /v1/services", "GET /v1/services/web", "POST /v1/services"]);
}

#[test]
fn a_service_that_was_there_before_our_lost_request_is_not_taken_for_ours() {
    let scene = Scene::new();
    let _controller = scene.controller(|what, count| match (what, count) {
        ("POST /v1/services", 1) => Answer::HangUp,
        ("POST /v1/services", _) => refusal(409, "exists"),
        _ => ok(service("web", "READY")),
    });
    let asked_at_ms = service("web", "READY").created_at_ms + 1;
    assert!(matches!(run(scene.client().create(&request(), asked_at_ms)).unwrap(), Created::NameTaken));
}

#[test]
fn giving_up_says_where_the_controller_was_looked_for() {
    let scene = Scene::new();
    let error = run(scene.client().retrying_for(Duration::ZERO).services()).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }));
    assert!(error.to_string().contains("control.sock"), "{error}");
}

#[test]
fn what_does_not_exist_is_none_and_not_an_error() {
    let scene = Scene::new();
    let controller = scene.controller(|_, _| refusal(404, "none"));
    run(async {
        assert!(scene.client().service("a/../b?c").await.unwrap().is_none());
        assert!(scene.client().down("web", true).await.unwrap().is_none());
        assert!(!scene.client().down_replica("web", 3, false).await.unwrap());
    });
    assert_eq!(
        controller.asked(),
        [
            "GET /v1/services/a%2f..%2fb%3fc",
            "DELETE /v1/services/web?purge=true",
            "DELETE /v1/services/web/replicas/3?purge=false"
        ]
    );
}

#[test]
fn a_bundle_is_sent_whole_also_the_second_time() {
    let scene = Scene::new();
    let controller = scene.controller(|_, count| if count == 1 { Answer::HangUp } else { ok(json!({})) });
    let content: Vec<u8> = (0..300_000u32).map(|number| number as u8).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    let sent = Arc::default();
    run(scene.client().put_bundle("abc", &file, content.len() as u64, &sent)).unwrap();
    assert_eq!(sent.load(std::sync::atomic::Ordering::Relaxed), content.len() as u64);
    assert_eq!(controller.bodies_of("PUT /v1/bundles/abc"), [content.clone(), content]);
}

#[test]
fn an_answer_of_another_version_is_told_as_such() {
    let scene = Scene::new();
    let _controller = scene.controller(|_, _| ok(json!({ "unexpected": 1 })));
    assert!(matches!(run(scene.client().services()), Err(ClientError::NotUnderstood(_))));
}
