//! Tables: which is in force, and what a change does to requests in flight.

use crate::support::{Balancer, Client, Replica, eventually, get, service};
use skyserve_routes::{Policy, ReplicaRouteState};
use std::sync::Mutex;
use std::sync::mpsc;

#[test]
fn a_torn_older_missing_or_newer_file_leaves_the_table_in_force() {
    let replica = Replica::saying("still");
    let service = service("kept", &[&replica]);
    let mut balancer = Balancer::start(&[&service], &["table_check_ms=100"]);
    balancer.apply(&[&service]);
    let file = balancer.routes_file();
    let good = std::fs::read(&file).unwrap();
    let broken = |what: &str| {
        let error = eventually(what, || balancer.report().table_error);
        assert_eq!(balancer.report().table.unwrap().seq, 2, "{what}");
        assert_eq!(get(service.listen, "/").text(), "still", "{what}");
        error
    };
    let restore = || {
        std::fs::write(&file, &good).unwrap();
        eventually("no error", || balancer.report().table_error.is_none().then_some(()));
    };
    std::fs::write(&file, &good[..good.len() / 2]).unwrap();
    assert!(broken("a torn table").contains("damaged"));
    restore();
    balancer.publish_version(1, 1, &[]);
    assert!(broken("an older table").contains("older"));
    restore();
    std::fs::remove_file(&file).unwrap();
    assert!(broken("a missing table").contains("cannot read"));
    restore();
    let newer = skyserve_routes::RouteTable { format: 99, epoch: 9, seq: 9, services: Vec::new() };
    std::fs::write(&file, skyserve_routes::encode(&newer)).unwrap();
    assert!(broken("a table of a newer format").contains("upgrade the load balancer"));
    // Half-written states of the files above may have been seen as well.
    let errors = balancer.metric("table_errors_total");
    assert!(errors >= 4.0, "{errors}");
}

/// A replica that starts to stream and goes on when told.
fn streaming() -> (Replica, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let replica = Replica::start(move |peer| {
        while peer.read_request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n");
            let _ = released.lock().unwrap().recv();
            peer.send("5\r\nended\r\n0\r\n\r\n");
        }
    });
    (replica, release)
}

#[test]
fn a_replica_that_leaves_or_drains_finishes_its_stream_and_gets_nothing_new() {
    for leaves in [true, false] {
        let (old, release) = streaming();
        let new = Replica::saying("new");
        let before = service("moves", &[&old]);
        let mut after = service("moves", &[&new, &old]);
        after.listen = before.listen;
        if leaves {
            after.replicas.pop();
        } else {
            after.replicas[1].state = ReplicaRouteState::Draining;
        }
        let mut balancer = Balancer::start(&[&before], &[]);
        let mut client = Client::connect(before.listen);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.head().unwrap();
        assert_eq!(client.chunk().unwrap(), b"begun");
        balancer.apply(&[&after]);
        for _ in 0..4 {
            assert_eq!(get(before.listen, "/").text(), "new");
        }
        let in_flight = balancer.report().services["moves"].replicas_in_flight.clone();
        assert_eq!(in_flight[&before.replicas[0].uid], 1, "{in_flight:?}");
        release.send(()).unwrap();
        assert_eq!(client.chunk().unwrap(), b"ended");
        assert_eq!(client.chunk().unwrap(), b"");
        assert_eq!(old.requests().len(), 1);
    }
}

#[test]
fn a_service_that_leaves_the_table_finishes_its_streams_and_refuses_new_connections() {
    let (replica, release) = streaming();
    let leaving = service("leaving", &[&replica]);
    let mut balancer = Balancer::start(&[&leaving], &[]);
    let mut client = Client::connect(leaving.listen);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head().unwrap();
    assert_eq!(client.chunk().unwrap(), b"begun");
    balancer.apply(&[]);
    eventually("a refused connect", || std::net::TcpStream::connect(leaving.listen).is_err().then_some(()));
    let in_flight = |balancer: &Balancer| {
        let report = balancer.report();
        report.services.get("leaving").map_or(0, |load| load.replicas_in_flight.values().sum())
    };
    assert_eq!(in_flight(&balancer), 1u64, "its replica must not be ended yet");
    release.send(()).unwrap();
    assert_eq!(client.chunk().unwrap(), b"ended");
    assert_eq!(client.chunk().unwrap(), b"");
    eventually("nothing in flight", || (in_flight(&balancer) == 0).then_some(()));
}

#[test]
fn least_load_counts_a_request_until_its_body_ends() {
    let (busy, release) = streaming();
    let idle = Replica::saying("idle");
    let service = service("least", &[&busy, &idle]);
    let balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head().unwrap();
    assert_eq!(client.chunk().unwrap(), b"begun");
    for _ in 0..6 {
        assert_eq!(get(service.listen, "/").text(), "idle");
    }
    release.send(()).unwrap();
    assert_eq!((client.chunk().unwrap(), client.chunk().unwrap()), (b"ended".to_vec(), Vec::new()));
    eventually("nothing in flight", || (balancer.report().services["least"].in_flight == 0).then_some(()));
    drop(release);
    for _ in 0..2 {
        get(service.listen, "/");
    }
    assert_eq!(busy.requests().len(), 2, "free again, it is chosen in its turn");
}

#[test]
fn round_robin_goes_round() {
    let replicas: Vec<Replica> = (0..3).map(|_| Replica::saying("x")).collect();
    let mut service = service("round", &replicas.iter().collect::<Vec<_>>());
    service.policy = Policy::RoundRobin;
    let _balancer = Balancer::start(&[&service], &[]);
    for _ in 0..9 {
        get(service.listen, "/");
    }
    let counts: Vec<usize> = replicas.iter().map(|replica| replica.requests().len()).collect();
    assert_eq!(counts, [3, 3, 3]);
}

#[test]
fn connections_to_replicas_are_used_again() {
    let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&connections);
    let replica = Replica::start(move |peer| {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        while peer.read_request().is_some_and(|_| peer.reply("ok")) {}
    });
    let service = service("pool", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    for _ in 0..50 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").text(), "ok");
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}
