//! Fault campaigns 3 and 4: the real controller is killed at, or told of an error by, the N-th system call of a kind on
//! what it stores, N = 1, 2, … until a round passes in which no call was the N-th. What was acknowledged must be there.
//!
//! strace attaches to the controller alone, so that init, the load balancer and the replica are as ever.

use crate::home::{TestHome, http_service, text};
use crate::load::Load;
use crate::processes::Process;
use crate::wait;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Whether strace can put faults into a process here: it is tried.
fn can_inject() -> bool {
    let tried = Command::new("strace")
        .args(["-o", "/dev/null", "-e", "inject=write:error=EIO", "echo", "x"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let can = tried.is_ok_and(|status| !status.success());
    if !can {
        eprintln!("NOT TESTED: strace is not there or may not put faults into a process");
    }
    can
}

/// A tracer of one controller.
struct Tracer {
    child: Child,
    log: PathBuf,
}

impl Tracer {
    /// Has the calls `call` of `controller` on what it stores meet `fault` from the `nth` on, or only then.
    fn attach(home: &TestHome, controller: &Process, call: &str, fault: &str) -> Self {
        let log = home.path().join("strace.log");
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-p", &controller.pid.to_string(), "-e", &format!("trace={call}"), "-o"]).arg(&log);
        for name in ["skyserve.db", "skyserve.db-wal", "skyserve.db-marks", "routes.json", "routes.json.next"] {
            command.arg("-P").arg(home.serve().join(name));
        }
        command.arg("-P").arg(home.serve());
        command.args(["-e", &format!("inject={call}:{fault}")]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let attached = said.by_ref().map_while(Result::ok).any(|line| line.contains("attached"));
        assert!(attached, "strace did not attach");
        std::thread::spawn(move || said.map_while(Result::ok).for_each(drop));
        Self { child, log }
    }

    /// Lets go of the controller; gives the calls that met the fault.
    fn detach(mut self) -> Vec<String> {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), nix::sys::signal::Signal::SIGINT)
            .unwrap();
        self.child.wait().unwrap();
        let log = fs::read_to_string(&self.log).unwrap();
        log.lines()
            .filter(|line| line.contains("(INJECTED)") || line.contains("killed by SIGKILL"))
            .map(str::to_owned)
            .collect()
    }
}

/// A service that is changed by users while its controller meets faults.
struct Site {
    home: TestHome,
    service: PathBuf,
    more: PathBuf,
    acknowledged: u64,
}

impl Site {
    /// `None`, and a word about it, where no faults can be put into a process.
    fn new() -> Option<Self> {
        if !can_inject() {
            return None;
        }
        let home = TestHome::new();
        home.up("kept", &http_service());
        let yaml = fs::read_to_string(http_service()).unwrap();
        let service = home.yaml("service.yaml", &yaml);
        let more = home.yaml("more.yaml", &yaml.replace("readiness_probe: /", "readiness_probe: /?"));
        Some(Self { home, service, more, acknowledged: 0 })
    }

    /// Asks again until it is acknowledged, as a user would.
    fn ask(&mut self, arguments: &[&str]) {
        wait::until(&format!("{arguments:?} to be acknowledged"), || {
            let output = self.home.run(arguments);
            if output.status.success() { Ok(()) } else { Err(text(&output.stderr) + &self.home.logs()) }
        });
        self.acknowledged += 1;
    }

    /// One service's life; after each answer, what was answered must be so, whichever controller says it.
    fn live(&mut self) {
        let (service, more) = (self.service.clone(), self.more.clone());
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        self.ask(&["up", "-y", "-n", "web", &path(&service)]);
        self.must_be("web", Some(1));
        self.ask(&["update", "-y", "web", &path(&more)]);
        self.must_be("web", Some(2));
        self.ask(&["down", "-y", "web"]);
        self.must_be("web", None);
        self.must_be("kept", Some(1));
    }

    fn end(self) {
        println!("{} acknowledged, 0 lost", self.acknowledged);
        self.home.wait_for_status("kept", "READY");
        self.home.ok(&["down", "-y", "kept"]);
        self.home.assert_nothing_left();
    }

    fn must_be(&self, name: &str, version: Option<u64>) {
        let status = wait::until("a controller that answers", || {
            let output = self.home.run(&["status", "-o", "json"]);
            let status: serde_json::Value =
                serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
            let answers = output.status.success() && status["services"].is_array();
            if answers { Ok(status) } else { Err(text(&output.stderr)) }
        });
        let found = status["services"].as_array().unwrap().iter().find(|service| service["name"] == name);
        assert_eq!(
            found.and_then(|service| service["version"].as_u64()),
            version,
            "{name} was acknowledged: {status:#}"
        );
    }
}

/// What came of all rounds with one kind of call.
#[derive(Debug, Default)]
struct Rounds {
    rounds: u64,
    met: u64,
    /// Rounds in which the call was on the database's log.
    of_the_log: u64,
    /// Controllers that ended by it.
    ended: u64,
}

fn sweep(site: &mut Site, call: &str, fault: &str) -> Rounds {
    let (mut n, mut all) = (1, Rounds::default());
    loop {
        let controller = site.home.role("controller");
        let tracer = Tracer::attach(&site.home, &controller, call, &format!("{fault}:when={n}"));
        site.live();
        let met = tracer.detach();
        let ended = site.home.role("controller").pid != controller.pid;
        all.rounds += 1;
        all.met += u64::from(!met.is_empty());
        all.ended += u64::from(ended);
        // Syncing the log is what makes a commit last: who is told that it failed must not go on.
        let of_the_log = met.iter().any(|line| line.contains("skyserve.db-wal"));
        all.of_the_log += u64::from(of_the_log);
        assert!(ended || !of_the_log, "the controller went on after {met:?}");
        if met.is_empty() && !ended {
            return all;
        }
        n += 1;
    }
}

#[test]
#[ignore = "campaign: benches/faults/run 3"]
fn campaign_3_killed_at_every_system_call_nothing_acknowledged_is_lost() {
    let Some(mut site) = Site::new() else { return };
    for call in ["pwrite64", "write", "fsync", "fdatasync", "rename", "unlink", "ftruncate"] {
        let rounds = sweep(&mut site, call, "signal=KILL");
        println!("{call}: {rounds:?}");
        assert_eq!(rounds.met, rounds.rounds - 1);
    }
    site.end();
}

#[test]
#[ignore = "campaign: benches/faults/run 4"]
fn campaign_4_after_a_sync_that_failed_the_controller_starts_again_and_nothing_acknowledged_is_lost() {
    let Some(mut site) = Site::new() else { return };
    let rounds = sweep(&mut site, "fsync", "error=EIO");
    println!("fsync fails: {rounds:?}");
    assert!(rounds.of_the_log > 0 && rounds.ended >= rounds.of_the_log);
    site.end();
}

#[test]
#[ignore = "campaign: benches/faults/run 4"]
fn campaign_4_on_a_full_disk_traffic_goes_on_and_control_does_when_there_is_space_again() {
    let Some(mut site) = Site::new() else { return };
    let endpoint = site.home.endpoint("kept");
    let load = Load::start(&endpoint, 2);
    let controller = site.home.role("controller");
    let tracer = Tracer::attach(&site.home, &controller, "pwrite64", "error=ENOSPC:when=1+");
    let service = site.service.to_str().unwrap().to_owned();
    let said = site.home.refused(&["up", "-y", "-n", "web", &service]);
    assert!(said.contains("disk is full") && said.contains("web"), "{said}");
    site.must_be("web", None);
    site.must_be("kept", Some(1));
    let met = tracer.detach();
    assert!(!met.is_empty());
    site.live();
    assert_eq!(site.home.role("controller").pid, controller.pid, "a full disk is no reason to end");
    let outcomes = load.finish();
    println!(
        "a full disk: {} writes failed, {} requests, {} of them failed",
        met.len(),
        outcomes.ok,
        outcomes.failed()
    );
    assert!(outcomes.ok > 0 && outcomes.failed() == 0, "{outcomes:?}");
    site.end();
}
