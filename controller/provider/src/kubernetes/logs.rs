//! What replicas print: read from the API server while the pod is there, and kept at home when it goes.

use super::Site;
use super::failure::{CallError, Doing};
use super::identity::name;
use super::watch::{News, Watch};
use crate::{LOG_PIECES_QUEUED_MAX, LogRequest, LogStream, ProviderError, kept_logs};
use bytes::Bytes;
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
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What is kept of a replica's output: the failure that somebody looks for is at the end.
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// Lines asked for to have that: most are longer than 64 bytes, and none is read for nothing if not.
const KEPT_LINES_MAX: i64 = 4096;
/// Read at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// What is still on its way of a log when the pod is gone. The kubelet ends the log itself only at its next look at the
/// container, seconds later.
const LAST_WORDS: Duration = Duration::from_millis(300);

type Output = Pin<Box<dyn AsyncBufRead + Send>>;

/// The replica's output, after that of its preparation if it is still at that.
pub(super) async fn log(
    site: &Arc<Site>,
    uid: &ReplicaUid,
    request: LogRequest,
) -> Result<Option<LogStream>, ProviderError> {
    let failed = |error: CallError| site.failed(&Doing::ReadingLog(uid), &error);
    let Some(pod) = own_pod(site, uid).await.map_err(failed)? else { return Ok(None) };
    let lines = request.tail.map(|lines| i64::try_from(lines).unwrap_or(i64::MAX));
    let Some(output) = open_begun(site, &pod, request.follow, lines).await.map_err(failed)? else { return Ok(None) };
    let (sender, receiver) = mpsc::channel(LOG_PIECES_QUEUED_MAX);
    let is_preparing = request.follow && speaker(&pod) == PREPARE_CONTAINER;
    let (site, uid) = (Arc::clone(site), uid.clone());
    tokio::spawn(async move {
        let passed_on = async {
            pass_on(output, &sender).await?;
            match is_preparing {
                true => {
                    match started(&site, &uid).await.map_err(|error| site.failed(&Doing::ReadingLog(&uid), &error))? {
                        Some(output) => pass_on(output, &sender).await,
                        None => Ok(()),
                    }
                }
                false => Ok(()),
            }
        };
        tokio::select! {
            passed_on = passed_on => {
                if let Err(error) = passed_on {
                    let _ = sender.send(Err(error)).await;
                }
            }
            () = sender.closed() => {}
        }
    });
    Ok(Some(receiver))
}

/// The output of a replica whose preparation is over, once it has begun; `None` if it never does.
async fn started(site: &Site, uid: &ReplicaUid) -> Result<Option<Output>, CallError> {
    let mut watch = Watch::one(&site.cluster, &site.options.names.replica(uid.as_str()));
    loop {
        let pod = match watch.next().await {
            News::All(pods) => pods.into_iter().next(),
            News::Changed(pod) => Some(pod),
            News::Gone(_) => None,
        };
        let Some(pod) = pod.filter(|pod| site.is_ours(&pod.metadata, uid)) else { return Ok(None) };
        if speaker(&pod) == REPLICA_CONTAINER
            && let Some(output) = open_begun(site, &pod, true, None).await?
        {
            return Ok(Some(output));
        }
        if is_over(&pod) {
            return Ok(None);
        }
    }
}

async fn own_pod(site: &Site, uid: &ReplicaUid) -> Result<Option<Pod>, CallError> {
    let pod = site.cluster.pod(&site.options.names.replica(uid.as_str())).await?;
    Ok(pod.filter(|pod| site.is_ours(&pod.metadata, uid)))
}

/// `None` while no container has started.
async fn open_begun(site: &Site, pod: &Pod, follow: bool, lines: Option<i64>) -> Result<Option<Output>, CallError> {
    match open(site, pod, follow, lines).await {
        Ok(output) => Ok(Some(output)),
        Err(CallError::Kube(Error::Api(status))) if status.code == 400 || status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

async fn pass_on(mut output: Output, sender: &mpsc::Sender<Result<Bytes, ProviderError>>) -> Result<(), ProviderError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = output.read(&mut chunk).await;
        let count =
            read.map_err(|error| ProviderError { message: format!("its log broke off: {error}"), retryable: true })?;
        if count == 0 || sender.send(Ok(Bytes::copy_from_slice(&chunk[..count]))).await.is_err() {
            return Ok(());
        }
    }
}

async fn open(site: &Site, pod: &Pod, follow: bool, tail_lines: Option<i64>) -> Result<Output, CallError> {
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
        let opened = timeout(patience, open(site, pod, !has_ended(pod), Some(KEPT_LINES_MAX))).await;
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
        self.wait(LAST_WORDS).await;
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

/// It will start no container any more.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some()
}

async fn read(mut stream: Output, end: Arc<Mutex<End>>) {
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
