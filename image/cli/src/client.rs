//! The control API's client: HTTP over the controller's Unix socket, or through a port-forward to its pod.
//!
//! Invariants:
//! * Every exchange has a deadline, and every reply a size limit; but a log that is followed has neither.
//! * What is safe to repeat is repeated for [`RETRY_FOR`] (on a cluster [`RETRY_REMOTE_FOR`]), so that a controller
//!   that restarts is not noticed. `POST /v1/services` is repeated only once it is known that it had no effect.

mod exchange;
mod transport;

use crate::cluster::Remote;
use exchange::{Body, Reply};
use hyper::{Method, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use skyserve_api::{
    Changes, ControllerView, ErrorBody, JSON_BYTES_MAX, ReplicaView, ServiceView, UpRequest, UpdatePlan, UpdateRequest,
};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use transport::Transport;

/// How long a controller that does not answer is tried again: it restarts in about a second, and init
/// waits a few seconds before it restarts one that keeps failing.
pub(crate) const RETRY_FOR: Duration = Duration::from_secs(10);
/// The same on a cluster, where a pod is replaced: the loss of its node is noticed after 50 s and acted on after
/// another 30 s, then a volume is attached and a container started.
pub(crate) const RETRY_REMOTE_FOR: Duration = Duration::from_secs(150);
/// Pause between attempts: short against a restart, long against a busy loop.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// For everything but uploads and long polls: each takes a few writes to a disk that may be slow.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The controller answers a long poll after 20 s at the latest.
const CHANGES_WITHIN: Duration = Duration::from_secs(30);
/// An upload may take this long, and longer by its size at [`UPLOAD_BYTES_PER_SECOND_MIN`].
const UPLOAD_WITHIN: Duration = Duration::from_secs(60);
/// Slowest disk worth waiting for.
const UPLOAD_BYTES_PER_SECOND_MIN: u64 = 1024 * 1024;
/// Slowest line to a cluster worth waiting for.
const UPLOAD_REMOTE_BYTES_PER_SECOND_MIN: u64 = 64 * 1024;

/// Why the controller could not be asked, or what it refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nothing was sent.
    #[error("cannot reach the controller {at}: {reason}")]
    Unreachable { at: String, reason: String },
    /// Nothing was sent, and another attempt would end the same.
    #[error("cannot reach the controller {at}: {reason}")]
    Barred { at: String, reason: String },
    /// The request may or may not have had its effect.
    #[error("the controller {at} did not answer: {reason}")]
    NoAnswer { at: String, reason: String },
    #[error("{}", refusal(.body))]
    Refused { status: u16, body: ErrorBody },
    #[error("the controller answered something this program does not understand ({0}): are they the same version?")]
    NotUnderstood(String),
    #[error("the request is {bytes} bytes, more than the {JSON_BYTES_MAX} allowed: move data from the YAML to files")]
    TooLarge { bytes: usize },
    #[error("cannot read the packed files back: {0}")]
    Bundle(std::io::Error),
}

fn refusal(body: &ErrorBody) -> String {
    std::iter::once(&body.error).chain(&body.details).cloned().collect::<Vec<_>>().join("\n  ")
}

impl ClientError {
    /// Whether another attempt may find the controller back. It answers 503 while it stops, and while
    /// it cannot write to its disk.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::Refused { status: 503, .. })
    }

    /// Whether the controller said that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// Why a log was not shown to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Whoever was to be shown it could not take it.
    #[error(transparent)]
    Sink(io::Error),
}

/// What became of a request for a new service.
#[derive(Debug)]
pub(crate) enum Created {
    New(Box<ServiceView>),
    NameTaken,
}

/// Speaks to one controller.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    transport: Transport,
    retry_for: Duration,
}

