//! Nothing of ours stays that should be gone, and nothing goes that should stay.

use crate::site::{Site, http_service, until};

fn nothing_left(site: &Site) {
    until("nothing labelled ours", || {
        let ours = site.ours();
        if ours.is_empty() { Ok(()) } else { Err(format!("{ours:?}")) }
    });
}

#[test]
fn deleting_the_controllers_deployment_leaves_nothing() {
    let Some(site) = Site::highly_available() else { return };
    site.up("web", &http_service());
    assert!(site.ours().len() > 5, "the check sees what there is: {:?}", site.ours());
    let deployment = site.kubectl_ok(&["get", "deployments", "-l", "skyserve.dev/controller", "-o", "name"]);
    site.kubectl_ok(&["delete", deployment.trim(), "--wait=false"]);
    nothing_left(&site);
}

#[test]
fn purging_the_controller_leaves_nothing_and_touches_nobody_else() {
    let Some(site) = Site::highly_available() else { return };
    site.kubectl_ok(&["create", "configmap", "of-somebody-else", "--from-literal=a=b"]);
    site.up("web", &http_service());
    let refused = site.command("sky").args(["down", "-y", "sky-serve-controller"]).output().unwrap();
    assert!(!refused.status.success(), "there is still a service");
    let purged = site.command("sky").args(["down", "-y", "--purge", "sky-serve-controller"]).output().unwrap();
    assert!(purged.status.success(), "{}{}", crate::site::text(&purged.stderr), site.state());
    assert!(site.ours().is_empty(), "{:?}", site.ours());
    site.kubectl_ok(&["get", "configmap", "of-somebody-else"]);
    assert!(site.ok(&["status"]).contains("No existing services."));
}

#[test]
fn a_controller_without_high_availability_is_a_plain_pod_and_goes_as_one() {
    let Some(site) = Site::new("serve:\n  controller:\n    resources:\n      cloud: kubernetes\n") else { return };
    site.up("web", &http_service());
    assert!(site.objects("deployments", "skyserve.dev/controller").is_empty());
    assert!(site.objects("persistentvolumeclaims", "skyserve.dev/controller").is_empty());
    let pod = site.controller();
    assert_eq!(pod["spec"]["restartPolicy"], "Never");
    site.ok(&["down", "-y", "web"]);
    let down = site.command("sky").args(["down", "-y", "--purge", "sky-serve-controller"]).output().unwrap();
    assert!(down.status.success(), "{}", crate::site::text(&down.stderr));
    nothing_left(&site);
}
