//! What is ours, and whose it is: read from labels and annotations, which is all that a controller whose database is
//! lost has to go by.

use super::Site;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skyserve_manifests::names::{CONTROLLER_LABEL, REPLICA_LABEL, UID_ANNOTATION, label_value};
use skyserve_model::ReplicaUid;

impl Site {
    /// The replica whose pod this is, if it is one of ours.
    pub(super) fn uid_of(&self, pod: &Pod) -> Option<ReplicaUid> {
        let uid = annotation(&pod.metadata, UID_ANNOTATION).and_then(ReplicaUid::parse)?;
        self.is_ours(&pod.metadata, &uid).then_some(uid)
    }

    /// Whether an object belongs to this replica of this controller.
    pub(super) fn is_ours(&self, metadata: &ObjectMeta, uid: &ReplicaUid) -> bool {
        let controller = label(metadata, CONTROLLER_LABEL) == Some(self.options.names.controller.as_str());
        let replica = label(metadata, REPLICA_LABEL) == Some(label_value(uid.as_str()).as_str());
        let named = annotation(metadata, UID_ANNOTATION).is_none_or(|named| named == uid.as_str());
        controller && replica && named
    }
}

pub(super) fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

pub(super) fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The object's name, for messages.
pub(super) fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or("(without a name)")
}

/// The object's own UID: never used twice by the API server.
pub(super) fn object_uid(metadata: &ObjectMeta) -> &str {
    metadata.uid.as_deref().unwrap_or_default()
}
