//! A client's connection: its socket as hyper sees it, and the deadlines that a thread's sweep enforces.
//!
//! Invariants:
//! * hyper gets no byte that [`RequestFraming`] has not seen.
//! * At any moment at least one deadline is set: for the head or the next request while no exchange is
//!   under way, else for whoever is being waited for.
//! * The state is only touched by the connection's own thread; it is atomic because an upgraded
//!   connection has to be `Send`.

use crate::clock::{NEVER, now_ms};
use crate::framing::{RequestFraming, Violation};
use crate::options::Limits;
use crate::service::ConnectionGuard;
use bytes::Bytes;
use http::HeaderValue;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that hyper answers with 400 wherever in a head they come: no head may hold the first, and the
/// others make hyper look, which it does only when a head seems to be whole.
const POISON: &[u8] = b"\0\r\n\r\n";

/// Most bytes of a refused request that are read and dropped: more than any head has.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Longest time spent on that: a round trip around the world, and the client's reaction.
pub(crate) const LINGER_WAIT_MAX: Duration = Duration::from_millis(500);

/// What the proxy, the sweep and the socket know of one connection.
#[derive(Debug)]
pub(crate) struct ClientState {
    /// The client's address as `X-Forwarded-For` tells it.
    pub(crate) peer: HeaderValue,
    /// A request is being answered.
    busy: AtomicBool,
    in_head: AtomicBool,
    /// Bytes are waiting for the client to read.
    blocked: AtomicBool,
    /// End with a reset: the reply's end is told by the connection's, and it has not come.
    reset_on_close: AtomicBool,
    /// What came was no acceptable HTTP: nothing more is read as such.
    refused: AtomicBool,
    /// When the head or the next request must have come. Counts only while not busy.
    request_deadline_ms: AtomicU64,
    /// When the replica must have gone on with its reply.
    reply_deadline_ms: AtomicU64,
    /// When the client must have gone on reading or sending.
    stall_deadline_ms: AtomicU64,
    /// Bytes both ways since the connection began.
    traffic_bytes: AtomicU64,
    header_read_ms_max: u64,
    client_idle_ms_max: u64,
    body_idle_ms_max: u64,
}

impl ClientState {
    pub(crate) fn new(peer: SocketAddr, limits: &Limits) -> Self {
        let peer = peer.ip().to_canonical().to_string();
        Self {
            peer: HeaderValue::from_maybe_shared(Bytes::from(peer)).expect("an address is visible ASCII"),
            busy: AtomicBool::new(false),
            in_head: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            reset_on_close: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            request_deadline_ms: AtomicU64::new(now_ms() + limits.header_read_ms_max),
            reply_deadline_ms: AtomicU64::new(NEVER),
            stall_deadline_ms: AtomicU64::new(NEVER),
            traffic_bytes: AtomicU64::new(0),
            header_read_ms_max: limits.header_read_ms_max,
            client_idle_ms_max: limits.client_idle_ms_max,
            body_idle_ms_max: limits.body_idle_ms_max,
        }
    }

    /// Whether a request is being answered or an answer is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Relaxed) || self.blocked.load(Relaxed)
    }

    /// Whether the client has nothing to wait for: it has its answers, and nothing of a next request has come.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_busy() && !self.in_head.load(Relaxed)
    }

    /// Whether someone has been waited for too long.
    pub(crate) fn is_overdue(&self, now_ms: u64) -> bool {
        let due = |deadline: &AtomicU64| deadline.load(Relaxed) <= now_ms;
        due(&self.reply_deadline_ms)
            || due(&self.stall_deadline_ms)
            || (!self.busy.load(Relaxed) && due(&self.request_deadline_ms))
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Relaxed)
    }

    pub(crate) fn exchange_began(&self) {
        self.busy.store(true, Relaxed);
    }

    pub(crate) fn exchange_ended(&self) {
        let patience_ms = if self.in_head.load(Relaxed) { self.header_read_ms_max } else { self.client_idle_ms_max };
        self.request_deadline_ms.store(now_ms() + patience_ms, Relaxed);
        self.reply_deadline_ms.store(NEVER, Relaxed);
        if !self.blocked.load(Relaxed) {
            self.client_went_on();
        }
        self.busy.store(false, Relaxed);
    }

    /// The replica's next bytes are awaited from now on, unless they are already.
    pub(crate) fn reply_awaited(&self, silence_max: Duration) {
        if self.reply_deadline_ms.load(Relaxed) == NEVER {
            let silence_ms_max = u64::try_from(silence_max.as_millis()).unwrap_or(NEVER);
            self.reply_deadline_ms.store(now_ms().saturating_add(silence_ms_max), Relaxed);
        }
    }

    pub(crate) fn reply_came(&self) {
        self.reply_deadline_ms.store(NEVER, Relaxed);
    }

    /// The client's next bytes are awaited, or its reading, from now on, unless they are already.
    pub(crate) fn client_awaited(&self) {
        if self.stall_deadline_ms.load(Relaxed) == NEVER {
            self.stall_deadline_ms.store(now_ms() + self.body_idle_ms_max, Relaxed);
        }
    }

    pub(crate) fn client_went_on(&self) {
        self.stall_deadline_ms.store(NEVER, Relaxed);
    }

    /// While set, the connection's end must not look like the reply's.
    pub(crate) fn set_reset_on_close(&self, reset: bool) {
        self.reset_on_close.store(reset, Relaxed);
    }

    pub(crate) fn traffic_bytes(&self) -> u64 {
        self.traffic_bytes.load(Relaxed)
    }

    fn passed(&self, bytes: usize) {
        self.traffic_bytes.fetch_add(bytes as u64, Relaxed);
    }
}

