//! Objects of whatever kind: applied, looked for by their label, removed.

use super::{ClusterError, Remote};
use futures_util::future;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use skyserve_kube::Advice;
use skyserve_manifests::Object;
use skyserve_manifests::names::{CONTROLLER_LABEL, FIELD_MANAGER};

/// A kind of object that may carry our label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    group: &'static str,
    version: &'static str,
    pub(super) kind: &'static str,
    plural: &'static str,
    /// Made and removed by Kubernetes itself: waited for, never deleted by us.
    is_derived: bool,
}

const fn kind(group: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind { group, version: "v1", kind, plural, is_derived: false }
}

const fn derived(group: &'static str, name: &'static str, plural: &'static str) -> Kind {
    Kind { is_derived: true, ..kind(group, name, plural) }
}

/// Everything that may carry our label. What makes other objects comes before what it makes: once none of the
/// former is left, none of the latter comes back. What a pod needs while it ends comes last.
pub(super) const KINDS: [Kind; 15] = [
    kind("apps", "Deployment", "deployments"),
    derived("apps", "ReplicaSet", "replicasets"),
    kind("", "Pod", "pods"),
    kind("", "Service", "services"),
    derived("discovery.k8s.io", "EndpointSlice", "endpointslices"),
    kind("networking.k8s.io", "Ingress", "ingresses"),
    kind("networking.k8s.io", "NetworkPolicy", "networkpolicies"),
    kind("policy", "PodDisruptionBudget", "poddisruptionbudgets"),
    kind("monitoring.coreos.com", "PodMonitor", "podmonitors"),
    kind("", "Secret", "secrets"),
    kind("", "ConfigMap", "configmaps"),
    kind("", "PersistentVolumeClaim", "persistentvolumeclaims"),
    kind("rbac.authorization.k8s.io", "RoleBinding", "rolebindings"),
    kind("rbac.authorization.k8s.io", "Role", "roles"),
    kind("", "ServiceAccount", "serviceaccounts"),
];

/// An object that carries our label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) uid: String,
    /// Whether its deletion has begun.
    pub(super) is_leaving: bool,
    /// How long it may take to end once its deletion has begun.
    pub(super) grace_seconds: u64,
    /// Who keeps it from going, if it is leaving.
    pub(super) finalizers: Vec<String>,
}

impl Seen {
    /// `Pod sky-replica-web-1`.
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.kind.kind, self.name)
    }

    pub(super) fn is_to_be_deleted(&self) -> bool {
        !self.is_leaving && !self.kind.is_derived
    }
}

/// What a search by label has found, and the kinds that may not be looked for.
#[derive(Debug, Default)]
pub(super) struct Search {
    pub(super) seen: Vec<Seen>,
    pub(super) forbidden: Vec<&'static str>,
}

/// What applying an object says about the one that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) uid: String,
    pub(super) is_leaving: bool,
    /// `status.phase`, of the kinds that have one.
    pub(super) phase: Option<String>,
}

