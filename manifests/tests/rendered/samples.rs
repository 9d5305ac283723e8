//! The cases that are looked at: each has a name, and the objects of it.

use skyserve_manifests::endpoint::{self, EndpointInput};
use skyserve_manifests::names::Names;
use skyserve_manifests::replica::{self, ReplicaInput};
use skyserve_manifests::{ControllerInput, Object, Owner, OwnerKind, owned_by, render};
use skyserve_model::{Amount, LaunchSpec, LaunchTemplate, ReplicaId, ReplicaUid, Version};
use skyserve_spec::config::{Config, EndpointKind, KubernetesConfig};
use std::collections::BTreeMap;

pub(crate) const IMAGE: &str = "registry.example/skyserve:0.1.0";

const HA: &str = "serve: {controller: {resources: {cloud: kubernetes}, high_availability: true}}";
const NOT_HA: &str = "serve: {controller: {resources: {cloud: kubernetes}}}";
const EVERYTHING: &str = "
serve:
  controller:
    high_availability: true
    resources: {infra: kubernetes/mine, cpus: 2+, memory: 4, disk_size: 100, image_id: 'docker:registry.example/own:1'}
  load_balancer: {ports: 30001-30100, replicas: 3, threads: 2, drain_seconds: 60}
kubernetes:
  ports: ingress
  unreachable_seconds: 10
  disruption_budget: true
  pod_monitor: true
  high_availability: {storage_class_name: fast}
  pod_config: {spec: {imagePullSecrets: [{name: registry}]}}
";
const LOAD_BALANCERS: &str = "
serve:
  controller: {high_availability: true}
  load_balancer: {replicas: 3}
kubernetes: {network_policy: false}
";
/// What SkyPilot's documentation shows, and what quotas and private registries ask for.
const POD_CONFIG: &str = "
kubernetes:
  replica_image: registry.example/replica:1
  pod_config:
    metadata:
      labels: {team: models}
      annotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: 'false'}
    spec:
      imagePullSecrets: [{name: registry}]
      schedulerName: volcano
      securityContext: {runAsUser: 1234}
      tolerations: [{key: team, operator: Equal, value: models, effect: NoSchedule}]
      volumes: [{name: cache, emptyDir: {medium: Memory, sizeLimit: 3Gi}}]
      initContainers: [{name: prepare, resources: {requests: {cpu: 100m}}}]
      containers:
        - env: [{name: HTTP_PROXY, value: 'http://proxy:3128'}]
          resources: {requests: {ephemeral-storage: 1}}
          volumeMounts: [{name: cache, mountPath: /dev/shm}]
";

#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) objects: Vec<Object>,
}

pub(crate) fn config(yaml: &str) -> Config {
    Config::parse(yaml.as_bytes(), "config.yaml").unwrap_or_else(|error| panic!("{error}")).0
}

pub(crate) fn controller(namespace: &str, yaml: &str) -> ControllerInput {
    let config = config(yaml);
    let image = config.controller_image().unwrap_or(IMAGE).to_owned();
    ControllerInput { names: names(), namespace: namespace.to_owned(), image, config }
}

pub(crate) fn names() -> Names {
    Names::of_user("0123abcd")
}

pub(crate) fn owner() -> Owner {
    let uid = "11111111-2222-3333-4444-555555555555".to_owned();
    Owner { kind: OwnerKind::Deployment, name: names().deployment(), uid }
}

/// Every case, in this namespace.
pub(crate) fn all(namespace: &str) -> Vec<Sample> {
    let rendered = |yaml| render(&controller(namespace, yaml)).unwrap();
    let mut samples = vec![
        Sample { name: "ha", objects: rendered(HA) },
        Sample { name: "ha-owned", objects: owned_by(rendered(HA), &owner()) },
        Sample { name: "ha-everything", objects: rendered(EVERYTHING) },
        Sample { name: "not-ha", objects: rendered(NOT_HA) },
        Sample { name: "load-balancers", objects: rendered(LOAD_BALANCERS) },
        Sample { name: "replica-minimal", objects: replica(namespace, "", &minimal()) },
        Sample { name: "replica-everything", objects: replica(namespace, POD_CONFIG, &everything()) },
    ];
    let kinds = [
        ("endpoint-loadbalancer", EndpointKind::LoadBalancer),
        ("endpoint-nodeport", EndpointKind::NodePort),
        ("endpoint-ingress", EndpointKind::Ingress),
        ("endpoint-podip", EndpointKind::PodIp),
    ];
    samples.extend(kinds.map(|(name, kind)| Sample { name, objects: endpoint(namespace, kind) }));
    samples
}

fn endpoint(namespace: &str, kind: EndpointKind) -> Vec<Object> {
    let (names, owner) = (names(), owner());
    let input = EndpointInput { names: &names, namespace, owner: &owner, service: "my-http-service", port: 30001 };
    let mut objects = vec![Object::of(&endpoint::service(&input, kind))];
    if kind == EndpointKind::Ingress {
        objects.push(Object::of(&endpoint::ingress(&input)));
    }
    objects
}

fn replica(namespace: &str, yaml: &str, launch: &LaunchSpec) -> Vec<Object> {
    with_replica_input(namespace, &config(yaml).kubernetes, |input| {
        let pod = replica::pod(input, launch).unwrap();
        let uid = "99999999-8888-7777-6666-555555555555";
        let token = launch.bundle.as_ref().map(|_| "bundle-token");
        vec![Object::of(&pod), Object::of(&replica::secret(input, launch, uid, token).unwrap())]
    })
}

pub(crate) fn with_replica_input<T>(
    namespace: &str,
    config: &KubernetesConfig,
    work: impl FnOnce(&ReplicaInput<'_>) -> T,
) -> T {
    let (names, owner) = (names(), owner());
    let bundle_url = "http://10.202.0.7:9091";
    work(&ReplicaInput { names: &names, namespace, image: IMAGE, config, bundle_url, owner: &owner })
}

/// The seed's example.
pub(crate) fn minimal() -> LaunchSpec {
    launch("my-http-service", LaunchTemplate { cpus: Some(Amount { value: 1.0, or_more: false }), ..template() })
}

pub(crate) fn everything() -> LaunchSpec {
    let text = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let template = LaunchTemplate {
        setup: Some("pip install vllm".to_owned()),
        envs: text(&[("MODEL", "small")]),
        secrets: text(&[("HF_TOKEN", "hf_secret")]),
        ports: vec![8080, 9000],
        cpus: Some(Amount { value: 2.5, or_more: true }),
        memory_gb: Some(Amount { value: 16.0, or_more: false }),
        accelerators: BTreeMap::from([("H100".to_owned(), 2.0)]),
        use_spot: true,
        image: Some("vllm/vllm-openai:latest".to_owned()),
        bundle: Some("0123".repeat(16)),
        has_workdir: true,
        file_mounts: vec!["/data".to_owned()],
        ..template()
    };
    launch("My_Service", template)
}

pub(crate) fn launch(service: &str, template: LaunchTemplate) -> LaunchSpec {
    let id = ReplicaId(2);
    template.for_replica(service, ReplicaUid::new(service, 7, id), id, Version(3))
}

pub(crate) fn template() -> LaunchTemplate {
    LaunchTemplate {
        setup: None,
        run: Some("python3 -m http.server 8080 --bind 0.0.0.0".to_owned()),
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
