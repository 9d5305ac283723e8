//! A replica's objects, from what all replicas here have in common and its launch.

use super::KubernetesSite;
use crate::ProviderError;
use k8s_openapi::api::core::v1::{Pod, Secret};
use skyserve_manifests::ManifestError;
use skyserve_manifests::replica::{self, ReplicaInput};
use skyserve_model::{LaunchSpec, ReplicaUid};

pub(super) fn pod(site: &KubernetesSite, spec: &LaunchSpec) -> Result<Pod, ProviderError> {
    replica::pod(&input(site), spec).map_err(|error| refused(&spec.uid, &error))
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
