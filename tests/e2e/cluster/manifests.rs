//! What we render is what this cluster's API server takes.

use crate::site::{HIGHLY_AVAILABLE, Site, text};
use std::io::Write;
use std::process::{Output, Stdio};

fn apply(site: &Site, options: &[&str], manifests: &str) -> Output {
    let mut command = site.command("kubectl");
    command.args(["apply", "--server-side", "--validate=strict", "-f", "-"]).args(options);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn dry_run(site: &Site, manifests: &str) -> Output {
    apply(site, &["--dry-run=server"], manifests)
}

/// A pod is judged with its account, which a dry run does not make.
fn make_accounts(site: &Site, manifests: &str) {
    for account in manifests.split("---\n").filter(|manifest| manifest.contains("\nkind: ServiceAccount\n")) {
        let output = apply(site, &[], account);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
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
        make_accounts(&site, &manifests);
        let output = dry_run(&site, &manifests);
        assert!(output.status.success(), "{}\n{manifests}", text(&output.stderr));
        let broken = manifests.replacen("securityContext:", "securityKontext:", 1);
        assert_ne!(broken, manifests);
        assert!(!dry_run(&site, &broken).status.success(), "a field that does not exist is taken");
    }
}
