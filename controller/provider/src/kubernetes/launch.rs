//! Launch: the pod, then the Secret that it waits for. A crash between the two leaves a pod that the next launch gives
//! its Secret, or that a termination removes.

use super::failure::{CallError, Doing};
use super::identity::{name, object_uid};
use super::{Site, render, terminate};
use crate::ProviderError;
use k8s_openapi::api::core::v1::{Pod, Secret};
use skyserve_kube::Advice;
use skyserve_model::{LaunchSpec, ReplicaUid, limits};
use std::sync::Arc;

/// Looks at what is in the way before whoever keeps putting it there is left alone.
const ATTEMPTS_MAX: u32 = 4;

pub(super) async fn launch(site: &Arc<Site>, spec: &LaunchSpec) -> Result<(), ProviderError> {
    if site.is_terminated(&spec.uid).await? {
        return Ok(());
    }
    let wanted = render::pod(&site.options, spec)?;
    let launched = match ensure_pod(site, &spec.uid, &wanted).await {
        Ok(Some(pod)) => ensure_secret(site, spec, &pod).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    // A termination that began meanwhile may have looked before the pod was there.
    if site.is_terminated(&spec.uid).await? {
        return terminate::remove(site, &spec.uid, limits::TERMINATE_GRACE_MS).await;
    }
    launched
}

/// The replica's pod, made if it is not there; `None` if it was there and is going or gone: its uid is not started
/// again, and what became of it is observed.
async fn ensure_pod(site: &Site, uid: &ReplicaUid, wanted: &Pod) -> Result<Option<Pod>, ProviderError> {
    let doing = Doing::Launching(uid);
    for _ in 0..ATTEMPTS_MAX {
        let error = match site.cluster.create_pod(wanted).await {
            Ok(pod) => return Ok(Some(pod)),
            Err(error) => error,
        };
        match error.advice() {
            Advice::AlreadyExists => {}
            // Two admissions counted the quota at once.
            Advice::Conflict => continue,
            _ => return Err(site.failed(&doing, &error)),
        }
        let name = name(&wanted.metadata);
        let found = site.cluster.pod(name).await.map_err(|error| site.failed(&doing, &error))?;
        let Some(found) = found else { return Ok(None) };
        if !site.is_ours(&found.metadata, uid) {
            return Err(site.foreign(&doing, "pod", name));
        }
        return Ok(found.metadata.deletion_timestamp.is_none().then_some(found));
    }
    Err(in_the_way(uid, "pod", name(&wanted.metadata)))
}

async fn ensure_secret(site: &Site, spec: &LaunchSpec, pod: &Pod) -> Result<(), ProviderError> {
    let doing = Doing::Launching(&spec.uid);
    let wanted = render::secret(&site.options, spec, object_uid(&pod.metadata))?;
    let name = name(&wanted.metadata);
    let failed = |error: CallError| site.failed(&doing, &error);
    for _ in 0..ATTEMPTS_MAX {
        let error = match site.cluster.create_secret(&wanted).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        match error.advice() {
            Advice::AlreadyExists => {}
            Advice::Conflict => continue,
            _ => return Err(failed(error)),
        }
        let Some(found) = site.cluster.secret(name).await.map_err(failed)? else { continue };
        if !site.is_ours(&found.metadata, &spec.uid) {
            return Err(site.foreign(&doing, "secret", name));
        }
        if is_owned_by(&found, pod) {
            return Ok(());
        }
        // Of an earlier pod of this name, which is gone: garbage collection has not come to it yet.
        match site.cluster.delete_secret(name, object_uid(&found.metadata)).await {
            Err(error) if error.advice() != Advice::Conflict => return Err(failed(error)),
            _ => {}
        }
    }
    Err(in_the_way(&spec.uid, "secret", name))
}

fn is_owned_by(secret: &Secret, pod: &Pod) -> bool {
    let owners = secret.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.uid == object_uid(&pod.metadata))
}

fn in_the_way(uid: &ReplicaUid, kind: &str, name: &str) -> ProviderError {
    let message = format!(
        "replica {uid} cannot be launched: a {kind} {name} comes and goes; see who else makes objects of that name"
    );
    ProviderError { message, retryable: true }
}
