//! Where every file of a SkyServe home lives. One type, [`Home`], names them all, so that no two
//! parts of the system can disagree about a path.
//!
//! Two roots:
//! * the *home* (`$HOME`): state that must survive a restart (database, scripts, replicas, logs).
//!   On a cluster it is the volume mounted at `/home/sky`.
//! * the *runtime folder*: sockets, which only mean something to live processes and must work on
//!   hosts where the home is a network file system or its path is too long for a socket name.
//!
//! In a pod ([`POD_VARIABLE`] is set) two runtimes may have the home at once, while one pod drains and its successor
//! starts: what belongs to one runtime alone is then in the runtime folder, which is the pod's own.
//!
//! This crate computes paths, and makes the runtime folder; it reads and writes nothing else.
#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Environment variable that overrides the runtime folder.
pub const RUNTIME_DIR_VARIABLE: &str = "SKYSERVE_RUNTIME_DIR";

/// Environment variable that says that this is a pod: its name.
pub const POD_VARIABLE: &str = "SKYSERVE_POD";

/// Longest socket name that fits the runtime folder's path: `sockaddr_un` has 108 bytes, our longest
/// file name is 24.
const RUNTIME_DIR_BYTES_MAX: usize = 84;

/// Why a home cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("cannot tell where your home folder is: set HOME")]
    NoHome,
    #[error("the runtime folder {path} belongs to user {owner}, not to you: remove it, or set {RUNTIME_DIR_VARIABLE}")]
    ForeignRuntimeDir { path: PathBuf, owner: u32 },
    #[error(
        "the runtime folder {path} is too long for a socket ({bytes} bytes, at most {RUNTIME_DIR_BYTES_MAX}): set {RUNTIME_DIR_VARIABLE} to a shorter one"
    )]
    RuntimeDirTooLong { path: PathBuf, bytes: usize },
    #[error("cannot make the folder {path}: {source}")]
    MakeDir { path: PathBuf, source: std::io::Error },
}

/// All paths of one SkyServe home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    home: PathBuf,
    runtime: PathBuf,
    /// Whether another runtime may have the same home at the same time.
    is_shared: bool,
}

impl Home {
    /// The home of this process: `$HOME`, and `$SKYSERVE_RUNTIME_DIR` or a folder of this user's for
    /// this home below `$XDG_RUNTIME_DIR`, else `/tmp`.
    pub fn from_env() -> Result<Self, HomeError> {
        let home = std::env::var_os("HOME").filter(|value| !value.is_empty()).ok_or(HomeError::NoHome)?;
        let home = std::path::absolute(PathBuf::from(home)).map_err(|_| HomeError::NoHome)?;
        let runtime = match std::env::var_os(RUNTIME_DIR_VARIABLE).filter(|value| !value.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => default_runtime_dir(&home),
        };
        let is_shared = std::env::var_os(POD_VARIABLE).is_some_and(|value| !value.is_empty());
        Ok(Self { home, runtime, is_shared })
    }

    /// A home at explicit places.
    pub fn at(home: impl Into<PathBuf>, runtime: impl Into<PathBuf>) -> Self {
        Self { home: home.into(), runtime: runtime.into(), is_shared: false }
    }

    /// The same home, as one of several runtimes that have it at the same time.
    pub fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// Whether another runtime may have this home at the same time: the pod before this one, or the one after it.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// What tells this runtime from every other one of this machine: the home, or where several may have it, the folder
    /// that this one has alone.
    pub fn identity(&self) -> &Path {
        if self.is_shared { &self.runtime } else { &self.home }
    }

    /// What belongs to one runtime alone.
    fn own_dir(&self) -> PathBuf {
        if self.is_shared { self.runtime.clone() } else { self.serve_dir() }
    }

    /// Makes the folders that every role needs (mode 0700). Safe to call at every start.
    pub fn make_dirs(&self) -> Result<(), HomeError> {
        for path in [self.serve_dir(), self.log_dir(), self.replicas_dir(), self.bundles_dir()] {
            make_dir(&path)?;
        }
        self.make_runtime_dir()
    }

