//! The real controller core and its database on the real provider, while everything goes wrong: faults, crashes, pods
//! that others delete, users that change their minds. Then faults stop, and the world becomes what the users asked for.
//! The core's time runs fifty times as fast as ours.

use crate::checks;
use crate::rig::{NAMESPACE, PATIENCE, Rig};
use skyserve_controller::core::{Core, CoreOptions, Held, Input, Output};
use skyserve_fake_kube::{Fault, StreamFault};
use skyserve_model::{
    CallFailure, LaunchTemplate, OperationKind, ProbeRules, ReplicaStatus, ReplicaUid, Timestamp, VersionRules,
};
use skyserve_provider::kubernetes::KubernetesProvider;
use skyserve_provider::{Provider, ProviderError};
use skyserve_recovery::SqliteStore;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

/// How much faster the core's time runs.
const SPEED: u32 = 50;
/// Between two probes of a replica.
const PROBE_PAUSE: Duration = Duration::from_millis(20);
/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(4);
const SEEDS: std::ops::Range<u64> = 1..9;
const SERVICE: &str = "svc";

/// The same numbers for the same seed (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// One controller's tenure, as `driver.rs` runs it but for its threads.
struct Controller {
    core: Core<SqliteStore>,
    provider: Arc<KubernetesProvider>,
    rig: Arc<Rig>,
    began: Instant,
    inputs: mpsc::Receiver<Input>,
    sender: mpsc::Sender<Input>,
    tasks: JoinSet<()>,
    probes: BTreeMap<ReplicaUid, AbortHandle>,
}

impl Controller {
    fn start(rig: &Arc<Rig>, began: Instant) -> Self {
        let opened = SqliteStore::open(&rig.home().database()).unwrap();
        let held = Held { epoch: opened.epoch, next_incarnation: opened.next_incarnation, services: opened.services };
        let options = CoreOptions {
            exposed: false,
            listen_host: [127, 0, 0, 1].into(),
            listen_ports: 30_001..=30_010,
            infra: "Kubernetes".to_owned(),
        };
        let core = Core::new(options, opened.store, held, None, now(began));
        let (sender, inputs) = mpsc::channel(1024);
        let provider = Arc::new(rig.provider());
        let mut tasks = JoinSet::new();
        let (mut told, news) = (provider.observe(), sender.clone());
        tasks.spawn(async move {
            while let Some(observation) = told.recv().await {
                let _ = news.send(Input::Observed { observation, seen_at: now(began) }).await;
            }
        });
        let rig = Arc::clone(rig);
        Self { core, provider, rig, began, inputs, sender, tasks, probes: BTreeMap::new() }
    }

    /// Runs for as long.
    async fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            for output in self.core.flush(now(self.began)).unwrap() {
                self.carry_out(output);
            }
            let wait = self.core.wake_at().since_ms(now(self.began));
            let wake = Instant::now() + Duration::from_millis(wait.min(60_000)) / SPEED;
            if let Ok(Some(input)) = tokio::time::timeout_at(wake.min(end), self.inputs.recv()).await {
                self.core.handle(input, now(self.began)).unwrap();
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        let (provider, sender, began) = (Arc::clone(&self.provider), self.sender.clone(), self.began);
        match output {
            Output::Publish(_) => {}
            Output::List => {
                self.tasks.spawn(async move {
                    let began_at = now(began);
                    let input = match provider.list().await {
                        Ok(observations) => Input::Listed { observations, began_at },
                        Err(error) => Input::ListFailed { message: error.message },
                    };
                    let _ = sender.send(input).await;
                });
            }
            Output::Launch { service, replica, spec } => {
                self.tasks.spawn(async move {
                    let result = provider.launch(&spec).await.map_err(failure);
                    let (uid, kind) = (spec.uid, OperationKind::Launch);
                    let _ = sender.send(Input::Called { service, replica, uid, kind, result }).await;
                });
            }
            Output::Terminate { service, replica, uid, .. } => {
                self.tasks.spawn(async move {
                    let result = provider.terminate(&uid, 1_000).await.map_err(failure);
                    let kind = OperationKind::Terminate;
                    let _ = sender.send(Input::Called { service, replica, uid, kind, result }).await;
                });
            }
            Output::StartProbe { service, replica, uid, address, .. } => {
                let (rig, probed) = (Arc::clone(&self.rig), uid.clone());
                let task = self.tasks.spawn(async move {
                    loop {
                        let result = if serves(&rig, address) { Ok(()) } else { Err("no answer".to_owned()) };
                        let (service, uid) = (service.clone(), probed.clone());
                        let _ = sender.send(Input::Probed { service, replica, uid, address, result }).await;
                        sleep(PROBE_PAUSE).await;
                    }
                });
                if let Some(earlier) = self.probes.insert(uid, task) {
                    earlier.abort();
                }
            }
            Output::StopProbe { uid } => {
                if let Some(task) = self.probes.remove(&uid) {
                    task.abort();
                }
            }
        }
    }

    /// What users want there to be, as far as the core knows: every replica is ready, and none is on its way out.
    fn at_rest(&self, replicas: Option<u32>) -> Option<BTreeSet<ReplicaUid>> {
        let mut uids = BTreeSet::new();
        for service in self.core.services() {
            let kept = |status: ReplicaStatus| status.is_kept_as_record();
            for replica in service.replicas.values() {
                match replica.status {
                    ReplicaStatus::Ready => uids.insert(replica.uid.clone()),
                    status if kept(status) && replica.operation.is_none() => false,
                    _ => return None,
                };
            }
        }
        (uids.len() == replicas.unwrap_or(0) as usize).then_some(uids)
    }
}

fn failure(error: ProviderError) -> CallFailure {
    CallFailure { message: error.message, retryable: error.retryable }
}

