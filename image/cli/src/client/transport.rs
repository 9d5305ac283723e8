//! Where the controller is, and a connection to it.

use super::ClientError;
use crate::cluster::Remote;
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
    /// [`ClientError::Unreachable`]: nothing was sent.
    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        let (connected, within) = match self {
            Self::Unix(socket) => {
                let connecting = tokio::time::timeout(CONNECT_WITHIN, UnixStream::connect(socket));
                let boxed = |stream| Box::new(stream) as Box<dyn Stream>;
                (connecting.await.map(|outcome| outcome.map(boxed).map_err(|error| error.to_string())), CONNECT_WITHIN)
            }
            Self::Cluster(remote) => {
                let opening = tokio::time::timeout(CONNECT_REMOTE_WITHIN, remote.open());
                let boxed = |stream| Box::new(stream) as Box<dyn Stream>;
                (opening.await.map(|outcome| outcome.map(boxed)), CONNECT_REMOTE_WITHIN)
            }
        };
        connected
            .unwrap_or_else(|_| Err(format!("no connection within {} s", within.as_secs())))
            .map_err(|reason| ClientError::Unreachable { at: self.place(), reason })
    }
}
