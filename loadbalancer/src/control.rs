//! The control thread: puts tables in force, opens and closes endpoints, serves reports and metrics, and
//! ends the process in good order. It sees no traffic.
//!
//! Invariants:
//! * Threads accept before anything else is set up: what users wait for comes first.
//! * A table is put in force service by service; a service that the table leaves alone notices nothing.
//! * Draining never stops accepting before the quiet time has passed, nor, where a successor takes over, before it does.

use crate::admin::AdminAnswers;
use crate::clock::now_ms;
use crate::drain::{Drain, Next, Seen};
use crate::handover::Supervisor;
use crate::listeners::Listeners;
use crate::metrics::Metrics;
use crate::options::{Limits, Options};
use crate::own_server::OwnServer;
use crate::registry::{Endpoint, ListenError, Registry};
use crate::report_server::{ReportAnswers, ReportSocket};
use crate::service::Service;
use crate::table::{Look, TableFile};
use crate::threads::Threads;
use crate::worker::{Command, Gauge};
use crate::{Error, threads};
use skyserve_routes::{RouteTable, ServiceRoutes};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

/// How often a draining process looks whether it is done.
const DRAIN_CHECK: Duration = Duration::from_millis(20);

/// Pause after a connection cannot be accepted, for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a process that waits for its successor looks for that one's table: where the home is on a network file
/// system, nothing tells of what another machine has written.
const SUCCESSOR_CHECK: Duration = Duration::from_millis(500);

/// The control thread's state.
pub(crate) struct Control {
    limits: Limits,
    table: TableFile,
    listeners: Listeners,
    threads: Threads,
    registry: Rc<RefCell<Registry>>,
    gauge: Arc<Gauge>,
    terminate: Signal,
    interrupt: Signal,
    report_socket: PathBuf,
    metrics_address: SocketAddr,
    has_successor: bool,
}

impl Control {
    /// Takes over the listeners and starts the threads.
    pub(crate) fn start(options: Options) -> Result<Self, Error> {
        let terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let supervisor = Supervisor::new(options.notify_socket.as_deref()).map_err(Error::Supervisor)?;
        let gauge = Arc::new(Gauge::new(options.threads.max(1)));
        let threads = threads::start(options.threads.max(1), &options.limits, &gauge).map_err(Error::Threads)?;
        let registry = Registry {
            services: Default::default(),
            departed: Vec::new(),
            table: None,
            table_error: None,
            table_since_ms: 0,
            ready_while_draining: options.ready_while_draining,
            metrics_address: None,
            metrics: Metrics::new()?,
            gauge: Arc::clone(&gauge),
            wakes: Arc::new(Notify::new()),
        };
        Ok(Self {
            limits: options.limits,
            table: TableFile::new(options.routes_file),
            listeners: Listeners::adopt(supervisor, options.inherited),
            threads,
            registry: Rc::new(RefCell::new(registry)),
            gauge,
            terminate,
            interrupt,
            report_socket: options.report_socket,
            metrics_address: options.metrics_address,
            has_successor: options.has_successor,
        })
    }

