//! One Kubernetes Service (and Ingress) for each served service, kept as the controller's snapshot wants them and as
//! the configuration says; watches tell what addresses they get.
//!
//! Invariants:
//! * Level-triggered: what is done follows from what is wanted and what is there, so a restart goes on where its
//!   predecessor was, and strays of services that went meanwhile are removed.
//! * Nothing is removed before everything that is there is known; and nothing without our labels is touched.
//! * What a watch did not tell is found by the next list.
//! * What is there already stays as it is: a Service keeps its cluster IP and node port across restarts of the
//!   controller.

use super::reach::{self, Around};
use super::{Exposed, Exposure, Wanted};
use crate::calls::{Problem, in_time};
use crate::core::Outside;
use crate::mirror::Mirror;
use crate::watching::watching;
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::Ingress;
use serde::Serialize;
use serde::de::DeserializeOwned;
use skyserve_kube::Advice;
use skyserve_kube::kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use skyserve_kube::kube::runtime::watcher::Event;
use skyserve_kube::kube::{Api, Client, Resource, ResourceExt};
use skyserve_manifests::Owner;
use skyserve_manifests::endpoint::{self, EndpointInput};
use skyserve_manifests::names::{
    COMPONENT_ENDPOINT, COMPONENT_LABEL, CONTROLLER_LABEL, ENDPOINT_LABEL, FIELD_MANAGER, Names,
};
use skyserve_spec::config::EndpointKind;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// News taken before what follows from them is done: groups what comes at once.
const NEWS_AT_ONCE_MAX: usize = 256;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// One answer of the API server; what takes longer is better asked again.
    pub answer: Duration,
    /// Pause before what failed is tried again; it doubles up to the longest.
    pub pause_first: Duration,
    pub pause_max: Duration,
    /// A watch can lose an event, or its connection die without a word; all is listed again this often (whole
    /// seconds), as often as the controller lists replicas.
    pub list_interval: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(15),
            pause_first: Duration::from_millis(500),
            pause_max: Duration::from_secs(30),
            list_interval: Duration::from_secs(60),
        }
    }
}

/// Where and how endpoints are made reachable.
#[derive(Debug, Clone)]
pub struct Settings {
    pub names: Names,
    pub namespace: String,
    pub kind: EndpointKind,
    /// The controller's own node, whose ports lead to the load balancer; `None` where load balancers are pods of their
    /// own, and the node is one of theirs.
    pub node_ip: Option<String>,
    pub bounds: Bounds,
}

/// Makes endpoints reachable by Kubernetes' own means.
pub struct KubernetesExposure {
    pub settings: Settings,
    pub client: Client,
    /// Who owns what is made; `None` until that is known.
    pub owner: watch::Receiver<Option<Owner>>,
}

impl Debug for KubernetesExposure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesExposure").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What a watch tells.
enum News {
    Service(Box<Event<Service>>),
    Ingress(Box<Event<Ingress>>),
    Pod(Box<Event<Pod>>),
    Trouble(Problem),
}

impl Exposure for KubernetesExposure {
    async fn keep(self, mut wanted: watch::Receiver<Wanted>, tell: mpsc::Sender<Exposed>) {
        let mut news = self.watches();
        let mut owner = self.owner.clone();
        let bounds = self.settings.bounds;
        let mut keeper = Keeper::new(self, tell);
        let mut pause = bounds.pause_first;
        loop {
            let now_wanted = wanted.borrow_and_update().clone();
            let now_owner = owner.borrow_and_update().clone();
            let all_done = keeper.reconcile(&now_wanted, now_owner.as_ref()).await;
            if keeper.tell(&now_wanted).await.is_err() {
                return;
            }
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                // Once it is known it stays: whoever tells it may go.
                Ok(()) = owner.changed() => {}
                Some(first) = news.next() => keeper.take_all(first, &mut news),
                () = tokio::time::sleep(pause), if !all_done => {}
            }
            pause = if all_done { bounds.pause_first } else { (pause * 2).min(bounds.pause_max) };
        }
    }
}

impl KubernetesExposure {
    fn watches(&self) -> SelectAll<BoxStream<'static, News>> {
        let controller = &self.settings.names.controller;
        let ours = format!("{CONTROLLER_LABEL}={controller},{COMPONENT_LABEL}={COMPONENT_ENDPOINT}");
        let mut all = vec![self.watch(&ours, News::Service)];
        if self.settings.kind == EndpointKind::Ingress {
            all.push(self.watch(&ours, News::Ingress));
        }
        if self.settings.node_ip.is_none() {
            all.push(self.watch(&format!("{CONTROLLER_LABEL}={controller},{ENDPOINT_LABEL}=true"), News::Pod));
        }
        stream::select_all(all)
    }

    fn watch<K>(&self, labels: &str, news: fn(Box<Event<K>>) -> News) -> BoxStream<'static, News>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.settings.namespace);
        let events = watching(api, labels, self.settings.bounds);
        events.map(move |event| event.map(Box::new).map_or_else(News::Trouble, news)).boxed()
    }
}

