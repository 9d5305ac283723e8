//! Launch: the pod, then the Secret that it waits for. A crash between the two leaves a pod that the next launch gives
//! its Secret, or that a termination removes.

use super::api::Made;
use super::failure::Doing;
use super::identity::{name, object_uid};
use super::{Site, render, terminate};
use crate::ProviderError;
use k8s_openapi::api::core::v1::Pod;
use skyserve_kube::Advice;
use skyserve_model::{LaunchSpec, ReplicaUid, limits};
use std::sync::Arc;

pub(super) async fn launch(site: &Arc<Site>, spec: &LaunchSpec) -> Result<(), ProviderError> {
    if site.is_terminated(&spec.uid).await? {
        return Ok(());
    }
    let wanted = render::pod(&site.options, spec)?;
    let launched = match ensure_pod(site, &spec.uid, &wanted).await {
        Ok(Some((pod, made))) => ensure_secret(site, spec, &pod, made).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    // A termination that began meanwhile may have looked before the pod was there.
    if site.is_terminated(&spec.uid).await? {
        return terminate::remove(site, &spec.uid, limits::TERMINATE_GRACE_MS).await;
    }
    launched
}

/// The replica's pod and when it was made; `None` if it was there and is going or gone: its uid is not started again,
/// and what became of it is observed.
async fn ensure_pod(site: &Site, uid: &ReplicaUid, wanted: &Pod) -> Result<Option<(Pod, Made)>, ProviderError> {
    let doing = Doing::Launching(uid);
    let error = match site.cluster.create_pod(wanted).await {
        Ok(pod) => return Ok(Some((pod, Made::Now))),
        Err(error) => error,
    };
    if error.advice() != Advice::AlreadyExists {
        return Err(site.failed(&doing, &error));
    }
    let name = name(&wanted.metadata);
    let found = site.cluster.pod(name).await.map_err(|error| site.failed(&doing, &error))?;
    let Some(found) = found else { return Ok(None) };
    if !site.is_ours(&found.metadata, uid) {
        return Err(site.foreign(&doing, "pod", name));
    }
    Ok(found.metadata.deletion_timestamp.is_none().then_some((found, Made::Perhaps)))
}

async fn ensure_secret(site: &Site, spec: &LaunchSpec, pod: &Pod, pod_made: Made) -> Result<(), ProviderError> {
    let doing = Doing::Launching(&spec.uid);
    let secret = render::secret(&site.options, spec, object_uid(&pod.metadata))?;
    let name = name(&secret.metadata);
    let made = site.cluster.create_secret(&secret).await.map_err(|error| site.failed(&doing, &error))?;
    if (pod_made, made) == (Made::Now, Made::Before) {
        // Older than the pod that owns it: of an earlier pod, with which it goes in a moment; or somebody else's.
        let mut error = site.foreign(&doing, "secret", name);
        error.retryable = true;
        return Err(error);
    }
    Ok(())
}
