//! Logs through the API: those of replicas from whoever runs them, or as they were kept; those of the roles from their
//! files.

use super::{Api, Failure};
use crate::driver::Snapshot;
use crate::pieces::{Broken, Pieces};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use skyserve_logs::Follower;
use skyserve_model::ReplicaUid;
use skyserve_provider::process::replica_log_path;
use skyserve_provider::{LogRequest, LogStream, Provider, ProviderError, newest_kept_log};
use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Pieces that may wait for a client, of up to 64 KiB each.
const PIECES_QUEUED_MAX: usize = 4;
/// Pause between looks at a replica that has not begun to print, unless something of it changes before.
const BEGIN_LOOK: Duration = Duration::from_secs(1);

/// [`Provider::log`] of the provider in use.
pub(crate) type ReplicaLogs = Arc<dyn Fn(ReplicaUid, LogRequest) -> Opening + Send + Sync>;
type Opening = Pin<Box<dyn Future<Output = Result<Option<LogStream>, ProviderError>> + Send>>;

pub(crate) fn replica_logs<P: Provider>(provider: Arc<P>) -> ReplicaLogs {
    Arc::new(move |uid, request| {
        let provider = Arc::clone(&provider);
        Box::pin(async move { provider.log(&uid, request).await })
    })
}

/// A log that somebody asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    of: Of,
    tail: Option<String>,
    follow: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Of {
    Replica { service: String, id: String },
    Role(String),
}

impl Wanted {
    /// `None`: the request is for something else.
    pub(super) fn of(request: &Request<Incoming>) -> Option<Self> {
        (request.method() == Method::GET).then_some(())?;
        Self::parse(request.uri().path(), request.uri().query().unwrap_or_default())
    }

    fn parse(path: &str, query: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let of = match parts.as_slice() {
            ["v1", "services", service, "replicas", id, "log"] => {
                Of::Replica { service: (*service).to_owned(), id: (*id).to_owned() }
            }
            ["v1", "logs", role] => Of::Role((*role).to_owned()),
            _ => return None,
        };
        let tail = query.split('&').find_map(|pair| pair.strip_prefix("tail=")).map(str::to_owned);
        Some(Self { of, tail, follow: query.split('&').any(|pair| pair == "follow=true") })
    }
}

pub(super) async fn open(api: &Api, wanted: Wanted) -> Result<Response<Pieces>, Failure> {
    let bad_request = |what: String| Failure::new(StatusCode::BAD_REQUEST, what);
    let tail: Option<u64> = match &wanted.tail {
        Some(lines) => Some(lines.parse().map_err(|_| bad_request(format!("tail={lines} is not a number of lines")))?),
        None => None,
    };
    let request = LogRequest { tail, follow: wanted.follow };
    let pieces = match wanted.of {
        Of::Role(role) => role_log(api, &role, request)?,
        Of::Replica { service, id } => {
            let id = id.parse().map_err(|_| bad_request(format!("{id} is not a replica id")))?;
            replica_log(api, &service, id, request).await?
        }
    };
    let mut response = Response::new(Pieces::new(pieces, None));
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    Ok(response)
}

fn role_log(api: &Api, role: &str, request: LogRequest) -> Result<mpsc::Receiver<Result<Bytes, Broken>>, Failure> {
    let path = match role {
        "controller" => api.home.controller_log(),
        "loadbalancer" => api.home.load_balancer_log(),
        "init" => api.home.init_log(),
        _ => {
            let known = format!("There is no log of {role}; there are those of controller, loadbalancer and init.");
            return Err(Failure::new(StatusCode::NOT_FOUND, known));
        }
    };
    Ok(broken(skyserve_logs::stream(Follower::new(path, request.tail), move |_| !request.follow)))
}

