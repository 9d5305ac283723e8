//! Brings a request to a replica: chooses, connects, sends, and repeats what is safe to repeat.
//!
//! What is safe (RFC 9110, 9.2.2; RFC 9112, 9.3.1):
//! * A connect failed: nothing was sent; another replica is tried, or the request waits.
//! * hyper gives the request back: nothing of it was written; it goes out on another connection.
//! * A reused connection ended before any byte of the reply, the method is idempotent and no byte of
//!   the body was read: the replica closed an idle connection. Within the service's retry budget.
//!
//! Invariant: in no other case is a request sent twice. A POST is never sent twice.

use crate::clock::now_ms;
use crate::options::Limits;
use crate::queue::{Patience, Refusal};
use crate::service::{Lease, Service};
use crate::upload::Upload;
use crate::upstream::{Pool, Upstream};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// How often one request may be sent again: connections that all end in the same moment are discarded
/// one by one, then a fresh one is made.
const RESENDS_MAX: u32 = 3;

/// Why a request got no reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No replica could be had.
    Refused(Refusal),
    /// The replica sent nothing for the service's `stream_timeout_ms`.
    Silent { waited: Duration },
    /// The connection ended after the request, or a part of it, was sent.
    Lost,
    /// The replica's answer is not HTTP, or its length is ambiguous.
    Malformed,
    /// The client's body ended early or was malformed.
    Upload,
}

/// A reply's head, and what its body needs.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) response: Response<Incoming>,
    pub(crate) upstream: Upstream,
    pub(crate) lease: Lease,
}

/// How one attempt to send ended.
enum Attempt {
    Replied(Box<Response<Incoming>>),
    /// Send this again, on a fresh connection.
    Again(Box<Request<Upload>>),
    Failed(Failure),
}

/// Where a request may go, and within which bounds.
#[derive(Debug)]
pub(crate) struct Dispatcher<'a> {
    pub(crate) service: &'a Arc<Service>,
    pub(crate) limits: &'a Limits,
    pub(crate) pool: &'a Pool,
    pub(crate) client: &'a TcpStream,
    pub(crate) stream_timeout: Duration,
}

impl Dispatcher<'_> {
    /// Sends the request to a replica and waits for the reply's head.
    pub(crate) async fn send(&self, mut request: Request<Upload>) -> Result<Reply, Failure> {
        let mut patience = Patience::new(self.service, self.limits, self.client);
        let mut resends = 0;
        loop {
            let lease = patience.replica().await.map_err(Failure::Refused)?;
            let Some(mut upstream) = self.upstream(&lease, resends > 0).await else { continue };
            patience.satisfied();
            match self.attempt(&mut upstream, request, resends < RESENDS_MAX).await {
                Attempt::Replied(response) => return Ok(Reply { response: *response, upstream, lease }),
                Attempt::Again(unsent) => {
                    resends += 1;
                    request = *unsent;
                }
                Attempt::Failed(failure) => return Err(failure),
            }
        }
    }

    /// A connection to the replica; `None` when it cannot be reached.
    async fn upstream(&self, lease: &Lease, fresh: bool) -> Option<Upstream> {
        let pooled = if fresh { None } else { self.pool.take(&lease.replica) };
        if pooled.is_some() {
            return pooled;
        }
        match Upstream::connect(&lease.replica, self.limits).await {
            Ok(upstream) => {
                self.service.replica_connected(&lease.replica);
                Some(upstream)
            }
            Err(error) => {
                lease.replica.connect_failed(now_ms());
                self.service.metrics.connect_failures.inc();
                tracing::debug!(service = self.service.name, replica = lease.replica.id, %error, "cannot connect");
                None
            }
        }
    }

    async fn attempt(&self, upstream: &mut Upstream, request: Request<Upload>, may_resend: bool) -> Attempt {
        let upload = request.body().clone();
        let spare = (may_resend && upstream.reused && is_idempotent(request.method())).then(|| request.clone());
        let received_bytes = upstream.received_bytes();
        let sending = upstream.sender.try_send_request(request);
        let Some(sent) = within_silence(sending, self.stream_timeout, &upload).await else {
            return Attempt::Failed(Failure::Silent { waited: self.stream_timeout });
        };
        let mut error = match sent {
            Ok(response) => return Attempt::Replied(Box::new(response)),
            Err(error) => error,
        };
        if may_resend && let Some(unsent) = error.take_message() {
            return Attempt::Again(Box::new(unsent));
        }
        tracing::debug!(service = self.service.name, error = %error.error(), "an attempt failed");
        if upload.has_failed() {
            return Attempt::Failed(Failure::Upload);
        }
        let nothing_came = upstream.received_bytes() == received_bytes;
        match spare {
            Some(spare) if nothing_came && upload.is_untouched() && self.service.budget.spend(now_ms()) => {
                self.service.metrics.retries.inc();
                Attempt::Again(Box::new(spare))
            }
            _ if error.error().is_parse() => Attempt::Failed(Failure::Malformed),
            _ => Attempt::Failed(Failure::Lost),
        }
    }
}

/// RFC 9110, 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

/// The future's output, or `None` when nothing moved for `silence_max`: neither did the reply's head
/// come nor was more of the request's body sent.
async fn within_silence<F: Future>(future: F, silence_max: Duration, upload: &Upload) -> Option<F::Output> {
    tokio::pin!(future);
    let silence = tokio::time::sleep(silence_max);
    tokio::pin!(silence);
    loop {
        tokio::select! {
            biased;
            output = &mut future => return Some(output),
            () = &mut silence => {
                let silent_from = upload.last_progress().map(tokio::time::Instant::from_std);
                let end = silent_from.map(|from| from + silence_max).filter(|end| *end > tokio::time::Instant::now());
                silence.as_mut().reset(end?);
            }
        }
    }
}
