//! `skyserve replica prepare`: makes the pod ready for the user's container.

use crate::ending::{self, FAILED_CODE};
use crate::fetch::{self, BundleUrl, FetchError};
use crate::places::Places;
use crate::run::read_launch;
use crate::say;
use nix::sys::signal::Signal;
use skyserve_model::launch::{Ended, Stage};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// This program, whatever it is called and wherever it is.
const OWN_BINARY: &str = "/proc/self/exe";
/// As a shell has it: 128 and SIGTERM.
const TERMINATED_CODE: u8 = 128 + Signal::SIGTERM as u8;

/// Puts the binary and the files into the shared volume. Waits for the controller as long as it takes: only what no
/// waiting mends ends it with an error.
pub(crate) fn prepare(places: &Places, bundle_url: Option<&str>) -> ExitCode {
    let failed = |reason: String| {
        ending::tell(places, &Ended { stage: Stage::Provision, reason });
        ExitCode::from(FAILED_CODE)
    };
    if let Err(error) = make_folders(places) {
        return failed(format!("the pod cannot be prepared in {}: {error}", places.root.display()));
    }
    let spec = match read_launch(&places.launch()) {
        Ok(spec) => spec,
        Err(error) => return failed(format!("what to run cannot be read from {}: {error}", places.launch().display())),
    };
    let Some(digest) = spec.bundle else { return ExitCode::SUCCESS };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(format!("cannot fetch the uploaded files: {error}")),
    };
    runtime.block_on(async {
        // PID 1 gets only the signals that it asks for.
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return ExitCode::from(FAILED_CODE) };
        tokio::select! {
            result = files(places, bundle_url, &digest) => match result {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(error.to_string()),
            },
            _ = terminate.recv() => {
                say("terminated while the uploaded files were being fetched");
                ExitCode::from(TERMINATED_CODE)
            }
        }
    })
}

async fn files(places: &Places, bundle_url: Option<&str>, digest: &str) -> Result<(), FetchError> {
    let url = BundleUrl::parse(bundle_url.unwrap_or_default(), digest)?;
    let token = fs::read_to_string(places.token())
        .map_err(|error| FetchError::Final(format!("the token for the uploaded files cannot be read: {error}")))?;
    fetch::until_there(&url, token.trim(), digest, &places.bundle()).await
}

/// The user's container may run as anybody, so what it shares with this one is open to all in the pod.
fn make_folders(places: &Places) -> io::Result<()> {
    fs::create_dir_all(places.state())?;
    fs::set_permissions(places.state(), Permissions::from_mode(0o777))?;
    let binary = places.binary();
    fs::create_dir_all(binary.parent().unwrap_or(&places.root))?;
    let next = binary.with_extension("next");
    fs::copy(Path::new(OWN_BINARY), &next)?;
    fs::set_permissions(&next, Permissions::from_mode(0o755))?;
    fs::rename(next, binary)
}
