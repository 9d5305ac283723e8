//! The control API (its shapes: `skyserve-api`), on a Unix socket that only this user can open; in a pod also on
//! loopback, where a port-forward ends.
//!
//! Reads are answered from the latest snapshot and never wait for the control thread; requests that
//! change something are messages to it.

mod listener;
mod logs;

use crate::admit;
use crate::bundles;
use crate::core::{Fatal, Refusal, RequestError};
use crate::driver::{ControllerCore, Message, Snapshot};
use crate::pieces::Pieces;
use crate::rehearsal::rehearse;
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use skyserve_api::{ErrorBody, JSON_BYTES_MAX, ReplicaView, ServiceView, UpRequest, UpdateRequest};
use skyserve_home::Home;
use skyserve_model::{ReplicaId, Timestamp, VersionRules};
use skyserve_spec::{Command, LoadOptions, Target, validate_service_name};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// How long `up` waits for a provider that a controller has just begun to ask: less than a client does.
const LISTED_WITHIN: Duration = Duration::from_secs(5);
/// Clients served at once; more wait in the socket's backlog.
const CONNECTIONS_MAX: usize = 64;
/// How long a client that asks for changes waits for one.
const CHANGES_WAIT: Duration = Duration::from_secs(20);
/// Longest wait for a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest service name: it is part of folder names, which hold 255 bytes.
const NAME_BYTES_MAX: usize = 128;

pub(crate) use listener::{Listener, bind};
pub(crate) use logs::{ReplicaLogs, replica_logs};

/// An answer is whole, or comes in pieces.
type Body = Either<Full<Bytes>, Pieces>;

/// What the handlers need.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) home: Home,
    /// What YAML is judged for.
    pub(crate) target: Target,
    pub(crate) logs: ReplicaLogs,
    pub(crate) messages: mpsc::Sender<Message>,
    pub(crate) snapshot: watch::Receiver<Snapshot>,
}

struct Failure {
    status: StatusCode,
    body: ErrorBody,
}

impl Failure {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { error: error.into(), details: Vec::new() } }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Conflict(_) => StatusCode::CONFLICT,
            Refusal::NotFound(_) => StatusCode::NOT_FOUND,
            Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refusal.to_string())
    }
}

