//! One replica's life, in the order a reader would tell it: claim, provision, setup, run, end.
//!
//! * Everything happens under the folder's lock.
//! * Nothing of the user's runs before the claim is on disk, and nothing runs after a claim of another
//!   shim's: what that one left behind is ended and recorded instead.
//! * `exit.json` is written when nothing of the replica runs any more.

use crate::address::Place;
use crate::folder::{Exit, Folder, State};
use crate::limits::{self, Limits};
use crate::mounts::{self, Mounts};
use crate::output::OutputLog;
use crate::pidfd::ProcessIdentity;
use crate::spawn::{self, Commands};
use crate::supervise::Supervisor;
use crate::{CrashPoint, Options, bundle, environment, strays};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use skyserve_model::launch::{Ended, LaunchSpec, Phase, Stage};
use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a replica may take to end if nobody said: SkyServe's and Kubernetes' default.
const TERMINATE_GRACE_MS_DEFAULT: u64 = 30_000;
/// How long what `run` left in the background may take to end once `run` itself has.
const LEFTOVER_GRACE_MS: u64 = 2_000;
/// How long a killed shim's processes may take to go.
const BURY_WAIT_MS_MAX: u64 = 5_000;
/// Attempts to record how a replica ended, should even the space set aside not do, and the wait between.
const EXIT_WRITES_MAX: u32 = 20;
const EXIT_WRITE_WAIT_MS: u64 = 500;
/// Stands for "a declared port" when isolation is tried; nothing is bound to it.
const PROBE_PORT: u16 = 9;

/// A claimed replica.
pub(crate) struct Replica<'a> {
    folder: &'a Folder,
    spec: LaunchSpec,
    options: &'a Options,
    state: State,
    supervisor: Supervisor,
    mounts: Mounts,
    limits: Limits,
}

impl<'a> Replica<'a> {
    /// Claims the replica for good. The caller holds the lock and has found no earlier claim.
    pub(crate) fn claim(folder: &'a Folder, spec: LaunchSpec, options: &'a Options) -> io::Result<Self> {
        folder.reserve_exit()?;
        let log = OutputLog::open(folder.output_log());
        let supervisor = Supervisor::new(spec.uid.as_str(), folder.dir().to_path_buf(), log)?;
        let state = State {
            shim: ProcessIdentity::of(Pid::this())?,
            claimed_unix_ms: unix_ms(),
            phase: Phase::Provisioning { reason: None },
            main: None,
            cgroups: Vec::new(),
            notes: Vec::new(),
        };
        folder.write_state(&state)?;
        Ok(Self { folder, spec, options, state, supervisor, mounts: Mounts::default(), limits: Limits::default() })
    }

    /// From the claim to the exit record.
    pub(crate) fn live(mut self) {
        let (ended, place) = match self.provision() {
            Ok(place) => (self.set_up_and_run(&place), place),
            Err(ended) => (ended, Place::shared(self.spec.port, self.spec.port)),
        };
        self.end(ended, &place);
    }

    /// Files, mounts, limits, and an address.
    fn provision(&mut self) -> Result<Place, Ended> {
        let failed = |reason: String| Ended { stage: Stage::Provision, reason };
        self.options.crash_at(CrashPoint::Claimed);
        let supervisor = std::cell::RefCell::new(&mut self.supervisor);
        bundle::unpack(self.folder, &self.spec, &|| supervisor.borrow_mut().is_terminate_asked())
            .map_err(|error| failed(error.to_string()))?;
        self.options.crash_at(CrashPoint::Unpacked);
        self.mounts.place(self.folder, &self.spec.file_mounts, &home()).map_err(|error| failed(error.to_string()))?;
        let _ = fs::remove_dir_all(self.folder.unpack_dir());
        self.limits = Limits::set(&self.spec);
        self.state.cgroups.clone_from(&self.limits.groups);
        for note in std::mem::take(&mut self.limits.notes) {
            self.note(note);
        }
        self.choose_place().map_err(|error| failed(format!("no loopback address for it: {error}")))
    }

    /// An address of its own where the kernel lets us give it one, else a port of its own.
    fn choose_place(&mut self) -> io::Result<Place> {
        let why_not = if self.options.port_isolation {
            match isolated_place(self.folder.dir(), &self.spec.ports) {
                Ok(place) => return Ok(place),
                Err(error) => format!("this machine does not allow it ({error})"),
            }
        } else {
            "it is turned off".to_owned()
        };
        let place = Place::choose_shared(self.folder.dir(), self.spec.port)?;
        self.note(format!("replicas share this machine's ports: {why_not}; {}", advice(&place, self.spec.port)));
        Ok(place)
    }

