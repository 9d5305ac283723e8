//! What passes as it is, what is stripped, what is refused.

use crate::support::{Balancer, Client, Peer, Replica, get, service};
use nix::sys::signal::Signal;
use std::time::Duration;

#[test]
fn method_target_fields_and_bodies_pass_byte_for_byte() {
    let replica = Replica::start(|peer| {
        while peer.read_request().is_some() {
            peer.send("HTTP/1.1 207 Odd Reason\r\nX-Odd: \t a \"b\" \x7e\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 3\r\n\r\nabc");
        }
    });
    let service = service("bytes", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let target = "/a%2Fb/../c//d;e=f?q=%20+&&z={}|^`~";
    let answer = Client::connect(service.listen)
        .ask(format!("REPORT {target} HTTP/1.1\r\nHost: example.com:81\r\nX-Multi: 1\r\nX-Multi: 2\r\nContent-Length: 4\r\n\r\n\0\r\n\u{7f}"));
    assert_eq!((answer.status, answer.text()), (207, "abc"));
    assert_eq!(answer.field("x-odd"), Some("a \"b\" ~"));
    assert_eq!(answer.head.matches("set-cookie: ").count(), 2, "{}", answer.head);
    let request = replica.only_request();
    assert_eq!(request.request_line(), format!("REPORT {target} HTTP/1.1"));
    assert_eq!(request.fields("host"), ["example.com:81"]);
    assert_eq!(request.fields("x-multi"), ["1", "2"]);
    assert_eq!(request.fields("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(request.fields("x-forwarded-host"), ["example.com:81"]);
    assert_eq!(request.body, b"\0\r\n\x7f");
}

#[test]
fn hop_by_hop_fields_cross_in_neither_direction() {
    let replica = Replica::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nConnection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: timeout=9\r\nProxy-Authenticate: Basic\r\nX-Kept: 2\r\nContent-Length: 0\r\n\r\n");
        peer.wait_for_end();
    });
    let service = service("hops", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let answer = Client::connect(service.listen).ask(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\nTE: gzip\r\nX-Kept: 2\r\n\r\n",
    );
    for name in ["x-private", "keep-alive", "proxy-authenticate", "connection"] {
        assert_eq!(answer.field(name), None, "{name} in {}", answer.head);
    }
    assert_eq!(answer.field("x-kept"), Some("2"));
    let request = replica.only_request();
    for name in ["x-secret", "connection", "keep-alive", "proxy-authorization", "te"] {
        assert!(request.fields(name).is_empty(), "{name} in {}", request.head);
    }
    assert_eq!(request.fields("x-kept"), ["2"]);
}

/// Bytes that must be refused with this status, without a replica seeing anything of them.
const HOSTILE: &[(&str, &[u8], u16)] = &[
    (
        "both lengths",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "both lengths, other order",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("differing lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
    ("a list of lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
    ("a signed length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
    ("another coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    ("a disguised coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    ("a coding in 1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("bare LF", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("one bare LF", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    ("a folded field", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
    ("white space before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400),
    ("NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
    ("CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
    ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("a list of hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("a target with a space", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
];

#[test]
fn hostile_requests_are_refused_and_no_replica_sees_them() {
    let replica = Replica::saying("fine");
    let service = service("hostile", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    for (name, bytes, status) in HOSTILE {
        let mut client = Client::connect(service.listen);
        client.send(bytes);
        assert_eq!(client.answer("GET").status, *status, "{name}");
        assert!(client.has_ended(), "{name}: the connection must end");
        // The same, cut so that the head comes in several reads.
        let mut client = Client::connect(service.listen);
        for part in bytes.chunks(bytes.len() / 3 + 1) {
            client.send(part);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(client.answer("GET").status, *status, "{name}, in parts");
    }
    assert_eq!(replica.requests().len(), 0, "{:?}", replica.requests());
    assert_eq!(get(service.listen, "/").text(), "fine");
}

#[test]
fn a_refused_request_behind_a_good_one_does_not_harm_the_good_one() {
    let replica = Replica::saying("fine");
    let service = service("pipeline", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\nX: y\r\n\r\n");
    assert_eq!(client.answer("GET").status, 200);
    assert_eq!(client.answer("GET").status, 400);
    assert!(client.has_ended());
    assert_eq!(replica.only_request().request_line(), "GET /1 HTTP/1.1");
}

#[test]
fn malformed_chunks_never_reach_their_end() {
    let replica = Replica::start(|peer| {
        if peer.read_request().is_some() {
            peer.reply("whole");
        }
    });
    let service = service("chunks", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    for body in ["3\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "0x3\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\n"] {
        let mut client = Client::connect(service.listen);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        let answer = client.try_answer("POST");
        assert!(answer.as_ref().is_none_or(|answer| answer.status == 400), "{body:?}: {answer:?}");
    }
}

#[test]
fn an_overlong_target_or_head_is_refused() {
    let replica = Replica::saying("fine");
    let service = service("long", &[&replica]);
    let _balancer = Balancer::start(&[&service], &["uri_bytes_max=1000"]);
    assert_eq!(get(service.listen, &format!("/{}", "a".repeat(999))).status, 200);
    assert_eq!(get(service.listen, &format!("/{}", "a".repeat(1000))).status, 414);
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(70_000));
    assert_eq!(Client::connect(service.listen).ask(head).status, 400);
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", format!("X: {}\r\n", "a".repeat(1000)).repeat(70));
    assert_eq!(Client::connect(service.listen).ask(many).status, 431);
}

#[test]
fn trailers_pass_both_ways() {
    let replica = Replica::start(|peer| {
        peer.read_request();
        peer.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
        );
    });
    let service = service("trailers", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let answer = Client::connect(service.listen).ask(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Check: 9\r\n\r\n",
    );
    assert_eq!(answer.text(), "abcx-sum: 7\r\n");
    assert_eq!(String::from_utf8(replica.only_request().body).unwrap(), "2\r\nhi\r\n0\r\nx-check: 9\r\n\r\n");
}

#[test]
fn a_chunked_get_keeps_its_body() {
    let replica = Replica::saying("ok");
    let service = service("getbody", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    let answer = client.ask("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    assert_eq!(answer.text(), "ok");
    assert!(replica.only_request().body.starts_with(b"2\r\nhi\r\n0\r\n"));
}

#[test]
fn clients_and_replicas_of_http_1_0_are_served() {
    let replica = Replica::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold ");
        peer.send("style");
    });
    let service = service("old", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    let answer = client.ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (200, "old style"));
    assert_eq!(replica.only_request().request_line(), "GET / HTTP/1.1");
    let mut client = Client::connect(service.listen);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").text(), "old style");
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").text(), "old style", "the client's connection stays");
}

#[test]
fn head_204_and_304_have_no_body_and_leave_the_connection_usable() {
    let replica = Replica::start(|peer| {
        while let Some(request) = peer.read_request() {
            let answer = match request.request_line() {
                "HEAD / HTTP/1.1" => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
                "GET /204 HTTP/1.1" => "HTTP/1.1 204 No Content\r\n\r\n",
                "GET /304 HTTP/1.1" => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nend",
            };
            peer.send(answer);
        }
    });
    let service = service("bodiless", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer("HEAD").field("content-length"), Some("1234"));
    assert_eq!(client.ask("GET /204 HTTP/1.1\r\nHost: a\r\n\r\n").status, 204);
    assert_eq!(client.ask("GET /304 HTTP/1.1\r\nHost: a\r\n\r\n").field("etag"), Some("\"x\""));
    assert_eq!(client.ask("GET /end HTTP/1.1\r\nHost: a\r\n\r\n").text(), "end");
}

#[test]
fn a_reply_with_both_lengths_is_not_passed_on() {
    let replica = Replica::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    });
    let service = service("ambiguous", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let answer = get(service.listen, "/");
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("service 'ambiguous'"), "{}", answer.text());
}

#[test]
fn a_reply_that_is_not_http_is_told_as_such() {
    let replica = Replica::start(|peer| {
        peer.read_request();
        peer.send("SSH-2.0-OpenSSH\r\n\r\n");
    });
    let service = service("ssh", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let answer = get(service.listen, "/");
    assert_eq!((answer.status, answer.text().contains("not valid HTTP")), (502, true), "{}", answer.text());
}

#[test]
fn bytes_that_a_replica_sends_unasked_never_become_a_reply() {
    let replica = Replica::start(|peer| {
        while peer.read_request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        }
    });
    let service = service("unasked", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    for _ in 0..5 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").text(), "ok");
    }
}

fn switch_protocols(peer: &mut Peer) {
    peer.read_request();
    peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Accept: 1\r\n\r\nhello");
    let mut bytes = [0; 64];
    while let Ok(read @ 1..) = std::io::Read::read(&mut peer.stream, &mut bytes) {
        peer.send(&bytes[..read]);
    }
}

#[test]
fn an_upgrade_becomes_a_tunnel_after_the_replica_agrees() {
    let replica = Replica::start(switch_protocols);
    let service = service("echo", &[&replica]);
    let balancer = Balancer::start(&[&service], &[]);
    let mut client = Client::connect(service.listen);
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\nSec-WebSocket-Key: k\r\n\r\n");
    let head = client.head().unwrap();
    assert_eq!((head.status, head.field("upgrade"), head.field("x-accept")), (101, Some("echo"), Some("1")));
    assert_eq!(head.field("connection"), Some("upgrade"));
    let mut read = |bytes: &[u8]| {
        let mut buffer = vec![0; bytes.len()];
        std::io::Read::read_exact(&mut client.stream, &mut buffer).unwrap();
        assert_eq!(buffer, bytes);
        std::io::Write::write_all(client.stream.get_mut(), b"\0\n\nGET").unwrap();
    };
    read(b"hello");
    read(b"\0\n\nGET");
    assert_eq!(balancer.report().services["echo"].in_flight, 1, "a tunnel is in flight");
    client.close();
    crate::support::eventually("the tunnel's end", || {
        (balancer.report().services["echo"].in_flight == 0).then_some(())
    });
    assert_eq!(replica.only_request().fields("upgrade"), ["echo"]);
}

#[test]
fn without_a_101_an_upgrade_is_an_ordinary_request_and_nothing_follows_it() {
    let replica = Replica::saying("plain");
    let service = service("noupgrade", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    for upgrade in ["websocket", "h2c"] {
        let mut client = Client::connect(service.listen);
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\nGET /smuggled HTTP/1.1\nHost: a\n\n"));
        assert_eq!(client.answer("GET").text(), "plain");
        assert!(client.has_ended());
    }
    let requests = replica.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert_eq!(requests[1].fields("upgrade"), [] as [&str; 0], "h2c is not passed on");
}

#[test]
fn a_replica_cannot_switch_protocols_unasked() {
    let replica = Replica::start(switch_protocols);
    let service = service("unasked101", &[&replica]);
    let _balancer = Balancer::start(&[&service], &[]);
    assert_eq!(get(service.listen, "/").status, 502);
}

#[test]
fn a_body_waits_for_the_replicas_100_continue() {
    let replica = Replica::start(|peer| {
        let head = peer.read_head().unwrap();
        assert_eq!(head.fields("expect"), ["100-continue"]);
        if head.request_line().contains("refuse") {
            peer.send("HTTP/1.1 417 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        }
        peer.send("HTTP/1.1 100 Continue\r\n\r\n");
        let mut body = [0; 4];
        std::io::Read::read_exact(&mut peer.stream, &mut body).unwrap();
        peer.send([b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n", &body[..]].concat());
    });
    let service = service("expect", &[&replica]);
    let _balancer = Balancer::start(&[&service], &["continue_wait_ms_max=60000"]);
    let head = |path| format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    let mut client = Client::connect(service.listen);
    client.send(head("/take"));
    assert_eq!(client.answer("POST").status, 100);
    client.send("body");
    assert_eq!(client.answer("POST").text(), "body");
    let mut client = Client::connect(service.listen);
    client.send(head("/refuse"));
    let refusal = client.answer("POST");
    assert_eq!(refusal.status, 417, "the refusal comes without a 100: {refusal:?}");
}

#[test]
fn a_slow_head_ends_the_connection_and_an_idle_one_may_rest() {
    let replica = Replica::saying("ok");
    let service = service("slow", &[&replica]);
    let mut balancer = Balancer::start(&[&service], &["header_read_ms_max=300", "drain_quiet_ms=10"]);
    let mut idle = Client::connect(service.listen);
    idle.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut slow = Client::connect(service.listen);
    slow.send("GET / HTTP/1.1\r\nHost:");
    assert!(slow.has_ended());
    assert_eq!(idle.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").text(), "ok");
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.ended().success());
}
