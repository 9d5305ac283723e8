//! Two pods on one volume: the old one drains while the new one starts. Both are runtimes of one home with a runtime
//! folder each, as in a cluster, but here they share their network too; so the endpoint stays with the old one to its
//! end. (`loadbalancer/tests/behaviour/two_pods.rs` has the handing over of requests.)

use crate::home::{TestHome, binary, http_service, text};
use crate::load::{Load, get_once};
use crate::{processes, wait};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

struct Pod<'a> {
    home: &'a TestHome,
    name: &'static str,
    runtime: PathBuf,
}

impl<'a> Pod<'a> {
    fn new(home: &'a TestHome, name: &'static str) -> Self {
        Self { home, name, runtime: home.runtime().with_file_name(format!("run-{name}")) }
    }

    fn command(&self) -> Command {
        let mut command = self.home.command(binary());
        command.env("SKYSERVE_POD", self.name).env("SKYSERVE_RUNTIME_DIR", &self.runtime);
        // Of a controller that has a successor.
        command.env("SKYSERVE_HIGH_AVAILABILITY", "true");
        command
    }

    fn init(&self) -> Child {
        let log = fs::File::create(self.home.runtime().with_file_name(format!("init-{}.out", self.name))).unwrap();
        self.command().arg("init").stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// The process of a role that is ready.
    fn role(&self, name: &str) -> Option<i32> {
        let status: Value = serde_json::from_slice(&fs::read(self.runtime.join("init.json")).ok()?).ok()?;
        let role = status["roles"].as_array()?.iter().find(|role| role["name"] == name && role["ready"] == true)?;
        i32::try_from(role["pid"].as_i64()?).ok()
    }

    fn ready_role(&self, name: &str) -> i32 {
        wait::until(&format!("{name} of pod {}", self.name), || {
            self.role(name).filter(|pid| is_alive(*pid)).ok_or_else(|| self.home.logs())
        })
    }
}

fn is_alive(pid: i32) -> bool {
    processes::state(pid).is_some_and(|state| state != 'Z')
}

fn epoch(home: &TestHome) -> u64 {
    let table: Value = serde_json::from_slice(&fs::read(home.serve().join("routes.json")).unwrap()).unwrap();
    table["table"]["epoch"].as_u64().unwrap()
}

fn shims(home: &TestHome) -> Vec<i32> {
    let mut pids: Vec<i32> =
        home.processes().iter().filter(|process| process.is_role("shim")).map(|process| process.pid).collect();
    pids.sort_unstable();
    pids
}

#[test]
fn the_controller_moves_to_the_new_pod_and_the_old_one_serves_until_it_has_settled() {
    let home = TestHome::new();
    let (old, new) = (Pod::new(&home, "old"), Pod::new(&home, "new"));
    let mut old_init = old.init();
    old.ready_role("controller");
    old.run(&["up", "-y", "--wait", "-n", "web", http_service().to_str().unwrap()]);
    let endpoint = old.run(&["status", "web", "--endpoint"]).trim().to_owned();
    let (old_balancer, replicas, first_epoch) = (old.ready_role("loadbalancer"), shims(&home), epoch(&home));
    let load = Load::start(&endpoint, 2);

    let mut new_init = new.init();
    new.ready_role("loadbalancer");
    // A second controller waits in peace: it is neither ready nor started anew.
    assert_eq!((new.role("controller"), epoch(&home)), (None, first_epoch));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old_init.id() as i32), Signal::SIGTERM).unwrap();
    new.ready_role("controller");
    wait::until_true("a table of the new controller", || epoch(&home) > first_epoch);
    assert!(new.run(&["status", "-o", "json"]).contains("\"READY\""));
    assert!(is_alive(old_balancer), "it is needed until requests go elsewhere");
    let outcomes = load.finish();
    assert!(outcomes.ok > 0 && outcomes.failed() == 0, "{outcomes:?}");
    assert_eq!(shims(&home), replicas, "replicas noticed nothing");

    wait::until_true("the old pod's end", || old_init.try_wait().unwrap().is_some());
    let address = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    wait::until_true("the endpoint at the new pod", || get_once(address).is_ok_and(|status| status == 200));
    let status: Value = serde_json::from_slice(&fs::read(new.runtime.join("init.json")).unwrap()).unwrap();
    assert!(status["roles"].as_array().unwrap().iter().all(|role| role["restarts"] == 0), "{status:#}");

    new.run(&["down", "-y", "web"]);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(new_init.id() as i32), Signal::SIGTERM).unwrap();
    wait::until_true("the new pod's end", || new_init.try_wait().unwrap().is_some());
    home.assert_nothing_left();
}
