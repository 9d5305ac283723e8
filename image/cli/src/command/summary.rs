//! What a person is shown before they say yes.

use crate::bundle::Bundle;
use crate::output::{Colour, Style, printable};
use skyserve_spec::{TargetQps, TaskSpec, Workdir};

/// What is going to be started, a line for each thing worth a second look.
pub(super) fn summary(name: &str, task: &TaskSpec, bundle: Option<&Bundle>, style: Style) -> String {
    let service = &task.service;
    let probe = service.probe();
    let mut rows = vec![
        ("Service", name.to_owned()),
        ("Replicas", replicas(task)),
        ("Port of each replica", service.port().to_string()),
        (
            "Readiness probe",
            format!(
                "{} {} every {} s, timeout {} s, initial delay {} s",
                probe.method.as_str(),
                probe.path,
                probe.interval.as_secs_f64(),
                probe.timeout.as_secs_f64(),
                probe.initial_delay.as_secs_f64()
            ),
        ),
        ("Load balancing policy", service.policy().as_str().to_owned()),
        ("Resources of each replica", resources(task)),
    ];
    if let Some(tls) = &service.tls {
        rows.push(("TLS", format!("key {}, certificate {}", tls.keyfile, tls.certfile)));
    }
    if let Some(Workdir::Local(path)) = &task.workdir {
        rows.push(("Workdir", path.clone()));
    }
    for (destination, source) in &task.file_mounts {
        rows.push(("File mount", format!("{destination} from {source}")));
    }
    if let Some(bundle) = bundle {
        rows.push(("Upload", format!("{} files and folders, {}", bundle.entries, bytes(bundle.bytes))));
    }
    if let Some(run) = task.run.as_deref().and_then(|run| run.lines().find(|line| !line.trim().is_empty())) {
        rows.push(("Run", run.trim().to_owned()));
    }
    let width = rows.iter().map(|(label, _)| label.len() + 1).max().unwrap_or(0);
    let lines = rows.into_iter().map(|(label, value)| {
        let label = format!("{label}:");
        format!("  {label:width$}  {}\n", printable(&value))
    });
    format!("{}\n{}", style.paint(Colour::Cyan, "Service spec:"), lines.collect::<String>())
}

fn replicas(task: &TaskSpec) -> String {
    let service = &task.service;
    match service.max_replicas.filter(|max| *max > service.min_replicas) {
        None => format!("{}, fixed", service.min_replicas),
        Some(max) => {
            let target = match &service.target_qps_per_replica {
                Some(TargetQps::Every(qps)) => format!(", {qps} requests per second each"),
                Some(TargetQps::PerAccelerator(_)) => ", by requests per second and accelerator".to_owned(),
                None => String::new(),
            };
            format!("{} to {max}{target}", service.min_replicas)
        }
    }
}

fn resources(task: &TaskSpec) -> String {
    let Some(first) = task.resources.list.first() else { return "any".to_owned() };
    let accelerators = first.accelerators.iter().flatten().map(|(name, count)| format!("{name}:{count}"));
    let amounts = [("cpus", first.cpus.as_ref()), ("memory", first.memory.as_ref())];
    let given = amounts.into_iter().filter_map(|(label, value)| value.map(|value| format!("{label}={value}")));
    let all: Vec<String> = given.chain(accelerators).collect();
    if all.is_empty() { "any".to_owned() } else { all.join(", ") }
}

/// `12.3 KiB`.
pub(super) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["bytes", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "bytes" { format!("{count} bytes") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(12_595), "12.3 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }
}
