//! What a pod says about its replica: one pure function of the pod as the API server shows it.
//!
//! In this order, since a pod says several things at once:
//! 1. It was taken away (deleted, evicted, preempted, rejected by its node): what its containers then say follows
//!    from that.
//! 2. It ended: its commands did, or it could never be started.
//! 3. It is on its way, and waits for something; or it runs.

use super::identity::{annotation, name};
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod};
use skyserve_manifests::names::PORT_ANNOTATION;
use skyserve_manifests::replica::REPLICA_CONTAINER;
use skyserve_model::launch::{Ended, Phase, Stage};
use std::net::{IpAddr, SocketAddr};

/// What no waiting mends: the image's name is none, or the image may not be pulled and is not there.
const HOPELESS: [&str; 2] = ["InvalidImageName", "ErrImageNeverPull"];
/// Exit codes from here on are signals', by the shell's convention.
const SIGNAL_BASE: i32 = 128;

/// The present phase of the replica that `pod` is.
pub fn phase(pod: &Pod) -> Phase {
    taken_away(pod).or_else(|| ended(pod)).unwrap_or_else(|| alive(pod))
}

fn taken_away(pod: &Pod) -> Option<Phase> {
    let status = pod.status.as_ref();
    let disruption = status
        .and_then(|status| status.conditions.as_ref())
        .and_then(|conditions| conditions.iter().find(|condition| condition.type_ == "DisruptionTarget"))
        .filter(|condition| condition.status == "True");
    let described = disruption.map(|condition| describe(condition.reason.as_deref(), condition.message.as_deref()));
    let name = name(&pod.metadata);
    if pod.metadata.deletion_timestamp.is_some() {
        let why = described.unwrap_or_else(|| "and not by us".to_owned());
        return Some(Phase::Preempted { reason: format!("its pod {name} is being deleted, {why}") });
    }
    if !is_in_phase(pod, "Failed") {
        return None;
    }
    // A pod that failed by its containers says no reason of its own.
    let reason = status.and_then(|status| status.reason.as_deref()).filter(|reason| !reason.is_empty());
    let message = status.and_then(|status| status.message.as_deref());
    match (reason, described) {
        // `activeDeadlineSeconds` of a pod_config: somebody wanted that.
        (Some("DeadlineExceeded"), _) => None,
        (Some(reason), _) => {
            let why = describe(Some(reason), message);
            Some(Phase::Preempted { reason: format!("its pod {name} was taken off its node: {why}") })
        }
        (None, Some(why)) => Some(Phase::Preempted { reason: format!("its pod {name} was taken off its node: {why}") }),
        (None, None) => None,
    }
}

fn ended(pod: &Pod) -> Option<Phase> {
    let run = |reason| Some(Phase::Ended(Ended { stage: Stage::Run, reason }));
    if said(pod).starts_with("DeadlineExceeded") {
        return run(format!("its pod was ended: {}", said(pod)));
    }
    if let Some(terminated) = replica(pod).and_then(terminated) {
        return Some(replica_ended(pod, terminated));
    }
    let provision = |reason| Some(Phase::Ended(Ended { stage: Stage::Provision, reason }));
    for init in inits(pod) {
        if let Some(terminated) = terminated(init).filter(|terminated| terminated.exit_code != 0) {
            let how = told(terminated).map_or_else(|| exit(terminated), |ended| ended.reason);
            return provision(format!("its init container {} failed: {how}", init.name));
        }
    }
    let hopeless =
        |state: &&ContainerStateWaiting| HOPELESS.iter().any(|reason| state.reason.as_deref() == Some(*reason));
    if let Some((container, waiting)) = waiting(pod).find(|(_, state)| hopeless(state)) {
        return provision(format!("its image cannot be used: {}", container_waits(container, waiting)));
    }
    if is_in_phase(pod, "Failed") {
        return provision(format!("its pod failed: {}", said(pod)));
    }
    if is_in_phase(pod, "Succeeded") { run("its pod has ended".to_owned()) } else { None }
}

fn replica_ended(pod: &Pod, terminated: &ContainerStateTerminated) -> Phase {
    let stage = told(terminated).map_or(Stage::Run, |ended| ended.stage);
    match terminated.reason.as_deref() {
        Some("OOMKilled") => {
            let limit = memory_limit(pod).map(|limit| format!(" ({limit})")).unwrap_or_default();
            let reason = format!(
                "it was killed for using more memory than its limit{limit}: raise `resources.memory` (OOMKilled)"
            );
            Phase::Ended(Ended { stage, reason })
        }
        Some("ContainerStatusUnknown") => {
            Phase::Preempted { reason: format!("its node lost track of it: {}", exit(terminated)) }
        }
        Some("StartError" | "ContainerCannotRun") => {
            let reason = format!("its container cannot be started: {}", exit(terminated));
            Phase::Ended(Ended { stage: Stage::Provision, reason })
        }
        _ => Phase::Ended(told(terminated).unwrap_or_else(|| Ended { stage, reason: exit(terminated) })),
    }
}

