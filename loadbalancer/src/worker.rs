//! One proxying thread: accepts from every listener, serves its connections, and sweeps what is overdue.
//!
//! Invariants:
//! * Connections, pool and exchanges stay on their thread; only counters and views are shared.
//! * Listeners are duplicates of the control thread's: closing them here refuses nobody.
//! * The thread sleeps as long as there is neither a connection nor an idle upstream.

use crate::client::{self, ClientSocket, ClientState};
use crate::clock::now_ms;
use crate::options::Limits;
use crate::proxy::Proxy;
use crate::replica::{Padded, Replica};
use crate::service::{ConnectionGuard, Service};
use crate::upstream::{Pool, Upstream};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

/// How often overdue connections are looked for: the precision of every deadline on a connection.
pub(crate) const SWEEP_PERIOD: Duration = Duration::from_millis(100);

/// Pause after the system refuses a connection for want of descriptors or memory, so that the loop
/// does not spin until some are free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all threads know of the whole.
#[derive(Debug)]
pub(crate) struct Gauge {
    draining: AtomicBool,
    /// Whether connections on which nothing is under way are to be closed.
    closing: AtomicBool,
    /// When a connection or a request last came. Kept up to date only while draining.
    last_news_ms: AtomicU64,
    threads: Vec<Padded<ThreadLoad>>,
}

/// What one thread has to do.
#[derive(Debug, Default)]
struct ThreadLoad {
    exchanges: AtomicU64,
    /// Connections with an answer on its way, as of the last sweep.
    busy_connections: AtomicU64,
    /// All connections, as of the last sweep.
    connections: AtomicU64,
}

impl Gauge {
    pub(crate) fn new(threads: usize) -> Self {
        let threads = (0..threads).map(|_| Padded::default()).collect();
        Self {
            draining: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            last_news_ms: AtomicU64::new(0),
            threads,
        }
    }

    pub(crate) fn start_draining(&self) {
        self.last_news_ms.store(now_ms(), Relaxed);
        self.draining.store(true, Relaxed);
    }

    /// From now on clients whose connections rest are told that they end.
    pub(crate) fn start_closing(&self) {
        self.closing.store(true, Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    pub(crate) fn last_news_ms(&self) -> u64 {
        self.last_news_ms.load(Relaxed)
    }

    fn news_came(&self) {
        if self.is_draining() {
            self.last_news_ms.store(now_ms(), Relaxed);
        }
    }

    /// Whether no connection is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.threads.iter().map(|thread| thread.0.connections.load(Relaxed)).sum::<u64>() == 0
    }

    /// Whether no request is being answered and no answer is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        let load =
            |thread: &Padded<ThreadLoad>| thread.0.exchanges.load(Relaxed) + thread.0.busy_connections.load(Relaxed);
        self.threads.iter().map(load).sum::<u64>() == 0
    }
}

/// What the control thread asks of a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Accept connections for a service.
    Accept { listener: std::net::TcpListener, address: SocketAddr, service: Arc<Service> },
    /// Accept no more at this address.
    Close { address: SocketAddr },
    /// Tell when all earlier commands are done.
    Settle(oneshot::Sender<()>),
}

/// A thread's state.
#[derive(Debug)]
pub(crate) struct Worker {
    index: usize,
    limits: Limits,
    gauge: Arc<Gauge>,
    pool: Pool,
    connections: RefCell<Slab<Connection>>,
    /// Connections whose clients have been told of the end.
    parting: Cell<u64>,
    accepting: RefCell<BTreeMap<SocketAddr, JoinHandle<()>>>,
    /// Told when there is something to sweep.
    work: Notify,
}

#[derive(Debug)]
struct Connection {
    client: Arc<ClientState>,
    stream: Arc<TcpStream>,
    service: Arc<Service>,
    task: Option<AbortHandle>,
}

