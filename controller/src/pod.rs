//! The controller in a pod: replicas are pods too, endpoints are Kubernetes Services, and the command line comes by
//! port-forward.
//!
//! What must be asked of the API server (who owns what is made, where replicas get their files) is asked until it
//! answers. Nothing waits for it but what needs it: traffic, the API and stored decisions go on.

mod awaited;
mod found;

use crate::core::CoreOptions;
use crate::exposure::{self, KubernetesExposure, Settings};
use crate::{ControllerError, Listeners, LoadBalancerPods, LoadBalancers, Options, Surroundings, bundle_token, run};
use awaited::Awaited;
use skyserve_home::Home;
use skyserve_manifests::names::{
    BUNDLE_PORT, CONTROL_PORT, CONTROLLER_VARIABLE, HIGH_AVAILABILITY_VARIABLE, IMAGE_VARIABLE, METRICS_PORT,
    NAMESPACE_VARIABLE, NODE_IP_VARIABLE, Names, POD_UID_VARIABLE, POD_VARIABLE,
};
use skyserve_provider::kubernetes::{Bounds, KubernetesProvider, KubernetesSite};
use skyserve_spec::Target;
use skyserve_spec::config::Config;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::sync::watch;

/// What a pod is told of itself.
#[derive(Debug, Clone)]
pub struct Pod {
    pub names: Names,
    pub namespace: String,
    /// The controller's own image: its binary prepares replicas.
    pub image: String,
    /// Whether the controller is a Deployment; else it is this very pod.
    pub high_availability: bool,
    pub name: String,
    pub uid: String,
    pub node_ip: Option<String>,
}

impl Pod {
    /// From the environment; `None` where this is no pod of a controller.
    ///
    /// # Errors
    /// Names the variable that is missing.
    pub fn from_env() -> Result<Option<Self>, String> {
        Self::from(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let Some(controller) = variable(CONTROLLER_VARIABLE) else { return Ok(None) };
        let needed = |name: &str| {
            variable(name)
                .ok_or_else(|| format!("{name} is not set, although {CONTROLLER_VARIABLE} is: see its pod's spec"))
        };
        Ok(Some(Self {
            names: Names { controller },
            namespace: needed(NAMESPACE_VARIABLE)?,
            image: needed(IMAGE_VARIABLE)?,
            high_availability: needed(HIGH_AVAILABILITY_VARIABLE)? == "true",
            name: needed(POD_VARIABLE)?,
            uid: needed(POD_UID_VARIABLE)?,
            node_ip: variable(NODE_IP_VARIABLE),
        }))
    }
}

/// Runs the controller of this pod until SIGTERM or SIGINT.
pub fn run_in_pod(home: Home, config: &Config, pod: Pod) -> Result<(), ControllerError> {
    let core = CoreOptions {
        listen_host: config.load_balancer.listen_host,
        listen_ports: config.load_balancer.ports.iter(),
        infra: format!("Kubernetes ({})", pod.namespace),
        exposed: true,
    };
    let listeners = Listeners {
        control: Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), CONTROL_PORT)),
        bundles: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), BUNDLE_PORT)),
    };
    let options = Options { home, core, target: Target::Kubernetes, listeners };
    run(options, async |home: &Home| surroundings(home, config, pod).await)
}

async fn surroundings(
    home: &Home,
    config: &Config,
    pod: Pod,
) -> io::Result<Surroundings<Awaited<KubernetesProvider>, KubernetesExposure>> {
    let connected = skyserve_kube::connect(&skyserve_kube::Options::default()).await;
    let client = connected.map_err(io::Error::other)?.client;
    let token = bundle_token(home)?;
    let (owner_known, owner) = watch::channel(None);
    let (provider_known, provider) = watch::channel(None);
    let settings = Settings {
        names: pod.names.clone(),
        namespace: pod.namespace.clone(),
        kind: config.kubernetes.ports,
        node_ip: pod.node_ip.clone().filter(|_| config.load_balancer.replicas <= 1),
        bounds: exposure::Bounds::default(),
    };
    let exposure = KubernetesExposure { settings, client: client.clone(), owner };
    let load_balancers = match config.load_balancer.replicas {
        0 | 1 => LoadBalancers::Beside,
        _ => LoadBalancers::Alone(LoadBalancerPods {
            client: client.clone(),
            namespace: pod.namespace.clone(),
            names: pod.names.clone(),
            metrics_port: METRICS_PORT,
        }),
    };
    let (home, config) = (home.clone(), config.kubernetes.clone());
    tokio::spawn(async move {
        let owner = found::owner(&client, &pod).await;
        owner_known.send_replace(Some(owner.clone()));
        let bundle_url = found::bundle_url(&client, &pod).await;
        let site = KubernetesSite {
            client,
            home,
            names: pod.names,
            namespace: pod.namespace,
            image: pod.image,
            config,
            bundle_url,
            token: Some(token),
            owner,
            bounds: Bounds::default(),
        };
        provider_known.send_replace(Some(KubernetesProvider::new(site)));
        // Whoever still waits for one of them finds it.
        owner_known.closed().await;
        provider_known.closed().await;
    });
    Ok(Surroundings { provider: Awaited::new(provider), exposure, load_balancers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_knows_itself_by_its_environment_and_says_what_is_missing() {
        assert!(Pod::from(|_| None).unwrap().is_none());
        let all = |name: &str| Some(format!("of {name}"));
        let pod = Pod::from(all).unwrap().unwrap();
        assert_eq!(pod.names.controller, format!("of {CONTROLLER_VARIABLE}"));
        assert!(!pod.high_availability);
        let error = Pod::from(|name| all(name).filter(|_| name != IMAGE_VARIABLE)).unwrap_err();
        assert!(error.contains(IMAGE_VARIABLE), "{error}");
    }
}
