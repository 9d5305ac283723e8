//! Reports, metrics, health.

use crate::support::{Balancer, Replica, eventually, free_address, get, service};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

#[test]
fn the_report_counts_requests_answers_and_what_is_in_flight() {
    let replica = Replica::saying("ok");
    let service = service("counted", &[&replica]);
    let balancer = Balancer::start(&[&service], &[]);
    get(service.listen, "/");
    get(service.listen, "/");
    crate::support::Client::connect(service.listen).ask("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    let load = eventually("nothing in flight", || {
        let load = balancer.report().services["counted"].clone();
        (load.in_flight == 0).then_some(load)
    });
    assert!(load.listening && load.listen_error.is_none());
    assert_eq!((load.requests_total, load.queued), (3, 0));
    assert_eq!(load.responses_by_class, [0, 2, 0, 0, 1]);
    assert_eq!(load.replicas_in_flight.values().collect::<Vec<_>>(), [&0]);
}

#[test]
fn the_report_socket_is_private_and_goes_with_the_process() {
    let mut balancer = Balancer::prepare(&["drain_quiet_ms=10"]);
    std::fs::write(balancer.report_socket(), "a stale file").unwrap();
    balancer.publish(&[]);
    balancer.spawn(|_| {});
    balancer.await_report();
    let mode = std::fs::metadata(balancer.report_socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    balancer.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(balancer.ended().success());
    assert!(!balancer.report_socket().exists());
}

#[test]
fn without_a_report_socket_traffic_flows_and_the_socket_comes_when_it_can() {
    let replica = Replica::saying("ok");
    let service = service("blind", &[&replica]);
    let mut balancer = Balancer::prepare(&["table_check_ms=100"]);
    // A folder that is not empty stands where the socket should be.
    std::fs::create_dir_all(balancer.report_socket().join("in the way")).unwrap();
    balancer.publish(&[&service]);
    balancer.spawn(|_| {});
    let answer = eventually("an answer", || crate::support::try_get(service.listen, "/"));
    assert_eq!(answer.text(), "ok");
    std::fs::remove_dir_all(balancer.report_socket()).unwrap();
    assert_eq!(balancer.await_report().services["blind"].requests_total, 1);
}

#[test]
fn metrics_tell_of_services_replicas_and_the_table() {
    let replica = Replica::saying("ok");
    let service = service("seen", &[&replica]);
    let mut balancer = Balancer::start(&[&service], &[]);
    get(service.listen, "/");
    let address = balancer.metrics_address();
    let metrics = get(address, "/metrics");
    assert!(metrics.field("content-type").unwrap().starts_with("text/plain"));
    let replica_requests =
        format!("replica_requests_total{{replica=\"{}\",service=\"seen\"}} 1", service.replicas[0].uid);
    for series in [
        "requests_total{service=\"seen\"} 1",
        "responses_total{class=\"2xx\",service=\"seen\"} 1",
        "requests_in_flight{service=\"seen\"} ",
        "requests_queued{service=\"seen\"} 0",
        "queue_wait_seconds_count{service=\"seen\"} 0",
        "request_to_headers_seconds_count{service=\"seen\"} 1",
        "request_seconds_bucket{service=\"seen\",le=\"+Inf\"}",
        "retries_total{service=\"seen\"} 0",
        "connect_failures_total{service=\"seen\"} 0",
        "connections_total{service=\"seen\"} 1",
        "body_bytes_total{direction=\"reply\",service=\"seen\"}",
        "table_epoch 1",
        "table_seq 1",
        "table_age_seconds ",
        replica_requests.as_str(),
    ] {
        assert!(metrics.text().contains(&format!("skyserve_loadbalancer_{series}")), "{series} in {}", metrics.text());
    }
    let described = include_str!("../../../README.md");
    let all = metrics.text();
    let names = all.lines().filter_map(|line| line.strip_prefix("# TYPE skyserve_loadbalancer_")?.split(' ').next());
    for name in names {
        assert!(described.contains(&format!("`{name}`")), "README says what {name} means");
    }
    balancer.apply(&[]);
    let metrics = get(address, "/metrics");
    assert!(!metrics.text().contains("\"seen\""), "a service's series end with it: {}", metrics.text());
}

#[test]
fn health_is_alive_at_once_and_ready_with_a_table() {
    let mut balancer = Balancer::prepare(&[]);
    balancer.spawn(|_| {});
    let address = balancer.await_report().metrics_address.unwrap();
    assert_eq!(get(address, "/healthz").status, 200);
    let unready = get(address, "/readyz");
    assert_eq!((unready.status, unready.text().contains("no route table")), (503, true));
    balancer.apply(&[]);
    assert_eq!(get(address, "/readyz").status, 200);
    assert_eq!(get(address, "/else").status, 404);
}

#[test]
fn a_metrics_port_that_is_taken_is_replaced_by_a_free_one() {
    let taken = TcpListener::bind(free_address()).unwrap();
    let wanted = taken.local_addr().unwrap();
    let balancer = Balancer::start(&[], &[&format!("metrics_address={wanted}")]);
    let address = balancer.metrics_address();
    assert_eq!(address.ip(), wanted.ip());
    assert_ne!(address.port(), wanted.port());
    assert_eq!(get(address, "/healthz").status, 200);
}

#[test]
fn an_endpoint_whose_port_is_taken_is_reported_and_tried_again() {
    let replica = Replica::saying("ok");
    let service = service("blocked", &[&replica]);
    let taken = TcpListener::bind(service.listen).unwrap();
    let balancer = Balancer::start(&[&service], &["table_check_ms=100"]);
    let load = balancer.report().services["blocked"].clone();
    assert!(!load.listening && load.address_in_use, "{load:?}");
    assert!(load.listen_error.unwrap().contains(&service.listen.to_string()));
    assert_eq!(get(balancer.metrics_address(), "/readyz").status, 503);
    drop(taken);
    eventually("the endpoint", || balancer.report().services["blocked"].listening.then_some(()));
    assert_eq!(get(service.listen, "/").text(), "ok");
}

#[test]
fn an_idle_load_balancer_rests() {
    let replica = Replica::saying("ok");
    let service = service("rests", &[&replica]);
    let balancer = Balancer::start(&[&service], &[]);
    get(service.listen, "/");
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", balancer.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    // Not a wait for anything: this is the time over which it is measured.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let used = ticks() - before;
    // A tick is 10 ms: a loop that spins takes 100.
    assert!(used <= 3, "{used} ticks in a second");
}
