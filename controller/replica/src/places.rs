//! Every path in a replica's pod, once.

use std::path::PathBuf;

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The volume that both containers share.
    pub(crate) root: PathBuf,
    /// Read by the kubelet once the container has ended.
    pub(crate) termination_log: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { root: "/skyserve".into(), termination_log: "/dev/termination-log".into() }
    }
}

impl Places {
    /// This binary, for the user's container.
    pub(crate) fn binary(&self) -> PathBuf {
        self.root.join("bin/skyserve")
    }
    /// The [`skyserve_model::launch::LaunchSpec`], from the replica's Secret.
    pub(crate) fn launch(&self) -> PathBuf {
        self.root.join("launch/launch.json")
    }
    /// What the controller gives files for; only the container that prepares has it.
    pub(crate) fn token(&self) -> PathBuf {
        self.root.join("token/token")
    }
    /// The fetched files, whole and verified; unpacked by the user's container, so that they belong to its user.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.root.join("bundle.tar")
    }
    /// Where they are unpacked before they go to their places.
    pub(crate) fn unpacked(&self) -> PathBuf {
        self.root.join("files")
    }
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }
    /// There once `setup` is over.
    pub(crate) fn running(&self) -> PathBuf {
        self.state().join("running")
    }
    /// Stands in for a home that cannot be written to.
    pub(crate) fn spare_home(&self) -> PathBuf {
        self.root.join("home")
    }
}
