//! The tables of `status`, as SkyServe shows them, and the reasons below them.

use crate::duration;
use crate::output::{Style, printable};
use skyserve_api::{ReplicaView, ServiceView};
use std::collections::BTreeSet;

/// Replicas shown without `-v`, as in SkyServe.
const REPLICAS_SHOWN_MAX: usize = 10;
/// Spaces between columns.
const GAP: usize = 2;

/// How the tables are to look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) verbose: bool,
    pub(crate) style: Style,
    /// Milliseconds since the Unix epoch, for times that are shown relative to now.
    pub(crate) now_ms: u64,
}

/// A cell: what is measured, and what is printed.
struct Cell {
    plain: String,
    shown: String,
}

impl Cell {
    fn plain(text: impl Into<String>) -> Self {
        let plain = printable(&text.into());
        Self { shown: plain.clone(), plain }
    }

    fn painted(plain: &str, shown: String) -> Self {
        Self { plain: plain.to_owned(), shown }
    }
}

/// Both tables and the reasons, or the sentence that there is nothing.
pub(crate) fn services(services: &[ServiceView], look: Look) -> String {
    if services.is_empty() {
        return "No existing services.\n".to_owned();
    }
    let mut text = format!("{}\n{}", look.style.title("Services"), service_table(services, look));
    text.push_str(&format!("\n{}\n", look.style.title("Service Replicas")));
    let replicas: Vec<(&ServiceView, &ReplicaView)> =
        services.iter().flat_map(|service| service.replicas.iter().map(move |replica| (service, replica))).collect();
    let shown = if look.verbose { replicas.len() } else { replicas.len().min(REPLICAS_SHOWN_MAX) };
    text.push_str(&replica_table(&replicas[..shown], look));
    if shown < replicas.len() {
        text.push_str(&format!("... (use -v to show all {} replicas)\n", replicas.len()));
    }
    let reasons = reasons(services, &replicas[..shown], look.style);
    if !reasons.is_empty() {
        text.push_str(&format!("\n{}\n{reasons}", look.style.title("Reasons")));
    }
    text
}

fn service_table(services: &[ServiceView], look: Look) -> String {
    let mut header = vec!["NAME", "VERSION", "UPTIME", "STATUS", "REPLICAS", "ENDPOINT"];
    if look.verbose {
        header.extend(["AUTOSCALING_POLICY", "LOAD_BALANCING_POLICY", "REQUESTED_RESOURCES"]);
    }
    let rows = services.iter().map(|service| service_row(service, look));
    layout(&header, rows.collect())
}

fn service_row(service: &ServiceView, look: Look) -> Vec<Cell> {
    let uptime = service.ready_since_ms.map(|since| seconds_since(since, look.now_ms));
    let mut row = vec![
        Cell::plain(&service.name),
        Cell::plain(versions(service)),
        Cell::plain(duration::exact(uptime)),
        Cell::painted(&service.status, look.style.service_status(&service.status)),
        Cell::plain(format!("{}/{}", service.replicas_ready, service.replicas_wanted)),
        Cell::plain(or_dash(Some(&service.endpoint))),
    ];
    if look.verbose {
        row.extend([
            Cell::plain(fixed_policy(service.replicas_wanted)),
            Cell::plain(or_dash(Some(&service.load_balancing_policy))),
            Cell::plain(or_dash(Some(&service.requested_resources))),
        ]);
    }
    row
}

/// SkyServe's words for a fixed number of replicas.
fn fixed_policy(replicas: usize) -> String {
    format!("Fixed {replicas} replica{}", if replicas == 1 { "" } else { "s" })
}

fn replica_table(replicas: &[(&ServiceView, &ReplicaView)], look: Look) -> String {
    if replicas.is_empty() {
        return "No existing replicas.\n".to_owned();
    }
    let header = ["SERVICE_NAME", "ID", "VERSION", "ENDPOINT", "LAUNCHED", "INFRA", "RESOURCES", "STATUS"];
    let row = |(service, replica): &(&ServiceView, &ReplicaView)| {
        let launched = match replica.launched_at_ms {
            0 => "-".to_owned(),
            at => duration::ago(seconds_since(at, look.now_ms)),
        };
        vec![
            Cell::plain(&service.name),
            Cell::plain(replica.id.to_string()),
            Cell::plain(version(replica.version)),
            Cell::plain(or_dash(replica.endpoint.as_deref())),
            Cell::plain(launched),
            Cell::plain(or_dash(Some(&replica.infra))),
            Cell::plain(or_dash(Some(&replica.resources))),
            Cell::painted(&replica.status, look.style.status(&replica.status)),
        ]
    };
    layout(&header, replicas.iter().map(row).collect())
}

/// Why things are as they are: one indented line for each service and replica that has a reason.
fn reasons(services: &[ServiceView], replicas: &[(&ServiceView, &ReplicaView)], style: Style) -> String {
    let mut lines = String::new();
    for service in services {
        if let Some(reason) = &service.status_reason {
            let status = style.service_status(&service.status);
            lines.push_str(&format!("  {}: {status}: {}\n", service.name, printable(reason)));
        }
        for (_, replica) in replicas.iter().filter(|(of, _)| of.name == service.name) {
            if let Some(reason) = replica.status_reason.as_ref().filter(|_| replica.status != "READY") {
                let status = style.status(&replica.status);
                lines.push_str(&format!(
                    "  {} replica {}: {status}: {}\n",
                    service.name,
                    replica.id,
                    printable(reason)
                ));
            }
        }
    }
    lines
}

fn layout(header: &[&str], rows: Vec<Vec<Cell>>) -> String {
    let header = header.iter().map(|name| Cell::plain(*name)).collect();
    let rows: Vec<Vec<Cell>> = std::iter::once(header).chain(rows).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().map(|row| row[column].plain.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(&cell.shown);
            if column + 1 < columns {
                text.push_str(&" ".repeat(widths[column] - cell.plain.chars().count() + GAP));
            }
        }
        text.push('\n');
    }
    text
}

fn seconds_since(moment_ms: u64, now_ms: u64) -> u64 {
    now_ms.saturating_sub(moment_ms) / 1000
}

/// As in SkyServe, the versions that serve; the newest while none does.
fn versions(service: &ServiceView) -> String {
    let ready = service.replicas.iter().filter(|replica| replica.status == "READY");
    let serving: BTreeSet<u64> = ready.map(|replica| replica.version).filter(|version| *version > 0).collect();
    if serving.is_empty() {
        return version(service.version);
    }
    serving.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// 0 stands for a version that is not known (the controller, which knows, does not answer).
fn version(version: u64) -> String {
    if version == 0 { "-".to_owned() } else { version.to_string() }
}

fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests;
