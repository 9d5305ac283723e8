//! What cannot be done yet with a valid task. Every field that is accepted and not honoured is named
//! here: as a refusal if the service would not be what was asked for, else as a warning.

use crate::{Infra, LoadBalancingPolicy, Resource, Target, TaskSpec, Workdir, read};
use std::collections::BTreeSet;

/// What to tell the user. Sets, because several choices of resources say the same.
#[derive(Debug, Default)]
pub(crate) struct Support {
    pub(crate) warnings: Vec<String>,
    pub(crate) refusals: Vec<String>,
}

#[derive(Debug, Default)]
struct Findings {
    warnings: BTreeSet<String>,
    refusals: BTreeSet<String>,
}

impl Findings {
    fn warn(&mut self, sentence: impl Into<String>) {
        self.warnings.insert(sentence.into());
    }

    fn refuse(&mut self, sentence: impl Into<String>) {
        self.refusals.insert(sentence.into());
    }
}

pub(crate) fn judge(task: &TaskSpec, left_out: &[&str], target: Target) -> Support {
    let mut findings = Findings::default();
    judge_service(task, &mut findings);
    judge_task(task, left_out, &mut findings);
    if task.resources.list.len() > 1 {
        match target {
            Target::LocalProcesses => findings.warn(
                "resources gives several choices: on local processes the first one counts, because there is but one \
                 machine.",
            ),
            Target::Kubernetes => findings.refuse(
                "resources gives several choices (any_of, ordered or several accelerators), which is not supported yet: \
                 leave one.",
            ),
        }
    }
    for choice in &task.resources.list {
        judge_infra(&choice.infra, target, &mut findings);
        judge_choice(choice, target, &mut findings);
    }
    Support { warnings: findings.warnings.into_iter().collect(), refusals: findings.refusals.into_iter().collect() }
}

fn judge_service(task: &TaskSpec, findings: &mut Findings) {
    let service = &task.service;
    if service.pool {
        findings.refuse("Pools of workers (`pool:`) are not supported yet: use a `service:`.");
        return;
    }
    if task.run.as_deref().is_none_or(|run| run.trim().is_empty()) {
        findings.refuse("`run` is missing: without a command that serves, no replica can become ready.");
    }
    if service.autoscales() {
        findings.refuse(format!(
            "Autoscaling (min_replicas {} to max_replicas {}) is not supported yet: set max_replicas to min_replicas for \
             a fixed number.",
            service.min_replicas,
            service.max_replicas.unwrap_or(service.min_replicas)
        ));
    } else if service.min_replicas == 0 {
        findings.warn("The service asks for 0 replicas: no request can be answered.");
    }
    if !service.autoscales() && (service.upscale_delay_seconds.is_some() || service.downscale_delay_seconds.is_some()) {
        findings
            .warn("upscale_delay_seconds and downscale_delay_seconds have no effect on a fixed number of replicas.");
    }
    if service.num_overprovision.is_some_and(|extra| extra > 0) {
        findings.refuse("num_overprovision is not supported yet: add the extra replicas to min_replicas.");
    }
    if service.use_ondemand_fallback() {
        findings.refuse("On-demand fallback for spot replicas is not supported yet: leave its fields out.");
    }
    if service.spot_placer.is_some() {
        findings.refuse("spot_placer is not supported yet: leave it out.");
    }
    if service.policy() == LoadBalancingPolicy::InstanceAwareLeastLoad {
        findings.refuse("load_balancing_policy instance_aware_least_load is not supported yet: use least_load.");
    }
    if service.tls.is_some() {
        findings
            .refuse("TLS at the endpoint (`tls:`) is not supported yet: put a TLS proxy in front, or leave it out.");
    }
}

