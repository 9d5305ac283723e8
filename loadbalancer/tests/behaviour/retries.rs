//! What is sent again, and what never.

use crate::support::{Balancer, Client, Recorded, Replica, eventually, free_address, get, service};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn methods(requests: &[Recorded]) -> Vec<&str> {
    requests.iter().map(Recorded::request_line).collect()
}

/// Answers one request on each connection, reads the next, and closes without an answer.
fn closing_after_the_second_request() -> Replica {
    Replica::start(|peer| {
        if peer.read_request().is_some_and(|_| peer.reply("first")) {
            peer.read_request();
        }
    })
}

#[test]
fn a_post_that_a_replica_read_and_did_not_answer_is_not_sent_again() {
    let replica = Replica::start(|peer| {
        peer.read_request();
    });
    let other = Replica::saying("other");
    let mut service = service("once", &[&replica, &other]);
    service.replicas[1].weight = 0;
    let _balancer = Balancer::start(&[&service], &[]);
    let answer = Client::connect(service.listen).ask("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("service 'once'"), "{}", answer.text());
    assert_eq!(methods(&replica.requests()), ["POST /p HTTP/1.1"]);
    assert_eq!(other.requests().len(), 0);
}

#[test]
fn a_post_on_a_reused_connection_that_closes_after_it_is_not_sent_again() {
    let replica = closing_after_the_second_request();
    let service = service("reused", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    assert_eq!(client.ask("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").text(), "first");
    let answer = client.ask("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(answer.status, 502);
    assert_eq!(methods(&replica.requests()), ["GET /1 HTTP/1.1", "POST /2 HTTP/1.1"]);
}

#[test]
fn a_get_on_a_reused_connection_that_closes_after_it_is_sent_again() {
    let replica = closing_after_the_second_request();
    let service = service("again", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    assert_eq!(client.ask("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").text(), "first");
    assert_eq!(client.ask("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").text(), "first");
    assert_eq!(methods(&replica.requests()), ["GET /1 HTTP/1.1", "GET /2 HTTP/1.1", "GET /2 HTTP/1.1"]);
}

#[test]
fn a_get_whose_reply_had_begun_is_not_sent_again() {
    let replica = Replica::start(|peer| {
        if peer.read_request().is_some_and(|_| peer.reply("first")) && peer.read_request().is_some() {
            peer.send("HTTP/1.1 200 ");
        }
    });
    let service = service("begun", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    client.ask("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.ask("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").status, 502);
    assert_eq!(replica.requests().len(), 2);
}

#[test]
fn posts_survive_replicas_that_close_idle_connections() {
    let replica = Replica::start(|peer| {
        if peer.read_request().is_some() {
            peer.reply("ok");
        }
    });
    let service = service("idle", &[&replica]);
    let balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    for _ in 0..20 {
        // The replica has closed; the load balancer has the time to see it, as between real requests.
        eventually("nothing in flight", || (balancer.report().services["idle"].in_flight == 0).then_some(()));
        let before = replica.requests().len();
        let answer = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        let sent = replica.requests().len() - before;
        // Where the replica closes while the request is on its way, that is told, and not repeated.
        assert!(matches!((answer.status, sent), (200, 1) | (502, 0 | 1)), "{} after {sent}", answer.status);
    }
}

#[test]
fn a_refused_connect_goes_to_another_replica_and_the_dead_one_is_left_alone() {
    let alive = Replica::saying("alive");
    let mut service = service("refused", &[&alive, &alive]);
    service.replicas[1].address = free_address();
    service.replicas[1].uid = "dead".into();
    let balancer = Balancer::start(&[&service], &[]);
    for _ in 0..20 {
        let answer = Client::connect(service.listen).ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(answer.text(), "alive");
    }
    assert_eq!(alive.requests().len(), 20);
    let failures = balancer.metric("connect_failures_total{service=\"refused\"}");
    // One at first, and one after each cool-down of a second or more.
    assert!((1.0..=5.0).contains(&failures), "{failures}");
}

#[test]
fn a_replica_that_is_replaced_in_its_place_is_waited_for() {
    let address = free_address();
    let first = Replica::start_at(address, |peer| {
        peer.read_request();
        peer.reply("first");
    });
    let service = service("replaced", &[&first]);
    let balancer = Balancer::start(&[&service], &[]);
    assert_eq!(get(service.listen, "/").text(), "first");
    drop(first);
    let waiting: Vec<_> = (0..10).map(|_| std::thread::spawn(move || get(service.listen, "/"))).collect();
    eventually("requests that wait", || (balancer.report().services["replaced"].queued == 10).then_some(()));
    let _second = Replica::start_at(address, |peer| {
        peer.read_request();
        peer.reply("second");
    });
    for answer in waiting {
        assert_eq!(answer.join().unwrap().text(), "second");
    }
}

#[test]
fn a_replica_that_takes_connections_and_resets_them_costs_no_second_post() {
    let taken = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&taken);
    let replica = Replica::start(move |peer| {
        count.fetch_add(1, Ordering::SeqCst);
        peer.read_head();
        peer.reset();
    });
    let service = service("resets", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let answer = Client::connect(service.listen).ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(answer.status, 502);
    assert_eq!((taken.load(Ordering::SeqCst), replica.requests().len()), (1, 1));
}

#[test]
fn retries_of_a_service_are_bounded_by_its_budget() {
    // Every connection answers one request and then swallows the next.
    let replica = closing_after_the_second_request();
    let service = service("budget", &[&replica]);
    let balancer = Balancer::start(&[&service], &[]);
    let mut failed = 0;
    for _ in 0..100 {
        let mut client = Client::connect(service.listen);
        failed += usize::from(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status == 502);
    }
    let retries = balancer.metric("retries_total{service=\"budget\"}");
    assert_eq!(replica.requests().len(), 100 + retries as usize, "each retry is counted");
    assert!(failed == 0 || retries >= 10.0, "{failed} failed after {retries} retries");
}

#[test]
fn a_listener_without_a_server_behind_it_is_given_up_in_time() {
    // A socket that is bound and never accepts, with a full backlog, answers no SYN.
    let address = free_address();
    let listener = socket2::Socket::from(TcpListener::bind(address).unwrap());
    listener.listen(0).unwrap();
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
    let fill: Vec<_> = (0..3).map(connect).collect();
    assert!(fill[2].is_none(), "the backlog is full");
    let alive = Replica::saying("alive");
    let mut service = service("blackhole", &[&alive, &alive]);
    service.replicas[1].address = address;
    service.replicas[1].uid = "blackhole".into();
    let _balancer = Balancer::start(&[&service], &[]);
    for _ in 0..3 {
        assert_eq!(get(service.listen, "/").text(), "alive");
    }
    drop(fill);
}
