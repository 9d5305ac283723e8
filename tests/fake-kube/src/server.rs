//! The HTTP side: which call a request is, its fault if it has one, and its answer.

use crate::faults::Fault;
use crate::selectors::matches;
use crate::status::Refusal;
use crate::store::{Deletion, text};
use crate::watch::{self, Piece, Watched};
use crate::{State, World};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

type Answer = Response<BoxBody<Bytes, io::Error>>;

pub(crate) async fn serve(listener: TcpListener, world: Arc<World>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let world = Arc::clone(&world);
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request| handle(Arc::clone(&world), request));
            // An error is how a connection is cut.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// A request in the API's own terms.
#[derive(Debug, Clone)]
struct Call {
    verb: &'static str,
    /// `pods`, `pods/log`.
    resource: String,
    namespace: String,
    name: String,
    query: BTreeMap<String, String>,
    body: Value,
}

impl Call {
    async fn read(request: Request<Incoming>) -> Option<Self> {
        let (parts, body) = request.into_parts();
        let path: Vec<&str> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let at = path.iter().position(|part| *part == "namespaces")?;
        let (namespace, rest) = (path.get(at + 1)?, &path[at + 2..]);
        let (resource, name) = match rest {
            [resource] => ((*resource).to_owned(), String::new()),
            [resource, name] => ((*resource).to_owned(), (*name).to_owned()),
            [resource, name, sub] => (format!("{resource}/{sub}"), (*name).to_owned()),
            _ => return None,
        };
        let query = parse_query(parts.uri.query().unwrap_or_default());
        let watches = query.get("watch").is_some_and(|value| value == "true" || value == "1");
        let verb = match (parts.method, name.is_empty()) {
            (Method::POST, _) => "create",
            (Method::GET, true) if watches => "watch",
            (Method::GET, true) => "list",
            (Method::GET, false) => "get",
            (Method::DELETE, _) => "delete",
            (Method::PUT, _) => "update",
            (Method::PATCH, _) => "patch",
            _ => return None,
        };
        let bytes = body.collect().await.ok()?.to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Some(Self { verb, resource, namespace: (*namespace).to_owned(), name, query, body })
    }

    fn is_called(&self) -> String {
        format!("{} {}", self.verb, self.resource)
    }

    fn asked(&self, key: &str) -> &str {
        self.query.get(key).map(String::as_str).unwrap_or_default()
    }
}

async fn handle(world: Arc<World>, request: Request<Incoming>) -> io::Result<Answer> {
    let Some(call) = Call::read(request).await else {
        return Ok(refuse(&Refusal::new(
            404,
            "NotFound",
            "the server could not find the requested resource".to_owned(),
        )));
    };
    let fault = world.change(|state| {
        let name = call.is_called();
        state.calls.push(name.clone());
        state.script.take(&name)
    });
    match fault {
        None => carry_out(&world, &call, 0, None),
        Some(Fault::Refuse { code, reason, message, retry_after_seconds }) => {
            Ok(refuse(&Refusal { code, reason, message: message.to_owned(), retry_after_seconds }))
        }
        Some(Fault::BadGateway) => {
            let page = Full::new(Bytes::from_static(b"<html>502 Bad Gateway</html>"));
            Ok(respond(StatusCode::BAD_GATEWAY, page.map_err(|never| match never {}).boxed()))
        }
        Some(Fault::ResetBefore) => Err(cut()),
        Some(Fault::ResetAfter) => carry_out(&world, &call, 0, None).and(Err(cut())),
        Some(Fault::HangBefore) => std::future::pending().await,
        Some(Fault::HangAfter) => {
            carry_out(&world, &call, 0, None)?;
            std::future::pending().await
        }
        Some(Fault::HalfAnswer) => half(carry_out(&world, &call, 0, None)?).await,
        Some(Fault::Stale { changes }) => carry_out(&world, &call, changes, None),
        Some(Fault::Late { calls }) => {
            tokio::spawn(late(world, call, calls));
            Err(cut())
        }
        Some(Fault::Stream(fault)) => carry_out(&world, &call, 0, Some(fault)),
    }
}

