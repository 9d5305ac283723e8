//! How the load balancers are, told as one.
//!
//! Of several, the slowest counts: a replica may be ended only when none of them sends it requests any more, and an
//! endpoint listens only when it does with all of them. One that says nothing may still serve, so it is waited for, but
//! not for ever: its node may be lost, and then its pod stays listed for minutes.

use super::LoadBalancerPods;
use crate::balancer;
use crate::calls::Problem;
use crate::exposure::Bounds;
use crate::mirror::Mirror;
use crate::watching::watching;
use futures_util::{StreamExt, future};
use k8s_openapi::api::core::v1::Pod;
use skyserve_kube::kube::{Api, ResourceExt};
use skyserve_manifests::names::{COMPONENT_LABEL, COMPONENT_LOAD_BALANCER, CONTROLLER_LABEL};
use skyserve_routes::report::{Report, ServiceLoad};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How often the load balancer is asked while something waits for its answer.
const INTERVAL_BUSY: Duration = Duration::from_millis(20);
/// The same for those in other pods: each time is a connection to each of them.
const PODS_INTERVAL_BUSY: Duration = Duration::from_millis(200);
/// How long a load balancer that says nothing is waited for. Longer than a restart of its container takes; one that is
/// cut off from the controller for longer may send requests to a replica that is gone, and then tries another one.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Who is asked.
pub(crate) enum Reports {
    /// The load balancer beside the controller, at this socket.
    Beside(PathBuf),
    Alone(PodReports),
}

impl Reports {
    /// Asks once; `Err` says why there is no report.
    pub(crate) async fn ask(&mut self) -> Result<Report, String> {
        match self {
            Self::Beside(socket) => balancer::report(socket).await,
            Self::Alone(pods) => pods.ask().await,
        }
    }

    /// How often to ask while something waits for the answer.
    pub(crate) fn interval_busy(&self) -> Duration {
        match self {
            Self::Beside(_) => INTERVAL_BUSY,
            Self::Alone(_) => PODS_INTERVAL_BUSY,
        }
    }
}

/// Where the load balancers' reports are, by the uid of their pods; `None` before that is known.
type Addresses = Option<BTreeMap<String, SocketAddr>>;

/// The load balancers in pods of their own.
pub(crate) struct PodReports {
    addresses: watch::Receiver<Addresses>,
    hearing: Hearing,
    watching: AbortHandle,
}

impl PodReports {
    pub(super) fn watch(pods: &LoadBalancerPods) -> Self {
        let (tell, addresses) = watch::channel(None);
        let watching = tokio::spawn(follow_pods(pods.clone(), tell)).abort_handle();
        Self { addresses, hearing: Hearing::default(), watching }
    }

    async fn ask(&mut self) -> Result<Report, String> {
        let Some(addresses) = self.addresses.borrow_and_update().clone() else {
            return Err("the API server has not told yet which load balancers there are".to_owned());
        };
        let asking = addresses.into_iter().map(async |(uid, address)| (uid, balancer::report_of_pod(address).await));
        let answers = future::join_all(asking).await;
        self.hearing.take(answers, Instant::now())
    }
}

impl Drop for PodReports {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

async fn follow_pods(pods: LoadBalancerPods, tell: watch::Sender<Addresses>) {
    let labels = format!("{CONTROLLER_LABEL}={},{COMPONENT_LABEL}={COMPONENT_LOAD_BALANCER}", pods.names.controller);
    let api: Api<Pod> = Api::namespaced(pods.client, &pods.namespace);
    let mut events = watching(api, &labels, Bounds::default());
    let (mut mirror, mut trouble) = (Mirror::default(), None);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                mirror.take(event);
                trouble = None;
            }
            Err(Problem { text: error, .. }) => {
                if trouble.as_ref() != Some(&error) {
                    tracing::warn!("changes of load balancers are not told for the moment, asking again: {error}");
                    trouble = Some(error);
                }
                continue;
            }
        }
        if mirror.is_complete() {
            let running = mirror.objects().filter_map(|pod| Some((pod.uid()?, address(pod, pods.metrics_port)?)));
            tell.send_replace(Some(running.collect()));
        }
    }
}

/// Where a pod's report is, if its load balancer may serve.
fn address(pod: &Pod, port: u16) -> Option<SocketAddr> {
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() != Some("Running") {
        return None;
    }
    let ip: IpAddr = status.pod_ip.as_ref()?.parse().ok()?;
    Some(SocketAddr::new(ip, port))
}

/// Who has been heard, and when.
#[derive(Debug, Default)]
struct Hearing {
    /// By uid: when it answered last; of one that never did, when it was first asked.
    heard: BTreeMap<String, Instant>,
}

impl Hearing {
    fn take(&mut self, answers: Vec<(String, Result<Report, String>)>, now: Instant) -> Result<Report, String> {
        self.heard.retain(|uid, _| answers.iter().any(|(asked, _)| asked == uid));
        let mut counted = Vec::new();
        let mut problem = "none of their pods runs".to_owned();
        for (uid, answer) in answers {
            match answer {
                Ok(report) => {
                    self.heard.insert(uid, now);
                    counted.push(Some(report));
                }
                Err(error) => {
                    let since = *self.heard.entry(uid).or_insert(now);
                    if now.duration_since(since) < SILENCE_MAX {
                        counted.push(None);
                    }
                    problem = error;
                }
            }
        }
        if counted.iter().all(Option::is_none) { Err(problem) } else { Ok(merge(&counted)) }
    }
}

/// One report of all; `None` is a load balancer that may serve and does not say how it is.
fn merge(reports: &[Option<Report>]) -> Report {
    let said: Vec<&Report> = reports.iter().flatten().collect();
    // The oldest table counts; of one that is silent it is not known.
    let table = match said.len() == reports.len() {
        true => said.iter().map(|report| report.table).min().flatten(),
        false => None,
    };
    let mut services: BTreeMap<String, ServiceLoad> = BTreeMap::new();
    for report in &said {
        for (name, load) in &report.services {
            let first = || ServiceLoad { listening: true, ..ServiceLoad::default() };
            add(services.entry(name.clone()).or_insert_with(first), load);
        }
    }
    for (name, load) in &mut services {
        load.listening &= said.iter().all(|report| report.services.contains_key(name));
    }
    Report {
        table,
        // One that has no table yet is not one that lost it.
        table_error: said.iter().find(|report| report.table.is_some()).and_then(|report| report.table_error.clone()),
        metrics_address: said.iter().find_map(|report| report.metrics_address),
        services,
    }
}

fn add(sum: &mut ServiceLoad, load: &ServiceLoad) {
    sum.listening &= load.listening;
    sum.address_in_use |= load.address_in_use;
    sum.listen_error = sum.listen_error.take().or_else(|| load.listen_error.clone());
    sum.requests_total += load.requests_total;
    sum.in_flight += load.in_flight;
    sum.queued += load.queued;
    for (sum, count) in sum.responses_by_class.iter_mut().zip(load.responses_by_class) {
        *sum += count;
    }
    for (uid, count) in &load.replicas_in_flight {
        *sum.replicas_in_flight.entry(uid.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests;
