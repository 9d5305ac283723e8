//! Gives uploaded files to the pods of replicas: `GET` and `HEAD` of `/bundles/<sha256>` with the home's token, and
//! nothing else.
//!
//! It is the one port of the controller that others in the cluster can reach. Pods cannot be given files in another way
//! with as little: writing into them needs the right to run anything in them (`pods/exec`), and objects of the API
//! server hold a megabyte.

use crate::bundle_token::same;
use crate::bundles;
use crate::pieces::{Broken, Pieces};
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use skyserve_home::Home;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// Pods served at once; more wait in the backlog, and try again.
const CONNECTIONS_MAX: usize = 64;
/// Longest request head: a path, a token, and what a client adds by itself.
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Longest wait for a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a client to take the next piece: one that stopped reading must not hold its place.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Read from the file at a time, and how many of these may wait for the client.
const PIECE_BYTES: usize = 64 * 1024;
const PIECES_QUEUED_MAX: usize = 4;

type Body = Either<Full<Bytes>, Pieces>;

/// Serves until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, home: Home, token: String) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let site = Arc::new((home, token));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("the port for uploaded files cannot take a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let site = Arc::clone(&site);
        tokio::spawn(skyserve_panics::alone(async move {
            let service = service_fn(move |request| {
                let site = Arc::clone(&site);
                async move { Ok::<_, Infallible>(answer(&site.0, &site.1, &request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(HEADER_BYTES_MAX)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!("a connection for uploaded files ended early: {error}");
            }
            drop(slot);
        }));
    }
}

async fn answer(home: &Home, token: &str, request: &Request<Incoming>) -> Response<Body> {
    let Some(digest) = request.uri().path().strip_prefix("/bundles/") else { return plain(StatusCode::NOT_FOUND) };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    let shown =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if !shown.is_some_and(|shown| same(shown, token.as_bytes())) {
        return plain(StatusCode::UNAUTHORIZED);
    }
    let Some(path) = bundles::path(home, digest) else { return plain(StatusCode::NOT_FOUND) };
    match open(&path).await {
        Ok((_, bytes)) if request.method() == Method::HEAD => {
            let mut response = Response::new(Either::Left(Full::default()));
            response.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
            response
        }
        Ok((file, bytes)) => Response::new(Either::Right(Pieces::new(read(file, bytes), Some(bytes)))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => plain(StatusCode::NOT_FOUND),
        Err(error) => {
            tracing::error!("the uploaded files {} cannot be read: {error}", path.display());
            plain(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

async fn open(path: &std::path::Path) -> std::io::Result<(File, u64)> {
    let file = File::open(path).await?;
    let bytes = file.metadata().await?.len();
    Ok((file, bytes))
}

fn read(mut file: File, bytes: u64) -> mpsc::Receiver<Result<Bytes, Broken>> {
    let (sender, receiver) = mpsc::channel(PIECES_QUEUED_MAX);
    tokio::spawn(skyserve_panics::alone(async move {
        let mut left = bytes;
        while left > 0 {
            let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
            let read = file.read_exact(&mut piece).await;
            left -= piece.len() as u64;
            let failed = read.is_err();
            let piece = read.map(|_| Bytes::from(piece)).map_err(Broken::from);
            let taken = timeout(STALL_TIMEOUT, sender.send(piece)).await;
            if failed || !matches!(taken, Ok(Ok(()))) {
                return;
            }
        }
    }));
    receiver
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(format!("{status}\n"))));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
