//! A scripted stand-in for the API server.

use super::Remote;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use skyserve_kube::Cluster;
use skyserve_manifests::names::{CONTROLLER_LABEL, Names};
use std::io;
use std::sync::{Arc, Mutex};

type Answer = dyn Fn(&str) -> (u16, Value) + Send + Sync;

/// Instead of a status: there is no answer, or the connection is lost.
pub(crate) const HANGS: u16 = 0;
pub(crate) const RESETS: u16 = 1;

/// Answers `METHOD /path` (without the query), and writes down what it was asked.
pub(crate) struct FakeApi {
    answer: Arc<Answer>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeApi {
    pub(crate) fn answering(answer: impl Fn(&str) -> (u16, Value) + Send + Sync + 'static) -> Self {
        Self { answer: Arc::new(answer), asked: Arc::default() }
    }

    /// The controller `sky-serve-controller-0123abcd` in namespace `ns`. Within a runtime only.
    pub(crate) fn remote(&self) -> Remote {
        let (answer, asked) = (Arc::clone(&self.answer), Arc::clone(&self.asked));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let what = format!("{} {}", request.method(), request.uri().path());
            let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
            asked.lock().unwrap().push(format!("{what}{query}"));
            let (status, body) = answer(&what);
            let body = Body::from(body.to_string().into_bytes());
            async move {
                match status {
                    HANGS => std::future::pending().await,
                    RESETS => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                    _ => Ok(http::Response::builder().status(status).body(body).unwrap()),
                }
            }
        });
        let cluster =
            Cluster { client: Client::new(service, "ns"), namespace: "ns".to_owned(), name: "test".to_owned() };
        Remote { cluster, names: Names::of_user("0123abcd") }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// A refusal, as the API server gives it.
pub(crate) fn status(code: u16, message: &str) -> (u16, Value) {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        _ => "InternalError",
    };
    let refusal = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code
    });
    (code, refusal)
}

/// An object of that controller's with nothing but a name.
pub(crate) fn object(api_version: &str, kind: &str, name: &str) -> Value {
    let labels = json!({ CONTROLLER_LABEL: "sky-serve-controller-0123abcd" });
    let metadata = json!({ "name": name, "uid": format!("uid-of-{name}"), "labels": labels });
    json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata })
}

/// The same by somebody else.
pub(crate) fn others_object(api_version: &str, kind: &str, name: &str) -> Value {
    let mut object = object(api_version, kind, name);
    object["metadata"]["labels"] = json!({ "app": "theirs" });
    object
}

/// With time that passes as soon as everything waits.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(work)
}
