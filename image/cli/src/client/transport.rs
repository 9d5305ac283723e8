//! Where the controller is, and a connection to it.

use super::ClientError;
use crate::cluster::{NoWay, Remote};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// A local socket connects at once, or its backlog is full because its owner hangs.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Through an API server: the pod is looked for, and a stream is opened by way of its node.
const CONNECT_REMOTE_WITHIN: Duration = Duration::from_secs(15);

/// The way to a controller.
#[derive(Debug, Clone)]
pub(crate) enum Transport {
    /// The control socket of this home.
    Unix(PathBuf),
    /// A port-forward to the pod that is the controller at that moment, one for each exchange.
    Cluster(Arc<Remote>),
}

/// What HTTP needs.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Transport {
    /// Where the controller is, to be put behind "the controller".
    pub(super) fn place(&self) -> String {
        match self {
            Self::Unix(socket) => format!("at {}", socket.display()),
            Self::Cluster(remote) => remote.to_string(),
        }
    }

    /// # Errors
    /// [`ClientError::Unreachable`] or [`ClientError::Barred`]: nothing was sent.
    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        let late = |within: Duration| self.unreachable(format!("no connection within {} s", within.as_secs()));
        match self {
            Self::Unix(socket) => {
                let connecting = tokio::time::timeout(CONNECT_WITHIN, UnixStream::connect(socket));
                let connected = connecting.await.map_err(|_| late(CONNECT_WITHIN))?;
                Ok(Box::new(connected.map_err(|error| self.unreachable(error.to_string()))?))
            }
            Self::Cluster(remote) => {
                let opening = tokio::time::timeout(CONNECT_REMOTE_WITHIN, remote.open());
                match opening.await.map_err(|_| late(CONNECT_REMOTE_WITHIN))? {
                    Ok(forwarded) => Ok(Box::new(forwarded)),
                    Err(NoWay { reason, may_pass: true }) => Err(self.unreachable(reason)),
                    Err(NoWay { reason, may_pass: false }) => Err(ClientError::Barred { at: self.place(), reason }),
                }
            }
        }
    }

    fn unreachable(&self, reason: String) -> ClientError {
        ClientError::Unreachable { at: self.place(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::testing::{FakeApi, run, status};
    use serde_json::json;

    fn asked(answer: impl Fn(&str) -> (u16, serde_json::Value) + Send + Sync + 'static) -> (String, usize) {
        let api = FakeApi::answering(answer);
        let error = run(async { api.remote().client().retrying_for(Duration::ZERO).services().await.unwrap_err() });
        (error.to_string(), api.asked().len())
    }

    fn one_pod(what: &str) -> (u16, serde_json::Value) {
        if what.ends_with("/portforward") {
            return status(403, "User \"ann\" cannot get resource \"pods/portforward\"");
        }
        let conditions = json!([{ "type": "Ready", "status": "True" }]);
        let pod = json!({ "metadata": { "name": "c-1" }, "status": { "conditions": conditions } });
        (200, json!({ "metadata": {}, "items": [pod] }))
    }

    #[test]
    fn a_way_that_is_barred_is_not_tried_again() {
        let (error, calls) = asked(one_pod);
        assert_eq!(
            error,
            "cannot reach the controller sky-serve-controller-0123abcd in namespace ns of context test: cannot connect to \
             its pod c-1: User \"ann\" cannot get resource \"pods/portforward\"; ask whoever runs the cluster for this \
             permission"
        );
        assert_eq!(calls, 2);
        let api = FakeApi::answering(one_pod);
        run(async { api.remote().client().services().await.unwrap_err() });
        assert_eq!(api.asked().len(), 2);
    }

    #[test]
    fn a_pod_that_is_not_ready_is_told_with_its_state() {
        let (error, _) = asked(|_| {
            let pod = json!({ "metadata": { "name": "c-1" }, "status": { "phase": "Running" } });
            (200, json!({ "metadata": {}, "items": [pod] }))
        });
        assert_eq!(
            error,
            "cannot reach the controller sky-serve-controller-0123abcd in namespace ns of context test: the controller's \
             pod c-1 runs and is not ready yet"
        );
    }
}
