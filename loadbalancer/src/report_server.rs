//! The report socket: counters for the controller, and a stream that wakes it when requests wait
//! ([`skyserve_routes::report`]).
//!
//! Invariants:
//! * The socket is for its owner only (mode 0600) and is removed at exit.
//! * A wake stream names each waiting service at once, then at most once a second while it waits; so a
//!   controller that connects late learns of it, too.

use crate::own_server::{Answers, OwnBody, text, typed};
use crate::registry::Registry;
use bytes::Bytes;
use http::{Response, StatusCode};
use skyserve_routes::report::Wake;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

/// Shortest time between two wakes for one service, and the pace of keep-alive lines.
const WAKE_PERIOD: Duration = Duration::from_secs(1);

/// Lines that a peer may lag behind before its stream waits for it.
const WAKE_LINES_MAX: usize = 64;

/// The socket's file, removed when dropped.
#[derive(Debug)]
pub(crate) struct ReportSocket {
    path: PathBuf,
    inode: u64,
    pub(crate) listener: UnixListener,
}

impl ReportSocket {
    /// Binds beside `path` and moves the socket there: a stale file is replaced, and at no moment can
    /// anyone else connect.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let temporary = path.with_extension(format!("{}.next", std::process::id()));
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&temporary)?;
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&temporary, path)?;
        let inode = std::fs::metadata(path)?.ino();
        Ok(Self { path: path.to_path_buf(), inode, listener })
    }
}

impl Drop for ReportSocket {
    fn drop(&mut self) {
        use std::os::unix::fs::MetadataExt;
        // A successor may have put its own socket there already.
        if std::fs::metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Answers on the report socket.
#[derive(Debug)]
pub(crate) struct ReportAnswers {
    pub(crate) registry: Rc<RefCell<Registry>>,
}

impl Answers for ReportAnswers {
    fn answer(&self, path: &str) -> Response<OwnBody> {
        match path {
            "/v1/report" => report(&self.registry.borrow()),
            "/v1/wake" => {
                let (sender, lines) = mpsc::channel(WAKE_LINES_MAX);
                tokio::task::spawn_local(wake(Rc::clone(&self.registry), sender));
                let mut response = typed(StatusCode::OK, "application/jsonl", Bytes::new());
                *response.body_mut() = OwnBody::Lines(lines);
                response
            }
            _ => text(StatusCode::NOT_FOUND, "use /v1/report or /v1/wake\n"),
        }
    }
}

/// The report as an answer.
pub(crate) fn report(registry: &Registry) -> Response<OwnBody> {
    match serde_json::to_vec(&registry.report()) {
        Ok(body) => typed(StatusCode::OK, "application/json", Bytes::from(body)),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the report: {error}\n")),
    }
}

/// Feeds one wake stream until its peer is gone.
async fn wake(registry: Rc<RefCell<Registry>>, lines: mpsc::Sender<Bytes>) {
    let wakes = registry.borrow().wakes.clone();
    let mut keep_alive = tokio::time::interval(WAKE_PERIOD);
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: HashMap<String, Instant> = HashMap::new();
    loop {
        // Registered before looking: a request that starts to wait after the look is not missed.
        let woken = wakes.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let now = Instant::now();
        told.retain(|_, last| now.duration_since(*last) < WAKE_PERIOD);
        for service in waiting(&registry.borrow()) {
            if !told.contains_key(&service) {
                told.insert(service.clone(), now);
                if lines.try_send(line(&Wake { service: Some(service) })).is_err() && lines.is_closed() {
                    return;
                }
            }
        }
        tokio::select! {
            () = woken => {}
            _ = keep_alive.tick() => {
                if lines.send(line(&Wake::default())).await.is_err() {
                    return;
                }
            }
            () = lines.closed() => return,
        }
    }
}

fn waiting(registry: &Registry) -> Vec<String> {
    let queued = registry.services.iter().filter(|(_, endpoint)| endpoint.service.queued.load(Relaxed) > 0);
    queued.map(|(name, _)| name.clone()).collect()
}

fn line(wake: &Wake) -> Bytes {
    let mut line = serde_json::to_vec(wake).unwrap_or_else(|_| b"{}".to_vec());
    line.push(b'\n');
    Bytes::from(line)
}