/// Serves until the future is dropped.
pub(crate) async fn serve(listener: Listener, api: Api) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!("the control API cannot take a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let api = api.clone();
        tokio::spawn(skyserve_panics::alone(async move {
            let service = service_fn(move |request| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(api.answer(request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!("a control connection ended early: {error}");
            }
            drop(slot);
        }));
    }
}

impl Api {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let answer = match logs::Wanted::of(&request) {
            Some(wanted) => logs::open(self, wanted).await.map(|log| log.map(Either::Right)),
            None => self.route(request).await.map(|response| response.map(Either::Left)),
        };
        answer.unwrap_or_else(|failure| json(failure.status, &failure.body).map(Either::Left))
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Failure> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match (request.method(), parts.as_slice()) {
            (&Method::GET, ["v1", "controller"]) => Ok(json(StatusCode::OK, &self.snapshot.borrow().controller)),
            (&Method::GET, ["v1", "services"]) => Ok(json(StatusCode::OK, &self.snapshot.borrow().changes().services)),
            (&Method::GET, ["v1", "services", name]) => Ok(json(StatusCode::OK, &self.find(name)?)),
            (&Method::GET, ["v1", "changes"]) => self.changes(&query).await,
            (&Method::POST, ["v1", "services"]) => self.up(request).await,
            (&Method::PUT, ["v1", "services", name]) => self.update(name, request).await,
            (&Method::POST, ["v1", "services", name, "plan"]) => self.plan_update(name, request).await,
            (&Method::DELETE, ["v1", "services", name]) => {
                let (name, purge) = ((*name).to_owned(), wants_purge(&query));
                let view = self.change(move |core, now| core.down(&name, purge, now)).await?;
                Ok(json(StatusCode::ACCEPTED, &*view))
            }
            (&Method::DELETE, ["v1", "services", name, "replicas", id]) => {
                self.terminate(name, id, wants_purge(&query)).await
            }
            (&Method::PUT, ["v1", "bundles", digest]) => {
                let stored = bundles::store(&self.home, digest, request.into_body()).await;
                let created = stored.map_err(|error| Failure::new(error.status(), error.to_string()))?;
                let status = if created { StatusCode::CREATED } else { StatusCode::OK };
                Ok(json(status, &serde_json::json!({ "bundle": digest })))
            }
            _ => {
                Err(Failure::new(StatusCode::NOT_FOUND, format!("The control API has no {} {path}.", request.method())))
            }
        }
    }

    fn find(&self, name: &str) -> Result<ServiceView, Failure> {
        let snapshot = self.snapshot.borrow();
        let found = snapshot.services.iter().find(|view| view.name == name);
        found.map(|view| ServiceView::clone(view)).ok_or_else(|| {
            Failure::new(StatusCode::NOT_FOUND, format!("Service {name} does not exist; `status` lists those that do."))
        })
    }

    async fn changes(&self, query: &str) -> Result<Response<Full<Bytes>>, Failure> {
        let after = query.strip_prefix("after=").and_then(|number| number.parse::<u64>().ok());
        let after =
            after.ok_or_else(|| Failure::new(StatusCode::BAD_REQUEST, "say after which revision: ?after=NUMBER"))?;
        let mut snapshot = self.snapshot.clone();
        let newer = snapshot.wait_for(|snapshot| snapshot.controller.revision != after);
        let _ = tokio::time::timeout(CHANGES_WAIT, newer).await;
        Ok(json(StatusCode::OK, &self.snapshot.borrow().changes()))
    }

    async fn terminate(&self, name: &str, id: &str, purge: bool) -> Result<Response<Full<Bytes>>, Failure> {
        let id: u64 =
            id.parse().map_err(|_| Failure::new(StatusCode::BAD_REQUEST, format!("{id} is not a replica id")))?;
        let name = name.to_owned();
        let before = self.find(&name)?;
        let view = self.change(move |core, now| core.terminate_replica(&name, ReplicaId(id), purge, now)).await?;
        let replica = view.replicas.iter().chain(&before.replicas).find(|replica| replica.id == id);
        Ok(json::<Option<&ReplicaView>>(StatusCode::ACCEPTED, &replica))
    }

    async fn up(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Failure> {
        let up: UpRequest = read_json(request).await?;
        let rules = self.judge(&up)?;
        self.must_have_listed(&up.name).await?;
        let view = self.change(move |core, now| core.up(&up.name, rules, up.source, &port_is_free, now)).await?;
        Ok(json(StatusCode::CREATED, &*view))
    }

    /// A controller that has just begun waits for the provider, see [`Core::has_listed`](crate::core::Core::has_listed).
    async fn must_have_listed(&self, name: &str) -> Result<(), Failure> {
        let mut snapshot = self.snapshot.clone();
        let listed = snapshot.wait_for(|snapshot| snapshot.has_listed);
        match tokio::time::timeout(LISTED_WITHIN, listed).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "service {name} was not started: the controller has just begun, and the provider has not told yet which \
                     replicas there are. Try again; the controller's log says what it waits for"
                ),
            )),
        }
    }

    async fn update(&self, name: &str, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Failure> {
        let (update, rules) = self.read_update(name, request).await?;
        let UpdateRequest { up, expected_version, .. } = update;
        let updated =
            self.change(move |core, now| core.update(&up.name, rules, up.source, expected_version, now)).await?;
        let status = if updated.is_new { StatusCode::ACCEPTED } else { StatusCode::OK };
        Ok(json(status, &*updated.view))
    }

    async fn plan_update(&self, name: &str, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Failure> {
        let (update, rules) = self.read_update(name, request).await?;
        let plan = self.change(move |core, _| Ok(core.plan_update(&update.up.name, &rules)?)).await?;
        Ok(json(StatusCode::OK, &plan))
    }

    async fn read_update(
        &self,
        name: &str,
        request: Request<Incoming>,
    ) -> Result<(UpdateRequest, VersionRules), Failure> {
        let is_plan = request.method() == Method::POST;
        let update: UpdateRequest = read_json(request).await?;
        if update.up.name != name {
            let found = &update.up.name;
            return Err(bad_request(format!("The request is about service {name}, its body about {found}.")));
        }
        if let Some(refusal) = update.mode.refusal() {
            return Err(bad_request(refusal));
        }
        // One that does not exist is said so before anything about its YAML.
        self.find(name)?;
        let rules = if is_plan { judge_task(&update.up, self.target)? } else { self.judge(&update.up)? };
        self.try_probe(name, &rules).await?;
        Ok((update, rules))
    }

    async fn try_probe(&self, name: &str, rules: &VersionRules) -> Result<(), Failure> {
        let (of, asked) = (name.to_owned(), rules.clone());
        let replicas = self.change(move |core, _| Ok(core.probed_otherwise(&of, &asked)?)).await?;
        rehearse(replicas, &rules.probe).await.map_err(|problem| {
            let error = format!(
                "The replicas of service {name} that serve do not pass the new readiness probe ({problem}), and would be \
                 taken off its endpoint. Nothing was changed: mend service.readiness_probe, or change `run` along with \
                 it, so that new replicas take their place."
            );
            Failure::new(StatusCode::CONFLICT, error)
        })
    }

    /// The rules of what was asked for, whose files have been uploaded.
    fn judge(&self, up: &UpRequest) -> Result<VersionRules, Failure> {
        let rules = judge_task(up, self.target)?;
        match up.bundle.as_deref().filter(|digest| !bundles::exists(&self.home, digest)) {
            Some(digest) => Err(bad_request(format!("Bundle {digest} was not uploaded: run the command again."))),
            None => Ok(rules),
        }
    }

    /// Has the control thread do something that a user asked for.
    async fn change<T, F>(&self, action: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&mut ControllerCore, Timestamp) -> Result<T, RequestError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel::<Result<(T, u64), Refusal>>();
        let request = move |core: &mut ControllerCore, now: Timestamp| -> Result<(), Fatal> {
            let result = match action(core, now) {
                Ok(answer) => Ok((answer, core.revision())),
                Err(RequestError::Refused(refusal)) => Err(refusal),
                Err(RequestError::Fatal(fatal)) => return Err(fatal),
            };
            // A client that left does not undo what it asked for.
            let _ = reply.send(result);
            Ok(())
        };
        let stopped = || {
            Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "The controller is restarting: ask `status` whether it was done.",
            )
        };
        self.messages.send(Message::Request(Box::new(request))).await.map_err(|_| stopped())?;
        let (answer, revision) = answer.await.map_err(|_| stopped())??;
        // Whoever is told that it was done sees it done.
        let mut snapshot = self.snapshot.clone();
        let shown = snapshot.wait_for(|snapshot| snapshot.controller.revision >= revision).await;
        shown.map_err(|_| stopped())?;
        Ok(answer)
    }
}

