//! What a database's file system asks for: which kind of journal it allows, the files beside a database, and names that
//! last.

use nix::sys::statfs::{self, FsType, Statfs};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// What is kept beside the database at `path`: `-wal`, `-marks`, ….
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes the names in a folder last.
pub(crate) fn sync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// How SQLite makes a commit atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Journal {
    /// One fsync for a commit; readers share memory with the writer, so all must be on one machine.
    WriteAhead,
    /// Rollback journal, ended by truncating it: works on network file systems, where shared memory
    /// does not, and unlike removing it needs no sync of the folder to be durable.
    Rollback,
}

impl Journal {
    /// SQLite's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WriteAhead => "wal",
            Self::Rollback => "truncate",
        }
    }

    /// The journal for a database in `folder`.
    pub(crate) fn for_folder(folder: &Path) -> nix::Result<Self> {
        statfs::statfs(folder).map(|about| Self::for_file_system(&about))
    }

    fn for_file_system(about: &Statfs) -> Self {
        Self::for_type(about.filesystem_type())
    }

    fn for_type(kind: FsType) -> Self {
        if SHARED_BETWEEN_MACHINES.contains(&kind) { Self::Rollback } else { Self::WriteAhead }
    }
}

/// File systems that other machines may have mounted too, by their statfs magic number (from
/// `linux/magic.h` and the file systems' own sources). FUSE is here because sshfs, s3fs and GlusterFS
/// cannot be told apart from local ones.
const SHARED_BETWEEN_MACHINES: [FsType; 13] = [
    statfs::NFS_SUPER_MAGIC,
    statfs::SMB_SUPER_MAGIC,
    FsType(0xFF53_4D42), // CIFS
    FsType(0xFE53_4D42), // SMB2
    statfs::AFS_SUPER_MAGIC,
    statfs::CODA_SUPER_MAGIC,
    statfs::NCP_SUPER_MAGIC,
    statfs::OCFS2_SUPER_MAGIC,
    statfs::FUSE_SUPER_MAGIC,
    FsType(0x0102_1997), // 9P
    FsType(0x00C3_6400), // Ceph
    FsType(0x0BD0_0BD0), // Lustre
    FsType(0x4750_4653), // GPFS
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_shared_between_machines_gets_a_rollback_journal() {
        assert_eq!(Journal::for_type(statfs::NFS_SUPER_MAGIC), Journal::Rollback);
        assert_eq!(Journal::for_type(FsType(0xFF53_4D42)), Journal::Rollback);
        assert_eq!(Journal::for_type(statfs::EXT4_SUPER_MAGIC), Journal::WriteAhead);
        assert_eq!(Journal::for_type(statfs::TMPFS_MAGIC), Journal::WriteAhead);
    }
}
