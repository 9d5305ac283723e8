//! A home with a provider, and replicas that are gone when the test is.

use skyserve_home::Home;
use skyserve_model::launch::{Ended, LaunchSpec, Phase};
use skyserve_model::{Observation, ReplicaId, ReplicaUid, Version};
use skyserve_provider::Provider;
use skyserve_provider::process::{ProcessOptions, ProcessProvider};
use skyserve_shim::folder::{Folder, State};
use skyserve_shim::strays;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Receiver;

/// How long anything may take before a test fails: far more than it does on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Site {
    temp: tempfile::TempDir,
    pub(crate) home: Home,
}

impl Site {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().canonicalize().unwrap();
        Self { home: Home::at(&path, path.join("run")), temp }
    }

    /// Another controller's provider for the same home.
    pub(crate) fn provider(&self) -> ProcessProvider {
        self.provider_with(vec![env!("CARGO_BIN_EXE_skyserve-provider-shim").into()])
    }

    pub(crate) fn provider_with(&self, shim: Vec<OsString>) -> ProcessProvider {
        ProcessProvider::new(self.home.clone(), shim, ProcessOptions::default()).unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.temp.path()
    }

    pub(crate) fn folder(&self, spec: &LaunchSpec) -> Folder {
        Folder::at(self.home.replica_dir(spec.uid.as_str()))
    }

    pub(crate) fn state(&self, spec: &LaunchSpec) -> State {
        self.folder(spec).read_state().unwrap().expect("claimed")
    }

    pub(crate) fn strays(&self, spec: &LaunchSpec) -> usize {
        strays::find(spec.uid.as_str(), self.folder(spec).dir()).unwrap().len()
    }

    pub(crate) fn lines(&self, file: &str) -> usize {
        fs::read_to_string(self.path().join(file)).unwrap_or_default().lines().count()
    }
}

impl Drop for Site {
    /// Whatever a failed test left.
    fn drop(&mut self) {
        for entry in fs::read_dir(self.home.replicas_dir()).into_iter().flatten().flatten() {
            let folder = Folder::at(entry.path());
            if folder.is_locked().unwrap_or(false)
                && let Ok(Some(state)) = folder.read_state()
                && let Ok(Some(shim)) = state.shim.open()
            {
                let _ = shim.signal(nix::sys::signal::Signal::SIGKILL);
                let _ = shim.wait_until(Instant::now() + PATIENCE);
            }
            // One that records an end is left to finish.
            let deadline = Instant::now() + PATIENCE;
            while folder.is_locked().unwrap_or(false) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            let uid = entry.file_name().to_string_lossy().into_owned();
            let _ = strays::end_all(&uid, folder.dir(), Instant::now() + PATIENCE);
        }
    }
}

pub(crate) fn spec(uid: &str, run: &str) -> LaunchSpec {
    LaunchSpec {
        uid: ReplicaUid::parse(uid).unwrap(),
        service: uid.split('-').next().unwrap().to_owned(),
        replica_id: ReplicaId(uid.rsplit('-').next().unwrap().parse().unwrap()),
        version: Version(1),
        setup: None,
        run: Some(run.to_owned()),
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

/// The present phase as `list` shows it.
pub(crate) async fn phase(provider: &ProcessProvider, spec: &LaunchSpec) -> Option<Phase> {
    let listed = provider.list().await.unwrap();
    listed.into_iter().find(|observation| observation.uid == spec.uid).map(|observation| observation.phase)
}

/// Waits until `list` shows what is wanted.
pub(crate) async fn until<T>(
    provider: &ProcessProvider,
    spec: &LaunchSpec,
    wanted: impl Fn(Option<Phase>) -> Option<T>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let phase = phase(provider, spec).await;
        if let Some(value) = wanted(phase.clone()) {
            return value;
        }
        assert!(Instant::now() < deadline, "{} is still {phase:?}", spec.uid);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn is_running(phase: Option<Phase>) -> Option<()> {
    matches!(phase, Some(Phase::Running { .. })).then_some(())
}

pub(crate) fn how_ended(phase: Option<Phase>) -> Option<Ended> {
    match phase {
        Some(Phase::Ended(ended)) => Some(ended),
        _ => None,
    }
}

pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The next report about the replica that is as wanted.
pub(crate) async fn reported<T>(
    reports: &mut Receiver<Observation>,
    spec: &LaunchSpec,
    wanted: impl Fn(&Phase) -> Option<T>,
) -> T {
    let next = async {
        loop {
            let report = reports.recv().await.expect("reports go on");
            if report.uid == spec.uid
                && let Some(value) = wanted(&report.phase)
            {
                return value;
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.expect("a report")
}
