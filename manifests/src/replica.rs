//! A replica: one pod, and one Secret of the same name with all that it needs to know.
//!
//! The pod comes first and owns the Secret, so that no Secret outlives its pod; the kubelet waits for the Secret.
//! * Init container `prepare` (our image): puts our program and the uploaded files into [`SHARED_DIR`].
//! * Container `replica` (the user's image): our program as PID 1, which runs setup and run.
//!
//! Invariants:
//! * What the user's commands are, and every env and secret, is in the Secret and nowhere else.
//! * The same launch gives the same pod, but for what `kubernetes.pod_config` says meanwhile.
//! * `kubernetes.pod_config` changes nothing that the controller knows a replica by or runs it with (module `pod_config`).

mod placement;
mod pod_config;

use crate::error::ManifestError;
use crate::input::{labels, texts};
use crate::names::{
    BUNDLE_URL_VARIABLE, COMPONENT_REPLICA, NAMESPACE_VARIABLE, Names, POD_IP_VARIABLE, POD_VARIABLE, REPLICA_LABEL,
    SERVICE_ANNOTATION, SERVICE_LABEL, UID_ANNOTATION, label_value,
};
use crate::owner::{Owner, OwnerKind};
use crate::pod::{
    PROGRAM, empty_dir, mount, own_field, restricted, runtime_default, unreachable_tolerations, variable,
};
use crate::quantity::Amounts;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ExecAction, KeyToPath, Pod, PodSecurityContext, PodSpec, Probe, Secret,
    SecretVolumeSource, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use placement::Accelerators;
use skyserve_model::{LaunchSpec, LaunchTemplate, ReplicaId, ReplicaUid, Version};
use skyserve_spec::config::KubernetesConfig;
use std::collections::BTreeMap;

/// Keys of the Secret: the [`LaunchSpec`] as JSON, a file in [`LAUNCH_DIR`], and the token for its bundle, one in
/// [`TOKEN_DIR`].
pub const SECRET_LAUNCH_KEY: &str = "launch.json";
pub const SECRET_TOKEN_KEY: &str = "token";

/// The init container that prepares, and the container that runs the user's commands.
pub const PREPARE_CONTAINER: &str = "prepare";
pub const REPLICA_CONTAINER: &str = "replica";

/// In both containers: `bin/skyserve`, `files/` and `state/`.
pub const SHARED_DIR: &str = "/skyserve";
/// In both containers, read only: the launch.
pub const LAUNCH_DIR: &str = "/skyserve/launch";
/// In [`PREPARE_CONTAINER`] alone, read only, where there are files to fetch: what the user's commands run cannot ask the
/// controller for other services' files.
pub const TOKEN_DIR: &str = "/skyserve/token";
const SHARED_VOLUME: &str = "skyserve";
const LAUNCH_VOLUME: &str = "launch";
const TOKEN_VOLUME: &str = "token";
/// Our program in the user's image.
const SHARED_PROGRAM: &str = "/skyserve/bin/skyserve";

/// From SIGTERM to SIGKILL, for whoever deletes the pod without saying so: Kubernetes' own default.
const TERMINATION_GRACE_SECONDS: i64 = 30;
/// A setup may take as long as it likes (`initial_delay_seconds` is what bounds it): 30 years of seconds.
const SETUP_SECONDS_MAX: i32 = 1_000_000_000;
/// Most that etcd holds of one object is 1.5 MiB; Kubernetes allows a Secret 1 MiB of values.
const SECRET_BYTES_MAX: usize = 1024 * 1024;

/// What replicas' objects follow from, besides the launch.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaInput<'a> {
    pub names: &'a Names,
    pub namespace: &'a str,
    /// The controller's image.
    pub image: &'a str,
    pub config: &'a KubernetesConfig,
    /// `http://ADDRESS:9091`, of the bundle Service.
    pub bundle_url: &'a str,
    /// The controller.
    pub owner: &'a Owner,
}

