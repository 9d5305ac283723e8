//! How a role, a script or a command is started: program, arguments, environment, streams.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{AccessFlags, access};
use skyserve_home::{Home, RUNTIME_DIR_VARIABLE};

use crate::fd_store::{FDS_PER_ROLE_MAX, FdStore};
use crate::leftovers::{MARK_VARIABLE, mark};
use crate::log_file::open_append;
use crate::options::Role;
use crate::sys::{self, EnvEntry, Exec};

/// Where bash is; a shell of the plainer kind is better than none.
const SHELLS: [&str; 4] = ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/bin/sh"];
/// Runs in a login shell: the script itself if it may be executed (its `#!` line counts then), else by the shell.
const RUN_SCRIPT: &str = r#"if [ -x "$0" ]; then exec "$0"; else exec "$1" "$0"; fi"#;
/// `PATH` where there is none, as PID 1 of a bare image.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Variables that belong to one process and must not pass from init's own environment to a child.
const OWN_VARIABLES: [&str; 8] = [
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    MARK_VARIABLE,
    RUNTIME_DIR_VARIABLE,
];
/// Descriptors init itself may need: those kept for two roles, and for each script a pipe, a log and what names its
/// process.
const NOFILE_WANTED: u64 = 4 * FDS_PER_ROLE_MAX as u64 + 4 * skyserve_scripts::RUN_SCRIPTS_MAX as u64;

/// Starts children of one home.
#[derive(Debug)]
pub(crate) struct Launcher {
    home: Home,
    /// The home as it stands in the marks of children.
    mark_home: PathBuf,
    /// Limit on open files as init found it, for its children.
    nofile: Option<(u64, u64)>,
    null: File,
}

impl Launcher {
    /// Raises init's own limit on open files where that is possible.
    pub(crate) fn new(home: Home, mark_home: PathBuf) -> io::Result<Self> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let nofile = getrlimit(Resource::RLIMIT_NOFILE).ok();
        if let Some((soft, hard)) = nofile
            && soft < NOFILE_WANTED
        {
            // Where this is refused there is room for fewer descriptors, and keeping one more fails with a message.
            let _ = setrlimit(Resource::RLIMIT_NOFILE, NOFILE_WANTED.min(hard), hard);
        }
        Ok(Self { home, mark_home, nofile, null })
    }

    /// Starts a role and gives it what is kept for it. Its output goes to `output`, or else straight to its log.
    pub(crate) fn start_role(
        &self,
        role: &Role,
        index: usize,
        store: &FdStore,
        output: Option<BorrowedFd<'_>>,
    ) -> io::Result<i32> {
        let (names, passed_fds): (Vec<&str>, Vec<BorrowedFd<'_>>) = store.of_role(index).unzip();
        let mut env = self.environment(&role.name)?;
        if !passed_fds.is_empty() {
            env.push(entry("LISTEN_FDS", passed_fds.len().to_string())?);
            env.push(entry("LISTEN_FDNAMES", names.join(":"))?);
            env.push(EnvEntry::with_own_pid(b"LISTEN_PID=".to_vec()).ok_or_else(nul_inside)?);
        }
        // A log that cannot be opened costs its lines, not the role.
        let log = match output {
            Some(_) => None,
            None => Some(open_append(&role.log_file).or_else(|_| self.null.try_clone())?),
        };
        let output = output.or(log.as_ref().map(AsFd::as_fd)).unwrap_or(self.null.as_fd());
        let argv = role.argv.iter().map(|arg| c_string(arg)).collect::<io::Result<Vec<_>>>()?;
        let program = argv.first().cloned().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.start(program, argv, env, output, passed_fds)
    }

    /// Starts a script in a login shell, its output to `output`.
    pub(crate) fn start_script(&self, name: &str, script: &Path, output: BorrowedFd<'_>) -> io::Result<i32> {
        let shell = SHELLS.into_iter().find(|shell| access(*shell, AccessFlags::X_OK).is_ok()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "no bash and no sh on this machine: install bash")
        })?;
        let argv = [OsStr::new(shell), OsStr::new("-l"), OsStr::new("-c"), OsStr::new(RUN_SCRIPT), script.as_os_str()];
        let argv = argv.into_iter().chain([OsStr::new(shell)]).map(c_string).collect::<io::Result<Vec<_>>>()?;
        self.start(c_string(OsStr::new(shell))?, argv, self.environment(name)?, output, Vec::new())
    }

    fn start(
        &self,
        program: CString,
        argv: Vec<CString>,
        env: Vec<EnvEntry>,
        output: BorrowedFd<'_>,
        passed_fds: Vec<BorrowedFd<'_>>,
    ) -> io::Result<i32> {
        sys::spawn(Exec {
            program,
            argv,
            env,
            cwd: Some(c_string(self.home.path().as_os_str())?),
            stdio: Some([self.null.as_fd(), output, output]),
            passed_fds,
            nofile: self.nofile,
            take_terminal: false,
        })
    }

    fn environment(&self, name: &str) -> io::Result<Vec<EnvEntry>> {
        let mut env = inherited(&["HOME"])?;
        if std::env::var_os("PATH").is_none() {
            env.push(entry("PATH", DEFAULT_PATH)?);
        }
        env.push(entry("HOME", self.home.path())?);
        env.push(entry(RUNTIME_DIR_VARIABLE, self.home.runtime_dir())?);
        env.push(entry("NOTIFY_SOCKET", self.home.notify_socket())?);
        env.push(EnvEntry::with_own_pid(mark(&self.mark_home, name)).ok_or_else(nul_inside)?);
        Ok(env)
    }
}

