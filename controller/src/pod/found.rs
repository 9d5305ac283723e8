//! What only the API server knows of this controller. It is asked until it answers.

use super::Pod;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use skyserve_kube::explain;
use skyserve_kube::kube::{self, Api, Client, ResourceExt};
use skyserve_manifests::names::BUNDLE_PORT;
use skyserve_manifests::{Owner, OwnerKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// One answer of the API server; what takes longer is better asked again.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// Pause before the next question; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What owns all that this controller makes.
pub(super) async fn owner(client: &Client, pod: &Pod) -> Owner {
    if !pod.high_availability {
        return Owner { kind: OwnerKind::Pod, name: pod.name.clone(), uid: pod.uid.clone() };
    }
    let name = pod.names.deployment();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &pod.namespace);
    let what = format!("the uid of the Deployment {name}");
    let uid = until_told(&what, || async { Ok(deployments.get(&name).await?.uid()) }).await;
    Owner { kind: OwnerKind::Deployment, name, uid }
}

/// Where replicas get their files: at an address that stays when this pod is replaced.
pub(super) async fn bundle_url(client: &Client, pod: &Pod) -> String {
    let name = pod.names.bundle_service();
    let services: Api<Service> = Api::namespaced(client.clone(), &pod.namespace);
    let what = format!("the cluster IP of the Service {name}");
    let address = until_told(&what, || async {
        let ip = services.get(&name).await?.spec.and_then(|spec| spec.cluster_ip);
        Ok(ip.and_then(|ip| ip.parse::<IpAddr>().ok()))
    });
    format!("http://{}", SocketAddr::new(address.await, BUNDLE_PORT))
}

async fn until_told<T, A>(what: &str, ask: impl Fn() -> A) -> T
where
    A: Future<Output = kube::Result<Option<T>>>,
{
    let (mut pause, mut told) = (PAUSE_MIN, String::new());
    loop {
        let problem = match timeout(ANSWER_WAIT, ask()).await {
            Ok(Ok(Some(answer))) => return answer,
            Ok(Ok(None)) => "it has none yet".to_owned(),
            Ok(Err(error)) => explain(&error),
            Err(_) => format!("no answer within {} s", ANSWER_WAIT.as_secs()),
        };
        if problem != told {
            tracing::warn!("{what} is not known yet, asking again; replicas are launched once it is: {problem}");
            told = problem;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skyserve_kube::kube::core::Status;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn it_is_asked_for_until_it_is_told_whatever_the_answers_are() {
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            let time = asked.get();
            async move {
                match time {
                    1..=6 => {
                        let code = [401, 403, 404, 409, 429, 500][time - 1];
                        Err(kube::Error::Api(Box::new(Status::failure("not now", "Failed").with_code(code))))
                    }
                    7 => std::future::pending().await,
                    8 => Err(kube::Error::Service(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)))),
                    9 => Ok(None),
                    _ => Ok(Some("10.0.0.7")),
                }
            }
        };
        assert_eq!(until_told("the cluster IP", ask).await, "10.0.0.7");
        assert_eq!(asked.get(), 10);
    }
}
