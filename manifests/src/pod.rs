//! What all pods that run our own image have in common: who they run as, what they may write to, how they are probed,
//! and how long they stay on a node that is lost.

use crate::error::ManifestError;
use crate::input::{ControllerInput, Texts, texts};
use crate::names::{
    CONFIG_PATH, CONFIG_VARIABLE, CONTROLLER_VARIABLE, HIGH_AVAILABILITY_VARIABLE, HOME_DIR, IMAGE_VARIABLE,
    METRICS_PORT, NAMESPACE_VARIABLE, NODE_IP_VARIABLE, POD_IP_VARIABLE, POD_UID_VARIABLE, POD_VARIABLE, RUNTIME_DIR,
    RUNTIME_DIR_VARIABLE, RUNTIME_MOUNT,
};
use crate::quantity::Amounts;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, ObjectFieldSelector, PodSecurityContext, Probe, ResourceRequirements, SeccompProfile,
    SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use skyserve_model::Amount;

/// Our program in our image.
pub(crate) const PROGRAM: &str = "/usr/local/bin/skyserve";
/// The user and group `sky` of our image.
pub(crate) const USER: i64 = 1000;

/// From the end of the drain to SIGKILL: the roles write their last transaction, and PID 1 reaps what is left.
const STOP_MARGIN_SECONDS: i64 = 15;
/// Asked for by default: what a controller or a load balancer needs when little happens.
const CPU_DEFAULT: &str = "100m";
const MEMORY_DEFAULT: &str = "128Mi";

const HOME_VOLUME: &str = "home";
const CONFIG_VOLUME: &str = "config";
/// The home, while the image's own home is to be read too.
const VOLUME_DIR: &str = "/volume";

/// Fills the volume with the image's home, the first time. An entry is copied under another name first, so it is there
/// whole or not at all, and a start that was cut off is taken up by the next. What the volume already has (a backup that
/// was put back) stays. The mark is written last.
const COPY_HOME: &str = r#"set -eu
mark=/volume/.skyserve-home
[ ! -e "$mark" ] || exit 0
cd /home/sky
for entry in * .[!.]* ..?*; do
  [ -e "$entry" ] || [ -L "$entry" ] || continue
  [ ! -e "/volume/$entry" ] || continue
  rm -rf /volume/.skyserve-copy
  cp -a "$entry" /volume/.skyserve-copy
  mv /volume/.skyserve-copy "/volume/$entry"
done
sync
: > "$mark"
"#;

/// Runs as nobody special, and what it starts cannot become root.
pub(crate) fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        seccomp_profile: Some(runtime_default()),
        ..SecurityContext::default()
    }
}

/// A new volume belongs to root: its group is made ours, once (a chown of every file at every start takes minutes).
pub(crate) fn restricted_pod() -> PodSecurityContext {
    PodSecurityContext {
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        seccomp_profile: Some(runtime_default()),
        ..PodSecurityContext::default()
    }
}

pub(crate) fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }
}

/// How long the pod stays on a node that is lost: 300 s unless it says so itself.
pub(crate) fn unreachable_tolerations(seconds: u32) -> Vec<Toleration> {
    ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
        .into_iter()
        .map(|key| Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            toleration_seconds: Some(seconds.into()),
            ..Toleration::default()
        })
        .collect()
}

pub(crate) fn termination_grace_seconds(input: &ControllerInput) -> i64 {
    i64::from(input.config.load_balancer.drain_seconds) + STOP_MARGIN_SECONDS
}

/// Whoever scrapes by annotations finds the metrics.
pub(crate) fn scrape_annotations() -> Texts {
    let port = METRICS_PORT.to_string();
    texts([("prometheus.io/scrape", "true"), ("prometheus.io/port", &port), ("prometheus.io/path", "/metrics")])
}

pub(crate) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() }
}

/// What only the pod itself knows (the downward API).
pub(crate) fn own_field(name: &str, field_path: &str) -> EnvVar {
    let field_ref = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: field_path.to_owned() };
    let value_from = Some(EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() });
    EnvVar { name: name.to_owned(), value_from, ..EnvVar::default() }
}

fn environment(input: &ControllerInput) -> Vec<EnvVar> {
    vec![
        variable("HOME", HOME_DIR),
        variable(CONTROLLER_VARIABLE, &input.names.controller),
        own_field(NAMESPACE_VARIABLE, "metadata.namespace"),
        own_field(POD_VARIABLE, "metadata.name"),
        own_field(POD_UID_VARIABLE, "metadata.uid"),
        own_field(POD_IP_VARIABLE, "status.podIP"),
        own_field(NODE_IP_VARIABLE, "status.hostIP"),
        variable(HIGH_AVAILABILITY_VARIABLE, if input.config.high_availability { "true" } else { "false" }),
        variable(IMAGE_VARIABLE, &input.image),
        variable(CONFIG_VARIABLE, CONFIG_PATH),
        variable(RUNTIME_DIR_VARIABLE, RUNTIME_DIR),
    ]
}