/// Carries a call out once so many others have been made: it was stuck in some queue meanwhile.
async fn late(world: Arc<World>, call: Call, calls: usize) {
    let mut versions = world.versions();
    let until = world.lock().calls.len() + calls;
    while world.lock().calls.len() < until {
        if versions.changed().await.is_err() {
            return;
        }
    }
    let _ = carry_out(&world, &call, 0, None);
}

fn carry_out(
    world: &Arc<World>,
    call: &Call,
    stale: u64,
    fault: Option<crate::faults::StreamFault>,
) -> io::Result<Answer> {
    let (resource, namespace, name) = (call.resource.as_str(), call.namespace.as_str(), call.name.as_str());
    let result = match (call.verb, resource) {
        ("watch", _) => return Ok(watch(world, call, fault)),
        ("get", "pods/log") => return Ok(log(world, call)),
        ("list", _) => list(&world.lock(), call, stale),
        ("get", _) => {
            world.lock().store.get(resource, namespace, name).ok_or_else(|| Refusal::not_found(resource, name))
        }
        ("create", _) => world.change(|state| state.store.create(resource, namespace, call.body.clone())),
        ("delete", _) => {
            let deletion = Deletion {
                grace_seconds: call.body["gracePeriodSeconds"].as_i64(),
                uid: call.body["preconditions"]["uid"].as_str().map(str::to_owned),
            };
            world.change(|state| state.store.delete(resource, namespace, name, &deletion))
        }
        _ => world.change(|state| write(state, call)),
    };
    Ok(match result {
        Ok(value) => json_answer(StatusCode::OK, &value),
        Err(refusal) => refuse(&refusal),
    })
}

/// Update and patch: of a patch only that it merges, and that server-side apply makes what is not there.
fn write(state: &mut State, call: &Call) -> Result<Value, Refusal> {
    let (resource, namespace, name) = (call.resource.trim_end_matches("/status"), &call.namespace, &call.name);
    let Some(before) = state.store.get(resource, namespace, name) else {
        if call.verb == "patch" && call.query.contains_key("fieldManager") {
            return state.store.create(resource, namespace, call.body.clone());
        }
        return Err(Refusal::not_found(resource, name));
    };
    let version = &call.body["metadata"]["resourceVersion"];
    if !version.is_null() && *version != before["metadata"]["resourceVersion"] {
        let message = "the object has been modified; please apply your changes to the latest version".to_owned();
        return Err(Refusal::new(409, "Conflict", message));
    }
    let mut object = if call.verb == "patch" { before.clone() } else { call.body.clone() };
    if call.verb == "patch" {
        merge(&mut object, &call.body);
    }
    for kept in ["uid", "creationTimestamp", "namespace", "name"] {
        object["metadata"][kept] = before["metadata"][kept].clone();
    }
    Ok(state.store.put(resource, namespace, object))
}

