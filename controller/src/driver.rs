//! Runs the core on the real world.
//!
//! One thread owns the core, the database and the route table file: it decides, stores, publishes, and
//! hands out work. Everything that waits for somebody else (provider calls, probes, the load
//! balancer, the API) runs on the IO runtime and tells the control thread by message. So a slow disk
//! delays decisions only, and a slow replica delays nothing.

use crate::ControllerError;
use crate::backups::Backups;
use crate::clock::Clock;
use crate::core::{Core, Fatal, Input, Output};
use crate::exposure::{Exposed, Exposure, Listening, Wanted};
use crate::load_balancers::map::RoutesMap;
use crate::load_balancers::reports::Reports;
use crate::probe;
use skyserve_api::{Changes, ControllerView, ServiceView};
use skyserve_home::Home;
use skyserve_model::{CallFailure, OperationKind, ReplicaId, ReplicaUid, Service, Timestamp};
use skyserve_provider::{Provider, ProviderError};
use skyserve_recovery::SqliteStore;
use skyserve_routes::{RouteTable, RoutesError, TableVersion};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Messages that may wait for the control thread; senders wait beyond it.
pub(crate) const MESSAGES_QUEUED_MAX: usize = 4096;
/// Messages taken before routes are published and work is handed out: groups what comes at once.
const MESSAGES_AT_ONCE_MAX: usize = 256;
/// How often the load balancer is asked while nothing waits for its answer.
const REPORT_INTERVAL_IDLE: Duration = Duration::from_secs(10);
/// News of where endpoints are that may wait; whoever tells waits beyond it.
const EXPOSED_QUEUED_MAX: usize = 64;
/// How often the controller looks whether another has taken over, when nothing else tells. The load balancer's report
/// comes as often, so this wakes nobody.
const CURRENT_CHECK_MS: u64 = 9_000;
/// Pause before a route table that could not be written is written again.
const PUBLISH_RETRY_MS: u64 = 1_000;

/// Longest provider call: a replica's grace to end is part of it, a provider's own bounds are shorter. Without a
/// bound a call that is never answered would hold its operation for ever.
const CALL_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest wait for the provider's list, which looks and changes nothing.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

fn no_answer(limit: Duration) -> String {
    format!("the provider did not answer within {} s", limit.as_secs())
}

/// The core on its database.
pub(crate) type ControllerCore = Core<SqliteStore>;

/// Something that a user asked for.
pub(crate) type Request = dyn FnOnce(&mut ControllerCore, Timestamp) -> Result<(), Fatal> + Send;

/// What the control thread takes.
pub(crate) enum Message {
    Input(Input),
    /// Something a user asked for; answers by itself.
    Request(Box<Request>),
    /// End now; what is under way is derived again at the next start.
    Stop,
    /// Load balancers have routes that this controller did not publish, and that are later.
    MapIsAhead {
        map: String,
        later: TableVersion,
    },
}

/// What the API shows, replaced as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) controller: ControllerView,
    pub(crate) services: Vec<Arc<ServiceView>>,
    /// Where each service's endpoint listens.
    pub(crate) endpoints: Wanted,
    pub(crate) has_listed: bool,
}

impl Snapshot {
    pub(crate) fn of(core: &ControllerCore) -> Self {
        Self {
            controller: ControllerView {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                process_id: std::process::id(),
                epoch: core.epoch().0,
                revision: core.revision(),
                metrics_address: core.metrics_address().map(|address| address.to_string()),
                trouble: core.trouble().map(str::to_owned),
            },
            services: core.views(),
            endpoints: core.services().map(endpoint).collect(),
            has_listed: core.has_listed(),
        }
    }

    pub(crate) fn changes(&self) -> Changes {
        Changes {
            revision: self.controller.revision,
            services: self.services.iter().map(|view| ServiceView::clone(view)).collect(),
        }
    }
}

fn endpoint(service: &Service) -> (String, Listening) {
    let head = &service.head;
    (head.name.clone(), Listening { port: head.listen.port(), incarnation: head.incarnation })
}

/// The control thread's surroundings.
pub(crate) struct Control<P> {
    pub(crate) core: ControllerCore,
    pub(crate) clock: Clock,
    pub(crate) home: Home,
    pub(crate) provider: Arc<P>,
    pub(crate) io: Handle,
    pub(crate) messages: mpsc::Sender<Message>,
    pub(crate) snapshot: watch::Sender<Snapshot>,
    /// Whether the load balancer is to be asked often.
    pub(crate) awaits_load: watch::Sender<bool>,
    pub(crate) probes: HashMap<ReplicaUid, AbortHandle>,
    pub(crate) publish_again_at: Option<Timestamp>,
    pub(crate) backups: Backups,
    pub(crate) current_until: Timestamp,
    /// The newest table, for load balancers that do not read the file.
    pub(crate) map: watch::Sender<Option<Arc<RouteTable>>>,
}

