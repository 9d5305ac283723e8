//! Readiness probes: one task for each replica, none waits for another.
//!
//! As SkyServe: GET, or POST with a JSON body; redirects on the replica itself are followed; only 200
//! passes. Each probe is a connection of its own, as a new client's would be.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use skyserve_model::ProbeRules;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

/// Time from the first probe of a replica to the second; doubles up to the interval, so that a
/// replica that starts fast is seen to be ready fast.
const FIRST_GAP_MS: u64 = 100;
/// Redirects followed within one probe: as many as a login page needs, few enough to end.
const REDIRECTS_MAX: usize = 5;
/// Body read of a probe's answer: the status has been judged by then, the rest is politeness.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long the body is read: a stream without end has passed with its status.
const ANSWER_BODY_WAIT: Duration = Duration::from_millis(100);
/// A probe that took this much longer than its timeout was not the replica's fault: this process was
/// paused, and the result says nothing.
const PAUSED_MS_MIN: u64 = 1_000;

/// Probes `address` until the future is dropped, and gives each result to `report`.
pub(crate) async fn run<F, R>(address: SocketAddr, rules: &ProbeRules, mut report: F)
where
    F: FnMut(Result<(), String>) -> R,
    R: Future<Output = ()>,
{
    let limit = Duration::from_millis(rules.timeout_ms);
    let mut gap_ms = FIRST_GAP_MS.min(rules.interval_ms);
    loop {
        let began = Instant::now();
        let result = match timeout(limit, probe(address, rules)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", limit.as_secs_f64())),
        };
        let paused = began.elapsed() > limit + Duration::from_millis(PAUSED_MS_MIN);
        if result.is_ok() {
            gap_ms = rules.interval_ms;
        }
        if result.is_ok() || !paused {
            report(result).await;
        }
        sleep_until(began + Duration::from_millis(gap_ms)).await;
        gap_ms = gap_ms.saturating_mul(2).min(rules.interval_ms);
    }
}

/// One probe; `Err` says why it does not pass.
pub(crate) async fn probe(address: SocketAddr, rules: &ProbeRules) -> Result<(), String> {
    let mut path = rules.path.clone();
    let mut body = rules.post_data.clone();
    for _ in 0..=REDIRECTS_MAX {
        let (status, location) = request(address, rules, &path, body.as_deref()).await?;
        if status == StatusCode::OK {
            return Ok(());
        }
        match location.filter(|_| status.is_redirection()).and_then(|location| same_host_path(&location, address)) {
            Some(next) => path = next,
            None => return Err(format!("it answered {status} to {}, only 200 passes", rules.path)),
        }
        if matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER) {
            body = None;
        }
    }
    Err(format!("it redirected {} more than {REDIRECTS_MAX} times", rules.path))
}

async fn request(
    address: SocketAddr,
    rules: &ProbeRules,
    path: &str,
    body: Option<&str>,
) -> Result<(StatusCode, Option<String>), String> {
    let stream =
        TcpStream::connect(address).await.map_err(|error| format!("cannot connect to {address}: {}", error.kind()))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| format!("no HTTP: {error}"))?;
    let mut request = Request::builder()
        .method(if body.is_some() { Method::POST } else { Method::GET })
        .uri(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .header(header::ACCEPT, "*/*")
        .header(header::USER_AGENT, concat!("skyserve/", env!("CARGO_PKG_VERSION"), " (readiness probe)"));
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    for (name, value) in &rules.headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Full::new(Bytes::from(body.unwrap_or_default().to_owned())))
        .map_err(|error| format!("the probe cannot be sent, mend service.readiness_probe: {error}"))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| format!("no answer: {error}"))?;
        let (parts, body) = answer.into_parts();
        // Read what comes at once, so that a replica does not log a broken pipe for each probe.
        let _ = timeout(ANSWER_BODY_WAIT, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        let location = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok((parts.status, location))
    };
    tokio::pin!(exchange);
    tokio::pin!(connection);
    tokio::select! {
        result = &mut exchange => result,
        ended = &mut connection => {
            // The connection may end right after the answer arrived.
            match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(format!("the connection broke: {error}")),
            }
        }
    }
}

/// The path of a redirect that stays on the replica.
fn same_host_path(location: &str, address: SocketAddr) -> Option<String> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(location.to_owned());
    }
    let rest = location.strip_prefix("http://")?.strip_prefix(&address.to_string())?;
    match rest.chars().next() {
        None => Some("/".to_owned()),
        Some('/') => Some(rest.to_owned()),
        Some(_) => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
