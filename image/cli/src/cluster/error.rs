//! What went wrong on the cluster, in words for a person.

use crate::output::printable;
use skyserve_kube::{Advice, Cluster, ConnectError, advice, chain};
use std::error::Error;
use std::time::Duration;

/// Why the cluster did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The API server refused, or did not answer; the text says what was asked and what came of it.
    #[error("{text}")]
    Api { text: String, advice: Advice },
    #[error("{0}")]
    Refused(String),
    #[error("InconsistentHighAvailabilityError: {0}")]
    InconsistentHighAvailability(String),
    #[error(transparent)]
    Manifest(#[from] skyserve_manifests::ManifestError),
    #[error("cannot store your user hash in ~/.sky/user_hash: {0}")]
    StoreUserHash(std::io::Error),
}

impl ClusterError {
    /// A call that failed. `what` completes "cannot …".
    pub(crate) fn api(cluster: &Cluster, what: &str, error: &kube::Error) -> Self {
        Self::Api { text: format!("cannot {what}: {}", problem(cluster, error)), advice: advice(error) }
    }

    /// A call without an answer.
    pub(crate) fn silence(cluster: &Cluster, what: &str, within: Duration) -> Self {
        let text = format!(
            "cannot {what}: the API server of {} does not answer within {} s",
            cluster_name(cluster),
            within.as_secs()
        );
        Self::Api { text, advice: Advice::Retry { after: None } }
    }

    /// Whether the same call may succeed later.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Api { advice: Advice::Retry { .. }, .. })
    }

    /// How long the API server wants to be left alone first.
    pub(crate) fn pause(&self) -> Duration {
        match self {
            Self::Api { advice, .. } => advice.pause(),
            _ => Duration::ZERO,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { advice: Advice::NotFound, .. })
    }

    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Api { advice: Advice::Forbidden, .. })
    }
}

/// `context NAME`, or this cluster from inside it.
pub(crate) fn cluster_name(cluster: &Cluster) -> String {
    match cluster.name.as_str() {
        "in-cluster" | "" => "the cluster".to_owned(),
        name => format!("context {name}"),
    }
}

/// What the API server said, or why it said nothing, and what to do about it.
fn problem(cluster: &Cluster, error: &kube::Error) -> String {
    let name = cluster_name(cluster);
    match error {
        kube::Error::Api(status) => {
            let said = printable(status.message.trim());
            let advice = match status.code {
                401 => {
                    format!("; the API server of {name} does not take your credentials: renew those in the kubeconfig")
                }
                403 if said.contains("exceeded quota") => "; ask for a larger quota, or free some of it".to_owned(),
                403 if said.contains(" cannot ") => "; ask whoever runs the cluster for this permission".to_owned(),
                403 if said.contains("not currently held") => {
                    "; who makes a controller must hold the permissions that it gets: ask whoever runs the cluster for them"
                        .to_owned()
                }
                _ => String::new(),
            };
            if said.is_empty() { format!("the API server answered {}{advice}", status.code) } else { said + &advice }
        }
        kube::Error::SerdeError(error) => format!("the answer of the API server of {name} is not understood: {error}"),
        kube::Error::Auth(error) => {
            format!("there are no credentials for {name}: {}; check its user in the kubeconfig", chain(error))
        }
        error => format!(
            "the API server of {name} cannot be reached: {}; check that the cluster runs, and your KUBECONFIG",
            // kube's own words around it only say that it is an error.
            error.source().map_or_else(|| error.to_string(), chain)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::testing::{FakeApi, run, status};

    fn text(error: &kube::Error) -> String {
        let api = FakeApi::answering(|_| status(500, "unused"));
        run(async { ClusterError::api(&api.remote().cluster, "list pods", error).to_string() })
    }

    fn refusal(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(kube::core::Status::failure(message, "").with_code(code)))
    }

    #[test]
    fn a_refusal_is_in_the_api_servers_words_and_says_whom_to_ask() {
        assert_eq!(
            text(&refusal(403, "pods is forbidden: User \"ann\" cannot list resource \"pods\"")),
            "cannot list pods: pods is forbidden: User \"ann\" cannot list resource \"pods\"; ask whoever runs the \
             cluster for this permission"
        );
        assert_eq!(
            text(&refusal(403, "pods \"c\" is forbidden: exceeded quota: q")),
            "cannot list pods: pods \"c\" is forbidden: exceeded quota: q; ask for a larger quota, or free some of it"
        );
        assert_eq!(text(&refusal(422, "invalid name")), "cannot list pods: invalid name");
    }

    #[test]
    fn a_cluster_that_is_not_there_is_told_with_the_first_cause() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(
            text(&kube::Error::Service(Box::new(refused))),
            "cannot list pods: the API server of context test cannot be reached: connection refused; check that the \
             cluster runs, and your KUBECONFIG"
        );
    }
}
