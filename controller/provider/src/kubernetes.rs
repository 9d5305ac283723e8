//! Pods. Each replica is one pod and one Secret, both named by its uid ([`skyserve_manifests::replica`]); this provider
//! creates and deletes them, and reports what the API server says of the pods. It holds nothing in memory that the
//! cluster and the home do not, so another instance takes over at any moment.
//!
//! * The pod comes first and owns the Secret, so no Secret outlives its pod; the controller owns the pod.
//! * A name follows from a uid, and a uid is never used twice. So a create that was applied although its answer was
//!   lost is found again by name, and nothing is ever made twice.
//! * Nothing is touched but what carries our label and the replica's uid, and deleted only as the very object that was
//!   looked at (its UID is a precondition).
//! * A uid that was terminated stays so: its tombstone is in the home before anything of it is deleted. A pod that
//!   shows all the same was created by a launch that was still under way somewhere (in this process, in one that was
//!   overtaken, or in the API server's own queue); it is deleted as soon as the watch or a list shows it.
//! * Two pods of one uid never exist at once. Should somebody delete a pod while its launch is still being repeated,
//!   the repetition makes it anew: no replica is lost by it, and none is doubled.
//! * Every call has a bound, and is repeated as the answer says ([`skyserve_kube::advice`]).

mod api;
mod failure;
mod identity;
mod launch;
mod logs;
mod observe;
mod phase;
mod render;
mod terminate;
mod watch;

pub use api::Bounds;
pub use phase::phase;

use crate::{LogRequest, LogStream, OBSERVATIONS_QUEUED_MAX, Provider, ProviderError, tombstones};
use api::Cluster;
use failure::Doing;
use skyserve_home::Home;
use skyserve_kube::kube::Client;
use skyserve_manifests::Owner;
use skyserve_manifests::names::Names;
use skyserve_model::{LaunchSpec, Observation, ReplicaUid};
use skyserve_spec::config::KubernetesConfig;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Where replicas run, and what their pods follow from besides the launch.
#[derive(Clone)]
pub struct KubernetesSite {
    pub client: Client,
    /// Tombstones, and the logs of replicas that are gone.
    pub home: Home,
    pub names: Names,
    pub namespace: String,
    /// The controller's own image: its binary prepares replicas.
    pub image: String,
    pub config: KubernetesConfig,
    /// Where replicas get uploaded files: `http://ADDRESS:9091`.
    pub bundle_url: String,
    /// What they need to get them.
    pub token: Option<String>,
    /// The controller: deleting it removes every replica.
    pub owner: Owner,
    pub bounds: Bounds,
}

impl std::fmt::Debug for KubernetesSite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesSite")
            .field("names", &self.names)
            .field("namespace", &self.namespace)
            .field("image", &self.image)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// Runs replicas as pods.
#[derive(Debug, Clone)]
pub struct KubernetesProvider {
    site: Arc<Site>,
}

/// [`KubernetesSite`] at work.
struct Site {
    options: KubernetesSite,
    cluster: Cluster,
    /// Terminations under way in this process: what they delete, nobody else need.
    ending: Mutex<BTreeSet<ReplicaUid>>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.options.fmt(f)
    }
}

impl KubernetesProvider {
    pub fn new(options: KubernetesSite) -> Self {
        let cluster = Cluster::new(&options.client, &options.namespace, &options.names, options.bounds);
        Self { site: Arc::new(Site { options, cluster, ending: Mutex::default() }) }
    }
}

impl Provider for KubernetesProvider {
    async fn launch(&self, spec: &LaunchSpec) -> Result<(), ProviderError> {
        launch::launch(&self.site, spec).await
    }

    async fn terminate(&self, uid: &ReplicaUid, grace_ms: u64) -> Result<(), ProviderError> {
        terminate::terminate(&self.site, uid, grace_ms).await
    }

    async fn list(&self) -> Result<Vec<Observation>, ProviderError> {
        let listed = self.site.cluster.list_pods(None).await;
        let listed = listed.map_err(|error| self.site.failed(&Doing::Listing, &error))?;
        let mut observations = Vec::new();
        for pod in listed.pods {
            if let Some(uid) = self.site.uid_of(&pod) {
                self.site.reap_if_terminated(&uid, &pod).await;
                observations.push(Observation { uid, phase: phase(&pod) });
            }
        }
        Ok(observations)
    }

    fn observe(&self) -> mpsc::Receiver<Observation> {
        let (sender, receiver) = mpsc::channel(OBSERVATIONS_QUEUED_MAX);
        tokio::spawn(observe::observe(Arc::clone(&self.site), sender));
        receiver
    }

    async fn log(&self, uid: &ReplicaUid, request: LogRequest) -> Result<Option<LogStream>, ProviderError> {
        logs::log(&self.site, uid, request).await
    }
}

impl Site {
    /// Whether `uid` was terminated, here or by an earlier controller of this home.
    async fn is_terminated(&self, uid: &ReplicaUid) -> Result<bool, ProviderError> {
        let found = uid.clone();
        self.at_home(uid, move |home| Ok(tombstones::is_terminated(home, &found))).await
    }

    async fn bury(&self, uid: &ReplicaUid) -> Result<(), ProviderError> {
        let buried = uid.clone();
        self.at_home(uid, move |home| tombstones::add(home, &buried)).await
    }

    /// Runs `work`, which waits for the disk, where it keeps nothing else waiting.
    async fn at_home<T: Send + 'static>(
        &self,
        uid: &ReplicaUid,
        work: impl FnOnce(&Home) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ProviderError> {
        let home = self.options.home.clone();
        let result = tokio::task::spawn_blocking(move || work(&home)).await.map_err(io::Error::other);
        result.and_then(|result| result).map_err(|error| failure::home(uid, &self.options.home, &error))
    }

    /// Notes that this process ends `uid`; `None` if it does already.
    fn begin_ending(self: &Arc<Self>, uid: &ReplicaUid) -> Option<Ending> {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.insert(uid.clone()).then(|| Ending { site: Arc::clone(self), uid: uid.clone() })
    }

    fn is_ending(&self, uid: &ReplicaUid) -> bool {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).contains(uid)
    }
}

/// A termination under way; over when dropped.
struct Ending {
    site: Arc<Site>,
    uid: ReplicaUid,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.site.ending.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.uid);
    }
}