impl Client {
    /// To the controller that listens on this socket.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { transport: Transport::Unix(socket), retry_for: RETRY_FOR }
    }

    /// To a controller on a cluster.
    pub(crate) fn through(remote: Arc<Remote>) -> Self {
        Self { transport: Transport::Cluster(remote), retry_for: RETRY_REMOTE_FOR }
    }

    /// One that tries again for another time than [`RETRY_FOR`]; zero for a single attempt.
    pub(crate) fn retrying_for(&self, retry_for: Duration) -> Self {
        Self { transport: self.transport.clone(), retry_for }
    }

    /// Now by the controller's clock, which may differ from that of this machine; never later.
    pub(crate) async fn now_ms(&self) -> Result<u64, ClientError> {
        let here = SystemTime::now();
        let there = match &self.transport {
            Transport::Unix(_) => None,
            Transport::Cluster(_) => {
                let reply = self.retry(async || accept(self.get_once("/v1/controller").await?)).await?;
                let date = reply.headers.get(header::DATE).and_then(|date| date.to_str().ok());
                date.and_then(|date| httpdate::parse_http_date(date).ok())
            }
        };
        let since = there.unwrap_or(here).duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) async fn controller(&self) -> Result<ControllerView, ClientError> {
        self.get("/v1/controller").await
    }

    /// Every service, by name.
    pub(crate) async fn services(&self) -> Result<Vec<ServiceView>, ClientError> {
        self.get("/v1/services").await
    }

    /// The service of this name, if there is one.
    pub(crate) async fn service(&self, name: &str) -> Result<Option<ServiceView>, ClientError> {
        found(self.get(&service_path(name)).await)
    }

    /// Waits for a revision after `after` (20 s at most). Tried once: a caller that loses it starts
    /// again from [`Client::controller`], because another controller may count from elsewhere.
    pub(crate) async fn changes(&self, after: u64) -> Result<Changes, ClientError> {
        let path = format!("/v1/changes?after={after}");
        let reply = exchange::exchange(&self.transport, Method::GET, &path, Body::None, CHANGES_WITHIN).await?;
        understand(reply)
    }

    /// Asks for a service to be taken down. `None`: there is none of this name.
    pub(crate) async fn down(&self, name: &str, purge: bool) -> Result<Option<ServiceView>, ClientError> {
        found(self.delete(&format!("{}?purge={purge}", service_path(name))).await)
    }

    /// Asks for a replica to be taken down. `false`: there is none of this number.
    pub(crate) async fn down_replica(&self, name: &str, id: u64, purge: bool) -> Result<bool, ClientError> {
        let path = format!("{}/replicas/{id}?purge={purge}", service_path(name));
        // Its view may be absent from the answer: a purged replica is gone at once.
        found(self.delete::<Option<ReplicaView>>(&path).await).map(|found| found.is_some())
    }

    /// Uploads a bundle of `bytes` bytes; `sent` counts them. Safe to repeat: its name is its content.
    pub(crate) async fn put_bundle(
        &self,
        sha256: &str,
        file: &File,
        bytes: u64,
        sent: &Arc<AtomicU64>,
    ) -> Result<(), ClientError> {
        let slowest = match self.transport {
            Transport::Unix(_) => UPLOAD_BYTES_PER_SECOND_MIN,
            Transport::Cluster(_) => UPLOAD_REMOTE_BYTES_PER_SECOND_MIN,
        };
        let within = UPLOAD_WITHIN + Duration::from_secs(bytes / slowest);
        let path = format!("/v1/bundles/{sha256}");
        self.retry(async || {
            let file = file.try_clone().map_err(ClientError::Bundle)?;
            let body = Body::File { file, bytes, sent: Arc::clone(sent) };
            accept(exchange::exchange(&self.transport, Method::PUT, &path, body, within).await?).map(drop)
        })
        .await
    }

    /// The whole of a log so far.
    pub(crate) async fn log(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        let reply = self.retry(async || accept(self.get_once(path).await?)).await?;
        Ok(reply.body.to_vec())
    }

    /// A log as it comes. Tried once: what was shown must not be shown again.
    ///
    /// # Errors
    /// When it was refused, or broke off before its end.
    pub(crate) async fn follow_log(
        &self,
        path: &str,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), LogError> {
        match exchange::stream(&self.transport, path, sink).await? {
            None => Ok(()),
            Some(refusal) => Ok(accept(refusal).map(drop)?),
        }
    }

    /// What an update would change. `None`: there is no such service.
    pub(crate) async fn plan_update(&self, request: &UpdateRequest) -> Result<Option<UpdatePlan>, ClientError> {
        let path = format!("{}/plan", service_path(&request.up.name));
        found(self.repeatable_with(Method::POST, &path, to_json(request)?).await)
    }

    /// Asks for another version of a service. Safe to repeat: one that is there already is not made again.
    pub(crate) async fn update(&self, request: &UpdateRequest) -> Result<ServiceView, ClientError> {
        self.repeatable_with(Method::PUT, &service_path(&request.up.name), to_json(request)?).await
    }

    /// Asks for a new service. A lost reply is followed up: the service is then looked for, and the
    /// request repeated only if it is not there.
    ///
    /// `asked_at_ms` is a moment before this call, from [`Client::now_ms`]: a service of this name that was created
    /// since then, while our reply was lost, is ours.
    pub(crate) async fn create(&self, request: &UpRequest, asked_at_ms: u64) -> Result<Created, ClientError> {
        let body = to_json(request)?;
        let deadline = Instant::now() + self.retry_for;
        let mut may_have_been_created = false;
        loop {
            let lost = match self.post(&body).await {
                Ok(view) => return Ok(Created::New(Box::new(view))),
                Err(ClientError::Refused { status: 409, .. }) if !may_have_been_created => {
                    return Ok(Created::NameTaken);
                }
                Err(ClientError::Refused { status: 409, .. }) => {
                    // By our earlier attempt, or by somebody else in the meantime.
                    let ours = self.created_since(&request.name, asked_at_ms).await?;
                    return Ok(ours.map_or(Created::NameTaken, |view| Created::New(Box::new(view))));
                }
                Err(error) if error.is_absence() && Instant::now() < deadline => error,
                Err(error) => return Err(error),
            };
            if !matches!(lost, ClientError::Unreachable { .. }) {
                may_have_been_created = true;
                if let Some(view) = self.created_since(&request.name, asked_at_ms).await? {
                    return Ok(Created::New(Box::new(view)));
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn post(&self, body: &[u8]) -> Result<ServiceView, ClientError> {
        let body = Body::Json(body.to_vec());
        understand(exchange::exchange(&self.transport, Method::POST, "/v1/services", body, ANSWER_WITHIN).await?)
    }

    async fn created_since(&self, name: &str, asked_at_ms: u64) -> Result<Option<ServiceView>, ClientError> {
        Ok(self.service(name).await?.filter(|view| view.created_at_ms >= asked_at_ms))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.repeatable(Method::GET, path).await
    }

    async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.repeatable(Method::DELETE, path).await
    }

    async fn repeatable<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, ClientError> {
        self.retry(async || {
            let sent = exchange::exchange(&self.transport, method.clone(), path, Body::None, ANSWER_WITHIN);
            understand(sent.await?)
        })
        .await
    }

    async fn get_once(&self, path: &str) -> Result<Reply, ClientError> {
        exchange::exchange(&self.transport, Method::GET, path, Body::None, ANSWER_WITHIN).await
    }

    async fn repeatable_with<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        self.retry(async || {
            let body = Body::Json(body.clone());
            understand(exchange::exchange(&self.transport, method.clone(), path, body, ANSWER_WITHIN).await?)
        })
        .await
    }

    async fn retry<T>(&self, attempt: impl AsyncFn() -> Result<T, ClientError>) -> Result<T, ClientError> {
        let deadline = Instant::now() + self.retry_for;
        loop {
            match attempt().await {
                Err(error) if error.is_absence() && Instant::now() < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// Service names need no escaping in a path; any other text a person typed must not change it.
pub(crate) fn service_path(name: &str) -> String {
    let escaped: String = name
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    format!("/v1/services/{escaped}")
}

fn to_json(request: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    let body = serde_json::to_vec(request).map_err(|error| ClientError::NotUnderstood(error.to_string()))?;
    if body.len() > JSON_BYTES_MAX { Err(ClientError::TooLarge { bytes: body.len() }) } else { Ok(body) }
}

fn found<T>(outcome: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn accept(reply: Reply) -> Result<Reply, ClientError> {
    if reply.status.is_success() {
        return Ok(reply);
    }
    let body = serde_json::from_slice(&reply.body).unwrap_or_else(|_| ErrorBody {
        error: format!("the controller answered {}", reply.status),
        details: Vec::new(),
    });
    Err(ClientError::Refused { status: reply.status.as_u16(), body })
}

fn understand<T: DeserializeOwned>(reply: Reply) -> Result<T, ClientError> {
    let reply = accept(reply)?;
    serde_json::from_slice(&reply.body).map_err(|error| ClientError::NotUnderstood(error.to_string()))
}

#[cfg(test)]
mod tests;
