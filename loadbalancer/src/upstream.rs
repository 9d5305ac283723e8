//! Connections to replicas, and the idle ones that a thread keeps.
//!
//! Invariants:
//! * A connection is in use by one request, or idle in the pool of the thread that made it, or ends.
//! * The most recently used connection is taken first, so that the others reach their idle bound.
//! * No idle connection outlives `upstream_idle_ms_max` (by more than a sweep) or its replica's departure.

use crate::clock::now_ms;
use crate::options::Limits;
use crate::replica::Replica;
use crate::upload::Upload;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection that can take a request.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) sender: SendRequest<Upload>,
    /// It carried a request before, so the replica may be closing it.
    pub(crate) reused: bool,
    received_bytes: Arc<AtomicU64>,
    idle_since_ms: u64,
}

impl Upstream {
    /// Connects to a replica.
    pub(crate) async fn connect(replica: &Replica, limits: &Limits) -> io::Result<Self> {
        let connecting = TcpStream::connect(replica.address);
        let stream = tokio::time::timeout(Duration::from_millis(limits.connect_ms_max), connecting).await??;
        stream.set_nodelay(true)?;
        let received_bytes = Arc::new(AtomicU64::new(0));
        let socket = UpstreamSocket { stream, received_bytes: Arc::clone(&received_bytes) };
        let (sender, connection) = http1::Builder::new()
            .max_header_size(limits.header_bytes_max)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(io::Error::other)?;
        tokio::task::spawn_local(skyserve_panics::alone(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a replica ended");
            }
        }));
        Ok(Self { sender, reused: false, received_bytes, idle_since_ms: 0 })
    }

    /// Bytes that the replica has sent on this connection.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Relaxed)
    }
}

/// One thread's idle connections.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<u64, IdleConnections>>,
}

#[derive(Debug)]
struct IdleConnections {
    replica: Arc<Replica>,
    connections: Vec<Upstream>,
}

impl Pool {
    /// Takes an idle connection that can carry a request now.
    pub(crate) fn take(&self, replica: &Replica) -> Option<Upstream> {
        let mut idle = self.idle.borrow_mut();
        let connections = &mut idle.get_mut(&replica.key)?.connections;
        // One whose last reply is still being cleared away is ready in a moment: it stays.
        let ready =
            connections.iter().rposition(|upstream| upstream.sender.is_ready() && !upstream.sender.is_closed())?;
        Some(connections.remove(ready))
    }

    /// Keeps a connection for the next request.
    pub(crate) fn give(&self, replica: &Arc<Replica>, mut upstream: Upstream, limits: &Limits) {
        if upstream.sender.is_closed() || replica.is_retired() {
            return;
        }
        upstream.reused = true;
        upstream.idle_since_ms = now_ms();
        let mut idle = self.idle.borrow_mut();
        let entry = idle
            .entry(replica.key)
            .or_insert_with(|| IdleConnections { replica: Arc::clone(replica), connections: Vec::new() });
        if entry.connections.len() < limits.upstream_idle_connections_max {
            entry.connections.push(upstream);
        }
    }

    /// Closes what has been idle for too long or is of no use any more.
    pub(crate) fn sweep(&self, now_ms: u64, limits: &Limits) {
        self.idle.borrow_mut().retain(|_, entry| {
            let retired = entry.replica.is_retired();
            entry.connections.retain(|upstream| {
                let expired = upstream.idle_since_ms + limits.upstream_idle_ms_max <= now_ms;
                !retired && !expired && !upstream.sender.is_closed()
            });
            !entry.connections.is_empty()
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty()
    }
}

/// A replica's socket, counting what comes: whether a reply had begun decides about a retry.
#[derive(Debug)]
struct UpstreamSocket {
    stream: TcpStream,
    received_bytes: Arc<AtomicU64>,
}

impl AsyncRead for UpstreamSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received_bytes.fetch_add((buffer.filled().len() - before) as u64, Relaxed);
        read
    }
}

impl AsyncWrite for UpstreamSocket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