    /// Works until a signal ends it.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        self.look();
        self.threads.settle().await;
        let metrics_listener = self.open_metrics();
        let mut report = self.open_report();
        self.listeners.supervisor().ready();
        self.table.watch();
        let changed = self.table.changed();
        let admin = OwnServer::new(AdminAnswers { registry: Rc::clone(&self.registry) });
        let reports = OwnServer::new(ReportAnswers { registry: Rc::clone(&self.registry) });
        let mut check = tokio::time::interval(Duration::from_millis(self.limits.table_check_ms));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut successor_check = tokio::time::interval(SUCCESSOR_CHECK);
        successor_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drain: Option<Drain> = None;
        loop {
            tokio::select! {
                () = changed.notified() => self.look(),
                _ = check.tick() => {
                    self.table.watch();
                    self.look();
                    self.listen_again();
                    report = report.or_else(|| self.open_report());
                }
                _ = successor_check.tick(), if drain.is_some() && self.has_successor => self.look(),
                Some(stream) = accept_metrics(metrics_listener.as_ref()) => admin.serve(stream),
                Some(stream) = accept_report(report.as_ref()) => reports.serve(stream),
                _ = self.terminate.recv() => match drain {
                    None => drain = Some(self.start_draining()),
                    Some(_) => break,
                },
                _ = self.interrupt.recv() => break,
                () = tokio::time::sleep(DRAIN_CHECK), if drain.is_some() => {
                    if drain.as_mut().is_some_and(|drain| self.is_drained(drain)) {
                        break;
                    }
                }
            }
        }
        self.threads.stop();
        Ok(())
    }

    /// Looks at the table's file and puts a new table in force.
    fn look(&mut self) {
        let look = self.table.look();
        let error = self.table.error().map(str::to_owned);
        match look {
            Look::New(table) => self.apply(&table),
            Look::Rejected => self.registry.borrow().metrics.table_errors.inc(),
            Look::Same => {}
        }
        let mut registry = self.registry.borrow_mut();
        registry.table = self.table.in_force();
        registry.table_error = error;
    }

    fn apply(&mut self, table: &RouteTable) {
        self.remove_departed(table);
        let addresses: BTreeSet<SocketAddr> = table.services.iter().map(|service| service.listen).collect();
        for address in self.listeners.retain(&addresses) {
            if let Err(error) = self.threads.tell(|| Ok(Command::Close { address })) {
                tracing::error!(%address, %error, "cannot close an endpoint; restart the load balancer");
            }
        }
        for routes in &table.services {
            self.apply_service(routes);
        }
        let mut registry = self.registry.borrow_mut();
        registry.table_since_ms = now_ms();
        registry.metrics.table_epoch.set(i64::try_from(table.epoch).unwrap_or(i64::MAX));
        registry.metrics.table_seq.set(i64::try_from(table.seq).unwrap_or(i64::MAX));
        tracing::info!(epoch = table.epoch, seq = table.seq, services = table.services.len(), "route table in force");
    }

    fn remove_departed(&mut self, table: &RouteTable) {
        let staying: BTreeSet<&str> = table.services.iter().map(|service| service.name.as_str()).collect();
        let mut registry = self.registry.borrow_mut();
        let departed: Vec<String> =
            registry.services.keys().filter(|name| !staying.contains(name.as_str())).cloned().collect();
        for name in departed {
            if let Some(endpoint) = registry.services.remove(&name) {
                endpoint.service.remove();
                registry.metrics.remove_service(&name);
                registry.depart(endpoint.service);
            }
        }
    }

    fn apply_service(&mut self, routes: &ServiceRoutes) {
        let mut registry = self.registry.borrow_mut();
        let endpoint = registry.services.get(&routes.name);
        if let Some(endpoint) = endpoint
            && endpoint.address == routes.listen
        {
            endpoint.service.update(routes);
            return;
        }
        let service = match endpoint {
            Some(moved) => {
                moved.service.update(routes);
                Arc::clone(&moved.service)
            }
            None => Arc::new(Service::new(routes, &registry.metrics, Arc::clone(&registry.wakes))),
        };
        let taken_by = registry.services.values().find(|other| other.address == routes.listen);
        let listen_error = match taken_by {
            Some(other) => Some(ListenError {
                message: format!("{} is the address of service '{}' already", routes.listen, other.service.name),
                address_in_use: true,
            }),
            None => listen(&mut self.listeners, &self.threads, routes.listen, &service),
        };
        let endpoint = Endpoint { service, address: routes.listen, listen_error };
        registry.services.insert(routes.name.clone(), endpoint);
    }

    /// Tries again to open what could not be opened.
    fn listen_again(&mut self) {
        let mut registry = self.registry.borrow_mut();
        let owned: BTreeSet<SocketAddr> = registry
            .services
            .values()
            .filter(|endpoint| endpoint.listen_error.is_none())
            .map(|endpoint| endpoint.address)
            .collect();
        for endpoint in registry.services.values_mut() {
            if endpoint.listen_error.is_some() && !owned.contains(&endpoint.address) {
                endpoint.listen_error = listen(&mut self.listeners, &self.threads, endpoint.address, &endpoint.service);
            }
        }
    }

    /// Opens the metrics port. Without it traffic still flows, so it is no reason to end.
    fn open_metrics(&mut self) -> Option<TcpListener> {
        let opened = self.listeners.open_metrics(self.metrics_address).and_then(TcpListener::from_std);
        match opened {
            Ok(listener) => {
                self.registry.borrow_mut().metrics_address = listener.local_addr().ok();
                Some(listener)
            }
            Err(error) => {
                tracing::error!(address = %self.metrics_address, %error, "no metrics and no health answers are served");
                None
            }
        }
    }

    /// Opens the report socket. Without it the controller does not see the load, but traffic flows.
    fn open_report(&self) -> Option<ReportSocket> {
        let opened = ReportSocket::bind(&self.report_socket);
        opened
            .inspect_err(|error| {
                let path = self.report_socket.display();
                tracing::error!(%path, %error, "cannot serve reports; check that the folder exists and can be written");
            })
            .ok()
    }

    fn start_draining(&mut self) -> Drain {
        let until =
            if self.has_successor { "another load balancer has taken over" } else { "no request comes any more" };
        tracing::info!("draining: serving on until {until}");
        self.gauge.start_draining();
        self.listeners.supervisor().stopping();
        Drain::start(now_ms(), self.epoch(), self.has_successor, &self.limits)
    }

    /// Goes on with a drain; whether it is over.
    fn is_drained(&self, drain: &mut Drain) -> bool {
        let seen = Seen {
            now_ms: now_ms(),
            epoch: self.epoch(),
            has_services: !self.registry.borrow().services.is_empty(),
            last_news_ms: self.gauge.last_news_ms(),
            is_idle: self.gauge.is_idle(),
            is_empty: self.gauge.is_empty(),
        };
        match drain.next(seen, &self.limits) {
            Next::Serve => false,
            Next::Part => {
                self.gauge.start_closing();
                false
            }
            Next::End => true,
        }
    }

    fn epoch(&self) -> u64 {
        self.table.in_force().map_or(0, |table| table.epoch)
    }
}

