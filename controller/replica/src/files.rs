//! Puts the uploaded files where the service wants them. The container is the replica's own, so absolute destinations
//! and `~` are real paths here; relative ones lie in the working directory, as everywhere.

use crate::places::Places;
use skyserve_model::launch::LaunchSpec;
use skyserve_shim::bundle::{self, BundleError};
use skyserve_shim::mounts::{self, MountError};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// SkyPilot's name for a task's working directory, below the home.
const WORK_DIR: &str = "sky_workdir";

/// Why the files are not in place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("cannot place the workdir in {path}: {source}")]
    WorkDir { path: PathBuf, source: io::Error },
}

/// The working directory, made: in `home`, or in the shared volume where this user cannot write to its home.
pub(crate) fn make_work_dir(places: &Places, home: &Path) -> Result<PathBuf, FilesError> {
    let wanted = home.join(WORK_DIR);
    if fs::create_dir_all(&wanted).is_ok() {
        return Ok(wanted);
    }
    let path = places.spare_home().join(WORK_DIR);
    fs::create_dir_all(&path).map_err(|source| FilesError::WorkDir { path: path.clone(), source })?;
    crate::say(&format!("{} cannot be made; the working directory is {}", wanted.display(), path.display()));
    Ok(path)
}

/// Unpacks the bundle and moves its parts to their places.
pub(crate) fn place(
    places: &Places,
    spec: &LaunchSpec,
    home: &Path,
    work_dir: &Path,
    cancelled: &dyn Fn() -> bool,
) -> Result<(), FilesError> {
    if spec.bundle.is_none() {
        return Ok(());
    }
    let unpacked = places.unpacked();
    let tar = File::open(places.bundle()).map_err(BundleError::Missing)?;
    fs::create_dir_all(&unpacked).map_err(BundleError::Unpack)?;
    bundle::unpack_entries(tar, &unpacked, cancelled)?;
    let uploaded = unpacked.join("workdir");
    if spec.has_workdir && uploaded.is_dir() {
        let failed = |source| FilesError::WorkDir { path: work_dir.to_path_buf(), source };
        mounts::merge(&uploaded, work_dir).map_err(failed)?;
    }
    for (index, destination) in spec.file_mounts.iter().enumerate() {
        place_mount(&unpacked.join("mounts").join(index.to_string()), destination, home, work_dir)?;
    }
    // They only take space from here on.
    let _ = fs::remove_dir_all(unpacked);
    let _ = fs::remove_file(places.bundle());
    Ok(())
}

fn place_mount(source: &Path, destination: &str, home: &Path, work_dir: &Path) -> Result<(), MountError> {
    if fs::symlink_metadata(source).is_err() {
        return Err(MountError::Missing { destination: destination.to_owned() });
    }
    let copied = |source| MountError::Copy { destination: destination.to_owned(), source };
    let Some(target) = mounts::absolute(destination, home) else {
        return mounts::place_copy(source, work_dir, Path::new(destination)).map_err(copied);
    };
    let impossible = |why: String| MountError::Impossible {
        destination: destination.to_owned(),
        why,
        name: target.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    mounts::refuse_vital(&target).map_err(|why| impossible(why.into()))?;
    let made = target.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| mounts::merge(source, &target));
    made.map_err(|error| impossible(format!("cannot be placed there: {error}")))
}
