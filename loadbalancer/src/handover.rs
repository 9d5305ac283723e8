//! The service's side of the systemd notify protocol (sd_notify(3)): telling the supervisor that the
//! service is ready or stopping, and giving it listening sockets to keep over a restart.
//!
//! Invariants:
//! * Without a supervisor every call succeeds and does nothing.
//! * A supervisor that does not read cannot hold the service up for longer than [`SEND_MS_MAX`].

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

/// The name under which the metrics listener is kept.
pub(crate) const METRICS_NAME: &str = "metrics";

/// Longest wait for room in the supervisor's socket: it answers in microseconds, or is stopped.
const SEND_MS_MAX: u64 = 1_000;

/// Speaks to the supervisor, if there is one.
#[derive(Debug)]
pub(crate) struct Supervisor {
    channel: Option<(UnixDatagram, UnixAddr)>,
}

impl Supervisor {
    /// `path` is `NOTIFY_SOCKET`; a leading `@` means the abstract namespace.
    pub(crate) fn new(path: Option<&Path>) -> std::io::Result<Self> {
        let Some(path) = path else { return Ok(Self { channel: None }) };
        let address = match path.as_os_str().as_bytes() {
            [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
            _ => UnixAddr::new(path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(Duration::from_millis(SEND_MS_MAX)))?;
        Ok(Self { channel: Some((socket, address)) })
    }

    /// The service accepts requests.
    pub(crate) fn ready(&self) {
        self.send("READY=1", None);
    }

    /// The service ends soon.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1", None);
    }

    /// Gives the supervisor a socket to keep and to pass on to the next process.
    pub(crate) fn keep(&self, name: &str, socket: &impl AsFd) {
        self.send(&format!("FDSTORE=1\nFDNAME={name}"), Some(socket.as_fd().as_raw_fd()));
    }

    /// Lets the supervisor close what it keeps under this name.
    pub(crate) fn forget(&self, name: &str) {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None);
    }

    fn send(&self, message: &str, descriptor: Option<i32>) {
        let Some((socket, address)) = &self.channel else { return };
        let parts = [IoSlice::new(message.as_bytes())];
        let descriptors = descriptor.map(|descriptor| [descriptor]);
        let rights = descriptors.as_ref().map(|descriptors| [ControlMessage::ScmRights(descriptors)]);
        let control = rights.as_ref().map_or(&[] as &[ControlMessage<'_>], |rights| rights);
        if let Err(error) = sendmsg(socket.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, Some(address)) {
            tracing::warn!(
                message = message.replace('\n', " "),
                %error,
                "cannot reach the supervisor at NOTIFY_SOCKET; a restart of the load balancer may refuse connections"
            );
        }
    }
}

/// The name under which the listener of an address is kept. A name must not hold `:` (it separates
/// names in `LISTEN_FDNAMES`), so the colons of IPv6 become `_`: `tcp-127.0.0.1-30001`, `tcp-__1-80`.
pub(crate) fn listener_name(address: SocketAddr) -> String {
    format!("tcp-{}-{}", address.ip().to_string().replace(':', "_"), address.port())
}

/// The address of a name that [`listener_name`] made.
pub(crate) fn listener_address(name: &str) -> Option<SocketAddr> {
    let (host, port) = name.strip_prefix("tcp-")?.rsplit_once('-')?;
    let host: IpAddr = host.replace('_', ":").parse().ok()?;
    Some(SocketAddr::new(host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_name_holds_no_colon_and_reads_back() {
        for address in ["127.0.0.1:30001", "0.0.0.0:80", "[::1]:30001", "[2001:db8::8:1]:443", "[::]:1"] {
            let address: SocketAddr = address.parse().unwrap();
            let name = listener_name(address);
            assert!(!name.contains(':'), "{name}");
            assert_eq!(listener_address(&name), Some(address));
        }
        assert_eq!(listener_name("127.0.0.1:30001".parse().unwrap()), "tcp-127.0.0.1-30001");
    }

    #[test]
    fn a_name_of_another_kind_is_no_address() {
        for name in ["metrics", "tcp-", "tcp-1.2.3.4", "tcp-1.2.3.4-x", "udp-1.2.3.4-5", "tcp-host-80"] {
            assert_eq!(listener_address(name), None, "{name}");
        }
    }
}