struct Keeper {
    settings: Settings,
    services_api: Api<Service>,
    ingresses_api: Api<Ingress>,
    services: Mirror<Service>,
    ingresses: Mirror<Ingress>,
    pods: Mirror<Pod>,
    /// Why a service's objects are not as wanted.
    problems: BTreeMap<String, String>,
    told: BTreeMap<String, (u64, Outside)>,
    tell: mpsc::Sender<Exposed>,
    /// What the watches complained of last.
    trouble: Option<String>,
}

impl Keeper {
    fn new(exposure: KubernetesExposure, tell: mpsc::Sender<Exposed>) -> Self {
        let KubernetesExposure { settings, client, owner: _ } = exposure;
        Self {
            services_api: Api::namespaced(client.clone(), &settings.namespace),
            ingresses_api: Api::namespaced(client, &settings.namespace),
            settings,
            services: Mirror::default(),
            ingresses: Mirror::default(),
            pods: Mirror::default(),
            problems: BTreeMap::new(),
            told: BTreeMap::new(),
            tell,
            trouble: None,
        }
    }

    fn take_all(&mut self, first: News, more: &mut SelectAll<BoxStream<'static, News>>) {
        self.take(first);
        for _ in 1..NEWS_AT_ONCE_MAX {
            let Some(Some(news)) = futures_util::FutureExt::now_or_never(more.next()) else { return };
            self.take(news);
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Service(event) => self.services.take(*event),
            News::Ingress(event) => self.ingresses.take(*event),
            News::Pod(event) => self.pods.take(*event),
            News::Trouble(Problem { text, .. }) => {
                if self.trouble.as_ref() != Some(&text) {
                    tracing::warn!("changes of endpoints are not told for the moment, asking again: {text}");
                    self.trouble = Some(text);
                }
                return;
            }
        }
        if self.trouble.take().is_some() {
            tracing::info!("the API server tells of endpoints again");
        }
    }

    /// Makes what is wanted and removes what is not; whether all of it is as it should be.
    async fn reconcile(&mut self, wanted: &Wanted, owner: Option<&Owner>) -> bool {
        self.problems.retain(|name, _| wanted.contains_key(name));
        let with_ingress = self.settings.kind == EndpointKind::Ingress;
        let answer = self.settings.bounds.answer;
        let Some(owner) = owner.filter(|_| self.services.is_complete()) else { return true };
        if with_ingress && !self.ingresses.is_complete() {
            return true;
        }
        for (name, listening) in wanted {
            let settings = self.settings.clone();
            let (names, namespace) = (&settings.names, settings.namespace.as_str());
            let input = EndpointInput { names, namespace, owner, service: name, port: listening.port };
            let service = endpoint::service(&input, settings.kind);
            let mut made = ensure(&self.services_api, &mut self.services, &service, is_as_wanted, answer).await;
            if with_ingress && made.is_ok() {
                let ingress = endpoint::ingress(&input);
                made = ensure(&self.ingresses_api, &mut self.ingresses, &ingress, leads_to_the_same, answer).await;
            }
            match made {
                Ok(()) => drop(self.problems.remove(name)),
                Err(problem) => {
                    let problem = format!("its endpoint cannot be made reachable: {problem}");
                    if self.problems.insert(name.clone(), problem.clone()).as_ref() != Some(&problem) {
                        tracing::warn!(service = %name, "{problem}");
                    }
                }
            }
        }
        let names: Vec<String> = wanted.keys().map(|name| self.settings.names.endpoint(name)).collect();
        let services_gone = remove_others(&self.services_api, &self.services, &names, answer).await;
        let ingresses_gone = !with_ingress || remove_others(&self.ingresses_api, &self.ingresses, &names, answer).await;
        self.problems.is_empty() && services_gone && ingresses_gone
    }

    /// Tells what has changed since it was told. An error: nobody listens any more.
    async fn tell(&mut self, wanted: &Wanted) -> Result<(), mpsc::error::SendError<Exposed>> {
        self.told.retain(|name, _| wanted.contains_key(name));
        for (name, listening) in wanted {
            let now = (listening.incarnation, self.outside(name));
            if self.told.get(name) != Some(&now) {
                self.tell.send((name.clone(), now.1.clone())).await?;
                self.told.insert(name.clone(), now);
            }
        }
        Ok(())
    }

