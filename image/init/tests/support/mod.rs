//! A home of a test's own, and the init that runs it. Whatever happens, no process of the home outlives the test.
#![allow(dead_code, unreachable_pub, reason = "each test file is a crate of its own, which uses its own part of this")]

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skyserve_home::{Home, POD_VARIABLE, RUNTIME_DIR_VARIABLE};
use skyserve_init::{InitStatus, RoleStatus, ScriptStatus, read_status, running};

pub const HARNESS: &str = env!("CARGO_BIN_EXE_init-harness");
/// For what takes milliseconds on an idle machine.
const DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(2);

/// Waits for a condition, and says what was waited for when it never comes.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(POLL);
    }
}

#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

pub struct TestHome {
    folder: tempfile::TempDir,
    pub home: Home,
}

impl TestHome {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("skyserve-init-test-").tempdir().unwrap();
        let home = Home::at(folder.path().join("home"), folder.path().join("run"));
        home.make_dirs().unwrap();
        // A login shell reads these; the machine's own would only slow the tests.
        fs::write(home.path().join(".bash_profile"), "export FROM_PROFILE=yes\n").unwrap();
        Self { folder, home }
    }

    /// A second pod on the home of this one: the volume is the same, the runtime folder is its own.
    pub fn pods(&self) -> [Pod<'_>; 2] {
        ["a", "b"].map(|name| {
            let home = Home::at(self.home.path(), self.folder.path().join(format!("run-{name}"))).shared();
            home.make_dirs().unwrap();
            Pod { test: self, name, home }
        })
    }

    /// Starts init on this home, as a child of the test.
    pub fn start(&self, arguments: &[&str]) -> Init<'_> {
        self.start_by(&[], arguments)
    }

    /// The same, through a command that becomes what it is given.
    pub fn start_by(&self, wrapper: &[&str], arguments: &[&str]) -> Init<'_> {
        // What an init before this one has written is not to be taken for this one's.
        let _ = fs::remove_file(self.home.init_status());
        let log = File::options().append(true).create(true).open(self.home.init_log()).unwrap();
        let mut command = command_of(&[wrapper, &[HARNESS, "init"], arguments].concat());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = self.with_environment(&mut command).spawn().unwrap();
        Init { child, test: self }
    }

    pub fn with_environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("HOME", self.home.path()).env(RUNTIME_DIR_VARIABLE, self.home.runtime_dir())
    }

    /// A script file to be given on the command line.
    pub fn script(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(format!("given-{name}"));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.home.path().join(name)).unwrap_or_default()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.home.init_log()).unwrap_or_default()
    }

    pub fn status(&self) -> Option<InitStatus> {
        read_status(&self.home)
    }

    pub fn role(&self, name: &str) -> Option<RoleStatus> {
        self.status()?.roles.into_iter().find(|role| role.name == name)
    }

    pub fn script_status(&self, name: &str) -> Option<ScriptStatus> {
        self.status()?.scripts.into_iter().find(|script| script.name == name)
    }

    /// The pid of a role once it is ready, unless it is still this old one.
    #[track_caller]
    pub fn ready_role(&self, name: &str, not: Option<i32>) -> i32 {
        wait_for(&format!("{name} is ready"), || {
            self.role(name).filter(|role| role.ready && role.pid != not).and_then(|role| role.pid)
        })
    }

    #[track_caller]
    pub fn wait_script(&self, name: &str, state: &str) -> ScriptStatus {
        wait_for(&format!("{name} is {state}"), || self.script_status(name).filter(|script| script.state == state))
    }

    /// Processes, zombies aside, whose environment names this home.
    pub fn processes(&self) -> Vec<i32> {
        let home = self.home.path().to_str().unwrap().as_bytes();
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|process| process.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environment.windows(home.len()).any(|part| part == home)
            })
            .collect()
    }
}

impl Drop for TestHome {
    fn drop(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = self.processes();
            if left.is_empty() || Instant::now() >= deadline {
                break;
            }
            left.into_iter().for_each(|pid| {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            });
            std::thread::sleep(POLL);
        }
    }
}

