//! From a kubeconfig, or from inside a pod, to a client.

use crate::transport;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Which cluster, and where in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// A context of the kubeconfig; its current one by default.
    pub context: Option<String>,
    /// The context's namespace by default.
    pub namespace: Option<String>,
}

/// A cluster that can be asked.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
    /// What to call the cluster in messages: its context, or `in-cluster`.
    pub name: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("name", &self.name).field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// Why there is no cluster to ask. Nothing was sent to one.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the kubeconfig cannot be used: {0}; check KUBECONFIG, or ~/.kube/config")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    #[error("this is not a pod with a service account: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    #[error("the kubeconfig's settings cannot be used: {}", crate::chain(.0))]
    Client(kube::Error),
    #[error(
        "the kubeconfig (or HTTPS_PROXY) asks for a proxy of the kind {0}: only http:// without a password is \
         supported; put the API server's address into NO_PROXY if it needs none"
    )]
    Proxy(String),
}

/// A client of the cluster: by the service account inside a pod, by the kubeconfig elsewhere. Asks nobody yet.
pub async fn connect(options: &Options) -> Result<Cluster, ConnectError> {
    let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && std::env::var_os("KUBECONFIG").is_none();
    let (config, name) = if in_pod && options.context.is_none() {
        (Config::incluster()?, "in-cluster".to_owned())
    } else {
        let kubeconfig = Kubeconfig::read()?;
        let name = options.context.clone().or_else(|| kubeconfig.current_context.clone()).unwrap_or_default();
        let chosen = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
        (Config::from_custom_kubeconfig(kubeconfig, &chosen).await?, name)
    };
    let namespace = options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = transport::client(config)?;
    Ok(Cluster { client, namespace, name })
}