fn alive(pod: &Pod) -> Phase {
    let provisioning = |reason: String| Phase::Provisioning { reason: Some(reason) };
    if let Some(status) = replica(pod)
        && status.state.as_ref().is_some_and(|state| state.running.is_some())
    {
        let is_set_up = status.started.unwrap_or_else(|| !has_setup(pod));
        return match address(pod) {
            _ if !is_set_up => Phase::SettingUp,
            Some(address) => Phase::Running { address },
            None => provisioning("it runs, and its pod has no address yet".to_owned()),
        };
    }
    if let Some((container, state)) = waiting(pod).find(|(_, state)| !is_ordinary(state)) {
        return provisioning(container_waits(container, state));
    }
    if let Some(init) = inits(pod).find(|init| init.state.as_ref().is_some_and(|state| state.running.is_some())) {
        return provisioning(format!("its init container {} runs: files are fetched", init.name));
    }
    let scheduled = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .and_then(|conditions| conditions.iter().find(|condition| condition.type_ == "PodScheduled"));
    match scheduled {
        Some(condition) if condition.status != "True" => {
            let why = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or("no reason is given");
            provisioning(format!("no node takes it: {why}"))
        }
        Some(_) => {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("its node");
            provisioning(format!("{node} is making it: images, volumes, network"))
        }
        None => provisioning("waiting for a node".to_owned()),
    }
}

/// What the pod says of itself, beside its containers.
fn said(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let reason = status.and_then(|status| status.reason.as_deref());
    describe(reason, status.and_then(|status| status.message.as_deref()))
}

/// What the replica's own program wrote down about its end.
fn told(terminated: &ContainerStateTerminated) -> Option<Ended> {
    serde_json::from_str(terminated.message.as_deref()?.trim()).ok()
}

/// How a container ended, as far as Kubernetes knows.
fn exit(terminated: &ContainerStateTerminated) -> String {
    let code = terminated.exit_code;
    let signal = terminated.signal.filter(|signal| *signal > 0).or((code > SIGNAL_BASE).then(|| code - SIGNAL_BASE));
    let how = match signal {
        Some(signal) => format!("it was killed by signal {signal}"),
        None => format!("it exited with code {code}"),
    };
    let reason = terminated.reason.as_deref().filter(|reason| !matches!(*reason, "Error" | "Completed"));
    match describe(reason, terminated.message.as_deref().map(str::trim)).as_str() {
        "" => how,
        why => format!("{how}: {why}"),
    }
}

fn container_waits(container: &str, state: &ContainerStateWaiting) -> String {
    format!("container {container} waits: {}", describe(state.reason.as_deref(), state.message.as_deref()))
}

/// `reason: message`, of what there is.
fn describe(reason: Option<&str>, message: Option<&str>) -> String {
    let parts = [reason, message].into_iter().flatten().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(": ")
}

/// What every container waits for at first.
fn is_ordinary(state: &ContainerStateWaiting) -> bool {
    matches!(state.reason.as_deref(), None | Some("ContainerCreating" | "PodInitializing"))
}

fn is_in_phase(pod: &Pod, phase: &str) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase)
}

fn replica(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == REPLICA_CONTAINER)
}

fn inits(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten())
}

fn waiting(pod: &Pod) -> impl Iterator<Item = (&str, &ContainerStateWaiting)> {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    inits(pod)
        .chain(containers)
        .filter_map(|status| Some((status.name.as_str(), status.state.as_ref()?.waiting.as_ref()?)))
}

fn terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

fn container(pod: &Pod) -> Option<&Container> {
    pod.spec.as_ref()?.containers.iter().find(|container| container.name == REPLICA_CONTAINER)
}

fn has_setup(pod: &Pod) -> bool {
    container(pod).is_some_and(|container| container.startup_probe.is_some())
}

fn memory_limit(pod: &Pod) -> Option<&str> {
    Some(container(pod)?.resources.as_ref()?.limits.as_ref()?.get("memory")?.0.as_str())
}

/// Where requests go: the pod's primary address, of whichever family.
fn address(pod: &Pod) -> Option<SocketAddr> {
    let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    let port = annotation(&pod.metadata, PORT_ANNOTATION)?.parse().ok()?;
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests;
