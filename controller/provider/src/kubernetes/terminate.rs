//! Terminate: the tombstone, then the pod. Its Secret, which the pod owns, goes with it by garbage collection. Each
//! step is safe to repeat, so a termination that was cut off is just begun again.

use super::failure::{CallError, Doing};
use super::identity::{name, object_uid};
use super::watch::{News, Watch};
use super::{Site, logs};
use crate::{ProviderError, kept_logs, tombstones};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use skyserve_model::{ReplicaUid, limits};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Looks at what is there: pods of one uid that were launched late, answers that say that it has changed meanwhile.
const LOOKS_MAX: u32 = 5;
pub(super) async fn terminate(site: &Arc<Site>, uid: &ReplicaUid, grace_ms: u64) -> Result<(), ProviderError> {
    site.bury(uid).await?;
    let _ending = site.begin_ending(uid);
    remove(site, uid, grace_ms).await?;
    let home = site.options.home.clone();
    // They only make room.
    let _ = tokio::task::spawn_blocking(move || {
        tombstones::prune(&home);
        kept_logs::prune(&home);
    })
    .await;
    Ok(())
}

impl Site {
    /// Deletes a pod that shows although its replica was terminated, unless somebody is at it already.
    pub(super) async fn reap_if_terminated(self: &Arc<Self>, uid: &ReplicaUid, pod: &Pod) {
        if pod.metadata.deletion_timestamp.is_some() || !matches!(self.is_terminated(uid).await, Ok(true)) {
            return;
        }
        let Some(ending) = self.begin_ending(uid) else { return };
        tracing::info!(%uid, "a launch of a replica that was terminated came late: its pod is deleted");
        let (site, uid) = (Arc::clone(self), uid.clone());
        tokio::spawn(async move {
            let _ending = ending;
            if let Err(error) = remove(&site, &uid, limits::TERMINATE_GRACE_MS).await {
                // The next list shows it again.
                tracing::warn!(%uid, "{error}");
            }
        });
    }
}

/// Deletes the replica's pod, and waits until it is gone.
pub(super) async fn remove(site: &Site, uid: &ReplicaUid, grace_ms: u64) -> Result<(), ProviderError> {
    let failed = |error: CallError| site.failed(&Doing::Terminating(uid), &error);
    let pod_name = site.options.names.replica(uid.as_str());
    for _ in 0..LOOKS_MAX {
        let found = site.cluster.pod(&pod_name).await.map_err(failed)?;
        // What is of somebody else is none of this replica.
        let Some(pod) = found.filter(|pod| site.is_ours(&pod.metadata, uid)) else { return Ok(()) };
        let log = logs::Keeper::begin(site, uid, &pod).await;
        end(site, uid, &pod, grace_ms).await?;
        log.finish().await;
    }
    let message = format!("replica {uid} cannot be ended: pod {pod_name} keeps changing; see who else changes it");
    Err(ProviderError { message, retryable: true })
}

/// Deletes this pod and waits until it is gone, or finds that it is another by now; one whose node is lost is not
/// waited for longer than its grace.
async fn end(site: &Site, uid: &ReplicaUid, pod: &Pod, grace_ms: u64) -> Result<(), ProviderError> {
    let failed = |error: CallError| site.failed(&Doing::Terminating(uid), &error);
    let (name, object_uid) = (name(&pod.metadata), object_uid(&pod.metadata));
    let grace_seconds = u32::try_from(grace_ms.div_ceil(1000)).unwrap_or(u32::MAX);
    // Zero means to Kubernetes that nobody need ask the kubelet whether the processes have ended.
    let grace_seconds = grace_seconds.max(1);
    if !site.cluster.delete_pod(name, object_uid, grace_seconds).await.map_err(failed)? {
        return Ok(());
    }
    let mut watch = Watch::one(&site.cluster, name);
    let word_by = Instant::now() + Duration::from_secs(grace_seconds.into()) + site.options.bounds.word;
    let gone_by = word_by + site.options.bounds.removal;
    let Some(pod) = wait(&mut watch, pod.clone(), word_by).await else { return Ok(()) };
    let pod = if node_is_lost(&pod) {
        tracing::warn!(%uid, "the node of pod {name} is lost: the pod is deleted without its word");
        // Safe: the replica gets no requests, its name is never used again, and whatever still runs of it on a node
        // that comes back is ended by the kubelet, which finds no such pod.
        site.cluster.delete_pod(name, object_uid, 0).await.map_err(failed)?;
        wait(&mut watch, pod, Instant::now() + site.options.bounds.removal).await
    } else {
        wait(&mut watch, pod, gone_by).await
    };
    pod.map_or(Ok(()), |pod| Err(stuck(site, uid, &pod)))
}

/// Waits until this very pod is gone; gives it as it last was if it is still there at `deadline`.
async fn wait(watch: &mut Watch, mut last: Pod, deadline: Instant) -> Option<Pod> {
    let uid = object_uid(&last.metadata).to_owned();
    while let Ok(news) = timeout_at(deadline, watch.next()).await {
        match news {
            News::All(pods) => last = pods.into_iter().find(|pod| object_uid(&pod.metadata) == uid)?,
            News::Changed(pod) if object_uid(&pod.metadata) == uid => last = pod,
            // Another of that name can only be there when this one is gone.
            News::Changed(_) => return None,
            News::Gone(pod) if object_uid(&pod.metadata) == uid => return None,
            News::Gone(_) => {}
        }
    }
    Some(last)
}

/// Whether the node controller has given up on the pod's node: it then marks the pod as not ready, while its
/// containers stay as the kubelet last described them. So no permission to read nodes is needed.
fn node_is_lost(pod: &Pod) -> bool {
    let status = |kind: &str| condition(pod, kind).map(|condition| condition.status.as_str());
    let silent = status("ContainersReady") == Some("True");
    let evicted = condition(pod, "DisruptionTarget")
        .is_some_and(|condition| condition.reason.as_deref() == Some("DeletionByTaintManager"));
    silent && (evicted || status("Ready").is_some_and(|ready| ready != "True"))
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn stuck(site: &Site, uid: &ReplicaUid, pod: &Pod) -> ProviderError {
    let namespace = &site.options.namespace;
    let pod_name = site.options.names.replica(uid.as_str());
    let finalizers = pod.metadata.finalizers.as_deref().unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let why = match (finalizers, node) {
        ([], Some(node)) => format!(
            "node {node} does not say that its containers have ended: see `kubectl describe node {node}`; if the node \
             is gone for good, `kubectl -n {namespace} delete pod {pod_name} --force` makes the pod go"
        ),
        ([], None) => {
            format!("nothing says why: see `kubectl -n {namespace} describe pod {pod_name}`")
        }
        (finalizers, _) => {
            format!("its finalizers ({}) keep it: whoever set them has to take them back", finalizers.join(", "))
        }
    };
    let message = format!("replica {uid} cannot be ended: its pod {pod_name} in namespace {namespace} stays: {why}");
    ProviderError { message, retryable: true }
}

#[cfg(test)]
mod tests;
