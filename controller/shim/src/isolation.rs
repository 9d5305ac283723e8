//! Gives a replica the illusion that a machine's ports are its own: what it does to a port that the
//! service declares, on every address or on the machine's loopback address, happens on the replica's own
//! loopback address instead. Its servers are moved there ([`crate::bind`]), and its connections to them
//! follow ([`crate::connect`]). All other calls, ports and hosts go through untouched.
//!
//! * A declared port means the replica's own from the first moment, whether it listens already or not:
//!   a script that waits for `localhost:8080` must not be satisfied by somebody else's server there.
//! * A call that is none of this costs one read of the caller's memory. None ever waits for the network.
//! * What reaches the kernel otherwise goes through as it is: io_uring, 32-bit programs, TCP Fast Open.

use crate::address::Place;
use crate::bind::Binder;
use crate::connect;
use crate::pidfd::PidFd;
use crate::seccomp::{Answer, Call, Listener, SystemCall};
use nix::errno::Errno;
use nix::sys::socket::{SockType, getsockopt, setsockopt, sockopt};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use std::fs;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

/// Longest address that is read: that of IPv6. A longer one is not of a family we move.
const ADDRESS_BYTES_MAX: usize = size_of::<libc::sockaddr_in6>();

/// Answers the calls of one replica.
#[derive(Debug, Default)]
pub(crate) struct Isolation {
    binder: Binder,
}

impl Isolation {
    /// Receives one call and answers it.
    pub(crate) fn serve(&mut self, listener: &Listener, place: &Place) -> io::Result<()> {
        let Some(call) = listener.receive()? else { return Ok(()) };
        let answer = self.decide(listener, place, &call);
        listener.answer(&call, answer)
    }

    /// What cannot be looked at (a program that runs as another user, say) is left to the kernel.
    fn decide(&mut self, listener: &Listener, place: &Place, call: &Call) -> Answer {
        let Ok(Some(wanted)) = requested_address(call) else { return Answer::Continue };
        if !is_this_machine(wanted.ip()) {
            return Answer::Continue;
        }
        let Some(real_port) = place.real_port(wanted.port()) else { return Answer::Continue };
        let Ok(socket) = copy_socket(call) else { return Answer::Continue };
        // Only now is it certain that what was read above belongs to the caller.
        if !listener.is_waiting(call) || getsockopt(&socket, sockopt::SockType) != Ok(SockType::Stream) {
            return Answer::Continue;
        }
        match call.system_call {
            SystemCall::Bind => match self.binder.bind(&socket, wanted, place.ip, real_port) {
                Ok(()) => Answer::Done,
                Err(errno) => Answer::Fail(errno),
            },
            SystemCall::Connect => {
                // Left as it is, the connection goes where it would go without us.
                let _ = connect::redirect(listener, call, &socket, wanted, SocketAddrV4::new(place.ip, real_port));
                Answer::Continue
            }
        }
    }
}

/// Every address, or the machine's own loopback address: where a server listens, or is looked for.
fn is_this_machine(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST
}

/// Lets an IPv6 socket use the replica's IPv4 address, as a mapped one. Fails if it is bound already to
/// an address that only IPv6 knows.
pub(crate) fn allow_mapped(socket: &OwnedFd) -> Result<(), Errno> {
    if getsockopt(socket, sockopt::Ipv6V6Only)? {
        setsockopt(socket, sockopt::Ipv6V6Only, &false)?;
    }
    Ok(())
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
pub(crate) fn parse(raw: &[u8]) -> Option<SocketAddr> {
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
    fn only_every_address_and_this_machines_loopback_are_taken_for_this_machine() {
        for yes in ["0.0.0.0", "127.0.0.1", "::", "::1", "::ffff:0.0.0.0", "::ffff:127.0.0.1"] {
            assert!(is_this_machine(yes.parse().unwrap()), "{yes}");
        }
        for no in ["127.0.0.2", "10.0.0.1", "::2"] {
            assert!(!is_this_machine(no.parse().unwrap()), "{no}");
        }
    }
}