fn judge_task(task: &TaskSpec, left_out: &[&str], findings: &mut Findings) {
    if task.num_nodes > 1 {
        findings.refuse(format!("num_nodes: {} is not supported yet: a replica is one node.", task.num_nodes));
    }
    if let Some(Workdir::Git { url, .. }) = &task.workdir {
        findings
            .refuse(format!("workdir from a git repository ({url}) is not supported yet: clone it and give the path."));
    }
    for (destination, source) in &task.file_mounts {
        if read::mounts::is_url(source) {
            findings.refuse(format!("file_mounts.{destination}: copying from {source} is not supported yet."));
        }
        if destination.split('/').any(|part| part == "..") {
            findings.refuse(format!(
                "file_mounts.{destination}: a destination must not lead out of where it begins: give it without `..`."
            ));
        }
    }
    for (destination, _) in &task.storage_mounts {
        findings.refuse(format!("file_mounts.{destination}: buckets are not supported yet: use a local path."));
    }
    for (destination, _) in &task.volumes {
        findings.refuse(format!("volumes.{destination}: volumes are not supported yet."));
    }
    for secret in &task.managed_secrets {
        let name = &secret.name;
        findings.refuse(format!(
            "The secret {name} has no value, and there is no secrets store: give it with --secret {name}=VALUE."
        ));
    }
    for field in left_out {
        findings.warn(format!("{field} is not supported yet, and has no effect."));
    }
}

fn judge_infra(infra: &Infra, target: Target, findings: &mut Findings) {
    if infra.is_empty() {
        return;
    }
    match target {
        Target::Kubernetes if infra.is_kubernetes() => {
            if let Some(context) = &infra.region {
                findings.refuse(format!(
                    "infra: the Kubernetes context {context} cannot be chosen yet: replicas run in the cluster that the \
                     controller runs in."
                ));
            }
        }
        Target::Kubernetes => {
            findings.refuse(format!("infra: {infra} cannot be had: replicas run on Kubernetes. Leave infra out."));
        }
        Target::LocalProcesses => {
            findings.refuse(format!(
                "infra: {infra} cannot be had: replicas run as processes on this machine. Leave infra out."
            ));
        }
    }
}

fn judge_choice(choice: &Resource, target: Target, findings: &mut Findings) {
    let local = target == Target::LocalProcesses;
    let place = if local { "local processes" } else { "Kubernetes" };
    for (accelerator, count) in choice.accelerators.iter().flatten() {
        if is_memory_size(accelerator) {
            findings.refuse(format!("accelerators: {accelerator} names a memory size; name an accelerator instead."));
        } else if local {
            findings.warn(format!(
                "accelerators: {accelerator} ({count}) is not reserved: a local process sees whatever the machine has."
            ));
        } else if accelerator.to_ascii_lowercase().starts_with("tpu") {
            findings.refuse(format!("accelerators: {accelerator} is a TPU, which is not supported on {place} yet."));
        } else if count.fract() != 0.0 {
            findings.refuse(format!("accelerators: {place} gives whole GPUs, not {count} of {accelerator}."));
        }
    }
    if let (true, Some(image)) = (local, choice.docker_image()) {
        findings.refuse(format!("image_id: the image {image} needs containers; replicas run as local processes."));
    } else if let (Some(_), None) = (&choice.image_id, choice.docker_image()) {
        findings.refuse(format!("image_id: a machine image cannot be used on {place}."));
    }
    if let Some(instance_type) = &choice.instance_type {
        findings.refuse(format!("instance_type: {instance_type} cannot be chosen on {place}."));
    }
    if choice.volumes.is_some() {
        findings.refuse("resources.volumes are not supported yet.");
    }
    let without_effect = [
        ("use_spot", local && choice.use_spot == Some(true)),
        ("disk_size", choice.disk_size.is_some()),
        ("disk_tier", choice.disk_tier.is_some()),
        ("network_tier", choice.network_tier.is_some()),
        ("local_disk", choice.local_disk.is_some()),
        ("max_hourly_cost", choice.max_hourly_cost.is_some()),
        ("labels", choice.labels.is_some()),
        ("autostop", choice.autostop.as_ref().is_some_and(|autostop| *autostop != serde_json::Value::Bool(false))),
        ("priority", choice.priority.is_some()),
        ("priority_class", choice.priority_class.is_some()),
        ("accelerator_args", choice.accelerator_args.is_some()),
    ];
    for (field, _) in without_effect.iter().filter(|(_, given)| *given) {
        findings.warn(format!("resources.{field} has no effect on {place}."));
    }
    if choice.config_overrides.is_some() {
        findings.warn(format!("config has no effect on {place} yet."));
    }
}

/// `80GB+`, which SkyPilot looks up in its catalogue.
fn is_memory_size(accelerator: &str) -> bool {
    let size = accelerator.trim_end_matches('+').to_lowercase();
    ["gb", "mb", "tb"].iter().any(|unit| {
        size.strip_suffix(unit)
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    })
}
