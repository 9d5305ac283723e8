//! What the proxy changes in heads: hop-by-hop fields go, forwarding fields come. All else passes as it is.
//!
//! Invariants:
//! * No hop-by-hop field crosses, nor a field that `Connection` names (RFC 9110, 7.6.1); `Connection`
//!   cannot take away the fields that frame or route a message.
//! * A chunked request stays chunked, so that its body is never mistaken for the next request.

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Uri, Version};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

const HOP_BY_HOP: [HeaderName; 7] = [
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Fields that `Connection` must not take away: without them the message means something else.
const NEVER_NAMED: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE];

/// Why a request is refused before any replica sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unacceptable {
    pub(crate) status: StatusCode,
    pub(crate) reason: &'static str,
}

/// What the head asks of the proxy itself.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// Protocols to change to, if the replica agrees.
    pub(crate) upgrade: Option<HeaderValue>,
    /// The head had an `Upgrade`, whether or not it is passed on.
    pub(crate) upgrade_seen: bool,
    /// The body is sent only after `100 Continue`.
    pub(crate) expects_continue: bool,
}

/// Checks what hyper leaves to its user.
pub(crate) fn check_request(parts: &Parts, uri_bytes_max: usize) -> Result<(), Unacceptable> {
    let refuse = |status, reason| Err(Unacceptable { status, reason });
    if parts.method == Method::CONNECT {
        return refuse(StatusCode::NOT_IMPLEMENTED, "CONNECT is not supported: this endpoint is no forward proxy");
    }
    if parts.uri.path().len() + parts.uri.query().map_or(0, str::len) > uri_bytes_max {
        return refuse(StatusCode::URI_TOO_LONG, "the request target is too long: send the data in the body");
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if parts.version == Version::HTTP_11 => {
            refuse(StatusCode::BAD_REQUEST, "the request has no Host field, which HTTP/1.1 requires")
        }
        (_, Some(_)) => refuse(StatusCode::BAD_REQUEST, "the request has more than one Host field"),
        (Some(host), None) if !is_host(host) => {
            refuse(StatusCode::BAD_REQUEST, "the request's Host field is malformed")
        }
        _ => Ok(()),
    }
}

/// RFC 9110, 7.2: `uri-host [":" port]`; empty is allowed. Anything that could separate hosts is not.
fn is_host(host: &HeaderValue) -> bool {
    host.as_bytes().iter().all(|byte| byte.is_ascii_graphic() && !b"/\\@?#,\"<>".contains(byte))
}

/// Makes a client's head the one for the replica.
pub(crate) fn prepare_request(parts: &mut Parts, peer: &HeaderValue, fallback_host: &str) -> Wishes {
    let is_chunked = parts.headers.contains_key(header::TRANSFER_ENCODING);
    let wants_trailers = names_token(&parts.headers, &header::TE, "trailers");
    let wishes = wishes(parts);
    strip_hop_by_hop(&mut parts.headers);
    let headers = &mut parts.headers;
    if is_chunked {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(upgrade) = &wishes.upgrade {
        headers.insert(header::UPGRADE, upgrade.clone());
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.append(header::CONNECTION, HeaderValue::from_static("te"));
    }
    // RFC 9112, 3.2.2: the authority of an absolute target stands above Host.
    if let Some(host) = parts.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        headers.insert(header::HOST, host);
    }
    if !headers.contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(fallback_host)
    {
        headers.insert(header::HOST, host);
    }
    add_forwarding(headers, peer);
    if parts.uri.scheme().is_some() {
        parts.uri = origin_form(&parts.uri);
    }
    parts.version = Version::HTTP_11;
    wishes
}

fn wishes(parts: &Parts) -> Wishes {
    let headers = &parts.headers;
    let is_11 = parts.version == Version::HTTP_11;
    let expects_continue = is_11
        && headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let upgrade = headers.get(header::UPGRADE);
    let is_asked = is_11 && upgrade.is_some() && names_token(headers, &header::CONNECTION, "upgrade");
    // RFC 9113, 3.1: h2c by upgrade is obsolete, and a tunnel through a proxy that does not read it.
    let passes = is_asked && !names_token(headers, &header::UPGRADE, "h2c");
    Wishes { upgrade: upgrade.filter(|_| passes).cloned(), upgrade_seen: upgrade.is_some(), expects_continue }
}

/// Adds the peer to `X-Forwarded-For`. Protocol and host are kept when an outer proxy has told them.
fn add_forwarding(headers: &mut HeaderMap, peer: &HeaderValue) {
    let earlier: Vec<&[u8]> = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    let chain = if earlier.is_empty() {
        peer.clone()
    } else {
        let chain = [&earlier.join(&b", "[..]), b", ".as_slice(), peer.as_bytes()].concat();
        HeaderValue::from_maybe_shared(chain).unwrap_or_else(|_| peer.clone())
    };
    headers.insert(X_FORWARDED_FOR, chain);
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(X_FORWARDED_HOST)
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned();
    path.map_or_else(|| Uri::from_static("/"), Uri::from)
}

/// Makes a replica's head the one for the client. `None` if its body's length is told in two ways or
/// in a way that would be lost here.
pub(crate) fn prepare_reply(headers: &mut HeaderMap) -> Option<()> {
    if let Some(coding) = headers.get(header::TRANSFER_ENCODING) {
        let plain = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        let single = headers.get_all(header::TRANSFER_ENCODING).iter().count() == 1;
        if !plain || !single || headers.contains_key(header::CONTENT_LENGTH) {
            return None;
        }
    }
    strip_hop_by_hop(headers);
    Some(())
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if let Entry::Occupied(connection) = headers.entry(header::CONNECTION) {
        let values: Vec<HeaderValue> = connection.remove_entry_mult().1.collect();
        for name in values.iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b',')) {
            if let Ok(name) = HeaderName::from_bytes(name.trim_ascii())
                && !NEVER_NAMED.contains(&name)
            {
                headers.remove(name);
            }
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether a field's comma-separated values hold a token.
fn names_token(headers: &HeaderMap, field: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(field);
    let mut tokens = values.iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    tokens.any(|value| value.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests;
