//! A fake cluster with what is not ours in it, a home, and providers for both.

use serde_json::{Value, json};
use skyserve_fake_kube::FakeKube;
use skyserve_home::Home;
use skyserve_manifests::names::Names;
use skyserve_manifests::{Owner, OwnerKind};
use skyserve_model::{LaunchSpec, Observation, Phase, ReplicaId, ReplicaUid, Version};
use skyserve_provider::Provider;
use skyserve_provider::kubernetes::{Bounds, KubernetesProvider, KubernetesSite};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) const NAMESPACE: &str = "sky";
/// How long anything may take before a test fails: far more than it does on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Pause of the controller before it calls again; the model's own is longer.
pub(crate) const CALL_PAUSE: Duration = Duration::from_millis(10);
/// How often the provider is asked for all it has; the controller's own interval is a minute.
const LIST_INTERVAL: Duration = Duration::from_millis(150);

/// Bounds that make a hung call a matter of a second, and not of a busy machine. Patience is above the second that a
/// busy server asks for.
pub(crate) fn bounds() -> Bounds {
    Bounds {
        answer: Duration::from_secs(1),
        patience: Duration::from_secs(3),
        pause_first: Duration::from_millis(5),
        pause_max: Duration::from_millis(50),
        watch: Duration::from_secs(1),
        provision: Duration::from_secs(60),
        log: Duration::from_secs(1),
        word: Duration::from_millis(200),
        removal: Duration::from_millis(600),
    }
}

pub(crate) struct Rig {
    pub(crate) fake: FakeKube,
    temp: tempfile::TempDir,
    pub(crate) names: Names,
    /// Resource and name of what is not ours.
    pub(crate) foreign: Mutex<Vec<(&'static str, String)>>,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let rig = Self {
            fake: FakeKube::start().await.unwrap(),
            temp: tempfile::tempdir().unwrap(),
            names: Names::of_user("0123abcd"),
            foreign: Mutex::default(),
        };
        for (resource, object) in foreigners() {
            rig.add_foreign(resource, object);
        }
        rig
    }

    /// Makes something that is not ours.
    pub(crate) fn add_foreign(&self, resource: &'static str, object: Value) {
        let made = self.fake.create(resource, NAMESPACE, object).unwrap();
        let name = made["metadata"]["name"].as_str().unwrap().to_owned();
        self.foreign.lock().unwrap().push((resource, name));
    }

    pub(crate) fn home(&self) -> Home {
        self.home_of("home")
    }

    /// Another volume.
    pub(crate) fn home_of(&self, name: &str) -> Home {
        let home = Home::at(self.temp.path().join(name), self.temp.path().join("run"));
        home.make_dirs().unwrap();
        home
    }

    /// A provider for this home, as each controller of it makes one.
    pub(crate) fn provider(&self) -> KubernetesProvider {
        self.provider_with(bounds())
    }

    pub(crate) fn provider_with(&self, bounds: Bounds) -> KubernetesProvider {
        self.provider_at(self.home(), bounds)
    }

    pub(crate) fn provider_at(&self, home: Home, bounds: Bounds) -> KubernetesProvider {
        KubernetesProvider::new(KubernetesSite {
            client: self.fake.client().unwrap(),
            home,
            names: self.names.clone(),
            namespace: NAMESPACE.to_owned(),
            image: "skyserve:test".to_owned(),
            config: skyserve_spec::config::KubernetesConfig::default(),
            bundle_url: "http://10.1.1.1:9091".to_owned(),
            token: None,
            owner: Owner {
                kind: OwnerKind::Deployment,
                name: self.names.deployment(),
                uid: "00000000-0000-4000-9000-000000000001".to_owned(),
            },
            bounds,
        })
    }

    pub(crate) fn pod_name(&self, spec: &LaunchSpec) -> String {
        self.names.replica(spec.uid.as_str())
    }

    /// The pod of this replica, whatever it is called.
    pub(crate) fn pods_of(&self, uid: &ReplicaUid) -> Vec<Value> {
        let named = |pod: &Value| pod["metadata"]["annotations"]["skyserve.dev/uid"] == uid.as_str();
        self.fake.objects("pods", NAMESPACE).into_iter().filter(named).collect()
    }

    /// Waits until the world is so.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waited = timeout(PATIENCE, async {
            while !holds(self) {
                // What changes between the look and the wait is looked at a moment later.
                let _ = timeout(Duration::from_millis(20), self.fake.changed()).await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: not within {PATIENCE:?}; calls: {:?}", self.fake.calls());
    }
}

