//! Makes the controller.
//!
//! Invariants:
//! * Nothing is made before the API server has judged everything that is to be made (a dry run of the same calls),
//!   and the person has agreed.
//! * Nothing is applied, not even for show, before it was looked whether somebody else has an object of that name.
//! * What was made stays when a later step fails: every step may be repeated, and the next `up` goes on from there.

use super::existing::Existing;
use super::objects::Applied;
use super::{ClusterError, PAUSE, Patience, Remote};
use crate::progress::Progress;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{ListParams, PostParams};
use skyserve_kube::Advice;
use skyserve_manifests::{ControllerInput, Object, Owner, OwnerKind, owned_by, render};
use skyserve_spec::config::Config;
use std::time::Duration;
use tokio::time::Instant;

/// How long an earlier controller that is being removed is waited for: its pod drains, its volume is deleted.
const GONE_WITHIN: Duration = Duration::from_secs(300);
/// Marks the StorageClass of claims that name none.
const DEFAULT_CLASS_ANNOTATION: &str = "storageclass.kubernetes.io/is-default-class";

/// What `up` will do about the controller.
#[derive(Debug)]
pub(crate) struct Preparation {
    objects: Vec<Object>,
    /// The controller that is there already, and stays as it is.
    existing: Option<Existing>,
    /// What a person may want to know about it.
    pub(crate) notes: Vec<String>,
}

impl Preparation {
    pub(crate) fn makes_a_controller(&self) -> bool {
        self.existing.is_none()
    }
}

impl Remote {
    /// Finds out everything that can be found out before anything is made.
    pub(crate) async fn prepare(&self, config: &Config, image: &str) -> Result<Preparation, ClusterError> {
        let objects = render(&ControllerInput {
            names: self.names.clone(),
            namespace: self.cluster.namespace.clone(),
            image: image.to_owned(),
            config: config.clone(),
        })?;
        let existing = self.existing().await?;
        if let Some(existing) = &existing {
            self.check_high_availability(existing, config.high_availability)?;
        }
        let existing = existing.filter(|existing| !existing.is_leaving);
        let notes = match &existing {
            Some(existing) => self.notes(existing, &objects, image).await?,
            None => {
                let rehearsed = self.rehearse(&objects).await?;
                self.check_storage_class(&rehearsed, config).await?;
                Vec::new()
            }
        };
        self.check_port_forward().await?;
        Ok(Preparation { objects, existing, notes })
    }

    /// Makes the controller if there is none, and waits until it can be talked to.
    pub(crate) async fn ensure(&self, prepared: &Preparation, progress: &mut Progress) -> Result<(), ClusterError> {
        let Preparation { objects, existing, .. } = prepared;
        if let Some(existing) = existing {
            // Else an earlier `up` was interrupted between making the controller and giving it the rest.
            if !self.is_owned(&existing.owner).await? {
                self.check_ours(objects).await?;
                self.apply_rest(objects, &existing.owner).await?;
            }
            return self.until_ready(Patience::for_a_new_one(), progress).await;
        }
        self.until_predecessor_is_gone(objects, progress).await?;
        progress.now(&format!("making the controller {self}"));
        let mut made = None;
        for object in objects {
            let applied = self.apply(object, false).await.map_err(|error| with_advice(error, objects, object))?;
            made = Some((object, applied));
        }
        if let Some((object, Applied { uid, .. })) = made {
            let kind = if object.kind() == "Deployment" { OwnerKind::Deployment } else { OwnerKind::Pod };
            self.apply_rest(objects, &Owner { kind, name: object.name().to_owned(), uid }).await?;
        }
        self.until_ready(Patience::for_a_new_one(), progress).await
    }

    /// Applies everything but the controller itself, as owned by it.
    async fn apply_rest(&self, objects: &[Object], owner: &Owner) -> Result<(), ClusterError> {
        let Some((_controller, rest)) = objects.split_last() else { return Ok(()) };
        for object in owned_by(rest.to_vec(), owner) {
            self.apply(&object, false).await?;
        }
        Ok(())
    }

    async fn config_map(&self) -> Result<Option<ConfigMap>, ClusterError> {
        let maps: Api<ConfigMap> = Api::namespaced(self.cluster.client.clone(), &self.cluster.namespace);
        let what = format!("look at the configuration of {self}");
        self.ask(&what, async || maps.get_opt(&self.names.config()).await).await
    }

    /// Whether the rest belongs to the controller, as one of it shows. Who may not see that one made none of it.
    async fn is_owned(&self, owner: &Owner) -> Result<bool, ClusterError> {
        let map = match self.config_map().await {
            Err(error) if error.is_forbidden() => return Ok(true),
            map => map?,
        };
        let owners = map.and_then(|map| map.metadata.owner_references).unwrap_or_default();
        Ok(owners.iter().any(|reference| reference.uid == owner.uid))
    }

    /// In what the existing controller differs from one that would be made now.
    async fn notes(&self, existing: &Existing, objects: &[Object], image: &str) -> Result<Vec<String>, ClusterError> {
        let mut notes = Vec::new();
        if let Some(has) = existing.image.as_deref().filter(|has| *has != image) {
            notes.push(format!(
                "the existing controller goes on with its image {has}; {image} takes effect for a new controller only"
            ));
        }
        let rendered =
            objects.iter().find(|object| object.kind() == "ConfigMap" && object.name() == self.names.config());
        let wanted = rendered.and_then(|object| object.value().get("data").cloned());
        let map = match self.config_map().await {
            Err(error) if error.is_forbidden() => None,
            map => map?,
        };
        let has = map.and_then(|map| serde_json::to_value(map.data?).ok());
        if has.is_some() && wanted.is_some() && has != wanted {
            notes.push(
                "the existing controller goes on with the configuration it was made with; changes of your configuration \
                 take effect for a new controller only"
                    .to_owned(),
            );
        }
        Ok(notes)
    }