/// The pod of a replica.
///
/// # Errors
/// [`ManifestError`] when Kubernetes has no way to say what is asked for, or `kubernetes.pod_config` is wrong.
pub fn pod(input: &ReplicaInput<'_>, launch: &LaunchSpec) -> Result<Pod, ManifestError> {
    let accelerators = Accelerators::of(launch)?;
    let metadata = ObjectMeta {
        annotations: Some(texts([(UID_ANNOTATION, launch.uid.as_str()), (SERVICE_ANNOTATION, &launch.service)])),
        ..metadata(input, launch, input.owner.reference())
    };
    let mut tolerations = unreachable_tolerations(input.config.unreachable_seconds);
    tolerations.extend(placement::tolerations(launch, &accelerators));
    let spec = PodSpec {
        init_containers: Some(vec![prepare(input, launch)]),
        containers: vec![replica(input, launch, &accelerators)?],
        volumes: Some(volumes(input, launch)),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(TERMINATION_GRACE_SECONDS),
        // No replica is an account of the cluster, and its environment is the user's alone.
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        // What a user's image runs as is up to the image.
        security_context: Some(PodSecurityContext {
            seccomp_profile: Some(runtime_default()),
            ..PodSecurityContext::default()
        }),
        node_selector: accelerators.node_selector(),
        affinity: placement::affinity(launch),
        topology_spread_constraints: Some(vec![placement::over_nodes(input.names, launch)]),
        tolerations: Some(tolerations),
        ..PodSpec::default()
    };
    let pod = Pod { metadata, spec: Some(spec), ..Pod::default() };
    match &input.config.pod_config {
        Some(pod_config) => pod_config::merged(&pod, pod_config),
        None => Ok(pod),
    }
}

/// The Secret of a replica, for the pod with this uid.
///
/// # Errors
/// [`ManifestError::LaunchTooLarge`].
pub fn secret(
    input: &ReplicaInput<'_>,
    launch: &LaunchSpec,
    pod_uid: &str,
    token: Option<&str>,
) -> Result<Secret, ManifestError> {
    // A launch is plain data with string keys: there is nothing in it that JSON cannot hold but numbers that are none.
    let json = serde_json::to_vec(launch).map_err(|error| ManifestError::Resources(error.to_string()))?;
    let bytes = json.len() + token.map_or(0, str::len);
    if bytes > SECRET_BYTES_MAX {
        let uid = launch.uid.to_string();
        return Err(ManifestError::LaunchTooLarge { uid, bytes, bytes_max: SECRET_BYTES_MAX });
    }
    let mut data = BTreeMap::from([(SECRET_LAUNCH_KEY.to_owned(), ByteString(json))]);
    if let Some(token) = token {
        data.insert(SECRET_TOKEN_KEY.to_owned(), ByteString(token.as_bytes().to_vec()));
    }
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: input.names.replica(launch.uid.as_str()),
        uid: pod_uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    Ok(Secret {
        metadata: metadata(input, launch, owner),
        type_: Some("Opaque".to_owned()),
        immutable: Some(true),
        data: Some(data),
        ..Secret::default()
    })
}

/// Whether `kubernetes.pod_config` is a part of a pod, and leaves alone what is ours: said before anything is made.
///
/// # Errors
/// [`ManifestError::PodConfig`] with the field.
pub fn check_pod_config(config: &KubernetesConfig) -> Result<(), ManifestError> {
    let Some(pod_config) = &config.pod_config else { return Ok(()) };
    pod_config::check_fields(pod_config)?;
    let names = Names { controller: "sky-serve-controller".to_owned() };
    let owner = Owner { kind: OwnerKind::Pod, name: names.pod(), uid: String::new() };
    let input =
        ReplicaInput { names: &names, namespace: "default", image: "image", config, bundle_url: "url", owner: &owner };
    pod(&input, &any_launch()).map(drop)
}

/// A replica like any other, to try a configuration on.
fn any_launch() -> LaunchSpec {
    let template = LaunchTemplate {
        setup: Some(String::new()),
        run: None,
        envs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        port: 1,
        ports: vec![1],
        cpus: None,
        memory_gb: None,
        accelerators: BTreeMap::new(),
        use_spot: false,
        image: None,
        bundle: None,
        has_workdir: false,
        file_mounts: Vec::new(),
    };
    let id = ReplicaId(1);
    template.for_replica("service", ReplicaUid::new("service", 1, id), id, Version(1))
}

