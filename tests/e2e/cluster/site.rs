//! One test's part of a cluster: a namespace, a home with a configuration, and what is looked at there.

use crate::load::{Load, Oha, Outcomes};
use crate::wait;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a cluster may take for what it does: pulling nothing, but scheduling, mounting, probing.
const CLUSTER_SOON: Duration = Duration::from_secs(120);
/// Requests a second of each load generator: enough to meet every instant, and room for the cluster on two cores.
const REQUESTS_PER_SECOND: &str = "100";
const CLIENTS: usize = 8;

static NEXT_NAMESPACE: AtomicU32 = AtomicU32::new(0);

/// See the module.
pub struct Site {
    pub namespace: String,
    folder: TempDir,
}

impl Site {
    /// A namespace and a home for this test; `None`, with a word, where no cluster was named.
    pub fn new(config: &str) -> Option<Self> {
        if std::env::var_os("SKYSERVE_E2E").is_none_or(|value| value != "cluster") {
            println!("skipped: set SKYSERVE_E2E=cluster and KUBECONFIG to run the tests that need a cluster");
            return None;
        }
        let number = NEXT_NAMESPACE.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("sky-e2e-{}-{number}", std::process::id());
        let folder = tempfile::Builder::new().prefix("sky").tempdir().unwrap();
        let site = Self { namespace, folder };
        fs::create_dir_all(site.home().join(".sky")).unwrap();
        fs::create_dir_all(site.bin()).unwrap();
        symlink(env!("CARGO_BIN_EXE_skyserve"), site.bin().join("sky")).unwrap();
        symlink(env!("CARGO_BIN_EXE_skyserve"), site.bin().join("skyserve")).unwrap();
        site.configure(config);
        site.kubectl_ok(&["create", "namespace", &site.namespace]);
        Some(site)
    }

    /// The seed's configuration: a controller with high availability.
    pub fn highly_available() -> Option<Self> {
        Self::new(HIGHLY_AVAILABLE)
    }

    /// Writes `~/.sky/config.yaml`, in this test's namespace.
    pub fn configure(&self, config: &str) {
        let namespace = format!("kubernetes:\n  namespace: {}\n", self.namespace);
        let whole = match config.split_once("kubernetes:\n") {
            Some((before, after)) => format!("{before}{namespace}{after}"),
            None => format!("{config}{namespace}"),
        };
        fs::write(self.home().join(".sky/config.yaml"), whole).unwrap();
    }

    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn bin(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file beside the home, and gives its path.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A program in this home's environment, with `sky`, `skyserve` and `kubectl` of this namespace on its path.
    pub fn command(&self, program: &str) -> Command {
        let path = format!("{}:{}", self.bin().display(), std::env::var("PATH").unwrap());
        // kubectl as the walkthrough calls it, without a namespace: a context of its own says which.
        let kubeconfig = self.folder.path().join("kubeconfig");
        if !kubeconfig.exists() {
            let flat = Command::new("kubectl").args(["config", "view", "--flatten", "--minify"]).output().unwrap();
            assert!(flat.status.success(), "{}", text(&flat.stderr));
            fs::write(&kubeconfig, flat.stdout).unwrap();
            let set = ["config", "set-context", "--current", "--namespace", &self.namespace];
            let set = Command::new("kubectl").env("KUBECONFIG", &kubeconfig).args(set).output().unwrap();
            assert!(set.status.success(), "{}", text(&set.stderr));
        }
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home())
            .env("KUBECONFIG", kubeconfig)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `skyserve`, to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command("skyserve").args(arguments).output().unwrap()
    }

    /// Runs `skyserve`, to its end or for this long; in the latter case it has failed.
    pub fn run_within(&self, span: Duration, arguments: &[&str]) -> Output {
        let seconds = span.as_secs().max(1).to_string();
        self.command("timeout").args(["--kill-after=5", &seconds, "skyserve"]).args(arguments).output().unwrap()
    }