    /// Has the API server judge everything that is to be made, and make nothing of it.
    async fn rehearse<'o>(&self, objects: &'o [Object]) -> Result<Vec<(&'o Object, Applied)>, ClusterError> {
        self.check_ours(objects).await?;
        let mut rehearsed = Vec::new();
        for object in objects {
            match self.apply(object, true).await {
                Ok(applied) => rehearsed.push((object, applied)),
                // Judged against a cluster in which nothing was made: by its turn there will be.
                Err(ClusterError::Api { text, .. }) if misses_another(&text, objects, object) => {}
                Err(error) => return Err(with_advice(error, objects, object)),
            }
        }
        Ok(rehearsed)
    }

    /// Waits until nothing that is to be made is on its way out: it would go again.
    async fn until_predecessor_is_gone(&self, objects: &[Object], progress: &mut Progress) -> Result<(), ClusterError> {
        let deadline = Instant::now() + GONE_WITHIN;
        loop {
            let rehearsed = self.rehearse(objects).await?;
            let leaving = rehearsed.iter().find(|(_, applied)| applied.is_leaving);
            let Some((object, _)) = leaving else { return Ok(()) };
            let text = format!("{} {} of an earlier controller is being removed", object.kind(), object.name());
            if Instant::now() >= deadline {
                return Err(ClusterError::Refused(format!(
                    "{text} for more than {} s, so no new one can be made. See what keeps it: `kubectl -n {} describe {} {}`",
                    GONE_WITHIN.as_secs(),
                    self.cluster.namespace,
                    object.plural(),
                    object.name()
                )));
            }
            progress.now(&format!("waiting: {text}"));
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A claim for a StorageClass that does not exist waits for ever. Who may not see StorageClasses is not kept from
    /// using them.
    async fn check_storage_class(&self, rehearsed: &[(&Object, Applied)], config: &Config) -> Result<(), ClusterError> {
        let claim = rehearsed.iter().find(|(object, _)| object.kind() == "PersistentVolumeClaim");
        if claim.is_none_or(|(_, applied)| applied.phase.as_deref() == Some("Bound")) {
            return Ok(());
        }
        let classes: Api<StorageClass> = Api::all(self.cluster.client.clone());
        let all = ListParams::default();
        let list = match self.ask("look for StorageClasses", async || classes.list(&all).await).await {
            Err(error) if error.is_forbidden() => return Ok(()),
            list => list?.items,
        };
        let names: Vec<&str> = list.iter().filter_map(|class| class.metadata.name.as_deref()).collect();
        let is_default = |class: &StorageClass| {
            let annotation = class.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT_CLASS_ANNOTATION));
            annotation.is_some_and(|value| value == "true")
        };
        let problem = match &config.storage_class_name {
            Some(name) if names.contains(&name.as_str()) => return Ok(()),
            Some(name) => {
                format!("StorageClass {name} (kubernetes.high_availability.storage_class_name) does not exist")
            }
            None if list.iter().any(is_default) => return Ok(()),
            None => "no StorageClass is the default".to_owned(),
        };
        let there_are = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
        Err(ClusterError::Refused(format!(
            "a highly available controller needs a volume, and in {} {problem}. Name one in \
             kubernetes.high_availability.storage_class_name; existing StorageClasses: {there_are}",
            super::error::cluster_name(&self.cluster)
        )))
    }

    /// Without port-forward the controller could be made, and not be talked to.
    async fn check_port_forward(&self) -> Result<(), ClusterError> {
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.cluster.client.clone());
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(self.cluster.namespace.clone()),
                    verb: Some("get".to_owned()),
                    resource: Some("pods".to_owned()),
                    subresource: Some("portforward".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let params = PostParams::default();
        let reviewed = self.ask("ask for your permissions", async || reviews.create(&params, &review).await).await;
        match reviewed.ok().and_then(|review| review.status) {
            Some(status) if !status.allowed => Err(ClusterError::Refused(format!(
                "you may not forward ports to pods in {} (verb get on pods/portforward), which is how the controller is \
                 talked to; ask whoever runs the cluster for this permission",
                self.place()
            ))),
            // Not every API server says.
            _ => Ok(()),
        }
    }
}

/// Whether an object was refused because another of ours is not there yet.
fn misses_another(text: &str, objects: &[Object], object: &Object) -> bool {
    let another = |other: &&Object| (other.kind(), other.name()) != (object.kind(), object.name());
    text.contains("not found")
        && objects.iter().filter(another).any(|other| text.contains(&format!("{:?} not found", other.name())))
}

/// Adds what to do where the API server's words do not say it.
fn with_advice(error: ClusterError, objects: &[Object], object: &Object) -> ClusterError {
    let ClusterError::Api { text, advice } = error else { return error };
    let namespace = objects.first().map_or("", Object::namespace);
    let hint = match advice {
        Advice::NotFound if text.contains(&format!("namespaces {namespace:?} not found")) => format!(
            "; make it with `kubectl create namespace {namespace}`, or name another in kubernetes.namespace of your configuration"
        ),
        Advice::NotFound => format!("; does this cluster know the kind {}?", object.kind()),
        _ => String::new(),
    };
    ClusterError::Api { text: text + &hint, advice }
}

#[cfg(test)]
mod tests;
