//! Listeners that the supervisor passes at exec, by the systemd protocol (`LISTEN_FDS`, `LISTEN_FDNAMES`,
//! `LISTEN_PID`, see sd_listen_fds(3)).
//!
//! Invariants:
//! * A descriptor is taken at most once in a process.
//! * This is the crate's only unsafe code: a number from the environment becomes an owned descriptor.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first passed descriptor, by the protocol.
const FIRST_DESCRIPTOR: RawFd = 3;

/// Most descriptors that are taken over: more than any table has services.
const DESCRIPTORS_MAX: i32 = 4_096;

/// One listening socket that was kept by the supervisor, and the name it was kept under.
#[derive(Debug)]
pub struct InheritedListener {
    pub name: String,
    pub socket: OwnedFd,
}

/// Takes over the descriptors that the environment says were passed to this process. Call once, at the
/// very start, before anything opens a descriptor and before threads; later calls return none.
pub fn inherited_listeners() -> Vec<InheritedListener> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }
    let variable = |name: &str| std::env::var(name).ok();
    let count = descriptor_count(variable("LISTEN_PID").as_deref(), variable("LISTEN_FDS").as_deref());
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut inherited = Vec::new();
    for descriptor in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + count {
        let name = names.next().unwrap_or("unknown").to_owned();
        if let Some(socket) = own(descriptor) {
            inherited.push(InheritedListener { name, socket });
        }
    }
    inherited
}

/// How many descriptors are meant for this process; a `LISTEN_PID` of another process means none.
fn descriptor_count(pid: Option<&str>, count: Option<&str>) -> i32 {
    if pid.is_some_and(|pid| pid.parse() != Ok(std::process::id())) {
        return 0;
    }
    count.and_then(|count| count.parse().ok()).map_or(0, |count: i32| count.clamp(0, DESCRIPTORS_MAX))
}

#[allow(unsafe_code)]
fn own(descriptor: RawFd) -> Option<OwnedFd> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    // SAFETY: the descriptor is only borrowed for this call, which fails with EBADF if it is not open.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(descriptor) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: the descriptor is open (the call above succeeded), the protocol gives it to this process,
    // and the guard in `inherited_listeners` lets nobody own it a second time.
    Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_meant_for_another_process_are_not_taken() {
        let own = std::process::id().to_string();
        assert_eq!(descriptor_count(Some(&own), Some("3")), 3);
        assert_eq!(descriptor_count(Some("1"), Some("3")), 0);
        assert_eq!(descriptor_count(None, Some("2")), 2);
        assert_eq!(descriptor_count(Some(&own), Some("many")), 0);
        assert_eq!(descriptor_count(Some(&own), Some("-1")), 0);
        assert_eq!(descriptor_count(Some(&own), None), 0);
    }
}
