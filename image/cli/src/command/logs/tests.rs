use super::*;
use crate::testing::{Answer, FakeController, TestHome, controller_view, ok, replica, service, shown};

fn run(test_home: &TestHome, of: LogOf, follow: bool) -> (Result<(), CommandError>, String) {
    let command = Logs { service: "web".into(), of, tail: None, follow };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(shown(async |screen| logs(&test_home.context, &command, screen).await))
}

fn with_replica(test_home: &TestHome) -> FakeController {
    test_home.controller(|what| match what {
        "GET /v1/controller" => controller_view(1),
        _ => {
            let mut web = service("web", "READY");
            web.replicas = vec![replica("web", 1, "READY")];
            let answer: Answer = if what == "GET /v1/services" { ok([web]) } else { ok(web) };
            answer
        }
    })
}

fn folder(test_home: &TestHome) -> Folder {
    let folder = Folder::at(test_home.context.home.replica_dir("web-1-1"));
    std::fs::create_dir_all(folder.dir()).unwrap();
    folder
}

fn keep_log(test_home: &TestHome, uid: &str, text: &str) {
    let kept = replica_log_path(&test_home.context.home, uid);
    std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
    std::fs::write(kept, text).unwrap();
}

#[test]
fn without_a_choice_the_answer_lists_what_can_be_chosen() {
    let test_home = TestHome::new();
    let _controller = with_replica(&test_home);
    let error = run(&test_home, LogOf::Unsaid, true).0.unwrap_err().to_string();
    assert!(error.contains("its replicas: 1") && error.contains("--load-balancer"), "{error}");
    let error = run(&test_home, LogOf::Replica(7), true).0.unwrap_err().to_string();
    assert_eq!(error, "service web has no replica 7, and no log of one; its replicas: 1");
}

#[test]
fn what_there_is_of_a_running_replica_is_printed() {
    let test_home = TestHome::new();
    let _controller = with_replica(&test_home);
    std::fs::write(folder(&test_home).output_log(), "serving\n").unwrap();
    let (outcome, text) = run(&test_home, LogOf::Replica(1), false);
    outcome.unwrap();
    assert_eq!(text, "serving\n");
}

#[test]
fn following_ends_once_the_replica_has_ended() {
    let test_home = TestHome::new();
    let _controller = with_replica(&test_home);
    let folder = folder(&test_home);
    std::fs::write(folder.output_log(), "serving\nbye\n").unwrap();
    std::fs::write(folder.exit_file(), "{}").unwrap();
    let (outcome, text) = run(&test_home, LogOf::Replica(1), true);
    outcome.unwrap();
    assert_eq!(text, "serving\nbye\n");
}

#[test]
fn the_kept_log_is_shown_when_the_replicas_folder_is_gone() {
    let test_home = TestHome::new();
    let _controller = with_replica(&test_home);
    keep_log(&test_home, "web-1-1", "kept\n");
    let (outcome, text) = run(&test_home, LogOf::Replica(1), true);
    outcome.unwrap();
    assert_eq!(text, "kept\n");
}

#[test]
fn the_log_of_a_replica_that_is_gone_is_that_of_the_newest_of_its_number() {
    let test_home = TestHome::new();
    let _controller = with_replica(&test_home);
    for uid in ["web-9-5", "web-10-5", "web-11-6", "web-2-99-5", "other-20-5"] {
        keep_log(&test_home, uid, uid);
    }
    let (outcome, text) = run(&test_home, LogOf::Replica(5), true);
    outcome.unwrap();
    assert_eq!(text, "web-10-5");
}

#[test]
fn the_controllers_and_the_load_balancers_logs_are_those_of_the_home() {
    let test_home = TestHome::new();
    let _controller = with_replica(&test_home);
    std::fs::write(test_home.context.home.controller_log(), "controller\n").unwrap();
    std::fs::write(test_home.context.home.load_balancer_log(), "balancer\n").unwrap();
    assert_eq!(run(&test_home, LogOf::Controller, false).1, "controller\n");
    assert_eq!(run(&test_home, LogOf::LoadBalancer, false).1, "balancer\n");
}

#[test]
fn logs_of_a_service_that_does_not_exist_are_an_error_that_starts_nothing() {
    let test_home = TestHome::new();
    let error = run(&test_home, LogOf::Controller, true).0.unwrap_err().to_string();
    assert_eq!(error, "service web does not exist; there are no services");
    assert!(skyserve_init::running(&test_home.context.home).is_none());
}