impl Remote {
    fn objects(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.cluster.client.clone(), &self.cluster.namespace, resource)
    }

    /// Whether an object carries this controller's label.
    pub(super) fn is_ours(&self, metadata: &ObjectMeta) -> bool {
        let label = metadata.labels.as_ref().and_then(|labels| labels.get(CONTROLLER_LABEL));
        label == Some(&self.names.controller)
    }

    /// Looks whether any of these is there as somebody else's: applied by force it would become ours, and go with us.
    /// What is made between this look and the call is not seen: the API server has no apply that only makes.
    ///
    /// # Errors
    /// Which are, or which cannot be looked at.
    pub(super) async fn check_ours(&self, objects: &[Object]) -> Result<(), ClusterError> {
        let looks = future::join_all(objects.iter().map(|object| self.is_others(object))).await;
        let mut others = Vec::new();
        for (object, look) in objects.iter().zip(looks) {
            if look? {
                others.push(format!("the {} {}", object.kind(), object.name()));
            }
        }
        let (are, they_do, names, them) = match others.len() {
            0 => return Ok(()),
            1 => ("is", "it does", "its name", "it"),
            _ => ("are", "they do", "their names", "them"),
        };
        Err(ClusterError::Refused(format!(
            "{} in {} {are} not ours ({they_do} not have the label {}), and a controller needs {names}. Nothing was \
             changed: rename or remove {them}, or name another namespace in kubernetes.namespace of your configuration",
            others.join(", "),
            self.place(),
            self.label()
        )))
    }

    async fn is_others(&self, object: &Object) -> Result<bool, ClusterError> {
        let what = format!("look whether there is a {} {} in {}", object.kind(), object.name(), self.place());
        let objects = self.objects(&resource_of(object));
        match self.ask(&what, async || objects.get_metadata_opt(object.name()).await).await {
            Ok(found) => Ok(found.is_some_and(|found| !self.is_ours(&found.metadata))),
            // Nor is there one of a kind that the cluster does not know.
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Applies one object, or only has it judged.
    pub(super) async fn apply(&self, object: &Object, dry_run: bool) -> Result<Applied, ClusterError> {
        let mut params = PatchParams::apply(FIELD_MANAGER).force();
        params.dry_run = dry_run;
        let what = format!("make the {} {} in {}", object.kind(), object.name(), self.place());
        let objects = self.objects(&resource_of(object));
        let patch = Patch::Apply(object.value());
        let applied = self.ask(&what, async || objects.patch(object.name(), &params, &patch).await).await?;
        Ok(Applied {
            uid: applied.metadata.uid.unwrap_or_default(),
            is_leaving: applied.metadata.deletion_timestamp.is_some(),
            phase: applied.data.pointer("/status/phase").and_then(|phase| phase.as_str()).map(str::to_owned),
        })
    }

    /// Everything that carries this controller's label.
    pub(super) async fn search(&self) -> Result<Search, ClusterError> {
        let mut search = Search::default();
        for kind in KINDS {
            match self.search_for(kind).await {
                Ok(seen) => search.seen.extend(seen),
                // A cluster that does not know the kind has none of it.
                Err(error) if error.is_not_found() => {}
                Err(error) if error.is_forbidden() => {
                    if self.is_known(kind).await? {
                        search.forbidden.push(kind.plural);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(search)
    }

    /// Whether the cluster knows a kind: who may not list it is refused before that comes out.
    async fn is_known(&self, kind: Kind) -> Result<bool, ClusterError> {
        let resource = kind.resource();
        if resource.group.is_empty() {
            return Ok(true);
        }
        let what = format!("ask whether there are {} in {}", kind.plural, self.place());
        let group = async || self.cluster.client.list_api_group_resources(&resource.api_version).await;
        match self.ask(&what, group).await {
            Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == kind.plural)),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn search_for(&self, kind: Kind) -> Result<Vec<Seen>, ClusterError> {
        let objects = self.objects(&kind.resource());
        let labelled = ListParams::default().labels(&self.label());
        let what = format!("look for {} of {} in {}", kind.plural, self.names.controller, self.place());
        let list = self.ask(&what, async || objects.list_metadata(&labelled).await).await?;
        let seen = list.items.into_iter().map(|object| Seen {
            kind,
            name: object.metadata.name.unwrap_or_default(),
            uid: object.metadata.uid.unwrap_or_default(),
            is_leaving: object.metadata.deletion_timestamp.is_some(),
            grace_seconds: object
                .metadata
                .deletion_grace_period_seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .unwrap_or_default(),
            finalizers: object.metadata.finalizers.unwrap_or_default(),
        });
        Ok(seen.collect())
    }

    /// Begins an object's deletion; at once and without waiting for its end if `at_once`.
    pub(super) async fn delete(&self, seen: &Seen, at_once: bool) -> Result<(), ClusterError> {
        let objects = self.objects(&seen.kind.resource());
        let this_one = Preconditions { uid: Some(seen.uid.clone()), resource_version: None };
        let mut params = DeleteParams::background().preconditions(this_one);
        if at_once {
            params = params.grace_period(0);
        }
        let what = format!("remove the {} in {}", seen.text(), self.place());
        match self.ask(&what, async || objects.delete(&seen.name, &params).await.map(drop)).await {
            // Gone, or another of its name is there: what is left is looked for again anyway.
            Err(ClusterError::Api { advice: Advice::NotFound | Advice::Conflict, .. }) => Ok(()),
            outcome => outcome,
        }
    }
}

fn resource_of(object: &Object) -> ApiResource {
    let (group, version) = object.api_version().rsplit_once('/').unwrap_or(("", object.api_version()));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: object.api_version().to_owned(),
        kind: object.kind().to_owned(),
        plural: object.plural().to_owned(),
    }
}

impl Kind {
    fn resource(self) -> ApiResource {
        let api_version =
            if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) };
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version,
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}
