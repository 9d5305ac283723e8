//! Moves a replica's servers: a `bind` to a declared port is carried out on the replica's own loopback
//! address.

use crate::isolation::allow_mapped;
use nix::errno::Errno;
use nix::sys::socket::{self, SockaddrIn, SockaddrIn6, getsockopt, sockopt};
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

/// Moves binds for one replica.
#[derive(Debug, Default)]
pub(crate) struct Binder {
    /// Of which family the socket was that got a declared port first. A server that listens on a port
    /// once for IPv4 and once for IPv6 alone has one address here, and must succeed with both.
    first_family: HashMap<u16, Family>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    /// Takes IPv4 connections as well.
    Dual,
    V6,
}

impl Binder {
    /// Carries out a bind to `wanted`, whose port is a declared one, on the replica's own address.
    pub(crate) fn bind(
        &mut self,
        socket: &OwnedFd,
        wanted: SocketAddr,
        ip: Ipv4Addr,
        real_port: u16,
    ) -> Result<(), Errno> {
        let family = family(socket, wanted)?;
        match bind_to(socket, family, ip, real_port) {
            Ok(()) => {
                self.first_family.insert(wanted.port(), family);
                Ok(())
            }
            Err(Errno::EADDRINUSE) if self.is_other_half(wanted.port(), family) => bind_to(socket, family, ip, 0),
            Err(errno) => Err(errno),
        }
    }

    /// Whether the port is taken by the same server's socket for the other family, with which this one
    /// would not be in conflict on an ordinary machine.
    fn is_other_half(&self, port: u16, family: Family) -> bool {
        matches!(
            (self.first_family.get(&port), family),
            (Some(Family::V4), Family::V6) | (Some(Family::V6), Family::V4)
        )
    }
}

fn family(socket: &OwnedFd, wanted: SocketAddr) -> Result<Family, Errno> {
    Ok(match wanted {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(wanted) if *wanted.ip() == Ipv6Addr::LOCALHOST => Family::V6,
        SocketAddr::V6(_) if getsockopt(socket, sockopt::Ipv6V6Only)? => Family::V6,
        SocketAddr::V6(_) => Family::Dual,
    })
}

fn bind_to(socket: &OwnedFd, family: Family, ip: Ipv4Addr, port: u16) -> Result<(), Errno> {
    if family == Family::V4 {
        return socket::bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(ip, port)));
    }
    allow_mapped(socket)?;
    let mapped = SocketAddrV6::new(ip.to_ipv6_mapped(), port, 0, 0);
    socket::bind(socket.as_raw_fd(), &SockaddrIn6::from(mapped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{SockType, setsockopt};

    #[test]
    fn a_server_may_listen_once_for_each_family_but_not_twice_for_one() {
        let ip = Ipv4Addr::new(127, 70, 33, (std::process::id() % 250) as u8 + 1);
        let place_port = std::net::TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
        let new = |family| socket::socket(family, SockType::Stream, socket::SockFlag::SOCK_CLOEXEC, None).unwrap();
        let (four, six, again) =
            (new(socket::AddressFamily::Inet), new(socket::AddressFamily::Inet6), new(socket::AddressFamily::Inet));
        setsockopt(&six, sockopt::Ipv6V6Only, &true).unwrap();
        let mut binder = Binder::default();
        let all_four = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080));
        let all_six = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8080));
        assert_eq!(binder.bind(&four, all_four, ip, place_port), Ok(()));
        assert_eq!(binder.bind(&six, all_six, ip, place_port), Ok(()));
        assert_eq!(binder.bind(&again, all_four, ip, place_port), Err(Errno::EADDRINUSE));
    }
}
