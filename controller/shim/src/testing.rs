//! What the unit tests of this crate share.

use skyserve_model::launch::LaunchSpec;
use skyserve_model::{ReplicaId, ReplicaUid, Version};
use tar::{Builder, EntryType, Header};

pub(crate) fn spec(uid: &str, port: u16) -> LaunchSpec {
    let replica = uid.rsplit('-').next().unwrap().parse().unwrap();
    LaunchSpec {
        uid: ReplicaUid::parse(uid).unwrap(),
        service: uid.split('-').next().unwrap().to_owned(),
        replica_id: ReplicaId(replica),
        version: Version(1),
        setup: None,
        run: None,
        envs: Default::default(),
        secrets: Default::default(),
        port,
        ports: vec![port],
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

/// Writes tar files that no honest program would.
pub(crate) struct Tar(Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, content)
    }

    pub(crate) fn entry(mut self, path: &str, kind: EntryType, content: &[u8]) -> Self {
        let mut header = header(path, kind, content.len());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn link(mut self, path: &str, target: &str, kind: EntryType) -> Self {
        let mut header = header(path, kind, 0);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.append(&header, &[][..]).unwrap();
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// The name is set byte by byte: the crate's own setter refuses hostile ones.
fn header(path: &str, kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(size as u64);
    header
}
