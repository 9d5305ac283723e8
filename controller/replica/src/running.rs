//! "Setup is over", said by the container's PID 1 and asked by its startup probe. It names the very process that said
//! so: what an earlier start of the container left behind says nothing about this one.

use crate::places::Places;
use nix::unistd::Pid;
use skyserve_shim::pidfd::ProcessIdentity;
use std::fs;
use std::io;

/// Says that this process runs the `run` commands from now on.
pub(crate) fn set(places: &Places) -> io::Result<()> {
    let me = ProcessIdentity::of(Pid::this())?;
    let next = places.state().join("running.next");
    fs::write(&next, serde_json::to_vec(&me)?)?;
    fs::rename(next, places.running())
}

/// Whether whoever said so last still lives.
pub(crate) fn is_running(places: &Places) -> bool {
    let said = fs::read(places.running()).ok().and_then(|text| serde_json::from_slice::<ProcessIdentity>(&text).ok());
    said.is_some_and(|said| matches!(said.open(), Ok(Some(_))))
}
