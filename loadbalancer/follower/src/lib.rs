//! The follower: in pods of load balancers alone, it brings the controller's route table from a ConfigMap into the file
//! that the load balancer beside it reads, which so needs to know nothing of Kubernetes.
//!
//! Invariants:
//! * The file only ever gets tables that are whole, and each comes after the one before: what an API server that lags
//!   behind shows, or a ConfigMap that somebody broke or removed, changes nothing.
//! * Without an API server the last table stays, and so does traffic; also over a restart of the container.
#![forbid(unsafe_code)]

use futures_util::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use skyserve_kube::kube::api::ListParams;
use skyserve_kube::kube::runtime::WatchStreamExt;
use skyserve_kube::kube::runtime::watcher::{self, Event, watcher};
use skyserve_kube::kube::{Api, Client};
use skyserve_kube::{ConnectError, chain, connect};
use skyserve_routes::{RouteTable, RoutesError, decode, pass_on};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

/// Pause before a table that could not be written is written again: a disk that is full may have room by then.
const WRITE_PAUSE: Duration = Duration::from_secs(1);
/// A watch can lose an event, or its connection die without a word; a replica that is gone should not be routed to for
/// minutes because of that.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// One answer of the API server; what takes longer is better asked again.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// What to follow, and where to write it.
#[derive(Debug, Clone)]
pub struct Options {
    pub routes_file: PathBuf,
    pub namespace: String,
    /// Name of the ConfigMap.
    pub config_map: String,
    /// Its entry with the table.
    pub key: String,
    /// The supervisor's datagram socket (`NOTIFY_SOCKET`).
    pub notify_socket: Option<PathBuf>,
    /// How often to look at the ConfigMap besides what the watch tells; see [`LOOK_INTERVAL`].
    pub look_interval: Duration,
}

/// Why the follower cannot work.
#[derive(Debug, thiserror::Error)]
pub enum FollowerError {
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Follows until SIGTERM or SIGINT.
pub fn run(options: Options) -> Result<(), FollowerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(FollowerError::Runtime)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(FollowerError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(FollowerError::Runtime)?;
        let client = connect(&skyserve_kube::Options::default()).await?.client;
        tokio::select! {
            () = follow(client, options) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

/// Follows for ever.
pub async fn follow(client: Client, options: Options) {
    let api: Api<ConfigMap> = Api::namespaced(client, &options.namespace);
    let one = watcher::Config::default().fields(&only(&options.config_map));
    let told = watcher(api.clone(), one).default_backoff();
    let looked = stream::unfold((api, options.clone()), look);
    Follower::new(options).follow(stream::select(told, looked.boxed())).await;
}

/// Selects the one object of this name: to whoever may list and watch that one, and nothing else, this is allowed.
fn only(name: &str) -> String {
    format!("metadata.name={name}")
}

/// One look at the ConfigMap, after a pause. What it cannot see the watch complains of.
async fn look((api, options): (Api<ConfigMap>, Options)) -> Option<(WatchResult, (Api<ConfigMap>, Options))> {
    loop {
        tokio::time::sleep(options.look_interval).await;
        let params = ListParams::default().fields(&only(&options.config_map));
        let Ok(Ok(maps)) = timeout(ANSWER_WAIT, api.list(&params)).await else { continue };
        if let Some(map) = maps.items.into_iter().next() {
            return Some((Ok(Event::Apply(map)), (api, options)));
        }
    }
}

type WatchResult = Result<Event<ConfigMap>, watcher::Error>;

struct Follower {
    options: Options,
    /// A table that could not be written yet.
    unwritten: Option<RouteTable>,
    /// What was complained of last, so that it is said once.
    trouble: Option<String>,
    is_ready: bool,
}

impl Follower {
    fn new(options: Options) -> Self {
        let mut follower = Self { options, unwritten: None, trouble: None, is_ready: false };
        if skyserve_routes::read(&follower.options.routes_file).is_ok() {
            follower.ready();
        }
        follower
    }

    async fn follow(&mut self, events: impl Stream<Item = WatchResult>) {
        let mut events = pin!(events);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
                () = tokio::time::sleep(WRITE_PAUSE), if self.unwritten.is_some() => self.write(),
            }
        }
    }

    fn take(&mut self, event: WatchResult) {
        match event {
            Ok(Event::InitApply(map) | Event::Apply(map)) => match self.read(&map) {
                Ok(Some(table)) => {
                    self.unwritten = Some(table);
                    self.write();
                }
                // Made, but not filled by the controller yet.
                Ok(None) => self.trouble = None,
                Err(error) => {
                    self.complain(format!("the ConfigMap {} cannot be used: {error}", self.options.config_map))
                }
            },
            Ok(Event::Delete(_)) => {
                self.complain(format!("the ConfigMap {} was removed", self.options.config_map));
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => self.complain(format!("the API server does not tell of routes: {}", chain(&error))),
        }
    }

    fn read(&self, map: &ConfigMap) -> Result<Option<RouteTable>, RoutesError> {
        let text = map.data.as_ref().and_then(|data| data.get(&self.options.key));
        text.map(|text| decode(text.as_bytes())).transpose()
    }

    fn write(&mut self) {
        let Some(table) = &self.unwritten else { return };
        match pass_on(&self.options.routes_file, table) {
            Ok(written) => {
                if written {
                    tracing::info!(epoch = table.epoch, seq = table.seq, "the routes were passed on");
                }
                self.unwritten = None;
                self.trouble = None;
                self.ready();
            }
            Err(error) => self.complain(error.to_string()),
        }
    }

    fn complain(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!("the load balancer keeps the routes it has: {trouble}");
            self.trouble = Some(trouble);
        }
    }

    /// Tells the supervisor, once, that there are routes.
    fn ready(&mut self) {
        if std::mem::replace(&mut self.is_ready, true) {
            return;
        }
        let Some(path) = &self.options.notify_socket else { return };
        let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"READY=1\n", path));
        if let Err(error) = sent {
            tracing::warn!("init cannot be told that there are routes: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
