//! What the controller's pods, as the cluster shows them, mean to somebody who wants to talk to it. Pure.

use crate::output::printable;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};

/// Reasons of a waiting container that a person has to do something about.
const IMAGE_TROUBLES: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
];
const CONFIG_TROUBLES: [&str; 4] =
    ["CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"];

/// The state of the controller's pods, as far as one who wants to talk to it cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PodState {
    /// This one can be talked to.
    Ready { pod: String },
    /// It is on its way; the text says what it waits for.
    Coming { text: String },
    /// It may take a person to get it going.
    Stuck { text: String, crashed: Option<Crashed> },
    /// It has ended, and nothing starts it again.
    Ended { text: String, crashed: Option<Crashed> },
    /// There is none.
    Missing,
}

/// A container that ended, whose last words may say why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Crashed {
    pub(crate) pod: String,
    pub(crate) container: String,
    /// Whether the log to read is that of the container before the present one.
    pub(crate) previous: bool,
}

/// Chooses among the pods of one controller: the newest that is ready and not on its way out, else what is known
/// about the newest that is not on its way out.
pub(crate) fn state(pods: &[Pod]) -> PodState {
    let mut staying: Vec<&Pod> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    staying.sort_by_key(|pod| std::cmp::Reverse(pod.metadata.creation_timestamp.clone()));
    if let Some(ready) = staying.iter().find(|pod| is_ready(pod)) {
        return PodState::Ready { pod: name(ready) };
    }
    match (staying.first(), pods.first()) {
        (Some(pod), _) => unready(pod),
        (None, Some(leaving)) => PodState::Coming {
            text: format!("the controller's pod {} is terminating, and its successor is not there yet", name(leaving)),
        },
        (None, None) => PodState::Missing,
    }
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

fn condition<'p>(pod: &'p Pod, kind: &str) -> Option<&'p k8s_openapi::api::core::v1::PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn unready(pod: &Pod) -> PodState {
    let (pod_name, status) = (name(pod), pod.status.clone().unwrap_or_default());
    let phase = status.phase.as_deref().unwrap_or("Pending");
    if matches!(phase, "Failed" | "Succeeded") {
        return ended(pod_name, &status);
    }
    if let Some(state) = waiting(&pod_name, &status) {
        return state;
    }
    let unscheduled = condition(pod, "PodScheduled").filter(|condition| condition.status == "False");
    if let Some(message) = unscheduled.and_then(|condition| condition.message.as_deref()) {
        return PodState::Coming {
            text: format!("the controller's pod {pod_name} is Pending: {}", printable(message)),
        };
    }
    let image = pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.as_deref()).unwrap_or("unknown");
    let is_scheduled = condition(pod, "PodScheduled").is_some_and(|condition| condition.status == "True");
    let text = match phase {
        "Pending" if is_scheduled => {
            format!(
                "the controller's pod {pod_name} is being started: its volume is mounted, its image {image} fetched"
            )
        }
        "Running" => format!("the controller's pod {pod_name} runs and is not ready yet"),
        "Unknown" => format!("nothing is heard of the node that the controller's pod {pod_name} is on"),
        phase => format!("the controller's pod {pod_name} is {phase}"),
    };
    PodState::Coming { text }
}

/// What a container waits for, when it says more than that it is being made.
fn waiting(pod: &str, status: &PodStatus) -> Option<PodState> {
    for container in containers(status) {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        let Some((reason, waiting)) = waiting.and_then(|waiting| Some((waiting.reason.as_deref()?, waiting))) else {
            continue;
        };
        let message = waiting.message.as_deref().map_or_else(String::new, |text| format!(": {}", printable(text)));
        if IMAGE_TROUBLES.contains(&reason) {
            let text =
                format!("the controller's pod {pod} cannot get its image {} ({reason}{message})", container.image);
            return Some(PodState::Stuck { text, crashed: None });
        }
        if CONFIG_TROUBLES.contains(&reason) {
            let text = format!("the controller's pod {pod} cannot be started ({reason}{message})");
            return Some(PodState::Stuck { text, crashed: None });
        }
        if reason == "CrashLoopBackOff" {
            let end = last_end(container).map_or_else(String::new, |end| format!("; last, it {}", how_it_ended(end)));
            let restarts = container.restart_count;
            let text = format!("the controller's pod {pod} keeps ending (CrashLoopBackOff, restarts: {restarts}{end})");
            let crashed = Crashed { pod: pod.to_owned(), container: container.name.clone(), previous: restarts > 0 };
            return Some(PodState::Stuck { text, crashed: Some(crashed) });
        }
    }
    None
}

fn ended(pod: String, status: &PodStatus) -> PodState {
    let main = status.container_statuses.iter().flatten().find_map(with_end);
    // They come first, and say nothing if they did their work.
    let mut init = status.init_container_statuses.iter().flatten().filter_map(with_end);
    let last = main.map(|found| ("it".to_owned(), found)).or_else(|| {
        let (container, end) = init.find(|(_, end)| end.exit_code != 0)?;
        Some((format!("its init container {}", container.name), (container, end)))
    });
    let how = match (&last, &status.message) {
        (_, Some(message)) => format!(": {}", printable(message)),
        (Some((who, (_, end))), None) => format!(": {who} {}", how_it_ended(end)),
        (None, None) => String::new(),
    };
    let reason = status.reason.as_deref().map_or_else(String::new, |reason| format!(" ({reason})"));
    let crashed = last.map(|(_, (container, _))| Crashed {
        pod: pod.clone(),
        container: container.name.clone(),
        previous: false,
    });
    PodState::Ended { text: format!("the controller's pod {pod} has ended{reason}{how}"), crashed }
}

fn with_end(container: &ContainerStatus) -> Option<(&ContainerStatus, &ContainerStateTerminated)> {
    Some((container, terminated(container.state.as_ref())?))
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
}

fn terminated(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state.and_then(|state| state.terminated.as_ref())
}

fn last_end(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    terminated(container.state.as_ref()).or_else(|| terminated(container.last_state.as_ref()))
}

fn how_it_ended(end: &ContainerStateTerminated) -> String {
    match end.reason.as_deref() {
        None | Some("Error" | "Completed") => format!("exited with code {}", end.exit_code),
        Some(reason) => format!("exited with code {} ({reason})", end.exit_code),
    }
}

#[cfg(test)]
mod tests;
