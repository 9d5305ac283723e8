//! The controller: the one that decides about services and replicas, and the only writer of the
//! database. See [`core`] for how it decides, `driver` for how that meets the world.
//!
//! It may be killed at any instant: what it decided is stored before it acts, and its successor goes on
//! from there. Traffic does not pass through it.
#![forbid(unsafe_code)]

mod admit;
mod api_server;
mod backups;
mod balancer;
mod bundle_server;
mod bundle_token;
mod bundles;
mod calls;
mod clock;
pub mod core;
mod driver;
pub mod exposure;
mod load_balancers;
mod mirror;
mod notify;
mod pieces;
mod pod;
mod probe;
mod rehearsal;
mod routes;
mod view;
mod watching;

pub use bundle_token::bundle_token;
pub use load_balancers::{LoadBalancerPods, LoadBalancers, RoutesMap};
pub use pod::{Pod, run_in_pod};

use crate::backups::Backups;
use crate::clock::Clock;
use crate::core::{Core, CoreOptions, Fatal, Held};
use crate::driver::{Control, Message, Snapshot};
use crate::exposure::Exposure;
use skyserve_home::{Home, HomeError};
use skyserve_model::{Epoch, Timestamp};
use skyserve_provider::Provider;
use skyserve_recovery::{Lease, LeaseError, Opened, Restored, StoreError, open_or_restore};
use skyserve_routes::{RoutesError, TableVersion};
use skyserve_spec::Target;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// How long a starting controller waits for its predecessor to let go before that is worth a word.
const LEASE_WAIT: Duration = Duration::from_secs(10);

/// What the controller needs to run.
#[derive(Debug)]
pub struct Options {
    pub home: Home,
    pub core: CoreOptions,
    /// What YAML is judged for.
    pub target: Target,
    pub listeners: Listeners,
}

/// Where the controller listens besides the control socket: nowhere by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listeners {
    /// The control API once more, on loopback.
    pub control: Option<SocketAddr>,
    /// Uploaded files, for pods.
    pub bundles: Option<SocketAddr>,
}

/// Why the controller did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the provider cannot start: {0}")]
    Provider(std::io::Error),
    #[error("the control socket {path} cannot be opened: {source}")]
    Socket { path: PathBuf, source: std::io::Error },
    #[error("nothing can be served on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the token for uploaded files cannot be kept: {0}")]
    Token(std::io::Error),
    #[error("the controller's threads cannot start: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Fatal(#[from] Fatal),
    #[error(transparent)]
    Overtaken(RoutesError),
    #[error(
        "the ConfigMap {map} holds the routes of a later controller (epoch {}, seq {}): either this one has been \
         overtaken, or its home is new; it starts again after those",
        later.epoch, later.seq
    )]
    MapIsAhead { map: String, later: TableVersion },
}

/// What is around a controller.
#[derive(Debug)]
pub struct Surroundings<P, E> {
    /// Runs replicas.
    pub provider: P,
    /// Makes endpoints reachable.
    pub exposure: E,
    pub load_balancers: LoadBalancers,
}

/// Runs the controller until SIGTERM or SIGINT. Replicas go on without it.
pub fn run<P: Provider, E: Exposure>(
    options: Options,
    surroundings: impl AsyncFnOnce(&Home) -> std::io::Result<Surroundings<P, E>>,
) -> Result<(), ControllerError> {
    options.home.make_dirs()?;
    let lease = take_lease(&options.home)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ControllerError::Runtime)?;
    let result = runtime.block_on(async {
        let around = surroundings(&options.home).await.map_err(ControllerError::Provider)?;
        // The database is closed when this returns: whoever gets the lease next opens it alone.
        control(options, around).await
    });
    // What is under way ends with the process: it is derived again from the store.
    runtime.shutdown_background();
    match &result {
        Ok(()) => lease.release(),
        Err(_) => drop(lease),
    }
    result
}

/// Waits until no other controller has this home. In a pod the one before may still be ending, or its node be lost and
/// its lock not given back yet: that is no error, however long it takes.
fn take_lease(home: &Home) -> Result<Lease, LeaseError> {
    let (path, mut told) = (home.controller_lock(), false);
    loop {
        match Lease::acquire_before(&path, Instant::now() + LEASE_WAIT) {
            Err(LeaseError::Held { holder, .. }) if home.is_shared() => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(
                        "this controller begins once the one before it has let go ({holder}); traffic goes on"
                    );
                }
            }
            result => return result,
        }
    }
}