impl Worker {
    /// Serves until the control thread drops the commands' sender.
    pub(crate) async fn run(
        index: usize,
        limits: Limits,
        gauge: Arc<Gauge>,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) {
        let worker = Rc::new(Self {
            index,
            limits,
            gauge,
            pool: Pool::default(),
            connections: RefCell::new(Slab::new()),
            parting: Cell::new(0),
            accepting: RefCell::new(BTreeMap::new()),
            work: Notify::new(),
        });
        tokio::task::spawn_local(Rc::clone(&worker).sweep());
        while let Some(command) = commands.recv().await {
            worker.obey(command);
        }
    }

    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Accept { listener, address, service } => match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let accepting = tokio::task::spawn_local(Rc::clone(self).accept(listener, service));
                    if let Some(replaced) = self.accepting.borrow_mut().insert(address, accepting) {
                        replaced.abort();
                    }
                }
                Err(error) => tracing::error!(%address, %error, "a thread cannot watch a listener; others may"),
            },
            Command::Close { address } => {
                if let Some(accepting) = self.accepting.borrow_mut().remove(&address) {
                    accepting.abort();
                }
            }
            // The control thread may have given up waiting.
            Command::Settle(done) => drop(done.send(())),
        }
    }

    async fn accept(self: Rc<Self>, listener: TcpListener, service: Arc<Service>) {
        loop {
            while !service.has_room(self.limits.connections_max) {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            match listener.accept().await {
                Ok((stream, peer)) => {
                    self.gauge.news_came();
                    // Another thread may have taken the last place meanwhile; then this client is refused.
                    if let Some(guard) = service.admit_connection(self.limits.connections_max) {
                        self.serve(stream, peer, &service, guard);
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(service = service.name, %error, "cannot accept connections; trying on");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            // Lets the other threads have their share of a burst.
            tokio::task::yield_now().await;
        }
    }

    fn serve(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, service: &Arc<Service>, guard: ConnectionGuard) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let client = Arc::new(ClientState::new(peer, &self.limits));
        let stream = Arc::new(stream);
        let socket = ClientSocket::new(Arc::clone(&stream), Arc::clone(&client), &self.limits, guard);
        let connection = Connection {
            client: Arc::clone(&client),
            stream: Arc::clone(&stream),
            service: Arc::clone(service),
            task: None,
        };
        let slot = Slot { key: self.connections.borrow_mut().insert(connection), worker: Rc::clone(self) };
        let key = slot.key;
        let lingering = Arc::clone(&stream);
        let state = Arc::clone(&client);
        let proxy = Rc::new(Proxy { worker: Rc::clone(self), service: Arc::clone(service), client, stream });
        let answer = service_fn(move |request| {
            let proxy = Rc::clone(&proxy);
            async move { Ok::<_, Infallible>(proxy.answer(request).await) }
        });
        let serving = http1::Builder::new()
            .max_header_size(self.limits.header_bytes_max)
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(socket), answer)
            .with_upgrades();
        // A panic ends this connection, not those of others.
        let task = tokio::task::spawn_local(skyserve_panics::alone(async move {
            let _slot = slot;
            if let Err(error) = serving.await {
                tracing::debug!(%error, "a client's connection ended");
                if state.is_refused() || error.is_parse() {
                    client::linger(&lingering).await;
                }
            }
        }));
        self.connections.borrow_mut()[key].task = Some(task.abort_handle());
        self.work.notify_one();
    }

    async fn sweep(self: Rc<Self>) {
        loop {
            if self.connections.borrow().is_empty() && self.parting.get() == 0 && self.pool.is_empty() {
                self.load().busy_connections.store(0, Relaxed);
                self.load().connections.store(0, Relaxed);
                self.work.notified().await;
            }
            tokio::time::sleep(SWEEP_PERIOD).await;
            let now_ms = now_ms();
            self.pool.sweep(now_ms, &self.limits);
            let closing = self.gauge.closing.load(Relaxed);
            let mut busy = 0;
            let mut overdue = Vec::new();
            for (_, connection) in self.connections.borrow().iter() {
                let is_busy = connection.client.is_busy();
                busy += u64::from(is_busy);
                let of_no_use = connection.service.is_removed() && !is_busy;
                if of_no_use || connection.client.is_overdue(now_ms) {
                    overdue.extend(connection.task.clone());
                } else if closing && connection.client.is_idle() && !client::has_unread(&connection.stream) {
                    overdue.extend(connection.task.clone());
                    self.part(Arc::clone(&connection.stream));
                }
            }
            let connections = self.connections.borrow().len() as u64 + self.parting.get();
            self.load().busy_connections.store(busy, Relaxed);
            self.load().connections.store(connections, Relaxed);
            overdue.iter().for_each(AbortHandle::abort);
        }
    }

    /// Tells a client that its connection ends.
    fn part(self: &Rc<Self>, stream: Arc<TcpStream>) {
        let worker = Rc::clone(self);
        self.parting.set(self.parting.get() + 1);
        tokio::task::spawn_local(async move {
            client::say_goodbye(&stream).await;
            worker.parting.set(worker.parting.get() - 1);
        });
    }

    fn load(&self) -> &ThreadLoad {
        &self.gauge.threads[self.index].0
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Keeps a connection to a replica for the next request.
    pub(crate) fn keep_upstream(&self, replica: &Arc<Replica>, upstream: Upstream) {
        self.pool.give(replica, upstream, &self.limits);
        self.work.notify_one();
    }

    pub(crate) fn exchange_began(&self) {
        self.load().exchanges.fetch_add(1, Relaxed);
        self.gauge.news_came();
    }

    pub(crate) fn exchange_ended(&self) {
        self.load().exchanges.fetch_sub(1, Relaxed);
    }

    /// Whether clients should not keep their connections.
    pub(crate) fn wants_connections_closed(&self, service: &Service) -> bool {
        self.gauge.is_draining() || service.is_crowded(self.limits.connections_max)
    }
}

/// A connection's place in the sweep; left when its task ends.
#[derive(Debug)]
struct Slot {
    worker: Rc<Worker>,
    key: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(self.key);
    }
}

/// accept(2): these are of the connection that was to be accepted, and the next may be fine.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