impl<P: Provider> Control<P> {
    /// Runs until it is told to stop, or cannot go on.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Message>) -> Result<(), ControllerError> {
        loop {
            self.flush()?;
            let others = [self.publish_again_at, self.backups.wake_at()];
            let wake_at = others.into_iter().flatten().fold(self.core.wake_at(), Timestamp::min);
            let first = tokio::select! {
                message = inbox.recv() => message,
                () = tokio::time::sleep(self.clock.until(wake_at)) => continue,
            };
            let Some(first) = first else { return Ok(()) };
            let mut next = Some(first);
            let mut taken = 0;
            while let Some(message) = next.take() {
                match message {
                    Message::Input(input) => self.core.handle(input, self.clock.now())?,
                    Message::Request(request) => request(&mut self.core, self.clock.now())?,
                    Message::Stop => return Ok(()),
                    Message::MapIsAhead { map, later } => return Err(ControllerError::MapIsAhead { map, later }),
                }
                taken += 1;
                if taken < MESSAGES_AT_ONCE_MAX {
                    next = inbox.try_recv().ok();
                }
            }
        }
    }

    fn flush(&mut self) -> Result<(), ControllerError> {
        let now = self.clock.now();
        self.must_be_current(now)?;
        if self.publish_again_at.is_some_and(|moment| moment <= now) {
            self.publish_again_at = None;
            self.core.publish_failed();
        }
        for output in self.core.flush(now)? {
            self.carry_out(output)?;
        }
        self.backups.keep(now, self.core.store().transactions(), self.core.services(), &self.io);
        let revision = self.core.revision();
        if self.snapshot.borrow().controller.revision != revision {
            self.snapshot.send_replace(Snapshot::of(&self.core));
        }
        let awaits = self.core.awaits_load();
        self.awaits_load.send_if_modified(|before| std::mem::replace(before, awaits) != awaits);
        Ok(())
    }

    /// One that was stopped while another took its place ends, even if it has nothing to do.
    fn must_be_current(&mut self, now: Timestamp) -> Result<(), ControllerError> {
        if now < self.current_until {
            return Ok(());
        }
        self.current_until = now.plus_ms(CURRENT_CHECK_MS);
        match self.core.store().must_be_current() {
            Err(error) if error.must_exit() => Err(Fatal(error).into()),
            // What passes by itself says nothing about who is in charge.
            _ => Ok(()),
        }
    }

    fn carry_out(&mut self, output: Output) -> Result<(), ControllerError> {
        match output {
            Output::Publish(table) => {
                let published = skyserve_routes::publish(&self.home.routes_file(), &table);
                if let Err(error @ RoutesError::Overtaken { .. }) = published {
                    return Err(ControllerError::Overtaken(error));
                }
                self.map.send_replace(Some(table));
                if let Err(error) = published {
                    tracing::error!("the load balancer keeps its present routes, trying again: {error}");
                    self.publish_again_at = Some(self.clock.now().plus_ms(PUBLISH_RETRY_MS));
                }
            }
            Output::List => {
                let (provider, messages, began_at) =
                    (Arc::clone(&self.provider), self.messages.clone(), self.clock.now());
                self.io.spawn(async move {
                    let input = match timeout(LIST_TIMEOUT, provider.list()).await {
                        Ok(Ok(observations)) => Input::Listed { observations, began_at },
                        Ok(Err(error)) => Input::ListFailed { message: error.message },
                        Err(_) => Input::ListFailed { message: no_answer(LIST_TIMEOUT) },
                    };
                    let _ = messages.send(Message::Input(input)).await;
                });
            }
            Output::Launch { service, replica, spec } => {
                let provider = Arc::clone(&self.provider);
                let uid = spec.uid.clone();
                self.call(service, replica, uid, OperationKind::Launch, async move { provider.launch(&spec).await });
            }
            Output::Terminate { service, replica, uid, grace_ms } => {
                let (provider, target) = (Arc::clone(&self.provider), uid.clone());
                let call = async move { provider.terminate(&target, grace_ms).await };
                self.call(service, replica, uid, OperationKind::Terminate, call);
            }
            Output::StartProbe { service, replica, uid, address, rules } => {
                let messages = self.messages.clone();
                let probed = uid.clone();
                let task = self.io.spawn(async move {
                    let report = |result| {
                        let (service, uid) = (service.clone(), probed.clone());
                        let input = Input::Probed { service, replica, uid, address, result };
                        let messages = messages.clone();
                        async move {
                            let _ = messages.send(Message::Input(input)).await;
                        }
                    };
                    probe::run(address, &rules.probe, report).await;
                });
                if let Some(earlier) = self.probes.insert(uid, task.abort_handle()) {
                    earlier.abort();
                }
            }
            Output::StopProbe { uid } => {
                if let Some(task) = self.probes.remove(&uid) {
                    task.abort();
                }
            }
        }
        Ok(())
    }

    fn call(
        &self,
        service: String,
        replica: ReplicaId,
        uid: ReplicaUid,
        kind: OperationKind,
        call: impl Future<Output = Result<(), ProviderError>> + Send + 'static,
    ) {
        let messages = self.messages.clone();
        // A panic in a provider must not leave its operation under way for ever, and concerns this replica alone.
        let call = self.io.spawn(skyserve_panics::alone(timeout(CALL_TIMEOUT, call)));
        self.io.spawn(async move {
            let again = |message| Err(CallFailure { message, retryable: true });
            let result = match call.await {
                Ok(Ok(Ok(()))) => Ok(()),
                Ok(Ok(Err(error))) => Err(CallFailure { message: error.message, retryable: error.retryable }),
                Ok(Err(_)) => again(no_answer(CALL_TIMEOUT)),
                Err(error) => again(format!("the call broke off: {error}")),
            };
            let _ = messages.send(Message::Input(Input::Called { service, replica, uid, kind, result })).await;
        });
    }
}

