//! The route table in a ConfigMap, for load balancers in other pods.
//!
//! Invariants:
//! * The map never goes back: it is changed only from a version that was seen to hold an earlier table. So what a
//!   controller that was overtaken still sends, or what was stuck on its way, changes nothing.
//! * The newest table is what is published; those between may be left out.
//! * Nothing waits for it: the file is written whether the API server answers or not.

use super::LoadBalancerPods;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use skyserve_kube::kube::api::{Patch, PatchParams};
use skyserve_kube::kube::{self, Api, ResourceExt};
use skyserve_kube::{Advice, advice, explain};
use skyserve_manifests::names::{FIELD_MANAGER, ROUTES_KEY};
use skyserve_routes::{RouteTable, TableVersion, decode, encode};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// One answer of the API server; what takes longer is better asked again.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for the version that the map holds, when the controller starts.
const FIRST_ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Pause before what failed is tried again; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often the map is looked at when nothing changes: somebody may have changed or emptied it.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Most that a ConfigMap's values may be together (the API server's own bound): some 8,000 replicas.
const TABLE_BYTES_MAX: usize = 1024 * 1024;

/// The map, and how to reach it.
#[derive(Clone)]
pub struct RoutesMap {
    api: Api<ConfigMap>,
    name: String,
}

impl std::fmt::Debug for RoutesMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoutesMap").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a table is not in the map.
#[derive(Debug)]
enum NotPut {
    /// It holds this later one.
    Ahead(TableVersion),
    /// Somebody changed it meanwhile.
    Changed,
    /// For a person; to be tried again.
    Failed(String),
}

impl RoutesMap {
    /// Of these load balancers.
    pub fn new(pods: &LoadBalancerPods) -> Self {
        Self { api: Api::namespaced(pods.client.clone(), &pods.namespace), name: pods.names.routes() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The version of the table in it. Whoever begins with a new home numbers its tables after that one, because load
    /// balancers never go back. If the API server does not answer, that is found out by the first publication.
    pub async fn version(&self) -> Option<TableVersion> {
        let problem = match timeout(FIRST_ANSWER_WAIT, self.api.get_opt(&self.name)).await {
            Ok(Ok(map)) => return map.as_ref().and_then(version_in),
            Ok(Err(error)) => explain(&error),
            Err(_) => format!("no answer within {} s", FIRST_ANSWER_WAIT.as_secs()),
        };
        tracing::warn!("which routes load balancers have is not known yet: {problem}");
        None
    }

    /// Keeps the newest of `tables` in the map until that ends. Gives the version of a later table, if the map is found
    /// to hold one.
    pub async fn keep(self, mut tables: watch::Receiver<Option<Arc<RouteTable>>>) -> Option<TableVersion> {
        let (mut pause, mut told) = (PAUSE_MIN, None);
        loop {
            let table = tables.borrow_and_update().clone();
            let put = match &table {
                None => Ok(()),
                Some(table) => self.put(table).await,
            };
            let wait = match put {
                Ok(()) => {
                    (pause, told) = (PAUSE_MIN, None);
                    LOOK_INTERVAL
                }
                Err(NotPut::Ahead(later)) => return Some(later),
                Err(NotPut::Changed) => continue,
                Err(NotPut::Failed(problem)) => {
                    if told.as_ref() != Some(&problem) {
                        tracing::warn!(
                            "load balancers in other pods keep their present routes, trying again: {problem}"
                        );
                        told = Some(problem);
                    }
                    let now = pause;
                    pause = (pause * 2).min(PAUSE_MAX);
                    now
                }
            };
            tokio::select! {
                changed = tables.changed() => if changed.is_err() { return None },
                () = sleep(wait) => {}
            }
        }
    }

    async fn put(&self, table: &RouteTable) -> Result<(), NotPut> {
        let text = String::from_utf8_lossy(&encode(table)).into_owned();
        if text.len() > TABLE_BYTES_MAX {
            return Err(NotPut::Failed(format!(
                "the route table takes {} bytes, more than the {TABLE_BYTES_MAX} that fit into a ConfigMap (about \
                 8,000 replicas): run fewer, or a single load balancer",
                text.len()
            )));
        }
        let map = in_time(self.api.get(&self.name)).await?;
        match version_in(&map) {
            Some(there) if there > table.version() => return Err(NotPut::Ahead(there)),
            Some(there) if there == table.version() => return Ok(()),
            _ => {}
        }
        // A merge, because the map's labels and owner are those of whoever made it; with its version, because another
        // controller may have been faster.
        let patch = json!({
            "metadata": { "resourceVersion": map.resource_version() },
            "data": { ROUTES_KEY: text },
        });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        in_time(self.api.patch(&self.name, &params, &Patch::Merge(&patch))).await?;
        Ok(())
    }
}

fn version_in(map: &ConfigMap) -> Option<TableVersion> {
    // What cannot be read is nobody's.
    decode(map.data.as_ref()?.get(ROUTES_KEY)?.as_bytes()).ok().map(|table| table.version())
}

async fn in_time<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, NotPut> {
    match timeout(ANSWER_WAIT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) if advice(&error) == Advice::Conflict => Err(NotPut::Changed),
        Ok(Err(error)) => Err(NotPut::Failed(explain(&error))),
        Err(_) => Err(NotPut::Failed(format!("no answer of the API server within {} s", ANSWER_WAIT.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skyserve_routes::{FORMAT, Policy, ReplicaRoute, ReplicaRouteState, ServiceRoutes};

    #[test]
    fn eight_thousand_replicas_fit_into_the_map() {
        let replica = |id: u64| ReplicaRoute {
            uid: format!("a-service-of-a-longer-name-{id}-{id}"),
            id,
            address: "10.244.100.100:8080".parse().unwrap(),
            weight: 1,
            state: ReplicaRouteState::Draining,
        };
        let service = ServiceRoutes {
            name: "a-service-of-a-longer-name".into(),
            listen: "0.0.0.0:30001".parse().unwrap(),
            policy: Policy::InstanceAwareLeastLoad,
            stream_timeout_ms: 120_000,
            tls: None,
            replicas: (1..=8_000).map(replica).collect(),
            expects_replicas: true,
        };
        let table = RouteTable { format: FORMAT, epoch: u64::MAX, seq: u64::MAX, services: vec![service] };
        let bytes = encode(&table).len();
        assert!(bytes <= TABLE_BYTES_MAX, "{bytes}");
    }
}