fn bad_request(error: impl Into<String>) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, error)
}

async fn read_json<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Failure> {
    let body = Limited::new(request.into_body(), JSON_BYTES_MAX).collect().await.map_err(|error| {
        Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("The request was not taken: {error} (at most {JSON_BYTES_MAX} bytes)."),
        )
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| bad_request(error.to_string()))
}

fn judge_task(up: &UpRequest, target: Target) -> Result<VersionRules, Failure> {
    validate_service_name(&up.name).map_err(|error| bad_request(error.to_string()))?;
    if up.name.len() > NAME_BYTES_MAX {
        let bytes = up.name.len();
        return Err(bad_request(format!(
            "The service name has {bytes} bytes, at most {NAME_BYTES_MAX} fit: choose a shorter one."
        )));
    }
    let options = LoadOptions { command: Command::ServeUp, envs: up.envs.clone(), secrets: up.secrets.clone(), target };
    let loaded = skyserve_spec::load(up.source.as_bytes(), &up.file_name, &options)
        .map_err(|error| bad_request(error.to_string()))?;
    if !loaded.refusals.is_empty() {
        let error = format!("Service {} asks for what cannot be done here yet.", up.name);
        return Err(Failure { status: StatusCode::BAD_REQUEST, body: ErrorBody { error, details: loaded.refusals } });
    }
    Ok(admit::rules(&loaded.task, up.bundle.clone()))
}

fn wants_purge(query: &str) -> bool {
    query.split('&').any(|pair| pair == "purge=true")
}

/// Whether the endpoint's address can be listened on now. The load balancer finds out for certain.
fn port_is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}").into_bytes());
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
