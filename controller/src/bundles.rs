//! Uploaded workdirs and file mounts: tar files named by their SHA-256, so that an upload is complete
//! or absent, and twice the same is once.

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Incoming;
use sha2::{Digest, Sha256};
use skyserve_api::BUNDLE_BYTES_MAX;
use skyserve_home::Home;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

/// Why an upload was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    #[error("{0} is not a SHA-256 in hexadecimal")]
    Name(String),
    #[error(
        "The upload is larger than the {BUNDLE_BYTES_MAX} bytes allowed: leave large files (weights, data) out of workdir and file_mounts, for example by .skyignore."
    )]
    TooLarge,
    #[error("The upload broke off: {0}")]
    Upload(hyper::Error),
    #[error("The upload's SHA-256 is {found}, not {wanted}: run the command again.")]
    Digest { wanted: String, found: String },
    #[error("The upload cannot be stored in {path}: {source}")]
    Store { path: PathBuf, source: std::io::Error },
}

impl BundleError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Name(_) | Self::Upload(_) | Self::Digest { .. } => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Store { .. } => StatusCode::INSUFFICIENT_STORAGE,
        }
    }
}

/// Where a bundle is, or would be; `None` if it is not the name of one.
pub(crate) fn path(home: &Home, digest: &str) -> Option<PathBuf> {
    let valid = digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    valid.then(|| home.bundles_dir().join(format!("{digest}.tar")))
}

/// Whether the bundle is there.
pub(crate) fn exists(home: &Home, digest: &str) -> bool {
    path(home, digest).is_some_and(|path| path.exists())
}

/// Stores an upload; `false` if it was there already. Once this returns the bundle survives a power
/// cut.
pub(crate) async fn store(home: &Home, digest: &str, body: Incoming) -> Result<bool, BundleError> {
    let path = path(home, digest).ok_or_else(|| BundleError::Name(digest.to_owned()))?;
    if path.exists() {
        return Ok(false);
    }
    // Uploads of one bundle at the same time write files of their own.
    let upload = UPLOADS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let partial = path.with_extension(format!("{}-{upload}.partial", std::process::id()));
    let result = write(&partial, &path, digest, body).await;
    if result.is_err() {
        let _ = fs::remove_file(&partial).await;
    }
    result.map(|()| true)
}

static UPLOADS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// A bundle that no service has may be one whose `up` is under way; not for this long, though.
const UNUSED_AFTER: Duration = Duration::from_secs(3600);

/// At a controller's start: removes what uploads that broke off left, and bundles of services that are gone.
pub(crate) fn remove_unused(home: &Home, in_use: &BTreeSet<&str>) {
    let Ok(entries) = std::fs::read_dir(home.bundles_dir()) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let partial = path.extension().is_some_and(|extension| extension == "partial");
        let used = path.file_stem().and_then(|name| name.to_str()).is_some_and(|name| in_use.contains(name));
        let age =
            std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok().and_then(|time| time.elapsed().ok());
        let remove = partial || (!used && age.is_some_and(|age| age >= UNUSED_AFTER));
        if remove && let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!("the unused bundle {} cannot be removed: {error}", path.display());
        }
    }
}

async fn write(partial: &PathBuf, path: &PathBuf, digest: &str, mut body: Incoming) -> Result<(), BundleError> {
    let store = |source| BundleError::Store { path: path.clone(), source };
    let mut file = File::create(partial).await.map_err(store)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0u64);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(BundleError::Upload)?.into_data() else { continue };
        bytes += data.len() as u64;
        if bytes > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge);
        }
        hash.update(&data);
        file.write_all(&data).await.map_err(store)?;
    }
    let found = hex::encode(hash.finalize());
    if found != digest {
        return Err(BundleError::Digest { wanted: digest.to_owned(), found });
    }
    file.sync_all().await.map_err(store)?;
    fs::rename(partial, path).await.map_err(store)?;
    let folder = path.parent().unwrap_or(path);
    File::open(folder).await.map_err(store)?.sync_all().await.map_err(store)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::SystemTime;

    #[test]
    fn bundles_of_services_that_are_gone_are_removed_after_a_while() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::at(temp.path(), temp.path().join("run"));
        home.make_dirs().unwrap();
        let bundle = |name: &str, age: Duration| {
            let file = File::create(home.bundles_dir().join(name)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        bundle("used.tar", UNUSED_AFTER * 2);
        bundle("old.tar", UNUSED_AFTER * 2);
        bundle("new.tar", Duration::ZERO);
        bundle("torn.1-0.partial", Duration::ZERO);
        remove_unused(&home, &BTreeSet::from(["used"]));
        let mut left: Vec<String> = std::fs::read_dir(home.bundles_dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["new.tar", "used.tar"]);
    }
}