    fn set_up_and_run(&mut self, place: &Place) -> Ended {
        if let Some(setup) = self.spec.setup.clone() {
            match self.run_stage(Stage::Setup, &setup, place) {
                Ok((WaitStatus::Exited(_, 0), _)) => {}
                Ok((status, took)) => return self.describe(Stage::Setup, status, took, place),
                Err(ended) => return ended,
            }
        }
        let Some(run) = self.spec.run.clone() else {
            let reason = "there are no run commands, so nothing serves requests: add `run:` to the task".to_owned();
            return Ended { stage: Stage::Run, reason };
        };
        match self.run_stage(Stage::Run, &run, place) {
            Ok((status, took)) => self.describe(Stage::Run, status, took, place),
            Err(ended) => ended,
        }
    }

    /// Starts one stage's commands and waits for their end: how, and after how long.
    fn run_stage(&mut self, stage: Stage, commands: &str, place: &Place) -> Result<(WaitStatus, Duration), Ended> {
        let since = Instant::now();
        let started = self.start(stage, commands, place).map_err(|error| Ended {
            stage: Stage::Provision,
            reason: format!("{} could not be started: {error}", name(stage)),
        })?;
        self.supervisor.adopt(started.pid, started.listener);
        self.options.crash_at(if stage == Stage::Run { CrashPoint::RunStarted } else { CrashPoint::SetupStarted });
        // What setup leaves in the background belongs to the replica; without success nothing does.
        let ends_all = |status: &WaitStatus| stage == Stage::Run || !matches!(status, WaitStatus::Exited(_, 0));
        let status = self.supervisor.wait_for_main(place, ends_all);
        let took = since.elapsed();
        status.map(|status| (status, took)).ok_or_else(|| Ended {
            stage,
            reason: format!("terminated, after {} had run for {} s", name(stage), took.as_secs()),
        })
    }

    fn start(&mut self, stage: Stage, commands: &str, place: &Place) -> io::Result<spawn::Started> {
        let phase = match stage {
            Stage::Run => Phase::Running { address: place.address(self.spec.port) },
            Stage::Setup | Stage::Provision => Phase::SettingUp,
        };
        let script = self.folder.script(stage);
        fs::write(&script, commands)?;
        let variables = environment::variables(stage, &self.spec, self.folder.dir(), place, self.state.claimed_unix_ms);
        let path = variables.get("PATH").cloned().unwrap_or_else(|| environment::PATH_DEFAULT.into());
        let bash = find_program("bash", &path)
            .ok_or_else(|| io::Error::other(format!("there is no bash in {}: install bash", path.to_string_lossy())))?;
        let commands = Commands {
            bash: &CString::new(bash.as_os_str().as_bytes())?,
            script: &CString::new(script.as_os_str().as_bytes())?,
            variables: &environment::strings(&variables),
            work_dir: &self.folder.work_dir(),
            output: self.supervisor.output(),
            isolated: place.isolated,
        };
        let (state, limits, folder) = (&mut self.state, &mut self.limits, self.folder);
        spawn::start(&commands, |pid| {
            limits.apply(pid);
            state.notes.append(&mut limits.notes);
            state.main = Some(ProcessIdentity::of(pid)?);
            state.phase = phase;
            folder.write_state(state)
        })
    }

    /// How a stage ended, for a person.
    fn describe(&self, stage: Stage, status: WaitStatus, took: Duration, place: &Place) -> Ended {
        let took = took.as_secs();
        let name = name(stage);
        let mut reason = match status {
            WaitStatus::Exited(_, code) => format!("{name} exited with code {code} after {took} s"),
            WaitStatus::Signaled(_, signal, _) => {
                format!("{name} was ended by signal {} ({signal}) after {took} s", signal as i32)
            }
            other => format!("{name} ended ({other:?}) after {took} s"),
        };
        if self.limits.was_out_of_memory() {
            let limit = self.spec.memory_gb.map_or(0.0, |amount| amount.value);
            reason.push_str(&format!("; it went over its memory limit of {limit} GB"));
        }
        if stage == Stage::Run && !place.isolated {
            reason.push_str(&format!("; {}", advice(place, self.spec.port)));
        }
        Ended { stage, reason }
    }