async fn control<P: Provider, E: Exposure>(
    options: Options,
    around: Surroundings<P, E>,
) -> Result<(), ControllerError> {
    let Options { home, core: core_options, target, listeners } = options;
    let Surroundings { provider, exposure, load_balancers } = around;
    let clock = Clock::start();
    let in_file = skyserve_routes::read(&home.routes_file()).ok().map(|table| table.version());
    let in_map = match load_balancers.map() {
        Some(map) => map.version().await,
        None => None,
    };
    let published = in_file.max(in_map);
    let epoch_used = Epoch(published.map_or(0, |table| table.epoch));
    let (opened, restored) = open_or_restore(&home.database(), epoch_used)?;
    if let Some(restored) = restored {
        report(&restored);
    }
    let Opened { store, epoch, services, next_incarnation, .. } = opened;
    let rules = services.iter().flat_map(|service| service.earlier.values().chain([&service.rules]));
    let in_use: BTreeSet<&str> = rules.filter_map(|rules| rules.launch.bundle.as_deref()).collect();
    bundles::remove_unused(&home, &in_use);
    tracing::info!(%epoch, services = services.len(), "the controller starts");
    let held = Held { epoch, next_incarnation, services };
    let core = Core::new(core_options, store, held, published, clock.now());
    serve(Site { home, clock, target, listeners, exposure, load_balancers }, core, Arc::new(provider)).await
}

/// Says what became of a damaged database.
fn report(restored: &Restored) {
    let source = match &restored.backup {
        Some(backup) => format!("the copy {}", backup.display()),
        None => "what of it was whole".to_owned(),
    };
    tracing::error!(
        kept_in = %restored.kept_in.display(),
        transactions_lost = restored.transactions_lost,
        "the database was damaged and was restored from {source}: {}. What was asked for in the last minute may be \
         missing: compare `status` with what you expect, ask again for what is missing, and look at the disk (`dmesg`). \
         The damaged database is kept in {}",
        restored.damage,
        restored.kept_in.display()
    );
}

/// What is around the core, but for the provider.
struct Site<E> {
    home: Home,
    clock: Clock,
    target: Target,
    listeners: Listeners,
    exposure: E,
    load_balancers: LoadBalancers,
}

async fn serve<P: Provider, E: Exposure>(
    site: Site<E>,
    core: driver::ControllerCore,
    provider: Arc<P>,
) -> Result<(), ControllerError> {
    let Site { home, clock, target, listeners, exposure, load_balancers } = site;
    // Signals first: whoever stops the controller from here on stops it in order, socket and all.
    let mut terminate = signal(SignalKind::terminate()).map_err(ControllerError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ControllerError::Runtime)?;
    let path = home.control_socket();
    let listener = api_server::bind(&path).map_err(|source| ControllerError::Socket { path: path.clone(), source })?;
    let bound = identity(&path);
    let control_port = open_listeners(&listeners, &home).await?;
    let (messages, inbox) = mpsc::channel(driver::MESSAGES_QUEUED_MAX);
    let (snapshot, snapshots) = watch::channel(Snapshot::of(&core));
    let (awaits_load, often) = watch::channel(true);
    let (map, tables) = watch::channel(None);
    let control = Control {
        core,
        clock,
        home: home.clone(),
        provider: Arc::clone(&provider),
        io: tokio::runtime::Handle::current(),
        messages: messages.clone(),
        snapshot,
        awaits_load,
        probes: HashMap::new(),
        publish_again_at: None,
        backups: Backups::new(home.database()),
        current_until: Timestamp(0),
        map,
    };
    let (ended, end) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        let result = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(ControllerError::Runtime)
            .and_then(|runtime| runtime.block_on(control.run(inbox)));
        let _ = ended.send(result);
    });
    let thread = thread.map_err(ControllerError::Runtime)?;
    let logs = api_server::replica_logs(Arc::clone(&provider));
    tokio::spawn(driver::observe(provider, clock, messages.clone()));
    tokio::spawn(driver::expose(exposure, snapshots.clone(), messages.clone()));
    tokio::spawn(driver::follow_load(load_balancers.reports(&home), often, messages.clone()));
    if let Some(map) = load_balancers.map() {
        tokio::spawn(driver::publish_to(map, tables, messages.clone()));
    }
    let api = api_server::Api { home, target, logs, messages: messages.clone(), snapshot: snapshots };
    for listener in std::iter::once(listener).chain(control_port) {
        tokio::spawn(api_server::serve(listener, api.clone()));
    }
    notify::ready();
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = messages.send(Message::Stop).await;
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        // The thread ends without an answer only if it panicked: start again from the store.
        result = end => result.unwrap_or_else(|_| Err(ControllerError::Runtime(std::io::Error::other("the control thread panicked")))),
        () = stop => Ok(()),
    };
    let _ = thread.join();
    // One that was overtaken leaves its successor's socket alone.
    if identity(&path) == bound {
        let _ = std::fs::remove_file(&path);
    }
    result
}

/// Which file has this name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Opens what a pod listens on besides: the control API's port, given back, and that of the uploaded files, served.
async fn open_listeners(listeners: &Listeners, home: &Home) -> Result<Option<api_server::Listener>, ControllerError> {
    let failed = |address| move |source| ControllerError::Listen { address, source };
    if let Some(address) = listeners.bundles {
        let token = bundle_token(home).map_err(ControllerError::Token)?;
        let listener = tokio::net::TcpListener::bind(address).await.map_err(failed(address))?;
        tokio::spawn(bundle_server::serve(listener, home.clone(), token));
    }
    match listeners.control {
        Some(address) => api_server::Listener::on_loopback(address).await.map(Some).map_err(failed(address)),
        None => Ok(None),
    }
}
