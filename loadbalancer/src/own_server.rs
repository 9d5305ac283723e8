//! The small HTTP server behind the report socket and the metrics port. It is apart from the traffic of
//! users: other sockets, other thread.
//!
//! Invariant: a peer that is slow or gone holds one connection for at most its bounds, and no more than
//! [`CONNECTIONS_MAX`] peers are served at once.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};

/// A controller, a scraper, a kubelet and a few curious people.
const CONNECTIONS_MAX: usize = 64;

/// Time to send a request's head; also ends idle connections.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(15);

/// Largest head: these requests have nothing to say.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// An answer's body: whole, or a stream of lines.
#[derive(Debug)]
pub(crate) enum OwnBody {
    Whole(Bytes),
    Lines(mpsc::Receiver<Bytes>),
}

impl Body for OwnBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Lines(lines) => lines.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Lines(_) => SizeHint::default(),
        }
    }
}

/// Answers requests by path.
pub(crate) trait Answers {
    fn answer(&self, path: &str) -> Response<OwnBody>;
}

/// Admits and serves connections.
#[derive(Debug)]
pub(crate) struct OwnServer<A> {
    answers: Rc<A>,
    places: Arc<Semaphore>,
}

impl<A: Answers + 'static> OwnServer<A> {
    pub(crate) fn new(answers: A) -> Self {
        Self { answers: Rc::new(answers), places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    /// Serves a connection in the background; closes it when too many are open.
    pub(crate) fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let answers = Rc::clone(&self.answers);
        let answer = service_fn(move |request: Request<Incoming>| {
            let answers = Rc::clone(&answers);
            async move {
                let is_read = matches!(*request.method(), http::Method::GET | http::Method::HEAD);
                let refused = || text(StatusCode::METHOD_NOT_ALLOWED, "only GET is supported\n");
                Ok::<_, Infallible>(if is_read { answers.answer(request.uri().path()) } else { refused() })
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WAIT_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), answer);
        tokio::task::spawn_local(skyserve_panics::alone(async move {
            let _place = place;
            if let Err(error) = serving.await {
                tracing::debug!(%error, "a connection to the load balancer itself ended");
            }
        }));
    }
}

/// A short answer for people.
pub(crate) fn text(status: StatusCode, message: impl Into<String>) -> Response<OwnBody> {
    typed(status, "text/plain; charset=utf-8", Bytes::from(message.into()))
}

pub(crate) fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<OwnBody> {
    let mut response = Response::new(OwnBody::Whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
