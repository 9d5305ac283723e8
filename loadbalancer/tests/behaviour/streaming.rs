//! Bodies that take their time, both ways, and ends that are no clean ends.

use crate::support::{Balancer, Client, Replica, eventually, get, service};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

#[test]
fn each_event_leaves_before_the_next_is_made() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let replica = Replica::start(move |peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for number in 0..3 {
            peer.send(format!("9\r\ndata: {number}\n\n\r\n"));
            released.lock().unwrap().recv().unwrap();
        }
        peer.send("0\r\n\r\n");
    });
    let service = service("sse", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().unwrap().field("content-type"), Some("text/event-stream"));
    for number in 0..3 {
        assert_eq!(client.chunk().unwrap(), format!("data: {number}\n\n").as_bytes());
        release.send(()).unwrap();
    }
    assert_eq!(client.chunk().unwrap(), b"");
}

#[test]
fn a_request_body_is_passed_on_as_it_comes() {
    let (seen, parts) = mpsc::channel();
    let replica = Replica::start(move |peer| {
        peer.read_head();
        let mut part = [0; 3];
        for _ in 0..2 {
            std::io::Read::read_exact(&mut peer.stream, &mut part).unwrap();
            seen.send(part).unwrap();
        }
        peer.reply("done");
    });
    let service = service("upload", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    assert_eq!(parts.recv_timeout(crate::support::PATIENCE).unwrap(), *b"abc");
    client.send("def");
    assert_eq!(parts.recv_timeout(crate::support::PATIENCE).unwrap(), *b"def");
    assert_eq!(client.answer("POST").text(), "done");
}

/// Starts a replica that answers with `head` and `part`, then tells when its connection is closed.
fn endless(head: &'static str, part: &'static str) -> (Replica, mpsc::Receiver<()>) {
    let (closed, closes) = mpsc::channel();
    let replica = Replica::start(move |peer| {
        peer.read_request();
        peer.send(head);
        peer.send(part);
        if peer.wait_for_end() {
            let _ = closed.send(());
        }
    });
    (replica, closes)
}

#[test]
fn a_client_that_leaves_before_the_head_or_in_the_body_is_seen_by_the_replica() {
    for head in ["", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let (replica, closes) = endless(head, "");
        let service = service("leave", &[&replica]);
        let balancer = Balancer::start(&[&service], &[]);
        let mut client = Client::connect(service.listen);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("the request at the replica", || replica.requests().first().map(|_| ()));
        if !head.is_empty() {
            client.head().unwrap();
        }
        client.close();
        closes.recv_timeout(crate::support::PATIENCE).expect("the replica's connection is closed");
        eventually("nothing in flight", || (balancer.report().services["leave"].in_flight == 0).then_some(()));
    }
}

#[test]
fn a_client_that_leaves_in_its_own_body_is_seen_by_the_replica() {
    let (replica, closes) = {
        let (closed, closes) = mpsc::channel();
        let replica = Replica::start(move |peer| {
            peer.read_head();
            if peer.wait_for_end() {
                let _ = closed.send(());
            }
        });
        (replica, closes)
    };
    let service = service("leavebody", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    eventually("the request at the replica", || replica.requests().first().map(|_| ()));
    client.close();
    closes.recv_timeout(crate::support::PATIENCE).expect("the replica's connection is closed");
}

#[test]
fn a_reply_that_the_replica_cuts_never_looks_whole() {
    let heads = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    ];
    for head in heads {
        for version in ["1.1", "1.0"] {
            for resets in [false, true] {
                let cut = Arc::new(Mutex::new(()));
                let held = cut.lock().unwrap();
                let wait = Arc::clone(&cut);
                let replica = Replica::start(move |peer| {
                    peer.read_request();
                    peer.send(head);
                    drop(wait.lock().unwrap());
                    if resets {
                        peer.reset();
                    }
                });
                let service = service("cut", &[&replica]);
                let _balancer = Balancer::start(&[&service], &[]);
                let mut client = Client::connect(service.listen);
                client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"));
                let answer = client.head().unwrap();
                drop(held);
                let mut rest = Vec::new();
                let ended = std::io::Read::read_to_end(&mut client.stream, &mut rest);
                // The reply's end must be told by its length or last chunk, or the connection must break.
                let whole = match (answer.field("content-length"), answer.field("transfer-encoding")) {
                    (Some(length), _) => rest.len() as u64 >= length.parse::<u64>().unwrap(),
                    (None, Some(_)) => rest.ends_with(b"0\r\n\r\n"),
                    (None, None) => ended.is_ok(),
                };
                assert!(!whole, "HTTP/{version}, {head:?}, reset {resets}: {rest:?} {ended:?}");
            }
        }
    }
}

#[test]
fn silence_before_the_head_is_a_504_and_after_it_an_abort() {
    let (quiet, closes) = endless("", "");
    let mut silent = service("silent", &[&quiet]);
    silent.stream_timeout_ms = 300;
    let (stalling, stall_closes) = endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\nabc\r\n");
    let mut stalled = service("stalled", &[&stalling]);
    stalled.stream_timeout_ms = 300;
    let _balancer = Balancer::start(&[&silent, &stalled], &[]);
    let answer = get(silent.listen, "/");
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("service 'silent'"), "{}", answer.text());
    closes.recv_timeout(crate::support::PATIENCE).expect("the silent replica's connection is closed");
    let answer = get(stalled.listen, "/");
    assert_eq!((answer.status, answer.text(), answer.complete), (200, "abc", false));
    stall_closes.recv_timeout(crate::support::PATIENCE).expect("the stalled replica's connection is closed");
}

#[test]
fn a_stream_longer_than_the_timeout_lives_as_long_as_it_speaks() {
    let replica = Replica::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..12 {
            peer.send("1\r\nx\r\n");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        peer.send("0\r\n\r\n");
    });
    let mut service = service("long", &[&replica]);
    service.stream_timeout_ms = 700;
    let _balancer = Balancer::start(&[&service], &[]);
    let answer = get(service.listen, "/");
    assert_eq!((answer.text(), answer.complete), ("xxxxxxxxxxxx", true));
}

#[test]
fn a_client_that_falls_silent_in_its_body_is_let_go() {
    let replica = Replica::start(|peer| {
        peer.read_request();
    });
    let service = service("mute", &[&replica]);
    let balancer = Balancer::start(&[&service], &["body_idle_ms_max=300"]);
    let mut client = Client::connect(service.listen);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert!(client.has_ended());
    eventually("nothing in flight", || (balancer.report().services["mute"].in_flight == 0).then_some(()));
}

#[test]
fn a_client_that_does_not_read_is_let_go_and_the_replica_is_held_back() {
    const CHUNK_BYTES: usize = 64 * 1024;
    let replica = Replica::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = [format!("{CHUNK_BYTES:x}\r\n").as_bytes(), &[b'x'; CHUNK_BYTES], b"\r\n"].concat();
        while peer.send(&chunk) {}
    });
    let service = service("deaf", &[&replica]);
    let balancer = Balancer::start(&[&service], &["body_idle_ms_max=500"]);
    let mut client = Client::connect(service.listen);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request in flight", || (balancer.report().services["deaf"].in_flight == 1).then_some(()));
    eventually("the end of the exchange", || (balancer.report().services["deaf"].in_flight == 0).then_some(()));
    drop(client);
}
