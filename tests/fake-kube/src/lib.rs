//! An API server for tests: real HTTP on loopback, and faults that a real one cannot be made to give.
//!
//! It keeps objects of any kind as JSON and gives them UIDs and resource versions; it serves create, get, list (paged,
//! by label and field), watch (with bookmarks), delete (graceful, with preconditions), replace, patch (merged) and pod
//! logs. [`FakeKube::fault`] scripts what goes wrong at which call. A small `kubelet` brings pods up and down and
//! collects garbage, when it is let.
//!
//! What happened is all kept ([`FakeKube::history`]), so that a test can say what must never have been.
#![forbid(unsafe_code)]

mod faults;
mod kubelet;
mod selectors;
mod server;
mod status;
mod store;
mod watch;

pub use faults::{Fault, StreamFault};
pub use kubelet::Kubelet;
pub use store::{Change, ChangeKind};

use faults::Script;
use serde_json::Value;
use skyserve_kube::kube::{Client, Config};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::Store;
use tokio::sync::watch as channel;
use tokio::task::AbortHandle;

/// One fake API server; it ends when dropped.
#[derive(Debug)]
pub struct FakeKube {
    world: Arc<World>,
    address: SocketAddr,
    tasks: Vec<AbortHandle>,
}

#[derive(Debug)]
pub(crate) struct World {
    state: Mutex<State>,
    /// The store's version: wakes watches and the kubelet.
    version: channel::Sender<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) script: Script,
    pub(crate) kubelet: Kubelet,
    /// Calls that were answered, hung or cut: `create pods`.
    pub(crate) calls: Vec<String>,
}

impl FakeKube {
    /// Starts one, with a kubelet at work. Must be called in a tokio runtime.
    pub async fn start() -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let world = Arc::new(World { state: Mutex::default(), version: channel::Sender::new(0) });
        let server = tokio::spawn(server::serve(listener, Arc::clone(&world)));
        let kubelet = tokio::spawn(kubelet::work(Arc::clone(&world)));
        Ok(Self { world, address, tasks: vec![server.abort_handle(), kubelet.abort_handle()] })
    }

    /// A client of it that repeats nothing by itself.
    pub fn client(&self) -> Result<Client, skyserve_kube::kube::Error> {
        let url = format!("http://{}", self.address);
        let mut config = Config::new(url.parse().unwrap_or_default());
        config.default_retry = false;
        Client::try_from(config)
    }

    /// From the next call of this name on (`create pods`, `watch pods`, `get pods/log`), so many of them go wrong.
    pub fn fault(&self, call: &str, fault: Fault, times: u32) {
        self.fault_after(call, 0, fault, times);
    }

    /// The same once so many of them have gone well.
    pub fn fault_after(&self, call: &str, skip: u32, fault: Fault, times: u32) {
        self.world.lock().script.add(call, skip, fault, times);
    }

    /// Faults that have not come to pass yet.
    pub fn faults_left(&self) -> u32 {
        self.world.lock().script.left()
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.world.lock().script.clear();
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<String> {
        self.world.lock().calls.clone()
    }

    /// Changes how the kubelet works from now on.
    pub fn kubelet(&self, change: impl FnOnce(&mut Kubelet)) {
        self.world.change(|state| change(&mut state.kubelet));
    }

    /// The objects of a kind (`pods`) in a namespace.
    pub fn objects(&self, resource: &str, namespace: &str) -> Vec<Value> {
        self.world.lock().store.list(resource, namespace)
    }

    /// Makes an object as somebody else would; gives it as stored.
    pub fn create(&self, resource: &str, namespace: &str, object: Value) -> Option<Value> {
        self.world.change(|state| state.store.create(resource, namespace, object).ok())
    }

    /// Changes an object as somebody else would.
    pub fn change(&self, resource: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        self.world.change(|state| {
            if let Some(mut object) = state.store.get(resource, namespace, name) {
                change(&mut object);
                state.store.put(resource, namespace, object);
            }
        });
    }

    /// Removes an object at once, as `kubectl delete --force` would.
    pub fn remove(&self, resource: &str, namespace: &str, name: &str) {
        self.world.change(|state| state.store.remove(resource, namespace, name));
    }

    /// Forgets what is needed to go on from an older version: watches and pages from there are answered with 410.
    pub fn compact(&self) {
        self.world.change(|state| state.store.compact());
    }

    /// Everything that ever happened to objects.
    pub fn history(&self) -> Vec<Change> {
        self.world.lock().store.history().to_vec()
    }

    /// Waits for the next change of anything.
    pub async fn changed(&self) {
        let _ = self.world.version.subscribe().changed().await;
    }
}

impl Drop for FakeKube {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl World {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whoever waits for that.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let version = state.store.version();
        drop(state);
        self.version.send_replace(version);
        result
    }

    pub(crate) fn versions(&self) -> channel::Receiver<u64> {
        self.version.subscribe()
    }
}
