//! What we render is what this cluster's API server takes.

use crate::site::{HIGHLY_AVAILABLE, Site, text};
use std::io::Write;
use std::process::{Output, Stdio};

fn dry_run(site: &Site, manifests: &str) -> Output {
    let mut command = site.command("kubectl");
    command.args(["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn the_cluster_takes_every_manifest_and_refuses_a_broken_one() {
    let Some(site) = Site::highly_available() else { return };
    let not_available = HIGHLY_AVAILABLE.replace("true", "false");
    let much = format!(
        "{HIGHLY_AVAILABLE}  load_balancer:\n    replicas: 3\nkubernetes:\n  ports: nodeport\n  disruption_budget: true\n"
    );
    for config in [HIGHLY_AVAILABLE, &not_available, &much] {
        site.configure(config);
        let manifests = site.ok(&["manifests"]);
        let output = dry_run(&site, &manifests);
        assert!(output.status.success(), "{}\n{manifests}", text(&output.stderr));
        let broken = manifests.replacen("securityContext:", "securityKontext:", 1);
        assert_ne!(broken, manifests);
        assert!(!dry_run(&site, &broken).status.success(), "a field that does not exist is taken");
    }
}