fn metadata(input: &ReplicaInput<'_>, launch: &LaunchSpec, owner: OwnerReference) -> ObjectMeta {
    let mut labels = labels(input.names, COMPONENT_REPLICA);
    labels.insert(SERVICE_LABEL.to_owned(), label_value(&launch.service));
    labels.insert(REPLICA_LABEL.to_owned(), label_value(launch.uid.as_str()));
    ObjectMeta {
        name: Some(input.names.replica(launch.uid.as_str())),
        namespace: Some(input.namespace.to_owned()),
        labels: Some(labels),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    }
}

fn mounts() -> Vec<VolumeMount> {
    vec![mount(SHARED_VOLUME, SHARED_DIR), VolumeMount { read_only: Some(true), ..mount(LAUNCH_VOLUME, LAUNCH_DIR) }]
}

fn prepare(input: &ReplicaInput<'_>, launch: &LaunchSpec) -> Container {
    let mut volume_mounts = mounts();
    if launch.bundle.is_some() {
        volume_mounts.push(VolumeMount { read_only: Some(true), ..mount(TOKEN_VOLUME, TOKEN_DIR) });
    }
    Container {
        name: PREPARE_CONTAINER.to_owned(),
        image: Some(input.image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some([PROGRAM, "replica", "prepare"].map(str::to_owned).to_vec()),
        env: Some(vec![variable(BUNDLE_URL_VARIABLE, input.bundle_url)]),
        security_context: Some(restricted()),
        volume_mounts: Some(volume_mounts),
        ..Container::default()
    }
}

fn replica(
    input: &ReplicaInput<'_>,
    launch: &LaunchSpec,
    accelerators: &Accelerators,
) -> Result<Container, ManifestError> {
    let mut amounts = Amounts::default();
    amounts.cpus(launch.cpus)?;
    amounts.memory_gb(launch.memory_gb)?;
    accelerators.ask_for(&mut amounts);
    let port = |port: &u16| ContainerPort {
        container_port: (*port).into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    Ok(Container {
        name: REPLICA_CONTAINER.to_owned(),
        image: Some(launch.image.clone().unwrap_or_else(|| input.config.replica_image.clone())),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some([SHARED_PROGRAM, "replica", "run"].map(str::to_owned).to_vec()),
        env: Some(vec![
            own_field(NAMESPACE_VARIABLE, "metadata.namespace"),
            own_field(POD_VARIABLE, "metadata.name"),
            own_field(POD_IP_VARIABLE, "status.podIP"),
        ]),
        ports: Some(launch.ports.iter().map(port).collect()),
        resources: amounts.requirements(),
        startup_probe: launch.setup.as_ref().map(|_| after_setup()),
        volume_mounts: Some(mounts()),
        ..Container::default()
    })
}

/// Passes once setup is done: Kubernetes then shows the container as started.
fn after_setup() -> Probe {
    let command = Some([SHARED_PROGRAM, "replica", "is-running"].map(str::to_owned).to_vec());
    Probe {
        exec: Some(ExecAction { command }),
        period_seconds: Some(1),
        timeout_seconds: Some(10),
        failure_threshold: Some(SETUP_SECONDS_MAX),
        ..Probe::default()
    }
}

fn volumes(input: &ReplicaInput<'_>, launch: &LaunchSpec) -> Vec<Volume> {
    let one_key = |volume: &str, key: &str| {
        let items = Some(vec![KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None }]);
        let secret_name = Some(input.names.replica(launch.uid.as_str()));
        let secret = SecretVolumeSource { secret_name, items, ..SecretVolumeSource::default() };
        Volume { name: volume.to_owned(), secret: Some(secret), ..Volume::default() }
    };
    let mut volumes = vec![empty_dir(SHARED_VOLUME), one_key(LAUNCH_VOLUME, SECRET_LAUNCH_KEY)];
    if launch.bundle.is_some() {
        volumes.push(one_key(TOKEN_VOLUME, SECRET_TOKEN_KEY));
    }
    volumes
}
