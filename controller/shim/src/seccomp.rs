//! The kernel's side of port isolation: a filter that reports every `bind` and `connect` of a process and
//! its descendants to the holder of a listener (seccomp_unotify(2)), which answers in the kernel's stead.
//!
//! Only the native system call table is filtered; calls by another one (32-bit) go through as they are.

#![allow(unsafe_code)]

use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `AUDIT_ARCH_*` of this build (linux/audit.h); `None` where isolation was never tried.
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: Option<u32> = Some(0xC000_003E);
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: Option<u32> = Some(0xC000_00B7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const AUDIT_ARCH: Option<u32> = None;

/// Offsets in `struct seccomp_data`.
const DATA_NUMBER: u32 = 0;
const DATA_ARCH: u32 = 4;

/// Installs the filter on the calling thread, for good, and returns its listener (close-on-exec).
///
/// Without CAP_SYS_ADMIN this also sets no_new_privs, which the kernel then demands.
pub(crate) fn install_filter() -> io::Result<OwnedFd> {
    let arch = AUDIT_ARCH.ok_or_else(|| io::Error::other("not supported on this processor"))?;
    // Kernels before 5.19 lack the flag that keeps signals from interrupting an answered call.
    let flags = [
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
    ];
    let attempt = || match install(arch, flags[0]) {
        Err(Errno::EINVAL) => install(arch, flags[1]),
        result => result,
    };
    match attempt() {
        Err(Errno::EACCES) => {
            nix::sys::prctl::set_no_new_privs()?;
            Ok(attempt()?)
        }
        result => Ok(result?),
    }
}

fn install(arch: u32, flags: libc::c_ulong) -> Result<OwnedFd, Errno> {
    let load = |offset: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let skip_unless_equal =
        |value: u32, skip: u8| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, 0, skip);
    let skip_if_equal = |value: u32, skip: u8| statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, skip, 0);
    let answer = |value: u32| statement(libc::BPF_RET | libc::BPF_K, value, 0, 0);
    let mut program = [
        load(DATA_ARCH),
        skip_unless_equal(arch, 4),
        load(DATA_NUMBER),
        skip_if_equal(libc::SYS_bind as u32, 1),
        skip_unless_equal(libc::SYS_connect as u32, 1),
        answer(libc::SECCOMP_RET_USER_NOTIF),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as libc::c_ushort, filter: program.as_mut_ptr() };
    // SAFETY: `program` and the instructions it points to outlive the call, which copies them; a
    // result that is not an error is a descriptor nobody else owns.
    unsafe {
        let listener =
            Errno::result(libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program))?;
        Ok(OwnedFd::from_raw_fd(listener as RawFd))
    }
}

fn statement(code: u32, value: u32, jump_true: u8, jump_false: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: jump_true, jf: jump_false, k: value }
}

/// Which calls are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SystemCall {
    Bind,
    Connect,
}

/// One reported call. Its process waits until it is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    id: u64,
    /// The calling thread, in our pid namespace.
    pub(crate) thread: i32,
    pub(crate) system_call: SystemCall,
    /// Of both: the socket, the address, the address's length in bytes.
    pub(crate) arguments: [u64; 6],
}

/// What a reported call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The kernel carries the call out as if it had not been reported.
    Continue,
    /// It returns 0.
    Done,
    /// It fails.
    Fail(Errno),
}

/// Receives reported calls. Poll it for input; a hang-up means that no filtered process is left.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    pub(crate) fn new(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// The next reported call; `None` if its process was killed before it could be read.
    pub(crate) fn receive(&self) -> io::Result<Option<Call>> {
        // SAFETY: the structure is plain integers, for which all zeroes is valid (and demanded by the
        // kernel); it outlives the call, which fills it.
        let (result, call) = unsafe {
            let mut call = std::mem::zeroed::<libc::seccomp_notif>();
            (libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut call), call)
        };
        match Errno::result(result) {
            Ok(_) => {
                // The filter reports no third one.
                let is_bind = i64::from(call.data.nr) == libc::SYS_bind;
                let system_call = if is_bind { SystemCall::Bind } else { SystemCall::Connect };
                Ok(Some(Call { id: call.id, thread: call.pid as i32, system_call, arguments: call.data.args }))
            }
            Err(Errno::ENOENT | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the process still waits for the answer. Only then does what was read by its pid belong
    /// to it.
    pub(crate) fn is_waiting(&self, call: &Call) -> bool {
        // SAFETY: reads one integer that outlives the call.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _, &raw const call.id) };
        result == 0
    }

    /// Answers; a process killed meanwhile is no error.
    pub(crate) fn answer(&self, call: &Call, answer: Answer) -> io::Result<()> {
        let (error, flags) = match answer {
            Answer::Continue => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Done => (0, 0),
            Answer::Fail(errno) => (-(errno as i32), 0),
        };
        let response = libc::seccomp_notif_resp { id: call.id, val: 0, error, flags };
        // SAFETY: the structure outlives the call, which only reads it.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw const response) };
        match Errno::result(result) {
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
