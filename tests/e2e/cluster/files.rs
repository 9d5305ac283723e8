//! What a service's YAML asks for reaches its pods: files, setup, envs and secrets, resources, and the reasons when it
//! cannot.

use crate::site::{Site, live, until};

const EVERYTHING: &str = "
service:
  readiness_probe: /workdir.txt
  replicas: 1
resources:
  ports: 8080
  cpus: 0.1
  memory: 0.25
envs:
  GREETING: hello
secrets:
  TOKEN: hush-hush
workdir: ./work
file_mounts:
  /data/mounted.txt: ./mounted.txt
setup: |
  echo setting up
  echo from setup > setup.txt
run: |
  cp /data/mounted.txt .
  echo $GREETING $TOKEN > env.txt
  cat /skyserve/launch/token /skyserve/token/token > token.txt 2>&1
  echo serving
  exec python3 -m http.server 8080
";

#[test]
fn files_setup_envs_and_secrets_reach_the_pod() {
    let Some(site) = Site::highly_available() else { return };
    site.file("work/workdir.txt", "from the workdir\n");
    site.file("mounted.txt", "from a file mount\n");
    let yaml = site.file("everything.yaml", EVERYTHING);
    site.up("web", &yaml);
    let endpoint = site.cluster_endpoint();
    let page = |path: &str| {
        let script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode(), end='')";
        let output = site.command("python3").args(["-c", script, &format!("{endpoint}/{path}")]).output().unwrap();
        crate::site::text(&output.stdout)
    };
    assert_eq!(page("workdir.txt"), "from the workdir\n");
    assert_eq!(page("mounted.txt"), "from a file mount\n");
    assert_eq!(page("setup.txt"), "from setup\n");
    assert_eq!(page("env.txt"), "hello hush-hush\n");
    // What fetched the files: nothing of the user's can ask the controller for another service's.
    assert_eq!(page("token.txt").matches("No such file").count(), 2, "{}", page("token.txt"));
    let pods = live(site.objects("pods", "skyserve.dev/component=replica"));
    let pod = serde_json::to_string(&pods).unwrap();
    assert!(!pod.contains("hush-hush"), "a secret stands in the pod: {pod}");
    assert_eq!(pods[0]["spec"]["containers"][0]["resources"]["limits"]["cpu"], "100m");
    let log = site.ok(&["logs", "web", "1", "--no-follow"]);
    assert!(log.contains("setting up") && log.contains("serving"), "{log}");
    assert!(site.ok(&["logs", "web", "--controller", "--no-follow"]).contains("web"));
    let logs = site.kubectl_ok(&["logs", "-l", "skypilot-head-node=1", "--tail=-1"]);
    assert!(logs.contains("READY"), "the roles' logs are the container's: {logs}");
    assert!(!logs.contains("hush-hush"), "a secret is in the log");
    site.ok(&["down", "-y", "web"]);
    assert!(
        site.objects("secrets", "skyserve.dev/component=replica").is_empty() || {
            until("the secrets to be collected", || {
                if site.objects("secrets", "skyserve.dev/component=replica").is_empty() {
                    Ok(())
                } else {
                    Err(site.state())
                }
            });
            true
        }
    );
}

fn service(resources: &str) -> String {
    format!(
        "service:\n  readiness_probe: /\n  replicas: 1\nresources:\n  ports: 8080\n{resources}\
         run: exec python3 -m http.server 8080\n"
    )
}

#[track_caller]
fn replica_says(resources: &str, expected: &[&str]) {
    let Some(site) = Site::highly_available() else { return };
    let yaml = site.file("web.yaml", &service(resources));
    site.ok(&["up", "-y", "-n", "web", yaml.to_str().unwrap()]);
    until(&format!("a replica's reason with {expected:?}"), || {
        let service = site.service("web").unwrap_or_default();
        let replicas = service["replicas"].as_array().cloned().unwrap_or_default();
        let reasons: Vec<String> = replicas.iter().map(|replica| replica["status_reason"].to_string()).collect();
        let told = reasons.iter().any(|reason| expected.iter().all(|word| reason.contains(word)));
        if told { Ok(()) } else { Err(format!("{reasons:?}\n{}", site.state())) }
    });
    site.ok(&["down", "-y", "web"]);
    assert!(site.replica_uids().is_empty());
}

#[test]
fn a_replica_that_fits_nowhere_says_so() {
    replica_says("  cpus: 1000\n", &["nsufficient cpu"]);
}

#[test]
fn a_replica_whose_image_is_missing_says_so() {
    replica_says("  image_id: docker:docker.io/library/no-such-image:1\n", &["no-such-image"]);
}

#[test]
fn a_replica_whose_setup_fails_says_so() {
    let Some(site) = Site::highly_available() else { return };
    let yaml = site.file(
        "web.yaml",
        "service:\n  readiness_probe: /\n  replicas: 1\nresources:\n  ports: 8080\nsetup: exit 3\nrun: sleep 1000\n",
    );
    site.ok(&["up", "-y", "-n", "web", yaml.to_str().unwrap()]);
    until("the reason", || {
        let service = site.service("web").unwrap_or_default();
        let whole = service.to_string();
        if whole.contains("setup exited with code 3") { Ok(()) } else { Err(whole) }
    });
}
