//! Provider `kubernetes` on a real cluster: what a fake one cannot be trusted with, namely what kubelets, schedulers and
//! garbage collectors really do and say.
//!
//! Runs where `KUBECONFIG` names a cluster whose pods can be reached from here and `SKYSERVE_TEST_IMAGE` the
//! controller's image there; it makes a namespace of its own, and removes it. Replicas use the image
//! `SKYSERVE_TEST_REPLICA_IMAGE`, which has python3.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use serde_json::json;
use skyserve_home::Home;
use skyserve_kube::kube::api::{Api, DeleteParams, EvictParams, ListParams, PostParams};
use skyserve_kube::{Cluster, Options, connect};
use skyserve_manifests::names::Names;
use skyserve_manifests::{Owner, OwnerKind};
use skyserve_model::launch::{Amount, Ended, Phase, Stage};
use skyserve_model::{LaunchSpec, Observation, ReplicaId, ReplicaUid, Version};
use skyserve_provider::Provider;
use skyserve_provider::kubernetes::{Bounds, KubernetesProvider, KubernetesSite};
use skyserve_spec::config::KubernetesConfig;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(90);
const SERVES: &str = "python3 -u -m http.server 8080";

struct Site {
    cluster: Cluster,
    provider: KubernetesProvider,
    told: Receiver<Observation>,
    last: BTreeMap<ReplicaUid, Phase>,
    home: Home,
    names: Names,
    _temp: tempfile::TempDir,
}