async fn replica_log(
    api: &Api,
    service: &str,
    id: u64,
    request: LogRequest,
) -> Result<mpsc::Receiver<Result<Bytes, Broken>>, Failure> {
    let none = |what: String| Failure::new(StatusCode::NOT_FOUND, what);
    let Some(uid) = uid_of(&api.snapshot.borrow(), service, id) else {
        let kept = newest_kept_log(&api.home, service, id);
        let kept = kept.ok_or_else(|| none(format!("Service {service} has no replica {id}, and no log of one.")))?;
        return Ok(kept_log(kept, request));
    };
    if let Some(log) = (api.logs)(uid.clone(), request).await.map_err(|error| failed(&error))? {
        return Ok(broken(log));
    }
    let kept = replica_log_path(&api.home, uid.as_str());
    if kept.exists() {
        return Ok(kept_log(kept, request));
    }
    if !request.follow {
        return Err(none(format!("Replica {id} of {service} has printed nothing yet.")));
    }
    Ok(await_beginning(api.clone(), service.to_owned(), id, uid, request))
}

/// The log of a replica that has not begun to print, from when it does.
fn await_beginning(
    api: Api,
    service: String,
    id: u64,
    uid: ReplicaUid,
    request: LogRequest,
) -> mpsc::Receiver<Result<Bytes, Broken>> {
    let (sender, receiver) = mpsc::channel(PIECES_QUEUED_MAX);
    tokio::spawn(skyserve_panics::alone(async move {
        let mut snapshot = api.snapshot.clone();
        let mut log = loop {
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(BEGIN_LOOK) => {}
                changed = snapshot.changed() => if changed.is_err() { return },
            }
            // Looked at first: the log of a replica that is gone afterwards is kept by then.
            let is_there = uid_of(&snapshot.borrow_and_update(), &service, id).as_ref() == Some(&uid);
            match (api.logs)(uid.clone(), request).await {
                Ok(Some(log)) => break broken(log),
                Ok(None) => {}
                Err(error) if error.retryable => {}
                Err(error) => {
                    let _ = sender.send(Err(error.into())).await;
                    return;
                }
            }
            if !is_there {
                break kept_log(replica_log_path(&api.home, uid.as_str()), request);
            }
        };
        while let Some(piece) = log.recv().await {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    }));
    receiver
}

fn uid_of(snapshot: &Snapshot, service: &str, id: u64) -> Option<ReplicaUid> {
    let view = snapshot.services.iter().find(|view| view.name == service)?;
    let replica = view.replicas.iter().find(|replica| replica.id == id)?;
    ReplicaUid::parse(&replica.uid)
}

fn kept_log(path: PathBuf, request: LogRequest) -> mpsc::Receiver<Result<Bytes, Broken>> {
    broken(skyserve_logs::stream(Follower::new(path, request.tail), |_| true))
}

fn failed(error: &ProviderError) -> Failure {
    // Not 503: that is how a controller that restarts answers, and clients wait for it.
    let status = if error.retryable { StatusCode::BAD_GATEWAY } else { StatusCode::NOT_FOUND };
    Failure::new(status, error.message.clone())
}

/// The same pieces, with any error.
fn broken<E: Error + Send + Sync + 'static>(
    mut pieces: mpsc::Receiver<Result<Bytes, E>>,
) -> mpsc::Receiver<Result<Bytes, Broken>> {
    let (sender, receiver) = mpsc::channel(PIECES_QUEUED_MAX);
    tokio::spawn(skyserve_panics::alone(async move {
        loop {
            let piece = tokio::select! {
                piece = pieces.recv() => piece,
                () = sender.closed() => return,
            };
            let Some(piece) = piece else { return };
            if sender.send(piece.map_err(Broken::from)).await.is_err() {
                return;
            }
        }
    }));
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_told_from_other_requests() {
        let replica = |tail: Option<&str>, follow| Wanted {
            of: Of::Replica { service: "a".into(), id: "2".into() },
            tail: tail.map(str::to_owned),
            follow,
        };
        let path = "/v1/services/a/replicas/2/log";
        assert_eq!(Wanted::parse(path, ""), Some(replica(None, false)));
        assert_eq!(Wanted::parse(path, "follow=true&tail=5"), Some(replica(Some("5"), true)));
        let role = Wanted { of: Of::Role("init".into()), tail: None, follow: false };
        assert_eq!(Wanted::parse("/v1/logs/init", ""), Some(role));
        assert_eq!(Wanted::parse("/v1/services/a/replicas/2", ""), None);
    }
}
