use super::*;
use crate::testing::{Answer, TestHome, controller_view, refusal};
use skyserve_routes::{Policy, publish};

fn routes(services: Vec<ServiceRoutes>) -> RouteTable {
    RouteTable { format: skyserve_routes::FORMAT, epoch: 1, seq: 1, services }
}

fn web() -> ServiceRoutes {
    let route = |id: u64, state| ReplicaRoute {
        uid: format!("web-1-{id}"),
        id,
        address: format!("127.64.0.{id}:8080").parse().unwrap(),
        weight: 1,
        state,
    };
    ServiceRoutes {
        name: "web".into(),
        listen: "127.0.0.1:30001".parse().unwrap(),
        policy: Policy::LeastLoad,
        stream_timeout_ms: 1000,
        tls: None,
        replicas: vec![route(1, ReplicaRouteState::Ready), route(2, ReplicaRouteState::Draining)],
        expects_replicas: true,
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_home_without_signs_of_services_starts_nothing() {
    let home = TestHome::new().context.home;
    assert!(!may_have_services(&home));
    let test_home = TestHome::new();
    let home = &test_home.context.home;
    assert!(run(find(home, &mut Progress::start())).unwrap().is_none());
    std::fs::write(home.database(), "").unwrap();
    publish(&home.routes_file(), &routes(Vec::new())).unwrap();
    assert!(!may_have_services(home));
    assert!(run(find(home, &mut Progress::start())).unwrap().is_none());
    assert!(skyserve_init::running(home).is_none());
}

#[test]
fn routes_replicas_or_a_database_without_routes_are_signs_of_services() {
    let test_home = TestHome::new();
    let home = &test_home.context.home;
    std::fs::write(home.database(), "").unwrap();
    assert!(may_have_services(home), "a database whose services nobody has listed");
    publish(&home.routes_file(), &routes(vec![web()])).unwrap();
    assert!(may_have_services(home));
    publish(&home.routes_file(), &routes(Vec::new())).unwrap();
    std::fs::create_dir(home.replicas_dir().join(".terminated")).unwrap();
    assert!(!may_have_services(home), "a record of what is gone");
    std::fs::create_dir(home.replica_dir("web-1-1")).unwrap();
    assert!(may_have_services(home), "a replica that nobody looks after");
    std::fs::remove_dir(home.replica_dir("web-1-1")).unwrap();
    assert!(!may_have_services(home));
    std::fs::write(home.init_lock(), "1\n").unwrap();
    assert!(may_have_services(home), "a runtime that was killed, perhaps before it published what it stored");
}

#[test]
fn a_controller_under_another_supervisor_is_used_and_not_stopped() {
    let test_home = TestHome::new();
    let home = &test_home.context.home;
    let _controller = test_home.controller(|what| match what {
        "GET /v1/controller" => controller_view(1),
        _ => refusal(404, "none"),
    });
    let mut progress = Progress::start();
    let found = run(find(home, &mut progress)).unwrap().unwrap();
    assert!(!found.started);
    run(stop(home, &mut progress)).unwrap();
    assert!(run(found.client.controller()).is_ok());
}

#[test]
fn the_last_known_services_keep_their_endpoint_and_say_what_is_wrong() {
    let test_home = TestHome::new();
    let home = &test_home.context.home;
    let _hung = test_home.controller(|_| Answer::HangUp);
    let error = run(Client::new(home.control_socket()).retrying_for(Duration::ZERO).services()).unwrap_err();
    assert!(last_known_services(home, &error).is_none());
    publish(&home.routes_file(), &routes(vec![web()])).unwrap();
    let services = last_known_services(home, &error).unwrap();
    assert_eq!(services[0].status, "CONTROLLER_FAILED");
    assert_eq!(services[0].endpoint, "http://127.0.0.1:30001");
    assert_eq!((services[0].replicas_ready, services[0].replicas_wanted), (1, 2));
    assert!(services[0].status_reason.as_ref().unwrap().contains("did not answer"));
    assert_eq!(services[0].replicas[0].status, "UNKNOWN");
}

#[test]
fn a_failure_is_explained_by_the_end_of_the_log() {
    let test_home = TestHome::new();
    let home = &test_home.context.home;
    assert!(explain(home).contains("are empty"));
    let lines: String = (0..100).map(|number| format!("line {number}\n")).collect();
    std::fs::write(home.init_log(), "init\n").unwrap();
    std::fs::write(home.controller_log(), lines).unwrap();
    let text = explain(home);
    assert!(text.contains("line 99") && text.contains("line 88") && !text.contains("line 87"), "{text}");
    assert!(text.contains("controller.log"), "{text}");
}