    /// Makes the runtime folder and checks that it is ours alone.
    pub fn make_runtime_dir(&self) -> Result<(), HomeError> {
        let bytes = self.runtime.as_os_str().len();
        if bytes > RUNTIME_DIR_BYTES_MAX {
            return Err(HomeError::RuntimeDirTooLong { path: self.runtime.clone(), bytes });
        }
        make_dir(&self.runtime)?;
        let owner = fs::symlink_metadata(&self.runtime)
            .map_err(|source| HomeError::MakeDir { path: self.runtime.clone(), source })?
            .uid();
        if owner != nix::unistd::geteuid().as_raw() {
            return Err(HomeError::ForeignRuntimeDir { path: self.runtime.clone(), owner });
        }
        Ok(())
    }

    /// `$HOME`.
    pub fn path(&self) -> &Path {
        &self.home
    }
    /// Sockets of live processes.
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime
    }
    /// `~/.sky`.
    pub fn sky_dir(&self) -> PathBuf {
        self.home.join(".sky")
    }
    /// The user's configuration.
    pub fn config_file(&self) -> PathBuf {
        self.sky_dir().join("config.yaml")
    }
    /// The configuration that the runtime started with, as JSON: roles that restart read this one, so that a
    /// slip in the user's file meets nobody who is running.
    pub fn config_in_force(&self) -> PathBuf {
        self.own_dir().join("config.json")
    }
    /// `~/.sky/serve`: everything of ours that is not named by the seed document.
    pub fn serve_dir(&self) -> PathBuf {
        self.sky_dir().join("serve")
    }
    /// The SQLite database; its only writer is the controller.
    pub fn database(&self) -> PathBuf {
        self.serve_dir().join("skyserve.db")
    }
    /// Locked by the controller that may write (OFD lock).
    pub fn controller_lock(&self) -> PathBuf {
        self.serve_dir().join("controller.lock")
    }
    /// Locked by init for its life: one runtime per home, and in pods one per pod.
    pub fn init_lock(&self) -> PathBuf {
        self.own_dir().join("init.lock")
    }
    /// The published route table.
    pub fn routes_file(&self) -> PathBuf {
        self.serve_dir().join("routes.json")
    }
    /// `~/.sky/serve/logs`.
    pub fn log_dir(&self) -> PathBuf {
        self.serve_dir().join("logs")
    }
    /// What init supervises, written by init for `status` to show.
    pub fn init_status(&self) -> PathBuf {
        self.own_dir().join("init.json")
    }
    /// Output of the setup script.
    pub fn setup_log(&self) -> PathBuf {
        self.log_dir().join("setup.log")
    }
    /// Output of the run script with this id.
    pub fn run_log(&self, id: u64) -> PathBuf {
        self.log_dir().join(format!("run-{id}.log"))
    }
    /// Output of init itself.
    pub fn init_log(&self) -> PathBuf {
        self.log_dir().join("init.log")
    }
    /// Output of the controller.
    pub fn controller_log(&self) -> PathBuf {
        self.log_dir().join("controller.log")
    }
    /// Output of the load balancer.
    pub fn load_balancer_log(&self) -> PathBuf {
        self.log_dir().join("loadbalancer.log")
    }
    /// Output of the follower, in pods of load balancers alone.
    pub fn follower_log(&self) -> PathBuf {
        self.log_dir().join("follower.log")
    }
    /// One folder per local replica, named by its uid.
    pub fn replicas_dir(&self) -> PathBuf {
        self.serve_dir().join("replicas")
    }
    /// The folder of one local replica.
    pub fn replica_dir(&self, uid: &str) -> PathBuf {
        self.replicas_dir().join(uid)
    }
    /// Uploaded workdirs and file mounts, named by their SHA-256.
    pub fn bundles_dir(&self) -> PathBuf {
        self.serve_dir().join("bundles")
    }
    /// What a replica's pod shows to get its files: one for all restarts, since launches in flight hold it.
    pub fn bundle_token(&self) -> PathBuf {
        self.serve_dir().join("bundle-token")
    }
    /// The persisted setup script (path given by the seed document).
    pub fn setup_script(&self) -> PathBuf {
        self.sky_dir().join(".controller_recovery_setup_commands.sh")
    }
    /// The persisted run scripts, `sky_job_<id>` each (path given by the seed document).
    pub fn run_scripts_dir(&self) -> PathBuf {
        self.sky_dir().join(".controller_recovery_task_run")
    }
    /// Made after the first successful start; its presence means "this is a restart". In the image
    /// the home is `/home/sky`, so this is the seed document's `/home/sky/k8s_container_ready`.
    pub fn ready_marker(&self) -> PathBuf {
        self.home.join("k8s_container_ready")
    }
    /// What the last replay of the scripts did (path given by the design: `/tmp/ha_recovery.log` in
    /// the image, where the runtime folder is the container's own `/tmp`).
    pub fn recovery_log(&self) -> PathBuf {
        self.runtime.join("ha_recovery.log")
    }
    /// systemd notify protocol, served by init.
    pub fn notify_socket(&self) -> PathBuf {
        self.runtime.join("notify.sock")
    }
    /// Control API, served by the controller: HTTP+JSON.
    pub fn control_socket(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }
    /// Load and listener state, served by the load balancer: HTTP+JSON.
    pub fn load_balancer_socket(&self) -> PathBuf {
        self.runtime.join("lb.sock")
    }
}