fn now(began: Instant) -> Timestamp {
    Timestamp(u64::try_from((began.elapsed() * SPEED).as_millis()).unwrap())
}

/// Whether a pod that runs has this address.
fn serves(rig: &Rig, address: SocketAddr) -> bool {
    let ip = address.ip().to_string();
    rig.fake.objects("pods", NAMESPACE).iter().any(|pod| {
        pod["status"]["podIP"] == ip.as_str()
            && pod["status"]["phase"] == "Running"
            && !pod["metadata"]["deletionTimestamp"].is_string()
    })
}

fn rules(replicas: u32) -> VersionRules {
    VersionRules {
        replicas,
        probe: ProbeRules {
            path: "/".to_owned(),
            post_data: None,
            headers: BTreeMap::new(),
            timeout_ms: 1_000,
            interval_ms: 2_000,
            initial_delay_ms: 120_000,
            failure_threshold_ms: 60_000,
        },
        launch: LaunchTemplate {
            setup: None,
            run: Some("serve".to_owned()),
            envs: BTreeMap::new(),
            secrets: BTreeMap::new(),
            port: 8080,
            ports: vec![8080],
            cpus: None,
            memory_gb: None,
            accelerators: BTreeMap::new(),
            use_spot: false,
            image: None,
            bundle: None,
            has_workdir: false,
            file_mounts: Vec::new(),
        },
        load_balancing_policy: "least_load".to_owned(),
        stream_timeout_ms: 120_000,
        resources: "1x()".to_owned(),
    }
}

/// Lets something go wrong.
fn trouble(rig: &Rig, random: &mut Random) {
    let calls = ["create pods", "create secrets", "get pods", "delete pods", "list pods", "watch pods", "get pods/log"];
    let call = calls[random.below(calls.len())];
    let fault = match random.below(14) {
        0 => Fault::CONFLICT,
        1 => Fault::GONE,
        2 => Fault::BUSY,
        3 => Fault::INTERNAL,
        4 => Fault::UNAVAILABLE,
        5 => Fault::BadGateway,
        6 => Fault::ResetBefore,
        7 => Fault::ResetAfter,
        8 => Fault::HangBefore,
        9 => Fault::HangAfter,
        10 => Fault::HalfAnswer,
        11 => Fault::Stale { changes: 5 },
        12 => Fault::Late { calls: 1 + random.below(30) },
        _ => Fault::UNAUTHORIZED,
    };
    let stream =
        [StreamFault::Drop, StreamFault::BookmarksOnly, StreamFault::Gone, StreamFault::Cut, StreamFault::Silent];
    let fault = match (call, random.below(2)) {
        ("watch pods", 1) => Fault::Stream(stream[random.below(stream.len())].clone()),
        // Lists are carried out when they are asked for, or not at all.
        ("list pods", _) if matches!(fault, Fault::Late { .. }) => Fault::GONE,
        _ => fault,
    };
    let times = 1 + u32::try_from(random.below(3)).unwrap();
    rig.fake.fault(call, fault, times);
}

/// Somebody else deletes a pod of ours.
fn delete_a_pod(rig: &Rig, random: &mut Random) {
    let ours =
        |pod: &serde_json::Value| pod["metadata"]["labels"]["skyserve.dev/controller"] == rig.names.controller.as_str();
    let pods: Vec<_> = rig.fake.objects("pods", NAMESPACE).into_iter().filter(ours).collect();
    if !pods.is_empty() {
        let name = pods[random.below(pods.len())]["metadata"]["name"].as_str().unwrap().to_owned();
        rig.fake.remove("pods", NAMESPACE, &name);
    }
}

/// One campaign; gives what was wrong in the end.
async fn campaign(seed: u64) -> Vec<String> {
    let rig = Arc::new(Rig::new().await);
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let began = Instant::now();
    let mut controller = Controller::start(&rig, began);
    let mut wanted = None;
    while began.elapsed() < TROUBLE {
        match random.below(10) {
            0..=4 => trouble(&rig, &mut random),
            5 | 6 => delete_a_pod(&rig, &mut random),
            7 => {
                // Killed, with whatever it had under way.
                drop(controller);
                controller = Controller::start(&rig, began);
            }
            8 => {
                let replicas = 1 + u32::try_from(random.below(3)).unwrap();
                let up = controller.core.up(SERVICE, rules(replicas), String::new(), &|_| true, now(began));
                wanted = up.map(|_| replicas).ok().or(wanted);
            }
            _ => {
                if controller.core.down(SERVICE, false, now(began)).is_ok() {
                    wanted = None;
                }
            }
        }
        controller.run(Duration::from_millis(10 + random.below(150) as u64)).await;
    }
    rig.fake.heal();
    let healed = Instant::now();
    loop {
        controller.run(Duration::from_millis(50)).await;
        let uids = controller.at_rest(wanted);
        let wrong = uids.as_ref().map_or_else(
            || {
                let rows = controller.core.services().flat_map(|service| service.replicas.values());
                rows.map(|replica| format!("{}: {} {:?}", replica.uid, replica.status, replica.reason)).collect()
            },
            |uids| checks::settled(&rig, uids),
        );
        if (uids.is_some() && wrong.is_empty()) || healed.elapsed() > PATIENCE {
            let late = if uids.is_none() { vec![format!("{wanted:?} wanted, not at rest")] } else { Vec::new() };
            return checks::always(&rig).into_iter().chain(wrong).chain(late).collect();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_everything_happens_to_comes_to_what_its_users_want() {
    let mut campaigns = JoinSet::new();
    for seed in SEEDS {
        campaigns.spawn(async move { (seed, campaign(seed).await) });
    }
    while let Some(ended) = campaigns.join_next().await {
        let (seed, wrong) = ended.unwrap();
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    }
}