impl Site {
    async fn new(image: String) -> Self {
        let namespace = format!("skyserve-provider-test-{}", std::process::id());
        let options = Options { namespace: Some(namespace.clone()), ..Options::default() };
        let cluster = connect(&options).await.unwrap();
        let made = json!({"metadata": {"name": namespace}});
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(made).unwrap()).await.unwrap();
        // Admission gives pods an account that is made a moment after the namespace.
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(cluster.client.clone(), &namespace);
        while accounts.get_opt("default").await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let names = Names::of_user("0123abcd");
        let owner = owner(&cluster, &names).await;
        let temp = tempfile::tempdir().unwrap();
        let home = Home::at(temp.path(), temp.path().join("run"));
        home.make_dirs().unwrap();
        let mut config = KubernetesConfig::default();
        config.replica_image = std::env::var("SKYSERVE_TEST_REPLICA_IMAGE").unwrap_or(config.replica_image);
        let provider = KubernetesProvider::new(KubernetesSite {
            client: cluster.client.clone(),
            home: home.clone(),
            names: names.clone(),
            namespace,
            image,
            config,
            bundle_url: "http://127.0.0.1:9091".to_owned(),
            token: None,
            owner,
            bounds: Bounds::default(),
        });
        let told = provider.observe();
        Self { cluster, provider, told, last: BTreeMap::new(), home, names, _temp: temp }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), &self.cluster.namespace)
    }

    fn name(&self, spec: &LaunchSpec) -> String {
        self.names.replica(spec.uid.as_str())
    }

    /// Waits for a phase of the replica, and gives it with all that came before.
    async fn comes_to(&mut self, spec: &LaunchSpec, what: &str, holds: impl Fn(&Phase) -> bool) -> (Phase, Vec<Phase>) {
        let mut before = Vec::new();
        let waited = timeout(PATIENCE, async {
            loop {
                if let Some(phase) = self.last.get(&spec.uid).filter(|phase| holds(phase)) {
                    return phase.clone();
                }
                let observation = self.told.recv().await.unwrap();
                println!("{} {:?}", observation.uid, observation.phase);
                if observation.uid == spec.uid {
                    before.push(observation.phase.clone());
                }
                self.last.insert(observation.uid, observation.phase);
            }
        });
        let phase = waited.await.unwrap_or_else(|_| panic!("{what}: {before:?}"));
        (phase, before)
    }

    async fn runs(&mut self, spec: &LaunchSpec) -> std::net::SocketAddr {
        match self.comes_to(spec, "it runs", |phase| matches!(phase, Phase::Running { .. })).await.0 {
            Phase::Running { address } => address,
            other => panic!("{other:?}"),
        }
    }

    async fn preempted(&mut self, spec: &LaunchSpec) -> String {
        match self.comes_to(spec, "it is preempted", |phase| matches!(phase, Phase::Preempted { .. })).await.0 {
            Phase::Preempted { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn ended(&mut self, spec: &LaunchSpec) -> Ended {
        match self.comes_to(spec, "it ends", |phase| matches!(phase, Phase::Ended(_))).await.0 {
            Phase::Ended(ended) => ended,
            other => panic!("{other:?}"),
        }
    }

    async fn waits_for(&mut self, spec: &LaunchSpec, part: &str) {
        let has =
            |phase: &Phase| matches!(phase, Phase::Provisioning { reason: Some(reason) } if reason.contains(part));
        self.comes_to(spec, part, has).await;
    }

    async fn remove(self) {
        let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        namespaces.delete(&self.cluster.namespace, &DeleteParams::background()).await.unwrap();
    }
}

/// A controller stands behind replicas as their owner: any pod will do here.
async fn owner(cluster: &Cluster, names: &Names) -> Owner {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    // No node takes it: it is there, and runs nothing.
    let spec =
        json!({"nodeSelector": {"skyserve.dev/none": "none"}, "containers": [{"name": "none", "image": "none"}]});
    let pod = json!({"metadata": {"name": names.pod()}, "spec": spec});
    let made = pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    Owner { kind: OwnerKind::Pod, name: names.pod(), uid: made.metadata.uid.unwrap() }
}

fn spec(number: u64, setup: Option<&str>, run: &str) -> LaunchSpec {
    LaunchSpec {
        uid: ReplicaUid::new("svc", 1, ReplicaId(number)),
        service: "svc".to_owned(),
        replica_id: ReplicaId(number),
        version: Version(1),
        setup: setup.map(str::to_owned),
        run: Some(run.to_owned()),
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

async fn answers(address: std::net::SocketAddr) -> bool {
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.contains(" 200 "))
    };
    matches!(timeout(Duration::from_secs(2), exchange).await, Ok(Ok(true)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_live_and_die_on_a_real_cluster() {
    let (Some(_), Ok(image)) = (std::env::var_os("KUBECONFIG"), std::env::var("SKYSERVE_TEST_IMAGE")) else {
        println!("skipped: KUBECONFIG and SKYSERVE_TEST_IMAGE name no cluster and no image to test with");
        return;
    };
    let mut site = Site::new(image).await;
    serves_and_is_taken_down(&mut site).await;
    sets_up_and_fails(&mut site).await;
    cannot_be_made(&mut site).await;
    is_taken_away(&mut site).await;
    site.remove().await;
}

async fn serves_and_is_taken_down(site: &mut Site) {
    let spec = spec(1, None, SERVES);
    site.provider.launch(&spec).await.unwrap();
    site.provider.launch(&spec).await.unwrap();
    let address = site.runs(&spec).await;
    while !answers(address).await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let listed = site.provider.list().await.unwrap();
    assert_eq!(listed, [Observation { uid: spec.uid.clone(), phase: Phase::Running { address } }]);
    let began = std::time::Instant::now();
    site.provider.terminate(&spec.uid, 10_000).await.unwrap();
    println!("terminated in {:?}", began.elapsed());
    assert!(site.pods().get_opt(&site.name(&spec)).await.unwrap().is_none());
    site.provider.terminate(&spec.uid, 10_000).await.unwrap();
    site.provider.launch(&spec).await.unwrap();
    assert!(site.pods().get_opt(&site.name(&spec)).await.unwrap().is_none(), "a uid that was terminated stays so");
    let log = skyserve_provider::process::replica_log_path(&site.home, spec.uid.as_str());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("GET / HTTP/1.0"), "{log}");
    let secrets: Api<Secret> = Api::namespaced(site.cluster.client.clone(), &site.cluster.namespace);
    let collected = timeout(PATIENCE, async {
        while !secrets.list(&ListParams::default()).await.unwrap().items.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    collected.await.expect("the Secret goes with its pod");
}

async fn sets_up_and_fails(site: &mut Site) {
    let served = spec(2, Some("sleep 2"), "sh -c 'exit 3'");
    site.provider.launch(&served).await.unwrap();
    let (phase, before) = site.comes_to(&served, "it ends", |phase| matches!(phase, Phase::Ended(_))).await;
    assert!(before.contains(&Phase::SettingUp), "{before:?}");
    assert!(
        matches!(&phase, Phase::Ended(ended) if ended.stage == Stage::Run && ended.reason.contains("code 3")),
        "{phase:?}"
    );
    let setup = spec(3, Some("exit 4"), SERVES);
    site.provider.launch(&setup).await.unwrap();
    let ended = site.ended(&setup).await;
    assert!(ended.stage == Stage::Setup && ended.reason.contains("code 4"), "{ended:?}");
    let mut hungry = spec(4, None, "python3 -c 'b = bytearray(10**9); b[::4096] = b[::4096]; print(len(b))'");
    hungry.memory_gb = Some(Amount { value: 0.1, or_more: false });
    site.provider.launch(&hungry).await.unwrap();
    let ended = site.ended(&hungry).await;
    println!("out of memory: {ended:?}");
    for spec in [&served, &setup, &hungry] {
        site.provider.terminate(&spec.uid, 1_000).await.unwrap();
    }
}

async fn cannot_be_made(site: &mut Site) {
    let mut large = spec(5, None, SERVES);
    large.cpus = Some(Amount { value: 1_000.0, or_more: false });
    let mut imageless = spec(6, None, SERVES);
    imageless.image = Some("registry.invalid/none:1".to_owned());
    let mut nameless = spec(7, None, SERVES);
    nameless.image = Some("Not An Image".to_owned());
    for spec in [&large, &imageless, &nameless] {
        site.provider.launch(spec).await.unwrap();
    }
    site.waits_for(&large, "Insufficient cpu").await;
    site.waits_for(&imageless, "registry.invalid/none:1").await;
    let ended = site.ended(&nameless).await;
    assert!(ended.stage == Stage::Provision && ended.reason.contains("InvalidImageName"), "{ended:?}");
    for spec in [&large, &imageless, &nameless] {
        site.provider.terminate(&spec.uid, 1_000).await.unwrap();
    }
}

async fn is_taken_away(site: &mut Site) {
    let (evicted, deleted, forced) = (spec(8, None, SERVES), spec(9, None, SERVES), spec(10, None, SERVES));
    for spec in [&evicted, &deleted, &forced] {
        site.provider.launch(spec).await.unwrap();
    }
    for spec in [&evicted, &deleted, &forced] {
        site.runs(spec).await;
    }
    site.pods().evict(&site.name(&evicted), &EvictParams::default()).await.unwrap();
    site.pods().delete(&site.name(&deleted), &DeleteParams::default()).await.unwrap();
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    site.pods().delete(&site.name(&forced), &at_once).await.unwrap();
    for spec in [&evicted, &deleted, &forced] {
        println!("{}", site.preempted(spec).await);
    }
    for spec in [&evicted, &deleted, &forced] {
        site.provider.terminate(&spec.uid, 1_000).await.unwrap();
    }
    assert_eq!(site.provider.list().await.unwrap(), []);
}
