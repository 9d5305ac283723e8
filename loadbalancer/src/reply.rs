//! An answer's body on its way to the client, and the exchange that ends with it.
//!
//! Invariants:
//! * The exchange, and the replica's lease, end with the body's last byte or with whatever drops it.
//! * A reply that the replica cuts ends the client's connection without the end that its framing asks
//!   for; where the connection's end is the framing, with a reset.

use crate::client::ClientState;
use crate::service::{Lease, Service};
use crate::upstream::Upstream;
use crate::worker::Worker;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// One request and its answer, from the head's arrival to the answer's end.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) worker: Rc<Worker>,
    pub(crate) service: Arc<Service>,
    pub(crate) client: Arc<ClientState>,
    started: Instant,
}

impl Exchange {
    pub(crate) fn begin(worker: &Rc<Worker>, service: &Arc<Service>, client: &Arc<ClientState>) -> Self {
        client.exchange_began();
        worker.exchange_began();
        service.metrics.requests.inc();
        service.budget.earn();
        Self {
            worker: Rc::clone(worker),
            service: Arc::clone(service),
            client: Arc::clone(client),
            started: Instant::now(),
        }
    }

    /// The answer's head goes to the client.
    pub(crate) fn answered(&self, status: http::StatusCode) {
        self.service.metrics.answered(status);
        self.service.metrics.to_headers.observe(self.started.elapsed().as_secs_f64());
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.service.metrics.total.observe(self.started.elapsed().as_secs_f64());
        self.client.exchange_ended();
        self.worker.exchange_ended();
    }
}

/// The body as hyper's server takes it.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    /// An answer of the proxy's own.
    Own { bytes: Bytes, _exchange: Exchange },
    /// No body: the connection becomes a tunnel.
    Switched,
    /// A replica's reply.
    Stream(ReplyStream),
}

/// A reply that a replica sends.
#[derive(Debug)]
pub(crate) struct ReplyStream {
    incoming: Incoming,
    upstream: Option<Upstream>,
    lease: Lease,
    silence_max: Duration,
    bytes: u64,
    exchange: Exchange,
}

impl ReplyStream {
    pub(crate) fn new(
        incoming: Incoming,
        upstream: Upstream,
        lease: Lease,
        silence_max: Duration,
        exchange: Exchange,
    ) -> Self {
        Self { incoming, upstream: Some(upstream), lease, silence_max, bytes: 0, exchange }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) else {
            self.exchange.client.reply_awaited(self.silence_max);
            return Poll::Pending;
        };
        self.exchange.client.reply_came();
        match &frame {
            Some(Ok(frame)) => self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(error)) => self.cut(error),
            None => self.complete(),
        }
        Poll::Ready(frame)
    }

    fn complete(&mut self) {
        self.exchange.client.set_reset_on_close(false);
        if let Some(upstream) = self.upstream.take() {
            self.exchange.worker.keep_upstream(&self.lease.replica, upstream);
        }
    }

    fn cut(&mut self, error: &hyper::Error) {
        self.upstream = None;
        self.exchange.service.metrics.cut_replies.inc();
        tracing::debug!(service = self.exchange.service.name, replica = self.lease.replica.id, %error, "a reply was cut");
    }
}

impl Drop for ReplyStream {
    fn drop(&mut self) {
        // hyper does not ask for more once a body of known length has come whole.
        if self.upstream.is_some() && self.incoming.is_end_stream() {
            self.complete();
        }
        self.exchange.service.metrics.reply_bytes.inc_by(self.bytes);
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Own { bytes, .. } if bytes.is_empty() => Poll::Ready(None),
            Self::Own { bytes, .. } => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Switched => Poll::Ready(None),
            Self::Stream(stream) => stream.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { bytes, .. } => bytes.is_empty(),
            Self::Switched => true,
            Self::Stream(stream) => stream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
            Self::Switched => SizeHint::with_exact(0),
            Self::Stream(stream) => stream.incoming.size_hint(),
        }
    }
}