/// A client's socket.
#[derive(Debug)]
pub(crate) struct ClientSocket {
    stream: Arc<TcpStream>,
    state: Arc<ClientState>,
    framing: RequestFraming,
    /// What of the poison hyper has not read yet, once a head was refused.
    poison: &'static [u8],
    _connection: ConnectionGuard,
}

impl ClientSocket {
    pub(crate) fn new(
        stream: Arc<TcpStream>,
        state: Arc<ClientState>,
        limits: &Limits,
        connection: ConnectionGuard,
    ) -> Self {
        let framing = RequestFraming::new(limits.header_bytes_max);
        Self { stream, state, framing, poison: &[], _connection: connection }
    }

    /// Looks at what was read into `buffer` after its first `before` bytes.
    fn check(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let was_in_head = self.framing.in_head();
        match self.framing.observe(&buffer.filled()[before..]) {
            Ok(()) => {}
            Err(Violation::Head { valid }) => {
                self.state.refused.store(true, Relaxed);
                buffer.set_filled(before + valid);
                self.poison = POISON;
                self.put_poison(buffer);
            }
            Err(Violation::Body) => {
                self.state.refused.store(true, Relaxed);
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the request's chunks are malformed"));
            }
        }
        let in_head = self.framing.in_head();
        if in_head && !was_in_head {
            self.state.request_deadline_ms.store(now_ms() + self.state.header_read_ms_max, Relaxed);
        }
        self.state.in_head.store(in_head, Relaxed);
        Ok(())
    }

    fn put_poison(&mut self, buffer: &mut ReadBuf<'_>) {
        let (now, later) = self.poison.split_at(self.poison.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.poison = later;
    }

    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.state.passed(*bytes);
                if self.state.blocked.swap(false, Relaxed) {
                    self.state.client_went_on();
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                self.state.blocked.store(true, Relaxed);
                self.state.client_awaited();
            }
        }
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        if self.state.reset_on_close.load(Relaxed) {
            // Closing with a zero linger time sends a reset. If it fails the socket is gone already.
            let _ = socket2::SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.state.is_refused() {
            self.put_poison(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read_buf(buffer) {
                Ok(bytes) => {
                    self.state.passed(bytes);
                    return Poll::Ready(self.check(buffer, before));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = write_when_ready(&self.stream, context, |stream| stream.try_write(bytes));
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = write_when_ready(&self.stream, context, |stream| stream.try_write_vectored(slices));
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state.reset_on_close.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(socket2::SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write))
    }
}

fn write_when_ready(
    stream: &TcpStream,
    context: &mut Context<'_>,
    write: impl Fn(&TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(context))?;
        match write(stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
    }
}

/// Reads and drops what a refused client still sends, so that it gets the answer: closing a socket
/// with unread bytes resets it, and a reset discards the answer on its way.
pub(crate) async fn linger(stream: &TcpStream) {
    let reading = async {
        let mut dropped = [0; 4096];
        let mut bytes = 0;
        while bytes < LINGER_BYTES_MAX && stream.readable().await.is_ok() {
            match stream.try_read(&mut dropped) {
                Ok(0) => return,
                Ok(read) => bytes += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    // What is not over by then is reset.
    let _ = tokio::time::timeout(LINGER_WAIT_MAX, reading).await;
}

/// Whether bytes have come that nobody has read yet.
pub(crate) fn has_unread(stream: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    !matches!(socket2::SockRef::from(stream).peek(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Closes a connection on which nothing is under way: the client is told of the end, and what it sends all the same is
/// not answered by a reset, which it could take for the end of the answer before.
pub(crate) async fn say_goodbye(stream: &TcpStream) {
    if socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write).is_ok() {
        linger(stream).await;
    }
}

/// Whether the client has closed its side, even behind bytes that were not read yet. Not when these fill
/// the socket's buffer: then the kernel has not seen the end either, and the deadlines have to do.
pub(crate) fn has_left(stream: &TcpStream) -> bool {
    let readable = std::pin::pin!(stream.ready(Interest::READABLE));
    match readable.poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(Ok(ready)) => ready.is_read_closed(),
        Poll::Ready(Err(_)) => true,
        Poll::Pending => false,
    }
}