/// Has every thread accept for a service. Returns why it cannot.
fn listen(
    listeners: &mut Listeners,
    threads: &Threads,
    address: SocketAddr,
    service: &Arc<Service>,
) -> Option<ListenError> {
    let opened = listeners.open(address).and_then(|listener| {
        threads.tell(|| Ok(Command::Accept { listener: listener.try_clone()?, address, service: Arc::clone(service) }))
    });
    let error = opened.err()?;
    let address_in_use = error.kind() == io::ErrorKind::AddrInUse;
    let advice = if address_in_use { "stop what uses it, or give the service another port" } else { "trying again" };
    tracing::error!(service = service.name, %address, %error, "the endpoint cannot listen: {advice}");
    Some(ListenError { message: format!("cannot listen at {address}: {error}; {advice}"), address_in_use })
}

async fn accept_metrics(listener: Option<&TcpListener>) -> Option<TcpStream> {
    let Some(listener) = listener else { return std::future::pending().await };
    admitted(listener.accept().await).await
}

async fn accept_report(socket: Option<&ReportSocket>) -> Option<UnixStream> {
    let Some(socket) = socket else { return std::future::pending().await };
    admitted(socket.listener.accept().await).await
}

/// The connection; after an error a pause, because the next accept would fail the same way.
async fn admitted<S, A>(accepted: io::Result<(S, A)>) -> Option<S> {
    if accepted.is_err() {
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
    accepted.ok().map(|(stream, _)| stream)
}
