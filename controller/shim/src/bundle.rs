//! Unpacks a replica's bundle: a tar file with `workdir/` and `mounts/0`, `mounts/1`, … For local replicas
//! (`unpack`) and for those in pods, which have the tar from elsewhere ([`unpack_entries`]).
//!
//! Nothing is ever written outside the folder it is unpacked to: entries with an absolute path, `..`, devices,
//! sockets and pipes are refused, and no entry is written through a link that leads out.

use crate::folder::Folder;
use sha2::{Digest, Sha256};
use skyserve_model::launch::LaunchSpec;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path};
use tar::{Archive, EntryType};

/// Read at a time while a bundle's digest is computed.
const CHUNK_BYTES: usize = 64 << 10;

/// Why a bundle could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("the uploaded files are gone ({0}): run `up` or `update` again")]
    Missing(io::Error),
    #[error("the uploaded files are damaged (their SHA-256 is {found}): run `up` or `update` again")]
    Damaged { found: String },
    #[error("the uploaded files hold {path:?}, {why}: leave it out of the workdir or file mount")]
    Refused { path: String, why: &'static str },
    #[error("cannot unpack the uploaded files: {0}")]
    Unpack(#[from] io::Error),
    #[error("terminated while its files were being unpacked")]
    Cancelled,
}

/// Unpacks the launch's bundle into [`Folder::unpack_dir`], then moves the workdir to
/// [`Folder::work_dir`], which exists afterwards in any case.
pub(crate) fn unpack(folder: &Folder, spec: &LaunchSpec, cancelled: &dyn Fn() -> bool) -> Result<(), BundleError> {
    let unpacked = folder.unpack_dir();
    if let Some(digest) = &spec.bundle {
        let bundle = folder.bundles_dir().join(format!("{digest}.tar"));
        let mut file = File::open(&bundle).map_err(BundleError::Missing)?;
        verify(&mut file, digest, cancelled)?;
        let file = File::open(&bundle).map_err(BundleError::Missing)?;
        fs::create_dir_all(&unpacked)?;
        unpack_entries(file, &unpacked, cancelled)?;
    }
    let workdir = unpacked.join("workdir");
    if spec.has_workdir && workdir.is_dir() {
        fs::rename(workdir, folder.work_dir())?;
    } else {
        fs::create_dir_all(folder.work_dir())?;
    }
    Ok(())
}

fn verify(file: &mut File, digest: &str, cancelled: &dyn Fn() -> bool) -> Result<(), BundleError> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        if cancelled() {
            return Err(BundleError::Cancelled);
        }
        match file.read(&mut chunk)? {
            0 => break,
            count => hash.update(&chunk[..count]),
        }
    }
    let found = hex::encode(hash.finalize());
    if found == digest { Ok(()) } else { Err(BundleError::Damaged { found }) }
}

/// Unpacks a tar into a folder that exists.
pub fn unpack_entries(tar: impl Read, target: &Path, cancelled: &dyn Fn() -> bool) -> Result<(), BundleError> {
    let mut archive = Archive::new(tar);
    for entry in archive.entries()? {
        if cancelled() {
            return Err(BundleError::Cancelled);
        }
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let refuse = |why| BundleError::Refused { path: path.display().to_string(), why };
        if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(refuse("a path that leads elsewhere"));
        }
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
            EntryType::Directory | EntryType::Symlink | EntryType::Link => {}
            EntryType::XGlobalHeader => continue,
            _ => return Err(refuse("which is neither a file nor a folder nor a link")),
        }
        // Checks that neither the entry nor what it links hard to is reached through a link that leads
        // out of `target`.
        if !entry.unpack_in(target)? {
            return Err(refuse("a path that leads elsewhere"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tar, spec};

    fn unpack_tar(tar: Tar) -> (tempfile::TempDir, Result<(), BundleError>) {
        let temp = tempfile::tempdir().unwrap();
        let target = temp.path().join("in");
        fs::create_dir(&target).unwrap();
        let result = unpack_entries(&tar.finish()[..], &target, &|| false);
        (temp, result)
    }

    #[test]
    fn a_hostile_bundle_is_refused_and_writes_nothing_outside() {
        let hostile = [
            Tar::new().file("../out", b"x"),
            Tar::new().file("/tmp/skyserve-hostile-out", b"x"),
            Tar::new().file("workdir/../../out", b"x"),
            Tar::new().entry("workdir/device", EntryType::Char, b""),
            Tar::new().entry("workdir/pipe", EntryType::Fifo, b""),
            Tar::new().link("workdir/up", "../..", EntryType::Symlink).file("workdir/up/out", b"x"),
            Tar::new().link("workdir/abs", "/tmp", EntryType::Symlink).file("workdir/abs/skyserve-hostile-out", b"x"),
            Tar::new().link("workdir/passwd", "/etc/passwd", EntryType::Link),
            Tar::new().link("workdir/hard", "../../outside", EntryType::Link),
        ];
        for (index, tar) in hostile.into_iter().enumerate() {
            let (temp, result) = unpack_tar(tar);
            assert!(result.is_err(), "case {index}");
            assert!(!temp.path().join("out").exists(), "case {index}");
            assert!(!Path::new("/tmp/skyserve-hostile-out").exists(), "case {index}");
        }
    }

    #[test]
    fn files_folders_links_and_modes_arrive() {
        let tar = Tar::new()
            .file("workdir/a/server.py", b"print()")
            .link("workdir/latest", "a/server.py", EntryType::Symlink)
            .link("workdir/outside-is-fine-until-written-through", "/etc", EntryType::Symlink);
        let (temp, result) = unpack_tar(tar);
        result.unwrap();
        assert_eq!(fs::read(temp.path().join("in/workdir/latest")).unwrap(), b"print()");
    }

    #[test]
    fn a_bundle_with_other_content_than_its_name_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::at(temp.path().join("replicas/svc-1-1"));
        fs::create_dir_all(folder.dir()).unwrap();
        fs::create_dir_all(folder.bundles_dir()).unwrap();
        let mut spec = spec("svc-1-1", 80);
        spec.bundle = Some("0".repeat(64));
        assert!(matches!(unpack(&folder, &spec, &|| false), Err(BundleError::Missing(_))));
        fs::write(folder.bundles_dir().join(format!("{}.tar", "0".repeat(64))), b"x").unwrap();
        assert!(matches!(unpack(&folder, &spec, &|| false), Err(BundleError::Damaged { .. })));
        assert!(matches!(unpack(&folder, &spec, &|| true), Err(BundleError::Cancelled)));
    }
}
