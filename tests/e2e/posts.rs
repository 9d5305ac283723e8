//! POST requests with an id each, and a service that writes down every id it receives.

use crate::home::TestHome;
use crate::load::read_head;
use crate::wait;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Writes each id it receives to a file, then answers.
const SERVER: &str = r#"
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def do_GET(self):
        self.answer()
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        # One write of one line on an O_APPEND file is whole, whoever else writes.
        os.write(out, body + b"\n")
        self.answer()
    def log_message(self, *arguments):
        pass
out = os.open(os.environ["RECEIVED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"#;

fn received(home: &TestHome) -> PathBuf {
    home.path().join("received")
}

/// The YAML of the service with so many replicas.
pub fn service(home: &TestHome, replicas: usize) -> PathBuf {
    let server = home.yaml("server.py", SERVER);
    home.yaml(
        "posts.yaml",
        &format!(
            "service:\n  readiness_probe: /\n  replicas: {replicas}\nresources:\n  ports: 8080\nenvs:\n  RECEIVED: {}\n\
             run: exec python3 {}\n",
            received(home).display(),
            server.display()
        ),
    )
}

/// Kills a replica's commands, as a crash would.
pub fn kill_replica(home: &TestHome, uid: &str) {
    let wanted = format!("SKYSERVE_REPLICA_UID={uid}");
    wait::until_true("the replica's commands", || {
        let processes = home.processes();
        let commands = processes.iter().filter(|process| !process.is_role("shim")).filter(|process| {
            let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        });
        commands.map(|process| process.kill(Signal::SIGKILL)).count() > 0
    });
}

/// Clients that send one POST after the other.
pub struct Posts {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Sent>>,
}

/// What was sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// Ids that were answered with 200.
    pub answered: Vec<u64>,
    /// Requests without an answer, or with an error.
    pub unanswered: u64,
}

impl Posts {
    pub fn start(endpoint: &str, clients: usize) -> Self {
        let address: SocketAddr = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
        let client = |_| {
            let (stop, next) = (Arc::clone(&stop), Arc::clone(&next));
            std::thread::spawn(move || {
                let mut sent = Sent::default();
                while !stop.load(Ordering::Relaxed) {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    match post(address, id) {
                        Ok(200) => sent.answered.push(id),
                        _ => sent.unanswered += 1,
                    }
                }
                sent
            })
        };
        Self { clients: (0..clients).map(client).collect(), stop }
    }

    pub fn finish(self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Sent::default();
        for client in self.clients {
            let sent = client.join().unwrap();
            all.answered.extend(sent.answered);
            all.unanswered += sent.unanswered;
        }
        all
    }
}

/// Sends one id on a connection of its own; gives the status.
fn post(address: SocketAddr, id: u64) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(90)))?;
    let body = id.to_string();
    write!(
        stream,
        "POST / HTTP/1.1\r\nhost: posts\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(read_head(&mut BufReader::new(stream))?.0)
}

/// Fails if any id arrived twice, or an answered one never.
pub fn assert_none_arrived_twice(home: &TestHome, sent: &Sent) {
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    for line in fs::read_to_string(received(home)).unwrap().lines() {
        *times.entry(line.parse().unwrap()).or_default() += 1;
    }
    let twice: Vec<_> = times.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "arrived more than once: {twice:?}");
    let lost: Vec<_> = sent.answered.iter().filter(|id| !times.contains_key(id)).collect();
    assert!(lost.is_empty(), "answered without having arrived: {lost:?}");
    assert!(!sent.answered.is_empty(), "nothing was answered");
}
