//! The loopback address that a replica has to itself, so that any number of replicas on one machine
//! can listen on the same port.
//!
//! An address is reserved on the whole machine, across homes and users, by a name in the abstract
//! socket namespace: the kernel frees it with the shim that holds it, however that ends.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, UnixAddr, bind, setsockopt, socket, sockopt};
use sha2::{Digest, Sha256};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Addresses tried before declared ports are given another number: a port busy on this many different
/// addresses is taken on all of them.
const ADDRESSES_TRIED_MAX: u32 = 16;

/// Ports for replicas without an address of their own: below those that Linux gives to outgoing
/// connections (from 32768) and those of SkyServe's endpoints (from 30001).
const SHARED_PORTS: Range<u16> = 20_000..30_000;
/// Ports tried before giving up; with half of them taken, one in 2⁶⁴ tries of a launch fails.
const SHARED_PORTS_TRIED_MAX: u32 = 64;

/// Where a replica listens.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) ip: Ipv4Addr,
    /// Whether binds and connections to declared ports are moved to `ip`.
    pub(crate) isolated: bool,
    /// Declared ports, and the port that really serves each.
    ports: Vec<(u16, u16)>,
    _reservation: Option<OwnedFd>,
}

impl Place {
    /// An address of the replica's own, on which its declared ports are free. If another program has
    /// a port on every address, the replica gets a different real port for it and never notices.
    pub(crate) fn reserve(dir: &Path, ports: &[u16]) -> io::Result<Self> {
        for attempt in 0..ADDRESSES_TRIED_MAX {
            let ip = candidate(dir, attempt);
            let Some(reservation) = reserve(&format!("skyserve/{ip}"))? else { continue };
            let last = attempt == ADDRESSES_TRIED_MAX - 1;
            if last || ports.iter().all(|port| is_free(ip, *port)) {
                let real = |port: u16| if is_free(ip, port) { Ok(port) } else { any_free_port(ip) };
                let ports = ports.iter().map(|port| Ok((*port, real(*port)?))).collect::<io::Result<_>>()?;
                return Ok(Self { ip, isolated: true, ports, _reservation: Some(reservation) });
            }
        }
        Err(io::Error::other("every loopback address that was tried is reserved by another replica"))
    }

    /// The machine's own loopback address, and a free port that the replica must be told of. The kernel
    /// gives none of these ports to outgoing connections, so it stays free until the replica takes it.
    pub(crate) fn choose_shared(dir: &Path, port: u16) -> io::Result<Self> {
        for attempt in 0..SHARED_PORTS_TRIED_MAX {
            let digest = digest(dir, attempt);
            let spread = u16::from_be_bytes([digest[0], digest[1]]) % (SHARED_PORTS.end - SHARED_PORTS.start);
            let real = SHARED_PORTS.start + spread;
            let Some(reservation) = reserve(&format!("skyserve/port/{real}"))? else { continue };
            if is_free(Ipv4Addr::LOCALHOST, real) {
                return Ok(Self { _reservation: Some(reservation), ..Self::shared(port, real) });
            }
        }
        Err(io::Error::other(format!("no free port found from {} to {}", SHARED_PORTS.start, SHARED_PORTS.end)))
    }

    pub(crate) fn shared(declared: u16, real: u16) -> Self {
        Self { ip: Ipv4Addr::LOCALHOST, isolated: false, ports: vec![(declared, real)], _reservation: None }
    }

    /// Moves the one port `declared` to `real` at an address that somebody else has reserved.
    pub(crate) fn moving(ip: Ipv4Addr, declared: u16, real: u16) -> Self {
        Self { ip, isolated: true, ports: vec![(declared, real)], _reservation: None }
    }

    /// The port that really serves the declared one; `None` if the service does not declare it.
    pub(crate) fn real_port(&self, declared: u16) -> Option<u16> {
        self.ports.iter().find(|(port, _)| *port == declared).map(|(_, real)| *real)
    }

    /// What the replica itself should listen on for its endpoint.
    pub(crate) fn port_to_bind(&self, declared: u16) -> u16 {
        if self.isolated { declared } else { self.real_port(declared).unwrap_or(declared) }
    }

    /// Where requests for the declared port go.
    pub(crate) fn address(&self, declared: u16) -> SocketAddr {
        SocketAddrV4::new(self.ip, self.real_port(declared).unwrap_or(declared)).into()
    }
}

/// The `attempt`th address of 127.64.0.0/10 for this replica; the same after every restart.
fn candidate(dir: &Path, attempt: u32) -> Ipv4Addr {
    let digest =
        Sha256::new().chain_update(dir.as_os_str().as_encoded_bytes()).chain_update(attempt.to_be_bytes()).finalize();
    // A last byte of 0 or 255 looks like a network or broadcast address to some programs.
    Ipv4Addr::new(127, 64 | (digest[0] & 63), digest[1], digest[2].clamp(1, 254))
}

fn digest(dir: &Path, attempt: u32) -> [u8; 32] {
    Sha256::new().chain_update(dir.as_os_str().as_encoded_bytes()).chain_update(attempt.to_be_bytes()).finalize().into()
}

/// Claims a name on this machine; `None` if somebody else has it.
fn reserve(name: &str) -> io::Result<Option<OwnedFd>> {
    let descriptor = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    match bind(descriptor.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?) {
        Ok(()) => Ok(Some(descriptor)),
        Err(nix::errno::Errno::EADDRINUSE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a server could listen there now. Connections of the past do not count.
fn is_free(ip: Ipv4Addr, port: u16) -> bool {
    let attempt = || {
        let descriptor = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&descriptor, sockopt::ReuseAddr, &true)?;
        bind(descriptor.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(ip, port)))
    };
    // A port we may not bind at all (below 1024) is not taken: the replica's own bind says what is wrong.
    !matches!(attempt(), Err(nix::errno::Errno::EADDRINUSE))
}

fn any_free_port(ip: Ipv4Addr) -> io::Result<u16> {
    Ok(TcpListener::bind((ip, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_replicas_get_one_address_and_an_ended_one_gives_its_address_back() {
        let temp = tempfile::tempdir().unwrap();
        let first = Place::reserve(temp.path(), &[8080]).unwrap();
        let second = Place::reserve(temp.path(), &[8080]).unwrap();
        assert_ne!(first.ip, second.ip);
        assert_eq!(first.ip.octets()[0], 127);
        assert_eq!(first.ip.octets()[1] & 0b1100_0000, 64);
        let ip = first.ip;
        drop(first);
        assert_eq!(Place::reserve(temp.path(), &[8080]).unwrap().ip, ip);
    }

    #[test]
    fn replicas_that_share_the_address_never_get_one_port() {
        let temp = tempfile::tempdir().unwrap();
        let places: Vec<_> = (0..8).map(|_| Place::choose_shared(temp.path(), 8080).unwrap()).collect();
        let mut ports: Vec<_> = places.iter().map(|place| place.port_to_bind(8080)).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
        assert!(ports.iter().all(|port| SHARED_PORTS.contains(port)));
    }

    #[test]
    fn a_port_taken_on_every_address_is_served_by_another_one() {
        let temp = tempfile::tempdir().unwrap();
        let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = everywhere.local_addr().unwrap().port();
        let place = Place::reserve(temp.path(), &[port]).unwrap();
        assert_eq!(place.port_to_bind(port), port);
        assert_ne!(place.address(port).port(), port);
    }
}