    /// Runs `skyserve`, which must succeed; gives what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?} failed: {}\n{}\n{}\n{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr),
            self.state()
        );
        text(&output.stdout)
    }

    /// Runs `skyserve`, which must be refused; gives what it said.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} should have been refused: {}", text(&output.stdout));
        text(&output.stdout) + &text(&output.stderr)
    }

    /// Takes a service up and waits until it is READY.
    pub fn up(&self, name: &str, yaml: &Path) {
        self.ok(&["up", "-y", "--wait", "-n", name, yaml.to_str().unwrap()]);
    }

    /// Runs kubectl in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.command("kubectl").args(arguments).output().unwrap()
    }

    pub fn kubectl_ok(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert!(output.status.success(), "kubectl {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Objects of a kind with these labels.
    pub fn objects(&self, kind: &str, selector: &str) -> Vec<Value> {
        let output = self.kubectl(&["get", kind, "-l", selector, "-o", "json"]);
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// The controller's pods that are not being deleted.
    pub fn controllers(&self) -> Vec<Value> {
        live(self.objects("pods", "skypilot-head-node=1"))
    }

    /// The controller's pod, once there is exactly one and it is ready.
    pub fn controller(&self) -> Value {
        until("one ready controller", || {
            let mut pods = self.controllers();
            let ready = |pod: &Value| condition(pod, "Ready") == Some("True".to_owned());
            match pods.len() {
                1 if ready(&pods[0]) => Ok(pods.remove(0)),
                _ => Err(self.state()),
            }
        })
    }

    /// UIDs of the replicas' pods that are not being deleted.
    pub fn replica_uids(&self) -> BTreeSet<String> {
        let pods = live(self.objects("pods", "skyserve.dev/component=replica"));
        pods.iter().map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
    }

    /// `status -o json` of one service; `None` when there is no such service.
    pub fn service(&self, name: &str) -> Option<Value> {
        let output = self.run(&["status", "-o", "json"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        status["services"].as_array()?.iter().find(|service| service["name"] == name).cloned()
    }

    pub fn wait_for_status(&self, name: &str, status: &str) -> Value {
        until(&format!("{name} to be {status}"), || {
            let service = self.service(name).ok_or("there is no such service")?;
            if service["status"] == status { Ok(service) } else { Err(format!("{service:#}\n{}", self.state())) }
        })
    }

    pub fn wait_for_ready_replicas(&self, name: &str, count: usize) {
        until(&format!("{count} ready replicas of {name}"), || {
            let service = self.service(name).unwrap_or_default();
            let replicas = service["replicas"].as_array().cloned().unwrap_or_default();
            let ready = replicas.iter().filter(|replica| replica["status"] == "READY").count();
            let others = replicas.iter().filter(|replica| replica["status"] != "READY").count();
            if ready == count && others == 0 { Ok(()) } else { Err(format!("{service:#}\n{}", self.state())) }
        });
    }

    /// The endpoint through the service's cluster IP: what kube-proxy gives to whoever is ready.
    pub fn cluster_endpoint(&self) -> String {
        until("the endpoint's Service", || {
            let services = self.objects("services", "skyserve.dev/component=endpoint");
            let service = services.first().ok_or("there is none")?;
            let address = service["spec"]["clusterIP"].as_str().ok_or("no cluster IP")?;
            Ok(format!("http://{address}:{}", service["spec"]["ports"][0]["port"]))
        })
    }

    /// Runs `disturb` under load with keep-alive and without; gives what each saw.
    pub fn under_load(&self, endpoint: &str, disturb: impl FnOnce()) -> [(&'static str, Outcomes); 3] {
        let kept = Oha::start_with(endpoint, CLIENTS, &["-q", REQUESTS_PER_SECOND]);
        let anew = Oha::start_with(endpoint, CLIENTS, &["-q", REQUESTS_PER_SECOND, "--disable-keepalive"]);
        let own = Load::start(endpoint, 2);
        disturb();
        let own = own.finish();
        [
            ("oha, keep-alive", kept.finish()),
            ("oha, a connection for each request", anew.finish()),
            ("own clients", own),
        ]
    }

    /// What there is, for a failure's message.
    pub fn state(&self) -> String {
        let pods = self.kubectl(&["get", "pods,pvc,services", "-o", "wide"]);
        let events = self.kubectl(&["get", "events", "--sort-by=.lastTimestamp"]);
        let logs = self.kubectl(&["logs", "-l", "skypilot-head-node=1", "--tail", "25", "--all-containers"]);
        let events = text(&events.stdout);
        let events: Vec<&str> = events.lines().collect();
        let events = events[events.len().saturating_sub(20)..].join("\n");
        format!("{}{}\n{events}\n{}", text(&pods.stdout), text(&pods.stderr), text(&logs.stdout))
    }

    /// Everything labelled ours, of every kind that we make.
    pub fn ours(&self) -> Vec<String> {
        const KINDS: &str = "pods,deployments,replicasets,services,ingresses,persistentvolumeclaims,configmaps,secrets,\
                             serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets";
        let output = self.kubectl_ok(&["get", KINDS, "-l", "skyserve.dev/controller", "-o", "name"]);
        output.lines().map(str::to_owned).collect()
    }
}

impl Site {
    /// Gives volumes back that are folders of this machine and were ours: a cluster made for tests has only so many, and
    /// nobody else would empty them.
    fn give_volumes_back(&self) {
        let output = self.kubectl(&["get", "persistentvolumes", "-o", "json"]);
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        for volume in list["items"].as_array().into_iter().flatten() {
            let ours = volume["spec"]["claimRef"]["namespace"] == self.namespace.as_str();
            let Some(folder) = volume["spec"]["hostPath"]["path"].as_str().filter(|_| ours) else { continue };
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            }
            let free = r#"[{"op":"remove","path":"/spec/claimRef"}]"#;
            let _ = self.kubectl(&["patch", "persistentvolume", name(volume), "--type=json", "-p", free]);
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("SKYSERVE_E2E_KEEP").is_some() {
            eprintln!("kept: namespace {}", self.namespace);
            return;
        }
        // What would make pods again goes first, and nobody waits for a drain.
        let _ = self.kubectl(&["delete", "deployments", "--all", "--wait=false"]);
        let _ = self.kubectl(&["delete", "pods", "--all", "--grace-period=1", "--wait=false"]);
        let _ = self.kubectl(&["delete", "namespace", &self.namespace, "--wait=true", "--timeout=90s"]);
        self.give_volumes_back();
    }
}

/// The seed's configuration.
pub const HIGHLY_AVAILABLE: &str =
    "serve:\n  controller:\n    resources:\n      cloud: kubernetes\n    high_availability: true\n";

/// The seed's service.
pub fn http_service() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/http_service.yaml")
}

/// As [`wait::until`], for as long as a cluster takes.
pub fn until<T>(what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
    wait::until_within(CLUSTER_SOON, what, condition)
}

pub fn live(mut objects: Vec<Value>) -> Vec<Value> {
    objects.retain(|object| object["metadata"]["deletionTimestamp"].is_null());
    objects
}

/// The status of a pod's condition.
pub fn condition(pod: &Value, kind: &str) -> Option<String> {
    let conditions = pod["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    Some(found["status"].as_str()?.to_owned())
}

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

pub fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How long the endpoint answered nobody, seen by a client that asks anew every few milliseconds while `disturb` runs
/// and until it has answered for `quiet` without a break.
pub fn outage(endpoint: &str, quiet: Duration, disturb: impl FnOnce()) -> Duration {
    let address = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    let ask = || crate::load::get_within(address, Duration::from_millis(500)).is_ok_and(|status| status == 200);
    assert!(ask(), "the endpoint answers before anything is done to it");
    disturb();
    let (mut longest, mut failing_since, mut good_since) = (Duration::ZERO, None, Instant::now());
    let deadline = Instant::now() + CLUSTER_SOON;
    while good_since.elapsed() < quiet {
        assert!(Instant::now() < deadline, "the endpoint has not come back");
        let asked = Instant::now();
        if ask() {
            if let Some(since) = failing_since.take() {
                longest = longest.max(Instant::now().duration_since(since));
            }
            std::thread::sleep(Duration::from_millis(5));
        } else {
            failing_since.get_or_insert(asked);
            good_since = Instant::now();
        }
    }
    longest
}
