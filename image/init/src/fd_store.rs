//! Descriptors that roles gave init to keep, so that listening sockets outlive the process that made them.
//!
//! Invariants: a descriptor is kept once, however often its owner sends it (a load balancer that was given its
//! listeners back sends them again); it is closed when its owner drops it, and only then.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::stat::fstat;

/// Most descriptors kept for one role: every service has a port or two, each perhaps with a few shards. Well below
/// the thousand descriptors a process has by default.
pub(crate) const FDS_PER_ROLE_MAX: usize = 512;
/// Longest name, as systemd has it.
const NAME_BYTES_MAX: usize = 255;
/// Name of what was sent without a valid one, as systemd has it.
const UNNAMED: &str = "stored";

#[derive(Debug)]
struct Kept {
    role: usize,
    name: String,
    fd: OwnedFd,
    /// Device and inode: what tells that two descriptors are of the same socket.
    identity: (u64, u64),
}

/// What became of a descriptor handed over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Kept,
    AlreadyKept,
    /// Closed, because its role has [`FDS_PER_ROLE_MAX`] already.
    Full,
    /// Closed, because the kernel would not even tell what it is.
    Unusable,
}

/// All descriptors kept.
#[derive(Debug, Default)]
pub(crate) struct FdStore {
    kept: Vec<Kept>,
}

impl FdStore {
    pub(crate) fn store(&mut self, role: usize, name: Option<&str>, fd: OwnedFd) -> Stored {
        let Ok(stat) = fstat(&fd) else { return Stored::Unusable };
        let identity = (stat.st_dev, stat.st_ino);
        let name = name.filter(|name| is_valid_name(name)).unwrap_or(UNNAMED);
        let of_role = self.kept.iter().filter(|kept| kept.role == role);
        if of_role.clone().any(|kept| kept.identity == identity && kept.name == name) {
            return Stored::AlreadyKept;
        }
        if of_role.count() >= FDS_PER_ROLE_MAX {
            return Stored::Full;
        }
        self.kept.push(Kept { role, name: name.to_owned(), fd, identity });
        Stored::Kept
    }

    /// Closes all that a role gave under this name; says how many.
    pub(crate) fn remove(&mut self, role: usize, name: &str) -> usize {
        let before = self.kept.len();
        self.kept.retain(|kept| kept.role != role || kept.name != name);
        before - self.kept.len()
    }

    /// Names and descriptors of a role, in the order they came.
    pub(crate) fn of_role(&self, role: usize) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.kept.iter().filter(move |kept| kept.role == role).map(|kept| (kept.name.as_str(), kept.fd.as_fd()))
    }
}

/// As systemd: names are separated by colons in `LISTEN_FDNAMES`.
fn is_valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b':')
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn socket() -> OwnedFd {
        UnixDatagram::unbound().unwrap().into()
    }

    #[test]
    fn a_socket_sent_again_is_kept_once() {
        let mut store = FdStore::default();
        let first = socket();
        let again = first.try_clone().unwrap();
        assert_eq!(store.store(0, Some("a"), first), Stored::Kept);
        assert_eq!(store.store(0, Some("a"), again), Stored::AlreadyKept);
        assert_eq!(store.store(0, Some("a"), socket()), Stored::Kept);
        assert_eq!(store.of_role(0).count(), 2);
    }

    #[test]
    fn removing_a_name_closes_all_its_descriptors_and_no_others() {
        let mut store = FdStore::default();
        let numbers: Vec<i32> = [(0, "a"), (0, "a"), (0, "b"), (1, "a")]
            .into_iter()
            .map(|(role, name)| {
                let fd = socket();
                let number = fd.as_raw_fd();
                assert_eq!(store.store(role, Some(name), fd), Stored::Kept);
                number
            })
            .collect();
        assert_eq!(store.remove(0, "a"), 2);
        assert_eq!(store.remove(0, "a"), 0);
        let left: Vec<i32> = store.of_role(0).chain(store.of_role(1)).map(|(_, fd)| fd.as_raw_fd()).collect();
        assert_eq!(left, numbers[2..]);
    }

    #[test]
    fn names_that_listen_fdnames_cannot_carry_become_stored() {
        let mut store = FdStore::default();
        for name in [Some("a:b"), Some(""), Some("a\nb"), Some("\u{e4}"), None] {
            store.store(0, name, socket());
        }
        assert!(store.of_role(0).all(|(name, _)| name == UNNAMED));
        assert_eq!(store.of_role(0).count(), 5);
    }

    #[test]
    fn a_role_may_keep_only_so_many() {
        let mut store = FdStore::default();
        for _ in 0..FDS_PER_ROLE_MAX {
            assert_eq!(store.store(0, Some("a"), socket()), Stored::Kept);
        }
        assert_eq!(store.store(0, Some("a"), socket()), Stored::Full);
        assert_eq!(store.store(1, Some("a"), socket()), Stored::Kept);
    }
}
