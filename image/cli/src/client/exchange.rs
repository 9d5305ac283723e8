//! One request and its reply, on a connection of its own: the command line asks a few questions and
//! ends, so there is nothing to pool.

use super::transport::Transport;
use super::{ClientError, LogError};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// Largest reply: ten thousand services with ten replicas each take about half of it.
const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a bundle read and sent at a time.
const UPLOAD_CHUNK_BYTES: usize = 64 * 1024;

/// A whole reply.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What a request carries.
pub(super) enum Body {
    None,
    Json(Vec<u8>),
    /// The first `bytes` bytes of a file, read by position, so that several requests may share it.
    /// `sent` counts what has been handed over to the connection.
    File {
        file: File,
        bytes: u64,
        sent: Arc<AtomicU64>,
    },
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Sends one request and waits for its whole reply, `within` from the first byte sent.
pub(super) async fn exchange(
    transport: &Transport,
    method: Method,
    path: &str,
    body: Body,
    within: Duration,
) -> Result<Reply, ClientError> {
    let no_answer = |reason: String| ClientError::NoAnswer { at: transport.place(), reason };
    let whole = async |response: Response<Incoming>| {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = Limited::new(response.into_body(), REPLY_BYTES_MAX).collect().await?.to_bytes();
        Ok::<_, AnyError>(Reply { status, headers, body })
    };
    let answered = converse(transport, request(method, path, body)?, whole).await?;
    tokio::time::timeout(within, answered)
        .await
        .map_err(|_| no_answer(format!("no reply within {} s", within.as_secs())))?
        .map_err(|error| no_answer(error.to_string()))
}

/// Sends one request and hands on its reply as it comes, for as long as it comes: a log may begin late and be quiet
/// for long. A refusal is returned whole.
pub(super) async fn stream(
    transport: &Transport,
    path: &str,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<Option<Reply>, LogError> {
    let no_answer = |reason: String| ClientError::NoAnswer { at: transport.place(), reason };
    let begins = async |response: Response<Incoming>| {
        let (status, headers, mut body) = (response.status(), response.headers().clone(), response.into_body());
        if !status.is_success() {
            let body = Limited::new(body, REPLY_BYTES_MAX).collect().await?.to_bytes();
            return Ok(Some(Reply { status, headers, body }));
        }
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame?.into_data() {
                sink(&piece).map_err(NotTaken)?;
            }
        }
        Ok::<_, AnyError>(None)
    };
    let answered = converse(transport, request(Method::GET, path, Body::None)?, begins).await?;
    answered.await.map_err(|error| match error.downcast::<NotTaken>() {
        Ok(not_taken) => LogError::Sink(not_taken.0),
        Err(error) => no_answer(error.to_string()).into(),
    })
}

/// Whoever was given the reply could not take it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotTaken(io::Error);

fn request(method: Method, path: &str, body: Body) -> Result<Request<Upload>, ClientError> {
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    if matches!(body, Body::Json(_)) {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request.body(Upload::from(body)).map_err(|error| ClientError::NotUnderstood(error.to_string()))
}

/// Connects; the future that is returned sends the request and lets `receive` have the reply.
async fn converse<T>(
    transport: &Transport,
    request: Request<Upload>,
    receive: impl AsyncFnOnce(Response<Incoming>) -> Result<T, AnyError>,
) -> Result<impl Future<Output = Result<T, AnyError>>, ClientError> {
    let stream = transport.connect().await?;
    Ok(async move {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let conversation = async move { receive(sender.send_request(request).await?).await };
        // The connection does the reading and writing; both must be driven until the reply is here.
        let mut conversation = std::pin::pin!(conversation);
        tokio::select! {
            received = &mut conversation => received,
            // The connection's end may hold the last bytes of the reply.
            _ = connection => conversation.await,
        }
    })
}

/// A request's body as hyper sends it. Reads of a local file are short, and nothing else runs on this
/// thread, so they are made in place.
enum Upload {
    Whole(Option<Bytes>),
    File { file: File, at: u64, bytes: u64, sent: Arc<AtomicU64> },
}

impl From<Body> for Upload {
    fn from(body: Body) -> Self {
        match body {
            Body::None => Self::Whole(None),
            Body::Json(bytes) => Self::Whole(Some(Bytes::from(bytes))),
            Body::File { file, bytes, sent } => Self::File { file, at: 0, bytes, sent },
        }
    }
}

impl hyper::body::Body for Upload {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        let next = match self.get_mut() {
            Self::Whole(bytes) => bytes.take().map(Ok),
            Self::File { at, bytes, .. } if at == bytes => None,
            Self::File { file, at, bytes, sent } => Some(read_chunk(file, *at, *bytes - *at).inspect(|chunk| {
                *at += chunk.len() as u64;
                sent.store(*at, Ordering::Relaxed);
            })),
        };
        Poll::Ready(next.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::File { at, bytes, .. } => at == bytes,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Self::File { at, bytes, .. } => bytes - at,
        })
    }
}

fn read_chunk(file: &File, at: u64, left: u64) -> std::io::Result<Bytes> {
    let wanted = UPLOAD_CHUNK_BYTES.min(usize::try_from(left).unwrap_or(usize::MAX));
    let mut chunk = vec![0; wanted];
    let read = file.read_at(&mut chunk, at)?;
    if read == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    chunk.truncate(read);
    Ok(Bytes::from(chunk))
}
