//! Answers a replica's `bind` calls: those to a port that the service declares, on every address or on
//! the machine's loopback address, are carried out on the replica's own loopback address instead. All
//! others go through untouched, and so does the rest of the replica's networking.

use crate::address::Place;
use crate::pidfd::PidFd;
use crate::seccomp::{Answer, Call, Listener};
use nix::errno::Errno;
use nix::sys::socket::{self, SockType, SockaddrIn, SockaddrIn6, getsockopt, setsockopt, sockopt};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fs;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

/// Longest address that is read: that of IPv6. A longer one is not of a family we move.
const ADDRESS_BYTES_MAX: usize = size_of::<libc::sockaddr_in6>();

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
    /// Receives one call and answers it.
    pub(crate) fn serve(&mut self, listener: &Listener, place: &Place) -> io::Result<()> {
        let Some(call) = listener.receive()? else { return Ok(()) };
        let answer = self.decide(listener, place, &call);
        listener.answer(&call, answer)
    }

    /// What cannot be looked at (a program that runs as another user, say) is left to the kernel.
    fn decide(&mut self, listener: &Listener, place: &Place, call: &Call) -> Answer {
        let Ok(wanted) = requested_address(call) else { return Answer::Continue };
        let Some(wanted) = wanted.filter(|wanted| listens_for_us(wanted.ip())) else { return Answer::Continue };
        let Some(real_port) = place.real_port(wanted.port()) else { return Answer::Continue };
        let Ok(socket) = copy_socket(call) else { return Answer::Continue };
        // Only now is it certain that what was read above belongs to the caller.
        if !listener.is_waiting(call) || getsockopt(&socket, sockopt::SockType) != Ok(SockType::Stream) {
            return Answer::Continue;
        }
        match self.bind(&socket, wanted, place.ip, real_port) {
            Ok(()) => Answer::Done,
            Err(errno) => Answer::Fail(errno),
        }
    }

    fn bind(&mut self, socket: &OwnedFd, wanted: SocketAddr, ip: Ipv4Addr, real_port: u16) -> Result<(), Errno> {
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

/// Every address, or this machine alone.
fn listens_for_us(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST
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
    // An IPv6 socket reaches the replica's IPv4 address only as a mapped one.
    if getsockopt(socket, sockopt::Ipv6V6Only)? {
        setsockopt(socket, sockopt::Ipv6V6Only, &false)?;
    }
    let mapped = SocketAddrV6::new(ip.to_ipv6_mapped(), port, 0, 0);
    socket::bind(socket.as_raw_fd(), &SockaddrIn6::from(mapped))
}

/// The address that the call names, read from the caller's memory; `None` if it is not an IP address.
fn requested_address(call: &Call) -> io::Result<Option<SocketAddr>> {
    let [_, address, bytes, ..] = call.arguments;
    let bytes = bytes as u32 as usize;
    let mut buffer = [0; ADDRESS_BYTES_MAX];
    let length = bytes.min(ADDRESS_BYTES_MAX);
    let remote = RemoteIoVec { base: address as usize, len: length };
    let read = process_vm_readv(Pid::from_raw(call.thread), &mut [IoSliceMut::new(&mut buffer[..length])], &[remote])?;
    Ok(parse(&buffer[..read]))
}

/// A `sockaddr_in` or `sockaddr_in6`, field by field.
fn parse(raw: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(raw.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(raw.get(2..4)?.try_into().ok()?);
    match i32::from(family) {
        libc::AF_INET if raw.len() >= size_of::<libc::sockaddr_in>() => {
            let octets: [u8; 4] = raw.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::from((octets, port)))
        }
        libc::AF_INET6 if raw.len() >= 24 => {
            let octets: [u8; 16] = raw.get(8..24)?.try_into().ok()?;
            Some(SocketAddr::from((octets, port)))
        }
        _ => None,
    }
}

/// Our own copy of the socket that the call names: the same open socket, under another number.
fn copy_socket(call: &Call) -> io::Result<OwnedFd> {
    let thread = Pid::from_raw(call.thread);
    let number = call.arguments[0] as i32;
    let pidfd = match PidFd::open_thread(thread) {
        Ok(pidfd) => pidfd,
        Err(_) => PidFd::open(process_of(thread)?)?,
    };
    pidfd.copy_descriptor(number)
}

/// The process that a thread belongs to.
fn process_of(thread: Pid) -> io::Result<Pid> {
    let status = fs::read_to_string(format!("/proc/{thread}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
        .map(Pid::from_raw)
        .ok_or_else(|| io::Error::other(format!("cannot tell which process thread {thread} belongs to")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_lays_them_out() {
        let v4 = [2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(parse(&v4), Some("127.0.0.1:8080".parse().unwrap()));
        let mut v6 = [0; 28];
        v6[..4].copy_from_slice(&[10, 0, 0x1f, 0x90]);
        assert_eq!(parse(&v6), Some("[::]:8080".parse().unwrap()));
        assert_eq!(parse(&v4[..7]), None);
        assert_eq!(parse(&[1, 0, b'/', b'x', 0]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn only_every_address_and_this_machines_loopback_are_moved() {
        for yes in ["0.0.0.0", "127.0.0.1", "::", "::1", "::ffff:0.0.0.0", "::ffff:127.0.0.1"] {
            assert!(listens_for_us(yes.parse().unwrap()), "{yes}");
        }
        for no in ["127.0.0.2", "10.0.0.1", "::2"] {
            assert!(!listens_for_us(no.parse().unwrap()), "{no}");
        }
    }

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