    fn outside(&self, name: &str) -> Outside {
        let Settings { names, namespace, kind, node_ip, bounds: _ } = &self.settings;
        let object = names.endpoint(name);
        let path = endpoint::ingress_path(names, namespace, name);
        let node_ip = node_ip.as_deref().or_else(|| self.node_of_a_load_balancer());
        let around = Around { kind: *kind, node_ip, ingress_path: &path };
        let mut outside = match self.services.get(&object) {
            Some(service) => reach::outside(&around, service, self.ingresses.get(&object)),
            None => {
                let trouble = self.trouble.as_ref().map(|trouble| format!(": {trouble}")).unwrap_or_default();
                Outside { endpoint: None, note: Some(format!("its endpoint waits for the API server{trouble}")) }
            }
        };
        if let Some(problem) = self.problems.get(name) {
            outside.note = Some(problem.clone());
        }
        outside
    }

    /// The node of a load balancer that takes requests; always the same one of several, while it is there.
    fn node_of_a_load_balancer(&self) -> Option<&str> {
        let takes_requests = |pod: &&Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
        };
        self.pods.objects().filter(takes_requests).find_map(|pod| pod.status.as_ref()?.host_ip.as_deref())
    }
}

/// Makes sure that the object is there as wanted.
async fn ensure<K>(
    api: &Api<K>,
    mirror: &mut Mirror<K>,
    wanted: &K,
    is_as_wanted: fn(&K, &K) -> bool,
    answer: Duration,
) -> Result<(), String>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    let name = wanted.name_any();
    match mirror.get(&name) {
        Some(found) if found.meta().deletion_timestamp.is_some() => return Err("an earlier one is going".to_owned()),
        Some(found) if is_as_wanted(found, wanted) && is_owned_alike(found, wanted) => return Ok(()),
        Some(_) => {}
        None => {
            // The watch shows only what has our labels; what has not is somebody else's.
            let found = in_time(answer, api.get_opt(&name)).await.map_err(|problem| problem.text)?;
            let is_ours = |found: &K| found.labels().get(CONTROLLER_LABEL) == wanted.labels().get(CONTROLLER_LABEL);
            if found.is_some_and(|found| !is_ours(&found)) {
                let kind = K::kind(&());
                return Err(format!(
                    "there is a {kind} {name} that is not ours (its labels say so); remove it if nobody needs it"
                ));
            }
        }
    }
    let (params, patch) = (PatchParams::apply(FIELD_MANAGER).force(), Patch::Apply(wanted));
    let applied = in_time(answer, api.patch(&name, &params, &patch)).await.map_err(|problem| problem.text)?;
    mirror.note(applied);
    Ok(())
}

/// Removes what belongs to no service any more; whether nothing is left to do.
async fn remove_others<K>(api: &Api<K>, mirror: &Mirror<K>, wanted: &[String], answer: Duration) -> bool
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut all_done = true;
    for object in mirror.objects() {
        let name = object.name_any();
        if wanted.contains(&name) || object.meta().deletion_timestamp.is_some() {
            continue;
        }
        let preconditions = Some(Preconditions { uid: object.uid(), resource_version: None });
        let params = DeleteParams { preconditions, ..DeleteParams::background() };
        match in_time(answer, api.delete(&name, &params)).await {
            Ok(_) | Err(Problem { advice: Advice::NotFound, .. }) => {}
            // Also a conflict: it may be another by now, which is to go as well once the watch shows it.
            Err(problem) => {
                tracing::warn!(
                    "the {} {name} of a service that is gone cannot be removed: {}",
                    K::kind(&()),
                    problem.text
                );
                all_done = false;
            }
        }
    }
    all_done
}

fn is_owned_alike<K: Resource>(found: &K, wanted: &K) -> bool {
    let owners = |object: &K| -> Vec<String> {
        object.meta().owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect()
    };
    owners(wanted).iter().all(|uid| owners(found).contains(uid))
}

/// What the API server adds is no difference.
fn is_as_wanted(found: &Service, wanted: &Service) -> bool {
    let (Some(found), Some(wanted)) = (&found.spec, &wanted.spec) else { return false };
    let ports = |ports: &Option<Vec<k8s_openapi::api::core::v1::ServicePort>>| -> Vec<_> {
        ports.iter().flatten().map(|port| (port.port, port.target_port.clone())).collect()
    };
    found.type_ == wanted.type_ && found.selector == wanted.selector && ports(&found.ports) == ports(&wanted.ports)
}

fn leads_to_the_same(found: &Ingress, wanted: &Ingress) -> bool {
    match (&found.spec, &wanted.spec) {
        (Some(found), Some(wanted)) => {
            found.rules == wanted.rules && found.ingress_class_name == wanted.ingress_class_name
        }
        _ => false,
    }
}
