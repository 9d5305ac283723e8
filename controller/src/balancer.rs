//! The load balancer's report, asked for on its Unix socket.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use skyserve_routes::report::Report;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The load balancer answers from memory; longer means that it is stopped.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A report names every service and replica; the route table's own bound holds for it.
const REPORT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Asks for the report once; `Err` says why there is none.
pub(crate) async fn report(socket: &Path) -> Result<Report, String> {
    match timeout(ANSWER_TIMEOUT, ask(socket)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
    }
}

async fn ask(socket: &Path) -> Result<Report, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/v1/report")
        .header(header::HOST, "loadbalancer")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let body = Limited::new(answer.into_body(), REPORT_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    connection.abort();
    serde_json::from_slice(&body.to_bytes()).map_err(|error| format!("its report cannot be read: {error}"))
}
