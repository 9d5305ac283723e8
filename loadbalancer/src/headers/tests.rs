use super::*;
use http::Request;

fn parts(fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri("/path?query");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn prepared(fields: &[(&str, &str)]) -> (Parts, Wishes) {
    let mut parts = parts(fields);
    let wishes = prepare_request(&mut parts, &HeaderValue::from_static("203.0.113.9"), "10.0.0.1:8080");
    (parts, wishes)
}

fn value<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn hop_by_hop_fields_and_those_that_connection_names_are_stripped() {
    let (parts, _) = prepared(&[
        ("host", "a"),
        ("connection", "X-Secret, close"),
        ("connection", "x-other"),
        ("x-secret", "1"),
        ("x-other", "2"),
        ("x-kept", "3"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic x"),
        ("te", "gzip"),
        ("upgrade", "h2c"),
    ]);
    let mut names: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-kept"]);
}

#[test]
fn connection_cannot_take_away_what_frames_or_routes_a_message() {
    let (parts, _) = prepared(&[("host", "a"), ("content-length", "3"), ("connection", "host, content-length")]);
    assert_eq!(value(&parts, "host"), Some("a"));
    assert_eq!(value(&parts, "content-length"), Some("3"));
}

#[test]
fn the_peer_is_added_to_the_chain_of_forwarders() {
    let (parts, _) =
        prepared(&[("host", "a"), ("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2, 3.3.3.3")]);
    assert_eq!(value(&parts, "x-forwarded-for"), Some("1.1.1.1, 2.2.2.2, 3.3.3.3, 203.0.113.9"));
    assert_eq!(value(&parts, "x-forwarded-proto"), Some("http"));
    assert_eq!(value(&parts, "x-forwarded-host"), Some("a"));
}

#[test]
fn what_an_outer_proxy_told_of_protocol_and_host_is_kept() {
    let (parts, _) = prepared(&[("host", "a"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "b")]);
    assert_eq!(value(&parts, "x-forwarded-proto"), Some("https"));
    assert_eq!(value(&parts, "x-forwarded-host"), Some("b"));
}

#[test]
fn an_upgrade_is_passed_on_when_connection_asks_for_it_too() {
    let (parts, wishes) = prepared(&[("host", "a"), ("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
    assert_eq!(wishes.upgrade, Some(HeaderValue::from_static("websocket")));
    assert_eq!(value(&parts, "upgrade"), Some("websocket"));
    assert_eq!(value(&parts, "connection"), Some("upgrade"));
    let (parts, wishes) = prepared(&[("host", "a"), ("upgrade", "websocket")]);
    assert_eq!((wishes.upgrade, wishes.upgrade_seen), (None, true));
    assert_eq!(value(&parts, "upgrade"), None);
}

#[test]
fn an_upgrade_to_h2c_is_ignored() {
    for offer in ["h2c", "H2C", "websocket, h2c"] {
        let (parts, wishes) = prepared(&[
            ("host", "a"),
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", offer),
            ("http2-settings", "AAMAAABkAAQAAP__"),
        ]);
        assert_eq!(wishes.upgrade, None, "{offer}");
        assert_eq!(value(&parts, "upgrade"), None);
        assert_eq!(value(&parts, "connection"), None);
        assert_eq!(value(&parts, "http2-settings"), None);
    }
}

#[test]
fn the_host_of_an_absolute_target_stands_above_the_field() {
    let mut parts = parts(&[("host", "wrong")]);
    parts.uri = Uri::from_static("http://right:81/a%2Fb?c=%20");
    prepare_request(&mut parts, &HeaderValue::from_static("1.1.1.1"), "fallback");
    assert_eq!(value(&parts, "host"), Some("right:81"));
    assert_eq!(parts.uri, "/a%2Fb?c=%20");
}

#[test]
fn requests_with_no_host_two_hosts_or_a_strange_one_are_refused() {
    let refused = |fields: &[(&str, &str)]| check_request(&parts(fields), 100).err().map(|refused| refused.status);
    assert_eq!(refused(&[("host", "a:80")]), None);
    assert_eq!(refused(&[("host", "")]), None);
    assert_eq!(refused(&[("host", "[::1]:80")]), None);
    assert_eq!(refused(&[]), Some(StatusCode::BAD_REQUEST));
    assert_eq!(refused(&[("host", "a"), ("host", "a")]), Some(StatusCode::BAD_REQUEST));
    for host in ["a, b", "a b", "user@a", "a/b"] {
        assert_eq!(refused(&[("host", host)]), Some(StatusCode::BAD_REQUEST), "{host}");
    }
}

#[test]
fn a_reply_whose_length_is_told_twice_or_otherwise_coded_is_not_passed_on() {
    let reply = |fields: &[(&str, &str)]| prepare_reply(&mut parts(fields).headers).is_some();
    assert!(reply(&[("content-length", "3")]));
    assert!(reply(&[("transfer-encoding", "chunked")]));
    assert!(!reply(&[("transfer-encoding", "chunked"), ("content-length", "3")]));
    assert!(!reply(&[("transfer-encoding", "gzip, chunked")]));
    assert!(!reply(&[("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")]));
}
