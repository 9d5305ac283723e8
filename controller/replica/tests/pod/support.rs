//! A pod's folders, its processes, and a controller that serves files.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skyserve_model::launch::{Ended, LaunchSpec};
use skyserve_model::{ReplicaId, ReplicaUid, Version};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_skyserve-replica");
/// Longer than anything here takes, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub(crate) const TOKEN: &str = "0123abcd";

pub(crate) struct Pod {
    temp: tempfile::TempDir,
    pub(crate) spec: LaunchSpec,
}

impl Pod {
    pub(crate) fn new(setup: Option<&str>, run: Option<&str>) -> Self {
        let temp = tempfile::tempdir().unwrap();
        for folder in ["skyserve/launch", "skyserve/token", "skyserve/state", "home"] {
            fs::create_dir_all(temp.path().join(folder)).unwrap();
        }
        fs::write(temp.path().join("skyserve/token/token"), format!("{TOKEN}\n")).unwrap();
        let spec = LaunchSpec {
            uid: ReplicaUid::parse("svc-1-2").unwrap(),
            service: "svc".into(),
            replica_id: ReplicaId(2),
            version: Version(1),
            setup: setup.map(str::to_owned),
            run: run.map(str::to_owned),
            envs: Default::default(),
            secrets: Default::default(),
            port: 8080,
            ports: vec![8080],
            cpus: None,
            memory_gb: None,
            accelerators: Default::default(),
            use_spot: false,
            bundle: None,
            image: None,
            has_workdir: false,
            file_mounts: Vec::new(),
        };
        Self { temp, spec }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// A file in the home of the user's container.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.path("home").join(name)
    }

    pub(crate) fn command(&self, action: &str) -> Command {
        fs::write(self.path("skyserve/launch/launch.json"), serde_json::to_vec(&self.spec).unwrap()).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args([action, "--root"]).arg(self.path("skyserve"));
        command.arg("--termination-log").arg(self.path("ended"));
        command.env("HOME", self.path("home")).env("SKYSERVE_SECRET_OF_OURS", "x").env("IMAGE", "of the image");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, action: &str) -> Running {
        Running(self.command(action).spawn().unwrap())
    }

    pub(crate) fn is_running(&self) -> bool {
        self.command("is-running").status().unwrap().success()
    }

    /// What the termination message says.
    pub(crate) fn ended(&self) -> Ended {
        let text = fs::read_to_string(self.path("ended")).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

/// A process of ours, killed with the test.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("it ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Waits for its end; the exit code, and all that it said.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let code = self.wait().code();
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (code, said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Answers one request after the other, each on a connection of its own; the heads of the requests come back.
pub(crate) fn controller(answers: Vec<Vec<u8>>) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let answered = answers.into_iter().map(|answer| {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            stream.write_all(&answer).unwrap();
            head.join("\n")
        });
        answered.collect()
    });
    (url, thread)
}

pub(crate) fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