/// `serve.controller.resources`, as requests and limits.
pub(crate) fn requirements(input: &ControllerInput) -> Result<Option<ResourceRequirements>, ManifestError> {
    let asked = &input.config.controller_resources;
    let amount = |amount: skyserve_spec::Amount| Amount { value: amount.value, or_more: amount.or_more };
    let mut amounts = Amounts::default();
    amounts.cpus(asked.cpus().map(amount))?;
    amounts.memory_gb(asked.memory_gb().map(amount))?;
    amounts.request_by_default("cpu", CPU_DEFAULT);
    amounts.request_by_default("memory", MEMORY_DEFAULT);
    Ok(amounts.requirements())
}

/// What may differ between two containers that run `skyserve init`.
#[derive(Debug)]
pub(crate) struct Ours<'a> {
    pub(crate) name: &'a str,
    /// Options of `init`.
    pub(crate) options: &'a [&'a str],
    pub(crate) ports: Vec<ContainerPort>,
    pub(crate) resources: Option<ResourceRequirements>,
}

/// A container that runs `skyserve init`. Everything it writes is in its home, its runtime folder or /tmp.
pub(crate) fn container(input: &ControllerInput, ours: Ours<'_>) -> Container {
    let words = [PROGRAM, "init"].iter().chain(ours.options);
    Container {
        name: ours.name.to_owned(),
        image: Some(input.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(words.map(|word| (*word).to_owned()).collect()),
        env: Some(environment(input)),
        ports: Some(ours.ports),
        readiness_probe: Some(readiness()),
        liveness_probe: Some(liveness()),
        resources: ours.resources,
        security_context: Some(restricted()),
        // The last lines of the log, for `kubectl describe`, when it ends with an error.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![
            mount(HOME_VOLUME, HOME_DIR),
            mount("run", RUNTIME_MOUNT),
            mount("tmp", "/tmp"),
            VolumeMount { read_only: Some(true), ..mount(CONFIG_VOLUME, config_dir()) },
        ]),
        ..Container::default()
    }
}

/// Whether requests may come. Once a second, because until it passes no request does; three failures, because one
/// may be a node that is busy. There is no startup probe: the load balancer listens before anything else is recovered.
fn readiness() -> Probe {
    Probe { period_seconds: Some(1), failure_threshold: Some(3), timeout_seconds: Some(2), ..probe("/readyz") }
}

/// Whether the pod is beyond help. `/healthz` is answered by the load balancer whatever the controller does, and PID 1
/// restarts a load balancer that died in milliseconds: only one that hangs for a minute is killed.
fn liveness() -> Probe {
    Probe { period_seconds: Some(10), failure_threshold: Some(6), timeout_seconds: Some(5), ..probe("/healthz") }
}

fn probe(path: &str) -> Probe {
    let port = IntOrString::Int(METRICS_PORT.into());
    let http_get = HTTPGetAction { path: Some(path.to_owned()), port, ..HTTPGetAction::default() };
    Probe { http_get: Some(http_get), ..Probe::default() }
}

pub(crate) fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

pub(crate) fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

pub(crate) fn empty_dir(name: &str) -> Volume {
    Volume { name: name.to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

/// The volumes of a pod with [`container`]; `home` is what its home is on.
pub(crate) fn volumes(input: &ControllerInput, home: Volume) -> Vec<Volume> {
    let config = ConfigMapVolumeSource { name: input.names.config(), ..ConfigMapVolumeSource::default() };
    vec![
        Volume { name: HOME_VOLUME.to_owned(), ..home },
        empty_dir("run"),
        empty_dir("tmp"),
        Volume { name: CONFIG_VOLUME.to_owned(), config_map: Some(config), ..Volume::default() },
    ]
}

/// The init container that gives an empty home what the image's home holds.
pub(crate) fn copy_home(input: &ControllerInput, resources: Option<ResourceRequirements>) -> Container {
    Container {
        name: "copy-home".to_owned(),
        image: Some(input.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(["/bin/sh", "-c", COPY_HOME].map(str::to_owned).to_vec()),
        resources,
        security_context: Some(restricted()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![mount(HOME_VOLUME, VOLUME_DIR)]),
        ..Container::default()
    }
}

fn config_dir() -> &'static str {
    CONFIG_PATH.rsplit_once('/').map_or("/", |(folder, _)| folder)
}