fn make_dir(path: &Path) -> Result<(), HomeError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| HomeError::MakeDir { path: path.to_path_buf(), source })
}

fn default_runtime_dir(home: &Path) -> PathBuf {
    let uid = nix::unistd::geteuid();
    let base = match std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
        Some(dir) if Path::new(&dir).is_dir() => PathBuf::from(dir).join("skyserve"),
        _ => PathBuf::from(format!("/tmp/skyserve-{uid}")),
    };
    base.join(format!("{:016x}", fnv1a(home.as_os_str().as_encoded_bytes())))
}

/// FNV-1a: a stable short name for a home; collisions only matter between one user's own homes.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_homes_never_share_a_runtime_folder() {
        assert_ne!(default_runtime_dir(Path::new("/home/a")), default_runtime_dir(Path::new("/home/b")));
    }

    #[test]
    fn paths_named_by_the_seed_are_where_it_says() {
        let home = Home::at("/home/sky", "/tmp/run");
        assert_eq!(home.ready_marker(), Path::new("/home/sky/k8s_container_ready"));
        assert_eq!(home.setup_script(), Path::new("/home/sky/.sky/.controller_recovery_setup_commands.sh"));
        assert_eq!(home.run_scripts_dir(), Path::new("/home/sky/.sky/.controller_recovery_task_run"));
    }

    #[test]
    fn two_pods_share_the_state_of_a_home_and_nothing_of_each_others_runtime() {
        let pods = ["/run/a", "/run/b"].map(|runtime| Home::at("/home/sky", runtime).shared());
        let own = [Home::init_lock, Home::init_status, Home::config_in_force, Home::control_socket, Home::recovery_log];
        assert!(own.iter().all(|path| path(&pods[0]) != path(&pods[1])));
        assert_ne!(pods[0].identity(), pods[1].identity());
        let shared = [Home::database, Home::controller_lock, Home::routes_file, Home::ready_marker, Home::log_dir];
        assert!(shared.iter().all(|path| path(&pods[0]) == path(&pods[1])));
        assert!(Home::at("/home/sky", "/run/a").init_lock().starts_with("/home/sky"));
    }

    #[test]
    fn a_runtime_folder_too_long_for_a_socket_is_refused() {
        let home = Home::at("/home/sky", format!("/tmp/{}", "x".repeat(100)));
        assert!(matches!(home.make_runtime_dir(), Err(HomeError::RuntimeDirTooLong { .. })));
    }

    #[test]
    fn folders_are_made_for_the_owner_alone_and_making_them_twice_is_fine() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::at(temp.path().join("h"), temp.path().join("r"));
        home.make_dirs().unwrap();
        home.make_dirs().unwrap();
        assert_eq!(fs::metadata(home.replicas_dir()).unwrap().mode() & 0o777, 0o700);
    }
}