/// One of two pods that have a home at the same time.
pub struct Pod<'a> {
    test: &'a TestHome,
    name: &'static str,
    pub home: Home,
}

impl Pod<'_> {
    /// Starts its init; ended at the latest with the test's home.
    pub fn start(&self, arguments: &[&str]) -> Child {
        let log = File::create(self.test.folder.path().join(format!("log-{}", self.name))).unwrap();
        let mut command = command_of(&[&[HARNESS, "init"], arguments].concat());
        command.env("HOME", self.home.path()).env(RUNTIME_DIR_VARIABLE, self.home.runtime_dir());
        command.env(POD_VARIABLE, self.name).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().unwrap()
    }

    pub fn status(&self) -> Option<InitStatus> {
        read_status(&self.home)
    }

    /// The pid of a role once it is ready.
    #[track_caller]
    pub fn ready_role(&self, name: &str) -> i32 {
        wait_for(&format!("{name} of pod {} is ready", self.name), || {
            let role = self.status()?.roles.into_iter().find(|role| role.name == name && role.ready)?;
            role.pid
        })
    }
}

pub struct Init<'a> {
    child: Child,
    test: &'a TestHome,
}

impl Init<'_> {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("init has ended", || self.child.try_wait().unwrap())
    }

    /// Stops in order and checks that nothing is left.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait().code(), Some(0), "{}", self.test.log());
        assert_eq!(self.test.processes(), Vec::<i32>::new(), "{}", self.test.log());
        assert_eq!(running(&self.test.home), None);
        assert!(!self.test.home.init_lock().exists() && !self.test.home.notify_socket().exists());
    }

    /// `kill -9` of init alone.
    #[track_caller]
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        assert_eq!(self.wait().signal(), Some(9));
    }
}

/// How to run something as PID 1 of a namespace of its own here, if that is permitted; if not, says so.
pub fn unshare() -> Option<Vec<&'static str>> {
    let namespaces = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    for user in [[].as_slice(), ["--user", "--map-root-user"].as_slice()] {
        let arguments: Vec<&str> = user.iter().chain(&namespaces).copied().collect();
        let tried = Command::new("unshare").args(&arguments).arg("true").stderr(Stdio::null()).status();
        if tried.is_ok_and(|status| status.success()) {
            return Some([&["unshare"], arguments.as_slice()].concat());
        }
    }
    // Past the test runner's capture of output: this must be seen.
    let message = "NOT TESTED: no process namespaces are permitted here, init was not run as PID 1\n";
    let _ = std::io::Write::write_all(&mut std::io::stderr(), message.as_bytes());
    None
}

/// A script that waits in vain ends with its namespace, after two minutes.
const LIMIT: [&str; 4] = ["timeout", "-s", "KILL", "120"];

/// A script, with an argument, as the one command of init (`mode`: how it passes signals on), which is PID 1.
pub fn under_init(unshare: &[&str], mode: &str, shell: &str, script: &str, argument: &str) -> Command {
    let words = [LIMIT.as_slice(), unshare, &[HARNESS, mode, shell, "-c", script, shell, argument]].concat();
    let mut command = command_of(&words);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// A script that leaves double-forked orphans, waits until all of them have ended, then until their zombies are gone or
/// it has looked so many times (20 a second), and writes how many zombies are left to the file that is its argument.
pub fn leave_orphans(count: u32, looks: u32) -> String {
    format!(
        r#"
    i=0; while [ $i -lt {count} ]; do (: & ) ; i=$((i+1)); done
    states() {{ cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) \(.\).*/\1/'; }}
    tries=0
    while [ $tries -lt {looks} ] && states | grep -q Z; do sleep 0.05; tries=$((tries+1)); done
    states | grep -c Z > "$1"
    exit 0
"#
    )
}

/// A command that begins with these words.
pub fn command_of(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

pub fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn size(path: PathBuf) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
