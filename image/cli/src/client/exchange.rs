//! One request and its reply, on a connection of its own: the command line asks a few questions and
//! ends, so there is nothing to pool.

use super::ClientError;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Frame, SizeHint};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::UnixStream;

/// A local socket connects at once, or its backlog is full because its owner hangs.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Largest reply: ten thousand services with ten replicas each take about half of it.
const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a bundle read and sent at a time.
const UPLOAD_CHUNK_BYTES: usize = 64 * 1024;

/// A whole reply.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// What a request carries.
pub(super) enum Body {
    None,
    Json(Vec<u8>),
    /// The first `bytes` bytes of a file, read by position, so that several requests may share it.
    File {
        file: File,
        bytes: u64,
    },
}

/// Sends one request and waits for its whole reply, `within` from the first byte sent.
pub(super) async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: Body,
    within: Duration,
) -> Result<Reply, ClientError> {
    let unreachable = |reason: String| ClientError::Unreachable { socket: socket.to_path_buf(), reason };
    let no_answer = |reason: String| ClientError::NoAnswer { socket: socket.to_path_buf(), reason };
    let stream = tokio::time::timeout(CONNECT_WITHIN, UnixStream::connect(socket))
        .await
        .map_err(|_| unreachable(format!("no connection within {} s", CONNECT_WITHIN.as_secs())))?
        .map_err(|error| unreachable(error.to_string()))?;
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
    if matches!(body, Body::Json(_)) {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(Upload::from(body)).map_err(|error| ClientError::NotUnderstood(error.to_string()))?;

    let answered = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let conversation = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((status, response.into_body()))
        };
        // The connection does the reading and writing; both must be driven until the body is here.
        let whole = async {
            let (status, body) = conversation.await?;
            let body = Limited::new(body, REPLY_BYTES_MAX).collect().await?.to_bytes();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Reply { status, body })
        };
        let mut whole = std::pin::pin!(whole);
        tokio::select! {
            reply = &mut whole => reply,
            // The connection's end may hold the last bytes of the reply.
            _ = connection => whole.await,
        }
    };
    tokio::time::timeout(within, answered)
        .await
        .map_err(|_| no_answer(format!("no reply within {} s", within.as_secs())))?
        .map_err(|error| no_answer(error.to_string()))
}

/// A request's body as hyper sends it. Reads of a local file are short, and nothing else runs on this
/// thread, so they are made in place.
enum Upload {
    Whole(Option<Bytes>),
    File { file: File, at: u64, bytes: u64 },
}

impl From<Body> for Upload {
    fn from(body: Body) -> Self {
        match body {
            Body::None => Self::Whole(None),
            Body::Json(bytes) => Self::Whole(Some(Bytes::from(bytes))),
            Body::File { file, bytes } => Self::File { file, at: 0, bytes },
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
            Self::File { file, at, bytes } => Some(read_chunk(file, *at, *bytes - *at).inspect(|chunk| {
                *at += chunk.len() as u64;
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
