//! A load balancer's report, asked for on the Unix socket of the one beside the controller, or at the metrics port of one
//! in another pod.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use skyserve_routes::report::{REPORT_PATH, Report};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// The load balancer answers from memory; longer means that it is stopped, or that its node is away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A report names every service and replica; the route table's own bound holds for it.
const REPORT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Asks for the report once; `Err` says why there is none.
pub(crate) async fn report(socket: &Path) -> Result<Report, String> {
    in_time(async {
        let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        ask(stream, "/v1/report").await
    })
    .await
}

/// The same of a load balancer in another pod.
pub(crate) async fn report_of_pod(metrics: SocketAddr) -> Result<Report, String> {
    in_time(async {
        let stream = TcpStream::connect(metrics).await.map_err(|error| error.to_string())?;
        ask(stream, REPORT_PATH).await
    })
    .await
}

async fn in_time(asking: impl Future<Output = Result<Report, String>>) -> Result<Report, String> {
    match timeout(ANSWER_TIMEOUT, asking).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
    }
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, path: &str) -> Result<Report, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = Connection(tokio::spawn(connection).abort_handle());
    let request = Request::get(path)
        .header(header::HOST, "loadbalancer")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("it answers {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), REPORT_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    drop(connection);
    serde_json::from_slice(&body.to_bytes()).map_err(|error| format!("its report cannot be read: {error}"))
}

/// Ends with whoever asked, who may give up waiting.
struct Connection(tokio::task::AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}