/// What somebody else has in the namespace; some of it nearly like ours.
fn foreigners() -> Vec<(&'static str, Value)> {
    let labels = json!({"skyserve.dev/controller": "sky-serve-controller-ffffffff", "skyserve.dev/component": "replica",
        "skyserve.dev/replica": "svc-1-1"});
    let annotations = json!({"skyserve.dev/uid": "svc-1-1", "skyserve.dev/port": "8080"});
    vec![
        ("pods", json!({"metadata": {"name": "database"}, "spec": {"containers": [{"name": "postgres"}]}})),
        (
            "pods",
            json!({"metadata": {"name": "sky-replica-svc-1-1-ffffffff", "labels": labels, "annotations": annotations},
                "spec": {"containers": [{"name": "replica"}]}}),
        ),
        ("secrets", json!({"metadata": {"name": "password"}, "data": {}})),
    ]
}

pub(crate) fn spec(number: u64) -> LaunchSpec {
    LaunchSpec {
        uid: ReplicaUid::new("svc", 1, ReplicaId(number)),
        service: "svc".to_owned(),
        replica_id: ReplicaId(number),
        version: Version(1),
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
    }
}

/// What a controller believes of replicas: what it is told, and what the list shows now and then.
pub(crate) struct Belief<'a, P> {
    provider: &'a P,
    told: mpsc::Receiver<Observation>,
    pub(crate) phases: BTreeMap<ReplicaUid, Phase>,
    /// Everything it was told, in order.
    pub(crate) all: Vec<Observation>,
    lists: bool,
    list_at: Instant,
}

impl<'a, P: Provider> Belief<'a, P> {
    pub(crate) fn new(provider: &'a P, lists: bool) -> Self {
        let (told, list_at) = (provider.observe(), Instant::now());
        Self { provider, told, phases: BTreeMap::new(), all: Vec::new(), lists, list_at }
    }

    /// Listens until it is so; false if it is not in time.
    pub(crate) async fn comes_to(&mut self, holds: impl Fn(&BTreeMap<ReplicaUid, Phase>) -> bool) -> bool {
        self.comes_to_within(PATIENCE, holds).await
    }

    pub(crate) async fn comes_to_within(
        &mut self,
        patience: Duration,
        holds: impl Fn(&BTreeMap<ReplicaUid, Phase>) -> bool,
    ) -> bool {
        let end = Instant::now() + patience;
        while !holds(&self.phases) {
            match timeout_at(end.min(self.list_at), self.told.recv()).await {
                Ok(Some(observation)) => {
                    self.all.push(observation.clone());
                    self.phases.insert(observation.uid, observation.phase);
                }
                Ok(None) => return false,
                Err(_) if Instant::now() >= end => return false,
                Err(_) => self.list().await,
            }
        }
        true
    }

    async fn list(&mut self) {
        self.list_at = Instant::now() + LIST_INTERVAL;
        if !self.lists {
            return;
        }
        let Ok(listed) = self.provider.list().await else { return };
        let listed: BTreeMap<_, _> = listed.into_iter().map(|seen| (seen.uid, seen.phase)).collect();
        for (uid, phase) in &mut self.phases {
            *phase = listed.get(uid).cloned().unwrap_or(Phase::Absent);
        }
        self.phases.extend(listed);
    }
}

/// Calls as the controller does: again while that may help.
pub(crate) async fn persist<F: Future<Output = Result<(), skyserve_provider::ProviderError>>>(
    call: impl Fn() -> F,
) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Ok(()) => return Ok(()),
            Err(error) if error.retryable && Instant::now() < end => tokio::time::sleep(CALL_PAUSE).await,
            Err(error) => return Err(error.message),
        }
    }
}
