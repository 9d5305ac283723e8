//! A home for one test: its own HOME, runtime folder and ports; everything of it ends with the test.

use crate::processes::{self, Process};
use crate::wait;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use tempfile::TempDir;

/// Ports for one home's endpoints: more than any test has services.
const PORTS_PER_HOME: u16 = 10;
/// Below the range that the kernel gives to outgoing connections, and away from the default.
const PORTS_FIRST: u16 = 20_000;
const HOMES_MAX: u16 = 1_000;

static NEXT_PORTS: AtomicU16 = AtomicU16::new(0);

/// See the module.
pub struct TestHome {
    folder: TempDir,
    ports_first: u16,
}

impl TestHome {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("sky").tempdir().unwrap();
        // Tests of one run get ports one after the other; runs at the same time start elsewhere.
        let start = (std::process::id() % u32::from(HOMES_MAX)) as u16;
        let slot = (start + NEXT_PORTS.fetch_add(1, Ordering::Relaxed)) % HOMES_MAX;
        let home = Self { folder, ports_first: PORTS_FIRST + slot * PORTS_PER_HOME };
        fs::create_dir_all(home.path().join(".sky")).unwrap();
        home.configure("");
        home
    }

    /// Writes the configuration: the test's ports, and `more` below `serve:`.
    pub fn configure(&self, more: &str) {
        let last = self.ports_first + PORTS_PER_HOME - 1;
        let config =
            format!("serve:\n  load_balancer:\n    ports: {}-{last}\n    drain_seconds: 20\n{more}", self.ports_first);
        fs::write(self.path().join(".sky/config.yaml"), config).unwrap();
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub fn runtime(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub fn serve(&self) -> PathBuf {
        self.path().join(".sky/serve")
    }

    /// Writes a service YAML and gives its path.
    pub fn yaml(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A command in this home's environment and nobody else's.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.path())
            .env("SKYSERVE_RUNTIME_DIR", self.runtime())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `skyserve` with these arguments, to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(binary()).args(arguments).output().unwrap()
    }

    /// Runs `skyserve`, which must succeed; gives what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "{arguments:?} failed: {}\n{stdout}\n{stderr}\n{}",
            output.status,
            self.logs()
        );
        stdout
    }

    /// Runs `skyserve`, which must be refused; gives what it said.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} should have been refused: {}", text(&output.stdout));
        text(&output.stdout) + &text(&output.stderr)
    }

    /// Takes a service up and waits until it is READY; gives its endpoint.
    pub fn up(&self, name: &str, yaml: &Path) -> String {
        self.ok(&["up", "-y", "--wait", "-n", name, yaml.to_str().unwrap()]);
        self.endpoint(name)
    }

    pub fn endpoint(&self, name: &str) -> String {
        self.ok(&["status", name, "--endpoint"]).trim().to_owned()
    }

    /// `status -o json` of one service; `None` when there is no such service.
    pub fn service(&self, name: &str) -> Option<Value> {
        let output = self.run(&["status", "-o", "json"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        status["services"].as_array()?.iter().find(|service| service["name"] == name).cloned()
    }

    /// The service's replicas with this status.
    pub fn replicas(&self, name: &str, status: &str) -> Vec<Value> {
        let service = self.service(name).unwrap_or_default();
        let replicas = service["replicas"].as_array().cloned().unwrap_or_default();
        replicas.into_iter().filter(|replica| replica["status"] == status).collect()
    }

    pub fn wait_for_status(&self, name: &str, status: &str) -> Value {
        wait::until(&format!("{name} to be {status}"), || {
            let service = self.service(name).ok_or("there is no such service")?;
            if service["status"] == status { Ok(service) } else { Err(format!("it is {service:#}\n{}", self.logs())) }
        })
    }

    pub fn wait_for_ready_replicas(&self, name: &str, count: usize) -> Vec<Value> {
        wait::until(&format!("{count} ready replicas of {name}"), || {
            let ready = self.replicas(name, "READY");
            if ready.len() == count { Ok(ready) } else { Err(format!("{:#}", self.service(name).unwrap_or_default())) }
        })
    }

    /// The live processes of this home.
    pub fn processes(&self) -> Vec<Process> {
        processes::of_home(&self.path())
    }

    /// The process of a role; waits until there is exactly one.
    pub fn role(&self, name: &str) -> Process {
        wait::until(&format!("one {name}"), || {
            let mut found: Vec<Process> =
                self.processes().into_iter().filter(|process| process.is_role(name)).collect();
            if found.len() == 1 { Ok(found.remove(0)) } else { Err(format!("{found:?}")) }
        })
    }

    /// Starts `skyserve init` in the foreground of the test.
    pub fn init(&self) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("init.out")).unwrap();
        self.command(binary())
            .arg("init")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap()
    }

    /// Kills init, the controller and the load balancer at once; replicas stay.
    pub fn kill_runtime(&self) {
        for role in ["init", "controller", "loadbalancer"] {
            self.processes()
                .iter()
                .filter(|process| process.is_role(role))
                .for_each(|process| process.kill(Signal::SIGKILL));
        }
    }

    /// What the roles logged, for a failure's message.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for name in ["init", "controller", "loadbalancer"] {
            let log = fs::read_to_string(self.serve().join(format!("logs/{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            all += &format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(25)..].join("\n"));
        }
        all
    }

    /// Fails if anything of this home still runs or listens.
    pub fn assert_nothing_left(&self) {
        wait::until("nothing of the home to run", || {
            let left = self.processes();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        let sockets: Vec<PathBuf> = fs::read_dir(self.runtime())
            .map(|entries| {
                entries
                    .flatten()
                    .map(|entry| entry.path())
                    .filter(|path| path.extension().is_some_and(|end| end == "sock"))
                    .collect()
            })
            .unwrap_or_default();
        assert!(sockets.is_empty(), "sockets are left: {sockets:?}");
        for lock in ["init.lock", "controller.lock"] {
            assert!(!self.serve().join(lock).exists(), "{lock} is left");
        }
        for port in self.ports_first..self.ports_first + PORTS_PER_HOME {
            assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_ok(), "port {port} is still in use");
        }
    }
}

impl Drop for TestHome {
    fn drop(&mut self) {
        // Init first, so that it restarts nothing; until nothing is left, since shims may be starting.
        while let Some(process) = self.processes().iter().min_by_key(|process| !process.is_role("init")) {
            process.kill(Signal::SIGKILL);
            std::thread::yield_now();
        }
    }
}

/// Stops an init that the test started, in order.
pub fn stop(mut init: Child) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(init.id() as i32), Signal::SIGTERM);
    wait::until_true("init to end", || init.try_wait().unwrap().is_some());
}

/// The repository's own copy of the seed's `http_service.yaml`.
pub fn http_service() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/http_service.yaml")
}

/// The binary under test.
pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_skyserve")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
