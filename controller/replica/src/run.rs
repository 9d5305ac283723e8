//! `skyserve replica run`: a replica's life in its container, in the order a reader would tell it: files, setup, run,
//! end.

use crate::ending::{self, FAILED_CODE, name};
use crate::places::Places;
use crate::{files, identity, running};
use skyserve_init::{Exit, Guardian};
use skyserve_model::launch::{Ended, LaunchSpec, Stage};
use skyserve_shim::environment::{self, PATH_DEFAULT, Seat};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Variables of ours, which are no business of the user's commands.
const OWN_PREFIX: &str = "SKYSERVE_";
/// What the user's commands are run with, the first that the image has: they are written for bash.
const SHELLS: [&str; 2] = ["bash", "sh"];
/// Documentation's own network (RFC 5737): a route to it is the default route, and nothing is ever sent there.
const ANYWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// As PID 1: to the end of the replica. The exit code is that of the commands that ended it.
pub(crate) fn run(places: &Places) -> ExitCode {
    let (ended, code) = match Replica::prepare(places) {
        Ok(mut replica) => replica.live(),
        Err(ended) => (ended, FAILED_CODE),
    };
    ending::tell(places, &ended);
    ExitCode::from(code)
}

struct Replica<'a> {
    places: &'a Places,
    spec: LaunchSpec,
    guardian: Guardian,
    /// The container's environment, made whole.
    session: BTreeMap<String, OsString>,
    home: PathBuf,
    work_dir: PathBuf,
    seat: Seat,
}

impl<'a> Replica<'a> {
    fn prepare(places: &'a Places) -> Result<Self, Ended> {
        // First: whoever ends the pod from here on is heard.
        let guardian = Guardian::take().map_err(|error| not_provisioned(format!("cannot take signals: {error}")))?;
        let _ = fs::remove_file(places.running());
        let spec = read_launch(&places.launch()).map_err(|error| {
            not_provisioned(format!("what to run cannot be read from {}: {error}", places.launch().display()))
        })?;
        let user = identity::user();
        let mut home = identity::home(user.as_ref());
        let work_dir = files::make_work_dir(places, &home).map_err(|error| not_provisioned(error.to_string()))?;
        if !work_dir.starts_with(&home) {
            home = places.spare_home();
        }
        let seat = Seat { ip: own_address(), port: spec.port, began_unix_ms: unix_ms() };
        Ok(Self { places, spec, guardian, session: session(&home, user.as_ref()), home, work_dir, seat })
    }

    fn live(&mut self) -> (Ended, u8) {
        let guardian = RefCell::new(&mut self.guardian);
        let cancelled = || guardian.borrow_mut().is_stop_asked();
        if let Err(error) = files::place(self.places, &self.spec, &self.home, &self.work_dir, &cancelled) {
            return (not_provisioned(error.to_string()), FAILED_CODE);
        }
        if let Some(setup) = self.spec.setup.clone() {
            match self.stage(Stage::Setup, &setup) {
                Ok((_, Exit::Code(0))) => {}
                Ok((ended, exit)) => return (ended, exit.shell_code()),
                Err(ended) => return (ended, FAILED_CODE),
            }
        }
        let Some(run) = self.spec.run.clone() else {
            let reason = "there are no run commands, so nothing serves requests: add `run:` to the task".to_owned();
            return (Ended { stage: Stage::Run, reason }, FAILED_CODE);
        };
        if let Err(error) = running::set(self.places) {
            return (not_provisioned(format!("cannot say that setup is over: {error}")), FAILED_CODE);
        }
        match self.stage(Stage::Run, &run) {
            Ok((ended, exit)) => (ended, exit.shell_code()),
            Err(ended) => (ended, FAILED_CODE),
        }
    }

    /// Runs one stage's commands to their end: how they ended, in words and as it is.
    fn stage(&mut self, stage: Stage, commands: &str) -> Result<(Ended, Exit), Ended> {
        if self.guardian.is_stop_asked() {
            return Err(Ended { stage, reason: format!("terminated before {} began", name(stage)) });
        }
        let failed = |error: String| not_provisioned(format!("{} could not be started: {error}", name(stage)));
        let mut variables = self.session.clone();
        environment::add(&mut variables, stage, &self.spec, &self.seat);
        let path = variables.get("PATH").map_or(OsStr::new(PATH_DEFAULT), OsString::as_os_str);
        let shell = SHELLS
            .iter()
            .find_map(|shell| find_program(shell, path))
            .ok_or_else(|| failed("the image has neither bash nor sh: use an image that has bash".to_owned()))?;
        // A file: the commands may be longer than the kernel allows one argument to be.
        let script = self.places.state().join(format!("{}.sh", name(stage)));
        write_private(&script, commands).map_err(|error| failed(error.to_string()))?;
        let since = Instant::now();
        let argv = [shell.into_os_string(), script.into_os_string()];
        let exit = self.guardian.run(&argv, &variables, &self.work_dir).map_err(|error| failed(error.to_string()))?;
        let took = since.elapsed();
        if self.guardian.is_stop_asked() {
            let reason = format!("terminated, after {} had run for {} s", name(stage), took.as_secs());
            // Whatever they made of it, nothing of this replica goes on.
            let exit = if exit == Exit::Code(0) && stage == Stage::Setup { Exit::Signal(SIGTERM) } else { exit };
            return Ok((Ended { stage, reason }, exit));
        }
        Ok((ending::of_commands(stage, exit, took), exit))
    }
}

const SIGTERM: i32 = 15;

fn not_provisioned(reason: String) -> Ended {
    Ended { stage: Stage::Provision, reason }
}

pub(crate) fn read_launch(path: &Path) -> io::Result<LaunchSpec> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// The container's environment without ours, and with what a shell's users count on.
fn session(home: &Path, user: Option<&identity::User>) -> BTreeMap<String, OsString> {
    let mut all: BTreeMap<String, OsString> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| !name.starts_with(OWN_PREFIX))
        .collect();
    all.insert("HOME".into(), home.as_os_str().to_owned());
    all.entry("PATH".into()).or_insert_with(|| PATH_DEFAULT.into());
    for name in ["USER", "LOGNAME"] {
        if let Some(user) = user {
            all.entry(name.into()).or_insert_with(|| user.name.clone().into());
        }
    }
    all
}

fn find_program(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_absolute() && nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok())
}

/// Commands may hold what others shall not read.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let _ = fs::remove_file(path);
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// The pod's address: that of the default route.
fn own_address() -> IpAddr {
    let asked = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect(ANYWHERE)?;
        socket.local_addr()
    });
    asked.map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip())
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}
