//! A scripted stand-in for the controller, and views to answer with.

use crate::command::Context;
use crate::invocation::CalledAs;
use crate::output::{Screen, Style};
use crate::placement::Placement;
use serde_json::{Value, json};
use skyserve_api::{ReplicaView, ServiceView};
use skyserve_home::Home;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What the stand-in does with one request.
pub(crate) enum Answer {
    Json(u16, Value),
    Text(String),
    /// Text without its end.
    CutOff(String),
    /// Closes the connection without a word, as a controller that is killed does.
    HangUp,
}

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) what: String,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct FakeController {
    socket: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeController {
    /// Serves on the socket. `answer` is given `METHOD /path`, once per request.
    pub(crate) fn start(socket: &Path, mut answer: impl FnMut(&str) -> Answer + Send + 'static) -> Self {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let (asked, stopping) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, stop) = (Arc::clone(&asked), Arc::clone(&stopping));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                let Some(request) = read_request(&mut stream) else { continue };
                log.lock().unwrap().push(request.clone());
                let (status, body, missing) = match answer(&request.what) {
                    Answer::Json(status, body) => (status, body.to_string(), 0),
                    Answer::Text(text) => (200, text, 0),
                    Answer::CutOff(text) => (200, text, 1),
                    Answer::HangUp => continue,
                };
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len() + missing);
                // The client may have left.
                drop(stream.write_all((head + &body).as_bytes()));
            }
        });
        Self { socket: socket.to_path_buf(), asked, stopping, thread: Some(thread) }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.what.clone()).collect()
    }

    pub(crate) fn bodies_of(&self, what: &str) -> Vec<Vec<u8>> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.what == what).map(|asked| asked.body.clone()).collect()
    }
}

impl Drop for FakeController {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.socket));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        drop(std::fs::remove_file(&self.socket));
    }
}

fn read_request(stream: &mut UnixStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap().to_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let mut words = head.split(' ');
    let what = format!("{} {}", words.next().unwrap().to_uppercase(), words.next().unwrap());
    Some(Asked { what, body })
}

/// A home in a temporary folder.
pub(crate) struct TestHome {
    _temp: tempfile::TempDir,
    pub(crate) context: Context,
}

impl TestHome {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::at(temp.path().join("home"), temp.path().join("run"));
        home.make_dirs().unwrap();
        let called_as = CalledAs::from_program(Path::new("skyserve"));
        let context = Context { home, called_as, placement: Placement::Local };
        Self { _temp: temp, context }
    }

    pub(crate) fn controller(&self, answer: impl FnMut(&str) -> Answer + Send + 'static) -> FakeController {
        FakeController::start(&self.context.home.control_socket(), answer)
    }
}

/// Runs something that writes to a screen, and returns what it wrote.
pub(crate) async fn shown<T>(work: impl AsyncFnOnce(&mut Screen<'_>) -> T) -> (T, String) {
    let mut out = Vec::new();
    let outcome = work(&mut Screen { out: &mut out, style: Style::Plain, is_terminal: false }).await;
    (outcome, String::from_utf8(out).unwrap())
}

pub(crate) fn ok(value: impl serde::Serialize) -> Answer {
    Answer::Json(200, serde_json::to_value(value).unwrap())
}

pub(crate) fn refusal(status: u16, error: &str) -> Answer {
    Answer::Json(status, json!({ "error": error }))
}

pub(crate) fn controller_view(revision: u64) -> Answer {
    ok(json!({
        "version": "0.1.0", "process_id": 7, "epoch": 1, "revision": revision,
        "metrics_address": null, "trouble": null
    }))
}

pub(crate) fn service(name: &str, status: &str) -> ServiceView {
    ServiceView {
        name: name.to_owned(),
        version: 1,
        status: status.to_owned(),
        status_reason: None,
        rollout: "done".to_owned(),
        ready_since_ms: None,
        created_at_ms: 1_000,
        endpoint: "http://127.0.0.1:30001".to_owned(),
        endpoint_listens: true,
        replicas_ready: 0,
        replicas_wanted: 1,
        load_balancing_policy: "least_load".to_owned(),
        requested_resources: "cpus=1".to_owned(),
        replicas: Vec::new(),
    }
}

pub(crate) fn replica(service: &str, id: u64, status: &str) -> ReplicaView {
    ReplicaView {
        id,
        uid: format!("{service}-1-{id}"),
        version: 1,
        endpoint: Some(format!("http://127.64.0.{id}:8080")),
        launched_at_ms: 1_000,
        first_ready_at_ms: None,
        infra: "local process".to_owned(),
        resources: "cpus=1".to_owned(),
        status: status.to_owned(),
        status_reason: None,
    }
}