/// Starts a command with init's own streams, environment and working directory.
pub(crate) fn start_command(argv: &[OsString]) -> io::Result<i32> {
    let first = argv.first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    sys::spawn(Exec {
        program: c_string(find_program(first).as_os_str())?,
        argv: argv.iter().map(|arg| c_string(arg)).collect::<io::Result<Vec<_>>>()?,
        env: inherited(&[])?,
        cwd: None,
        stdio: None,
        passed_fds: Vec::new(),
        nofile: None,
        take_terminal: true,
    })
}

/// Starts a command with this environment alone, in `dir`, with no input and with init's own output.
pub(crate) fn start_command_in(
    argv: &[OsString],
    environment: &BTreeMap<String, OsString>,
    dir: &Path,
) -> io::Result<i32> {
    let program = argv.first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let null = File::open("/dev/null")?;
    sys::spawn(Exec {
        program: c_string(program)?,
        argv: argv.iter().map(|arg| c_string(arg)).collect::<io::Result<Vec<_>>>()?,
        env: environment.iter().map(|(name, value)| entry(name, value)).collect::<io::Result<Vec<_>>>()?,
        cwd: Some(c_string(dir.as_os_str())?),
        stdio: Some([null.as_fd(), io::stdout().as_fd(), io::stderr().as_fd()]),
        passed_fds: Vec::new(),
        nofile: None,
        take_terminal: false,
    })
}

/// As a shell finds it; what is not found is tried as it stands, so that exec says what is wrong.
fn find_program(name: &OsStr) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    if !name.as_bytes().contains(&b'/')
        && let Some(found) = std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .find(|program| program.is_file() && access(program, AccessFlags::X_OK).is_ok())
    {
        return found;
    }
    PathBuf::from(name)
}

fn inherited(without: &[&str]) -> io::Result<Vec<EnvEntry>> {
    std::env::vars_os()
        .filter(|(name, _)| !OWN_VARIABLES.iter().chain(without).any(|own| name == own))
        .map(|(name, value)| entry(name, value))
        .collect()
}

fn entry(name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> io::Result<EnvEntry> {
    let mut text = name.as_ref().to_owned();
    text.push("=");
    text.push(value);
    EnvEntry::new(text.into_vec()).ok_or_else(nul_inside)
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| nul_inside())
}

fn nul_inside() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "an argument or a variable has a NUL byte inside")
}
