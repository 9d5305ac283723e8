//! What replicas print: read from the API server while the pod is there, and kept at home when it goes.

use super::Site;
use super::failure::{CallError, Doing};
use super::identity::name;
use crate::{ProviderError, kept_logs};
use futures_util::{AsyncBufRead, AsyncReadExt};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use skyserve_kube::kube::Error;
use skyserve_kube::kube::api::LogParams;
use skyserve_manifests::replica::{PREPARE_CONTAINER, REPLICA_CONTAINER};
use skyserve_model::ReplicaUid;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What is kept of a replica's output: the failure that somebody looks for is at the end.
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// Lines asked for to have that: most are longer than 64 bytes, and none is read for nothing if not.
const KEPT_LINES_MAX: i64 = 4096;
/// Read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// Which part of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with what is printed from now on, until the replica ends.
    pub follow: bool,
    /// Only the last lines; all by default.
    pub tail_lines: Option<u32>,
}

pub(super) type LogStream = Pin<Box<dyn AsyncBufRead + Send>>;

pub(super) async fn log_stream(site: &Site, uid: &ReplicaUid, options: LogOptions) -> Result<LogStream, ProviderError> {
    let doing = Doing::ReadingLog(uid);
    let failed = |error: CallError| site.failed(&doing, &error);
    let pod_name = site.options.names.replica(uid.as_str());
    let found = site.cluster.pod(&pod_name).await.map_err(failed)?;
    let Some(pod) = found.filter(|pod| site.is_ours(&pod.metadata, uid)) else {
        let message = format!("{doing}: its pod {pod_name} is not there (any more)");
        return Err(ProviderError { message, retryable: false });
    };
    open(site, &pod, options.follow, options.tail_lines.map(i64::from)).await.map_err(failed)
}

async fn open(site: &Site, pod: &Pod, follow: bool, tail_lines: Option<i64>) -> Result<LogStream, CallError> {
    let params = LogParams { container: Some(speaker(pod)), follow, tail_lines, ..LogParams::default() };
    let stream = site.cluster.once(site.cluster.pods.log_stream(name(&pod.metadata), &params)).await?;
    Ok(Box::pin(stream))
}

/// The container whose output says most: the replica's own once it has started, else the one that prepares it.
fn speaker(pod: &Pod) -> String {
    let started = |status: &ContainerStatus| {
        status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    let replica = status(pod, REPLICA_CONTAINER).is_some_and(started);
    let prepare = pod
        .status
        .as_ref()
        .and_then(|status| status.init_container_statuses.as_ref())
        .is_some_and(|inits| inits.iter().any(|status| status.name == PREPARE_CONTAINER && started(status)));
    if prepare && !replica { PREPARE_CONTAINER } else { REPLICA_CONTAINER }.to_owned()
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|status| status.name == container)
}

/// Reads the end of a replica's output while it is being ended, last words included, and keeps it at home. Whatever
/// goes wrong, the replica's end does not wait for it.
pub(super) struct Keeper<'a> {
    site: &'a Site,
    uid: &'a ReplicaUid,
    end: Arc<Mutex<End>>,
    reading: Option<JoinHandle<()>>,
}

impl<'a> Keeper<'a> {
    /// Opens the log of a pod that is about to be deleted. Of one that has ended it is read to its end: it goes with
    /// the pod.
    pub(super) async fn begin(site: &'a Site, uid: &'a ReplicaUid, pod: &Pod) -> Self {
        let end = Arc::new(Mutex::new(End::default()));
        let patience = site.options.bounds.log;
        let opened = timeout(patience, open(site, pod, true, Some(KEPT_LINES_MAX))).await;
        let reading = match opened {
            Ok(Ok(stream)) => {
                let end = Arc::clone(&end);
                Some(tokio::spawn(read(stream, end)))
            }
            // No container has started, so nothing was printed.
            Ok(Err(CallError::Kube(Error::Api(status)))) if status.code == 400 || status.code == 404 => None,
            Ok(Err(error)) => {
                tracing::warn!(%uid, "the replica's output could not be kept: {error}");
                None
            }
            Err(_) => {
                tracing::warn!(%uid, "the replica's output could not be kept: no answer within {patience:?}");
                None
            }
        };
        let mut keeper = Self { site, uid, end, reading };
        if has_ended(pod) {
            keeper.wait(patience).await;
        }
        keeper
    }

    /// Waits for what the kubelet still has to tell, and writes it all down.
    pub(super) async fn finish(mut self) {
        self.wait(self.site.options.bounds.log).await;
        let output = self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        if output.is_empty() {
            return;
        }
        let (home, uid) = (self.site.options.home.clone(), self.uid.clone());
        let written = tokio::task::spawn_blocking(move || kept_logs::write(&home, uid.as_str(), &output)).await;
        if let Err(error) = written.map_err(std::io::Error::other).and_then(|result| result) {
            tracing::warn!(uid = %self.uid, %error, "the replica's output could not be kept");
        }
    }

    async fn wait(&mut self, patience: Duration) {
        if let Some(reading) = &mut self.reading
            && timeout(patience, reading).await.is_ok()
        {
            self.reading = None;
        }
    }
}

impl Drop for Keeper<'_> {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            reading.abort();
        }
    }
}

/// Every container of it has ended.
fn has_ended(pod: &Pod) -> bool {
    status(pod, REPLICA_CONTAINER)
        .and_then(|status| status.state.as_ref())
        .is_some_and(|state| state.terminated.is_some())
}

async fn read(mut stream: LogStream, end: Arc<Mutex<End>>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        end.lock().unwrap_or_else(PoisonError::into_inner).push(&chunk[..count]);
    }
}

/// The last bytes of what was printed.
#[derive(Default)]
struct End {
    bytes: VecDeque<u8>,
}

impl End {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let beyond = self.bytes.len().saturating_sub(KEPT_BYTES_MAX);
        self.bytes.drain(..beyond);
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_was_printed_is_kept() {
        let mut end = End::default();
        for number in 0..100_000 {
            end.push(format!("line {number}\n").as_bytes());
        }
        let kept = end.take();
        assert_eq!(kept.len(), KEPT_BYTES_MAX);
        assert!(kept.ends_with(b"line 99999\n"));
    }
}
