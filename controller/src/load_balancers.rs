//! The load balancers that follow this controller: the one beside it, or on a cluster several in pods of their own.
//! Those get their routes through a ConfigMap ([`map`]), besides the file that the one beside the controller reads, and
//! are all asked how they are ([`reports`]).

pub(crate) mod map;
pub(crate) mod reports;

pub use map::RoutesMap;
use reports::{PodReports, Reports};
use skyserve_home::Home;
use skyserve_kube::kube::Client;
use skyserve_manifests::names::Names;

/// Who takes requests.
#[derive(Debug, Clone)]
pub enum LoadBalancers {
    /// The one beside the controller.
    Beside,
    /// Those in pods of their own.
    Alone(LoadBalancerPods),
}

/// Pods of load balancers alone.
#[derive(Clone)]
pub struct LoadBalancerPods {
    pub client: Client,
    pub namespace: String,
    pub names: Names,
    /// Where each of them serves its report.
    pub metrics_port: u16,
}

impl std::fmt::Debug for LoadBalancerPods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadBalancerPods").field("names", &self.names).finish_non_exhaustive()
    }
}

impl LoadBalancers {
    /// Where routes go besides the file.
    pub(crate) fn map(&self) -> Option<RoutesMap> {
        match self {
            Self::Beside => None,
            Self::Alone(pods) => Some(RoutesMap::new(pods)),
        }
    }

    /// Who is asked for the load. Starts to watch pods, if there are any.
    pub(crate) fn reports(&self, home: &Home) -> Reports {
        match self {
            Self::Beside => Reports::Beside(home.load_balancer_socket()),
            Self::Alone(pods) => Reports::Alone(PodReports::watch(pods)),
        }
    }
}
