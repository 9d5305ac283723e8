//! Who owns what: the controller's Deployment (HA) or Pod owns everything of its controller, so deleting it leaves
//! nothing. Kubernetes' garbage collector does the rest.
//!
//! An owner has a uid only once it exists, and its pods cannot start without the objects it is to own. So whoever
//! applies looks for the controller first:
//! * It exists: apply [`owned_by`] of [`crate::render`], in one pass. (Applying without owners would take them
//!   back: server-side apply removes what its manager no longer says.)
//! * It does not: apply [`crate::render`] as it is, the controller last, then again [`owned_by`] the controller that
//!   this made. Whoever ends between the two passes leaves labelled objects, which the next `up` takes over and
//!   `down --purge` removes by label.

use crate::object::Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

/// What a controller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerKind {
    /// HA.
    Deployment,
    /// Not HA.
    Pod,
}

/// A controller that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub kind: OwnerKind,
    pub name: String,
    pub uid: String,
}

impl Owner {
    /// For the metadata of what it owns.
    pub fn reference(&self) -> OwnerReference {
        let (api_version, kind) = match self.kind {
            OwnerKind::Deployment => ("apps/v1", "Deployment"),
            OwnerKind::Pod => ("v1", "Pod"),
        };
        OwnerReference {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            // `kubectl drain` takes a pod without a controller for one that nobody would replace, and refuses.
            controller: Some(true),
            // Nobody waits for what goes with the controller; and this needs no permission on its finalizers.
            block_owner_deletion: None,
        }
    }
}

/// The same objects, owned; but for the owner itself.
pub fn owned_by(mut objects: Vec<Object>, owner: &Owner) -> Vec<Object> {
    let reference = owner.reference();
    for object in &mut objects {
        let is_owner = object.kind() == reference.kind && object.name() == reference.name;
        if let (false, Some(metadata)) = (is_owner, object.metadata_mut()) {
            metadata.insert("ownerReferences".to_owned(), json!([reference]));
        }
    }
    objects
}