    /// Ends what is left, gives everything back, and records how it ended.
    fn end(mut self, mut ended: Ended, place: &Place) {
        let grace_ms = if self.supervisor.is_terminate_asked() {
            let tombstone = self.folder.read_tombstone().ok().flatten();
            tombstone.map_or(TERMINATE_GRACE_MS_DEFAULT, |tombstone| tombstone.grace_ms)
        } else {
            LEFTOVER_GRACE_MS
        };
        let left = self.supervisor.end_everything(place, Duration::from_millis(grace_ms));
        if !left.is_empty() {
            let pids: Vec<String> = left.iter().map(Pid::to_string).collect();
            ended.reason.push_str(&format!("; the kernel does not let go of its processes {}", pids.join(", ")));
        }
        self.mounts.remove();
        limits::remove_groups(&self.state.cgroups);
        self.options.crash_at(CrashPoint::Ended);
        self.supervisor.log.note(&format!("{}.", ended.reason));
        record_exit(self.folder, ended);
    }

    /// Tells a person what could not be done as asked.
    fn note(&mut self, note: String) {
        self.supervisor.log.note(&note);
        self.state.notes.push(note);
    }
}

/// Ends and records a replica that was claimed by a shim that is gone. The caller holds the lock.
pub(crate) fn bury(folder: &Folder, spec: &LaunchSpec, state: &State) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_millis(BURY_WAIT_MS_MAX);
    let left = strays::end_all(spec.uid.as_str(), folder.dir(), deadline)?;
    mounts::remove_abandoned(folder, &spec.file_mounts, &home());
    limits::remove_groups(&state.cgroups);
    let mut reason = SHIM_KILLED.to_owned();
    if !left.is_empty() {
        let pids: Vec<String> = left.iter().map(Pid::to_string).collect();
        reason.push_str(&format!("; the kernel does not let go of its processes {}", pids.join(", ")));
    }
    record_exit(folder, Ended { stage: stage_of(&state.phase), reason });
    Ok(())
}

/// Why a replica has ended whose shim is gone without saying how.
pub const SHIM_KILLED: &str =
    "its shim (the `skyserve shim` process that held it) was killed, or the machine restarted";

/// Which stage a phase belongs to.
pub fn stage_of(phase: &Phase) -> Stage {
    match phase {
        Phase::Provisioning { .. } | Phase::Absent => Stage::Provision,
        Phase::SettingUp => Stage::Setup,
        Phase::Running { .. } | Phase::Preempted { .. } => Stage::Run,
        Phase::Ended(ended) => ended.stage,
    }
}

fn record_exit(folder: &Folder, ended: Ended) {
    let exit = Exit { ended, unix_ms: unix_ms() };
    for attempt in 1..=EXIT_WRITES_MAX {
        match folder.write_exit(&exit) {
            Ok(()) => return,
            // A folder that is gone was terminated: nobody will ask.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) if attempt == EXIT_WRITES_MAX => eprintln!("cannot record how the replica ended: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(EXIT_WRITE_WAIT_MS)),
        }
    }
}

/// An address of the replica's own, after a try that shows that binds do move to it here.
fn isolated_place(dir: &Path, ports: &[u16]) -> io::Result<Place> {
    let place = Place::reserve(dir, ports)?;
    let probe = Place::moving(place.ip, PROBE_PORT, 0);
    let mut isolation = crate::isolation::Isolation::default();
    let moved = || {
        let address = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PROBE_PORT));
        let Ok(socket) = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None) else {
            return false;
        };
        socket::bind(socket.as_raw_fd(), &address).is_ok()
            && socket::getsockname::<SockaddrIn>(socket.as_raw_fd()).is_ok_and(|bound| bound.ip() == probe.ip)
    };
    if spawn::probe_isolation(moved, |listener| isolation.serve(listener, &probe))? {
        Ok(place)
    } else {
        Err(io::Error::other("calls to bind cannot be answered"))
    }
}

/// What a service must do where it has no address of its own.
fn advice(place: &Place, declared: u16) -> String {
    format!(
        "services here must listen on the port in PORT (or SKYPILOT_SERVE_REPLICA_PORT), now {}, instead of {declared}",
        place.port_to_bind(declared)
    )
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Provision => "provisioning",
        Stage::Setup => "setup",
        Stage::Run => "run",
    }
}

fn find_program(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_absolute() && nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok())
}

/// The user's home, for `~` in file mounts.
fn home() -> PathBuf {
    match std::env::var_os("HOME").filter(|home| !home.is_empty()) {
        Some(home) => home.into(),
        None => {
            let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
            user.map_or_else(|| PathBuf::from("/"), |user| user.dir)
        }
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}
