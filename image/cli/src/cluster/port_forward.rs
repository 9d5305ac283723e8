//! One connection to the control API in the controller's pod, through the API server's port-forward.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::Portforwarder;
use skyserve_manifests::names::CONTROL_PORT;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// A stream to the pod. What the kubelet says about a port that it could not reach is the stream's error.
pub(crate) struct Forwarded {
    stream: DuplexStream,
    /// Resolves to the kubelet's words; without any when the forwarding has ended in order.
    trouble: Option<Pin<Box<dyn Future<Output = Option<String>> + Send>>>,
    forwarder: Portforwarder,
}

impl Forwarded {
    /// Opens a connection to the control API of this pod. Nothing is sent on it yet.
    pub(crate) async fn open(pods: &Api<Pod>, pod: &str) -> kube::Result<Self> {
        let mut forwarder = pods.portforward(pod, &[CONTROL_PORT]).await?;
        let no_port = || kube::Error::Service("the port-forward has no stream".into());
        let stream = forwarder.take_stream(CONTROL_PORT).ok_or_else(no_port)?;
        let trouble = forwarder.take_error(CONTROL_PORT).map(|trouble| Box::pin(trouble) as Pin<Box<_>>);
        Ok(Self { stream, trouble, forwarder })
    }

    /// The kubelet's words, once there are any.
    fn poll_trouble(&mut self, context: &mut Context<'_>) -> Poll<Option<String>> {
        let Some(trouble) = &mut self.trouble else { return Poll::Ready(None) };
        let words = ready!(trouble.as_mut().poll(context));
        self.trouble = None;
        Poll::Ready(words.filter(|words| !words.is_empty()))
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        // Its task would go on until the pod's side is closed.
        self.forwarder.abort();
    }
}

impl AsyncRead for Forwarded {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if matches!(read, Poll::Ready(Ok(()))) && buffer.filled().len() > before {
            return read;
        }
        // Nothing to read now, or ever: the kubelet may have said why.
        match this.poll_trouble(context) {
            Poll::Ready(Some(words)) => Poll::Ready(Err(io::Error::other(words.trim().to_owned()))),
            Poll::Ready(None) | Poll::Pending => read,
        }
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