/// Passes on what the provider sees, until either side ends.
pub(crate) async fn observe<P: Provider>(provider: Arc<P>, clock: Clock, messages: mpsc::Sender<Message>) {
    let mut observations = provider.observe();
    while let Some(observation) = observations.recv().await {
        let input = Input::Observed { observation, seen_at: clock.now() };
        if messages.send(Message::Input(input)).await.is_err() {
            return;
        }
    }
    tracing::error!("the provider reports no more; the regular listing finds what changes");
}

/// Has endpoints made reachable from outside, and passes on where they are.
pub(crate) async fn expose(
    exposure: impl Exposure,
    mut snapshots: watch::Receiver<Snapshot>,
    messages: mpsc::Sender<Message>,
) {
    let (want, wanted) = watch::channel(snapshots.borrow_and_update().endpoints.clone());
    let (tell, mut told) = mpsc::channel::<Exposed>(EXPOSED_QUEUED_MAX);
    let keeping = exposure.keep(wanted, tell);
    let following = async {
        while snapshots.changed().await.is_ok() {
            let now = snapshots.borrow_and_update().endpoints.clone();
            want.send_if_modified(|before| {
                *before != now && {
                    *before = now;
                    true
                }
            });
        }
    };
    let telling = async {
        while let Some((service, outside)) = told.recv().await {
            if messages.send(Message::Input(Input::Exposed { service, outside })).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(keeping, following, telling);
}

/// Publishes tables to load balancers in other pods.
pub(crate) async fn publish_to(
    map: RoutesMap,
    tables: watch::Receiver<Option<Arc<RouteTable>>>,
    messages: mpsc::Sender<Message>,
) {
    let name = map.name().to_owned();
    if let Some(later) = map.keep(tables).await {
        let _ = messages.send(Message::MapIsAhead { map: name, later }).await;
    }
}

/// Asks the load balancers how they are: often while something waits for it.
pub(crate) async fn follow_load(
    mut reports: Reports,
    mut often: watch::Receiver<bool>,
    messages: mpsc::Sender<Message>,
) {
    let mut answered = true;
    loop {
        match reports.ask().await {
            Ok(report) => {
                answered = true;
                if messages.send(Message::Input(Input::Load(Box::new(report)))).await.is_err() {
                    return;
                }
            }
            Err(error) if answered => {
                tracing::warn!("no load balancer says how it is (one that has ended is started again): {error}");
                answered = false;
            }
            Err(_) => {}
        }
        let pause = if *often.borrow_and_update() { reports.interval_busy() } else { REPORT_INTERVAL_IDLE };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = often.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
