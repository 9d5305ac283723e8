//! The socket of the systemd notify protocol: roles say that they are ready and give listeners to keep, and a client
//! asks for a new run script to be started.
//!
//! Invariant: who sent a message is what the kernel says, never what the message says. Messages of other users are dropped.

use std::fs;
use std::io;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, bind, recvmsg,
    setsockopt, socket, sockopt,
};
use skyserve_scripts::RunId;

use crate::sys;

/// Our own field: run the script with this id, which has just been persisted.
pub(crate) const RUN_FIELD: &str = "X_SKYSERVE_RUN";
/// A message is a few short lines; systemd's bound.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Most descriptors in one message (SCM_MAX_FD of the kernel): with room for all, none is ever cut off and leaked.
const MESSAGE_FDS_MAX: usize = 253;

/// One message and its sender.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) pid: i32,
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) fields: Fields,
}

/// What a message says, of what we understand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) ready: bool,
    pub(crate) stopping: bool,
    pub(crate) fd_store: bool,
    pub(crate) fd_store_remove: bool,
    pub(crate) fd_name: Option<String>,
    pub(crate) run: Option<RunId>,
}

impl Fields {
    /// Unknown fields mean nothing to us, as the protocol demands.
    pub(crate) fn parse(text: &str) -> Self {
        let mut fields = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            match name {
                "READY" => fields.ready = value == "1",
                "STOPPING" => fields.stopping = value == "1",
                "FDSTORE" => fields.fd_store = value == "1",
                "FDSTOREREMOVE" => fields.fd_store_remove = value == "1",
                "FDNAME" => fields.fd_name = Some(value.to_owned()),
                RUN_FIELD => fields.run = value.parse().ok(),
                _ => {}
            }
        }
        fields
    }
}

/// The bound socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    fd: OwnedFd,
    path: PathBuf,
    control: Vec<u8>,
}

impl NotifySocket {
    /// Only the holder of the home's lock may call this: a file of that name is a dead runtime's.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        setsockopt(&fd, sockopt::PassCred, &true)?;
        bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Self { fd, path: path.to_path_buf(), control: nix::cmsg_space!([RawFd; MESSAGE_FDS_MAX], UnixCredentials) })
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The next message, if there is one. Those of other users come back as messages that say nothing.
    pub(crate) fn receive(&mut self) -> Option<Message> {
        let mut text = [0_u8; MESSAGE_BYTES_MAX];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let mut parts = [IoSliceMut::new(&mut text)];
        let received = recvmsg::<()>(self.fd.as_fd().as_raw_fd(), &mut parts, Some(&mut self.control), flags).ok()?;
        let mut fds = Vec::new();
        let mut sender = None;
        for control in received.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::ScmRights(numbers) => fds.extend(sys::own(&numbers)),
                ControlMessageOwned::ScmCredentials(credentials) => sender = Some(credentials),
                _ => {}
            }
        }
        let bytes = received.bytes;
        let own_user = nix::unistd::geteuid().as_raw();
        let sender = sender.filter(|sender| sender.uid() == own_user || sender.uid() == 0);
        let (Some(sender), Ok(text)) = (sender, std::str::from_utf8(&text[..bytes])) else {
            return Some(Message { pid: 0, fds: Vec::new(), fields: Fields::default() });
        };
        Some(Message { pid: sender.pid(), fds, fields: Fields::parse(text) })
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        // A file left behind is replaced by the next runtime.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_message_is_read_field_by_field_and_what_is_unknown_is_skipped() {
        let fields = Fields::parse("STATUS=fine = good\nFDSTORE=1\nFDNAME=http=8080\nWATCHDOG\nREADY=1\n");
        let expected =
            Fields { ready: true, fd_store: true, fd_name: Some("http=8080".to_owned()), ..Fields::default() };
        assert_eq!(fields, expected);
        assert_eq!(Fields::parse("READY=0\nX_SKYSERVE_RUN=-3"), Fields::default());
        assert_eq!(Fields::parse("X_SKYSERVE_RUN=17").run, Some(RunId::new(17).unwrap()));
    }

    #[test]
    fn the_sender_is_who_the_kernel_says() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("notify.sock");
        let mut socket = NotifySocket::bind(&path).unwrap();
        assert!(socket.receive().is_none());
        UnixDatagram::unbound().unwrap().send_to(b"READY=1\nMAINPID=1", &path).unwrap();
        let message = socket.receive().unwrap();
        assert_eq!(message.pid, std::process::id() as i32);
        assert!(message.fields.ready && message.fds.is_empty());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_left_by_a_dead_runtime_is_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("notify.sock");
        drop(UnixDatagram::bind(&path).unwrap());
        assert!(path.exists());
        NotifySocket::bind(&path).unwrap();
    }
}