fn merge(into: &mut Value, patch: &Value) {
    match (into.as_object_mut(), patch.as_object()) {
        (Some(into), Some(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        _ => *into = patch.clone(),
    }
}

fn list(state: &State, call: &Call, stale: u64) -> Result<Value, Refusal> {
    // A page goes on in the version of the first: `VERSION/NAME OF THE LAST`.
    let (version, after) = match call.asked("continue").split_once('/') {
        Some((version, after)) => (version.parse().unwrap_or(0), after.to_owned()),
        None => (state.store.version().saturating_sub(stale), String::new()),
    };
    if !after.is_empty() && version < state.store.compacted() {
        return Err(Refusal::expired());
    }
    let chosen = |object: &Value| matches(object, call.asked("labelSelector"), call.asked("fieldSelector"));
    let name = |object: &Value| text(&object["metadata"]["name"]);
    let mut items = state.store.list_at(version, &call.resource, &call.namespace);
    items.retain(|object| chosen(object) && name(object) > after);
    let limit = call.asked("limit").parse().unwrap_or(usize::MAX);
    let more = items.len() > limit;
    items.truncate(limit);
    let next = match items.last() {
        Some(last) if more => format!("{version}/{}", name(last)),
        _ => String::new(),
    };
    let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    Ok(json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
}

fn watch(world: &Arc<World>, call: &Call, fault: Option<crate::faults::StreamFault>) -> Answer {
    let watched = Watched {
        resource: call.resource.clone(),
        namespace: call.namespace.clone(),
        labels: call.asked("labelSelector").to_owned(),
        fields: call.asked("fieldSelector").to_owned(),
        from: call.asked("resourceVersion").parse().unwrap_or(0),
        lasts: Duration::from_secs(call.asked("timeoutSeconds").parse().unwrap_or(300)),
        bookmarks: call.asked("allowWatchBookmarks") == "true",
    };
    let (sender, pieces) = mpsc::channel(16);
    tokio::spawn(watch::tell(Arc::clone(world), watched, fault, sender));
    stream(pieces)
}

fn log(world: &Arc<World>, call: &Call) -> Answer {
    let (pod, printed) = {
        let state = world.lock();
        let pod = state.store.get("pods", &call.namespace, &call.name);
        (pod, state.kubelet.logs.get(&call.name).cloned())
    };
    let Some(pod) = pod else { return refuse(&Refusal::not_found("pods", &call.name)) };
    let Some(printed) = printed else {
        let message = format!("container \"replica\" in pod \"{}\" is waiting to start: ContainerCreating", call.name);
        return refuse(&Refusal::new(400, "BadRequest", message));
    };
    let (sender, pieces) = mpsc::channel(16);
    let follows = call.asked("follow") == "true";
    let (world, call) = (Arc::clone(world), call.clone());
    tokio::spawn(async move {
        let _ = sender.send(Piece::Data(Bytes::from(printed))).await;
        let mut versions = world.versions();
        let uid = pod["metadata"]["uid"].clone();
        let lives = || {
            let pod = world.lock().store.get("pods", &call.namespace, &call.name);
            pod.is_some_and(|pod| pod["metadata"]["uid"] == uid && text(&pod["status"]["phase"]) == "Running")
        };
        while follows && lives() && !sender.is_closed() {
            tokio::select! {
                changed = versions.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
        }
        if follows {
            let _ = sender.send(Piece::Data(Bytes::from_static(b"it ends\n"))).await;
        }
    });
    stream(pieces)
}

fn stream(mut pieces: mpsc::Receiver<Piece>) -> Answer {
    let frames = futures_util::stream::poll_fn(move |context| {
        let frame = |piece| match piece {
            Piece::Data(bytes) => Ok(Frame::data(bytes)),
            Piece::Cut => Err(cut()),
        };
        pieces.poll_recv(context).map(|piece| piece.map(frame))
    });
    respond(StatusCode::OK, BodyExt::boxed(StreamBody::new(frames)))
}

/// The first half of an answer, then a cut.
async fn half(answer: Answer) -> io::Result<Answer> {
    let (parts, body) = answer.into_parts();
    let whole = body.collect().await?.to_bytes();
    let (sender, pieces) = mpsc::channel(2);
    let _ = sender.send(Piece::Data(whole.slice(..whole.len() / 2))).await;
    let _ = sender.send(Piece::Cut).await;
    let mut answer = stream(pieces);
    *answer.status_mut() = parts.status;
    Ok(answer)
}

fn refuse(refusal: &Refusal) -> Answer {
    let code = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json_answer(code, &refusal.value());
    if refusal.retry_after_seconds > 0 {
        answer.headers_mut().insert(http::header::RETRY_AFTER, refusal.retry_after_seconds.into());
    }
    answer
}

fn json_answer(code: StatusCode, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string()));
    respond(code, body.map_err(|never| match never {}).boxed())
}

fn respond(code: StatusCode, body: BoxBody<Bytes, io::Error>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    let json = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, json);
    answer
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "cut")
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decode(key), decode(value))).collect()
}

/// Undoes percent-encoding.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => match (digit(rest.next()), digit(rest.next())) {
                (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or(b'?'),
                _ => b'?',
            },
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
