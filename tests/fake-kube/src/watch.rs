//! Watches: what has changed since a version, then what changes, with bookmarks while nothing does.

use crate::World;
use crate::faults::StreamFault;
use crate::selectors::matches;
use crate::status::Refusal;
use crate::store::{Change, ChangeKind};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// How often a bookmark says that all is told; a real server's are a minute apart.
const BOOKMARK_INTERVAL: Duration = Duration::from_millis(50);

/// What is watched.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) labels: String,
    pub(crate) fields: String,
    pub(crate) from: u64,
    pub(crate) lasts: Duration,
    pub(crate) bookmarks: bool,
}

/// What the connection is to do next.
pub(crate) enum Piece {
    Data(Bytes),
    /// Cut it.
    Cut,
}

/// Tells what changes until the time is over, whoever listens goes, or the fault ends it.
pub(crate) async fn tell(world: Arc<World>, watched: Watched, mut fault: Option<StreamFault>, to: mpsc::Sender<Piece>) {
    let end = Instant::now() + watched.lasts;
    let mut versions = world.versions();
    let mut told = watched.from;
    if fault == Some(StreamFault::EndAtOnce) {
        return;
    }
    loop {
        versions.borrow_and_update();
        let (compacted, version, changes) = {
            let state = world.lock();
            let changes: Vec<Change> =
                state.store.history().iter().filter(|change| change.version > told).cloned().collect();
            (state.store.compacted(), state.store.version(), changes)
        };
        if told + 1 < compacted {
            let _ = to.send(data(&json!({"type": "ERROR", "object": Refusal::expired().value()}))).await;
            return;
        }
        for line in changes.iter().filter_map(|change| event(&watched, change)) {
            if !send(&to, &line, &mut fault).await {
                return;
            }
        }
        told = told.max(version);
        let bookmark = (Instant::now() + BOOKMARK_INTERVAL).min(end);
        match timeout_at(bookmark, versions.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) if Instant::now() >= end => return,
            Err(_) if to.is_closed() => return,
            Err(_) if watched.bookmarks => {
                let kind = if watched.resource == "pods" { "Pod" } else { "Object" };
                let metadata = json!({"resourceVersion": told.to_string(), "creationTimestamp": null});
                let object = json!({"kind": kind, "apiVersion": "v1", "metadata": metadata});
                if to.send(data(&json!({"type": "BOOKMARK", "object": object}))).await.is_err() {
                    return;
                }
            }
            Err(_) => {}
        }
    }
}

/// Sends an event, or does what the fault says instead; false if that was the last.
async fn send(to: &mpsc::Sender<Piece>, line: &Value, fault: &mut Option<StreamFault>) -> bool {
    match fault.take() {
        None => to.send(data(line)).await.is_ok(),
        Some(StreamFault::BookmarksOnly) => {
            *fault = Some(StreamFault::BookmarksOnly);
            !to.is_closed()
        }
        Some(StreamFault::Drop) => true,
        Some(StreamFault::End | StreamFault::EndAtOnce) => {
            let _ = to.send(data(line)).await;
            false
        }
        Some(StreamFault::Gone) => {
            let _ = to.send(data(&json!({"type": "ERROR", "object": Refusal::expired().value()}))).await;
            false
        }
        Some(StreamFault::Internal) => {
            let status = Refusal::new(500, "InternalError", "etcd event received with PrevKv=nil".to_owned()).value();
            let _ = to.send(data(&json!({"type": "ERROR", "object": status}))).await;
            false
        }
        Some(StreamFault::Cut) => {
            let whole = line.to_string();
            let _ = to.send(Piece::Data(Bytes::copy_from_slice(&whole.as_bytes()[..whole.len() / 2]))).await;
            let _ = to.send(Piece::Cut).await;
            false
        }
        Some(StreamFault::Silent) => {
            to.closed().await;
            false
        }
        Some(StreamFault::Twice) => to.send(data(line)).await.is_ok() && to.send(data(line)).await.is_ok(),
    }
}

fn data(line: &Value) -> Piece {
    Piece::Data(Bytes::from(format!("{line}\n")))
}

/// The change as this watch sees it: an object that no longer is what is watched is deleted to it.
fn event(watched: &Watched, change: &Change) -> Option<Value> {
    if change.resource != watched.resource || change.namespace != watched.namespace {
        return None;
    }
    let chosen = |object: &Value| matches(object, &watched.labels, &watched.fields);
    let (before, now) = (change.before.as_ref().is_some_and(chosen), chosen(&change.object));
    let kind = match (change.kind, before, now) {
        (ChangeKind::Deleted, true, _) | (ChangeKind::Modified, true, false) => "DELETED",
        (ChangeKind::Modified, true, true) => "MODIFIED",
        (ChangeKind::Added | ChangeKind::Modified, false, true) => "ADDED",
        _ => return None,
    };
    Some(json!({"type": kind, "object": change.object}))
}
