//! A replica's folder in a home of its own, driven through the shim's program as the provider does.
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skyserve_model::launch::{LaunchSpec, Phase};
use skyserve_model::{ReplicaId, ReplicaUid, Version};
use skyserve_shim::folder::{Exit, Folder, State, Tombstone};
use skyserve_shim::strays;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before a test fails: far more than it does on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A user without any rights, and a user id that no test machine gives files to.
pub(crate) const NOBODY: u32 = 65534;

pub(crate) struct Home {
    temp: tempfile::TempDir,
    /// Whom its shims run as, if not the test's user.
    user: Option<u32>,
    program: PathBuf,
}

impl Home {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join(".sky/serve/replicas")).unwrap();
        fs::create_dir_all(temp.path().join(".sky/serve/bundles")).unwrap();
        Self { temp, user: None, program: env!("CARGO_BIN_EXE_skyserve-shim").into() }
    }

    /// A home whose shims run without root's rights, also if the tests run with them.
    pub(crate) fn unprivileged() -> Self {
        let mut home = Self::new();
        if nix::unistd::geteuid().is_root() {
            // Nobody may not be able to reach the build folder.
            let program = home.path().join("skyserve-shim");
            fs::copy(&home.program, &program).unwrap();
            fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
            home.program = program;
            home.user = Some(NOBODY);
            home.give_away();
        }
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.temp.path()
    }

    fn give_away(&self) {
        let Some(user) = self.user else { return };
        let mut folders = vec![self.path().to_path_buf()];
        while let Some(path) = folders.pop() {
            chown(&path, Some(user), Some(user)).unwrap();
            if path.is_dir() && !path.is_symlink() {
                folders.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }

    pub(crate) fn bundle(&self, digest: &str, tar: &[u8]) {
        fs::write(self.path().join(format!(".sky/serve/bundles/{digest}.tar")), tar).unwrap();
    }

    /// A launch that is written but not started.
    pub(crate) fn replica(&self, spec: LaunchSpec) -> Replica<'_> {
        let dir = self.path().canonicalize().unwrap().join(".sky/serve/replicas").join(spec.uid.as_str());
        fs::create_dir(&dir).unwrap();
        let folder = Folder::at(dir);
        folder.write_launch(&spec).unwrap();
        self.give_away();
        Replica { home: self, folder, uid: spec.uid.to_string() }
    }
}

pub(crate) struct Replica<'a> {
    home: &'a Home,
    pub(crate) folder: Folder,
    pub(crate) uid: String,
}

impl Replica<'_> {
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.home.program);
        command.arg("--dir").arg(self.folder.dir()).args(arguments);
        command.env("HOME", self.home.path()).env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(user) = self.home.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Starts a shim and returns once it has claimed the replica, or has seen that it is not needed.
    pub(crate) fn start_with(&self, arguments: &[&str]) -> ExitStatus {
        self.command(arguments).status().unwrap()
    }

    pub(crate) fn start(&self) -> &Self {
        assert!(self.start_with(&[]).success());
        self
    }

    pub(crate) fn state(&self) -> State {
        self.folder.read_state().unwrap().expect("claimed")
    }

    pub(crate) fn shim(&self) -> Pid {
        Pid::from_raw(self.state().shim.pid)
    }

    pub(crate) fn running(&self) -> SocketAddr {
        eventually("the replica runs", || match self.folder.read_state().unwrap()?.phase {
            Phase::Running { address } => Some(address),
            _ => {
                if let Some(exit) = self.folder.read_exit().unwrap() {
                    panic!("it ended: {exit:?}\n{}", self.output());
                }
                None
            }
        })
    }

    /// How it ended, once its shim is gone too.
    pub(crate) fn ended(&self) -> Exit {
        eventually("the replica has ended", || {
            let exit = self.folder.read_exit().unwrap()?;
            (!self.folder.is_locked().unwrap()).then_some(exit)
        })
    }

    pub(crate) fn terminate(&self, grace_ms: u64) -> Exit {
        self.folder.write_tombstone(Tombstone { grace_ms }).unwrap();
        self.home.give_away();
        kill(self.shim(), Signal::SIGTERM).unwrap();
        self.ended()
    }

    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.output_log()).unwrap_or_default()).into_owned()
    }

    pub(crate) fn strays(&self) -> Vec<Pid> {
        strays::find(&self.uid, self.folder.dir()).unwrap().iter().map(|stray| stray.pid).collect()
    }

    /// A number of lines that the replica has written to a file in its working directory.
    pub(crate) fn lines(&self, file: &str) -> usize {
        fs::read_to_string(self.folder.work_dir().join(file)).unwrap_or_default().lines().count()
    }
}

impl Drop for Replica<'_> {
    /// Whatever a failed test left.
    fn drop(&mut self) {
        if self.folder.is_locked().unwrap_or(false)
            && let Ok(Some(state)) = self.folder.read_state()
            && let Ok(Some(shim)) = state.shim.open()
        {
            let _ = shim.signal(Signal::SIGKILL);
            let _ = shim.wait_until(Instant::now() + PATIENCE);
        }
        let _ = strays::end_all(&self.uid, self.folder.dir(), Instant::now() + PATIENCE);
        if let Ok(Some(state)) = self.folder.read_state() {
            skyserve_shim::remove_groups(&state.cgroups);
        }
    }
}

pub(crate) fn spec(uid: &str) -> LaunchSpec {
    LaunchSpec {
        uid: ReplicaUid::parse(uid).unwrap(),
        service: uid.split('-').next().unwrap().to_owned(),
        replica_id: ReplicaId(uid.rsplit('-').next().unwrap().parse().unwrap()),
        version: Version(1),
        setup: None,
        run: None,
        envs: Default::default(),
        secrets: Default::default(),
        port: 8080,
        ports: vec![8080],
        cpus: None,
        memory_gb: None,
        accelerators: Default::default(),
        use_spot: false,
        image: None,
        bundle: None,
        has_workdir: false,
        file_mounts: Vec::new(),
    }
}

pub(crate) fn running(uid: &str, run: &str) -> LaunchSpec {
    LaunchSpec { run: Some(run.to_owned()), ..spec(uid) }
}

pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The first line of the answer to `GET /`, once there is one.
pub(crate) fn get(address: SocketAddr) -> String {
    eventually(&format!("{address} answers"), || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.lines().next().map(str::to_owned)
    })
}

/// A port on which nobody listens now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
