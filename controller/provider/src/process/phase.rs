//! What a replica's folder says about it.

use skyserve_model::ReplicaUid;
use skyserve_model::launch::{Ended, Phase, Stage};
use skyserve_shim::folder::Folder;
use skyserve_shim::pidfd::ProcessIdentity;
use skyserve_shim::{SHIM_KILLED, stage_of};
use std::fs;
use std::io;
use std::path::Path;

/// What was seen in one look at a folder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Look {
    /// `None` if there is no such folder.
    pub(super) phase: Option<Phase>,
    /// The shim that holds it.
    pub(super) shim: Option<ProcessIdentity>,
    /// Whether its shim is gone without having recorded how it ended; the next one will.
    pub(super) abandoned: bool,
}

/// All replicas of a home.
pub(super) fn uids(replicas_dir: &Path) -> io::Result<Vec<ReplicaUid>> {
    let mut uids = Vec::new();
    for entry in fs::read_dir(replicas_dir)? {
        let entry = entry?;
        if let Some(uid) = entry.file_name().to_str().and_then(ReplicaUid::parse)
            && entry.file_type()?.is_dir()
        {
            uids.push(uid);
        }
    }
    Ok(uids)
}

pub(super) fn look(folder: &Folder) -> Look {
    match try_look(folder) {
        Ok(look) => look,
        Err(error) => {
            let reason = format!("what is recorded about it in {} cannot be read: {error}", folder.dir().display());
            ended(Ended { stage: Stage::Provision, reason })
        }
    }
}

fn try_look(folder: &Folder) -> io::Result<Look> {
    if let Some(exit) = folder.read_exit()? {
        return Ok(ended(exit.ended));
    }
    let locked = folder.is_locked()?;
    let waiting = |reason: Option<&str>| {
        let phase = Phase::Provisioning { reason: reason.map(str::to_owned) };
        Look { phase: Some(phase), shim: None, abandoned: false }
    };
    let Some(state) = folder.read_state()? else {
        return Ok(match (locked, folder.dir().is_dir()) {
            (true, _) => waiting(None),
            (false, true) => waiting(Some("its shim has not started yet")),
            (false, false) => Look { phase: None, shim: None, abandoned: false },
        });
    };
    if locked && state.shim.open()?.is_some() {
        return Ok(Look { phase: Some(state.phase), shim: Some(state.shim), abandoned: false });
    }
    // It may have ended between the first look and this one.
    if let Some(exit) = folder.read_exit()? {
        return Ok(ended(exit.ended));
    }
    if !folder.dir().is_dir() {
        return Ok(Look { phase: None, shim: None, abandoned: false });
    }
    let killed = Ended { stage: stage_of(&state.phase), reason: SHIM_KILLED.to_owned() };
    Ok(Look { abandoned: !locked && !folder.tombstone_file().exists(), ..ended(killed) })
}

fn ended(ended: Ended) -> Look {
    Look { phase: Some(Phase::Ended(ended)), shim: None, abandoned: false }
}
