//! A replica's objects, from what all replicas here have in common and its launch. The pod says besides what a
//! controller must know that has nothing but the pod: where it serves, and of which version it is.

use super::KubernetesSite;
use crate::ProviderError;
use k8s_openapi::api::core::v1::{Pod, Secret};
use skyserve_manifests::ManifestError;
use skyserve_manifests::names::{PORT_ANNOTATION, VERSION_ANNOTATION};
use skyserve_manifests::replica::{self, ReplicaInput};
use skyserve_model::{LaunchSpec, ReplicaUid};

pub(super) fn pod(site: &KubernetesSite, spec: &LaunchSpec) -> Result<Pod, ProviderError> {
    let mut pod = replica::pod(&input(site), spec).map_err(|error| refused(&spec.uid, &error))?;
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(PORT_ANNOTATION.to_owned(), spec.port.to_string());
    annotations.insert(VERSION_ANNOTATION.to_owned(), spec.version.to_string());
    Ok(pod)
}

pub(super) fn secret(site: &KubernetesSite, spec: &LaunchSpec, pod_uid: &str) -> Result<Secret, ProviderError> {
    let secret = replica::secret(&input(site), spec, pod_uid, site.token.as_deref());
    secret.map_err(|error| refused(&spec.uid, &error))
}

fn input(site: &KubernetesSite) -> ReplicaInput<'_> {
    ReplicaInput {
        names: &site.names,
        namespace: &site.namespace,
        image: &site.image,
        config: &site.config,
        bundle_url: &site.bundle_url,
        owner: &site.owner,
    }
}

fn refused(uid: &ReplicaUid, error: &ManifestError) -> ProviderError {
    ProviderError { message: format!("replica {uid} cannot be launched: {error}"), retryable: false }
}
