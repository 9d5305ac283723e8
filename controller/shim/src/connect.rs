//! Lets a replica's connections follow its servers: the address of a `connect` to a declared port is
//! rewritten, in the caller's memory, to the replica's own; the kernel then carries the call out.
//!
//! To connect in the caller's stead would make the shim wait where the caller does. Rewritten, a call that
//! blocks blocks its caller alone, and one that does not returns EINPROGRESS as ever. Another thread of
//! the caller may change the address before the kernel reads it. That harms nobody: it then connects where
//! it could have gone anyway, for the filter guards nothing.

use crate::isolation::allow_mapped;
use crate::seccomp::{Call, Listener};
use std::fs::OpenOptions;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Where the port begins in a `sockaddr_in` and in a `sockaddr_in6`.
const PORT_OFFSET: u64 = 2;
/// From the port to the end of the address: port and address for IPv4; port, flow label and address for IPv6.
const V4_BYTES: usize = 2 + 4;
const V6_BYTES: usize = 2 + 4 + 16;

/// Makes `call`, a connect of `socket` to `wanted`, go to `own`. An error leaves the call as it was: its
/// address is in memory that cannot be written (a shared read-only mapping), or the socket cannot reach
/// an IPv4 address.
pub(crate) fn redirect(
    listener: &Listener,
    call: &Call,
    socket: &OwnedFd,
    wanted: SocketAddr,
    own: SocketAddrV4,
) -> io::Result<()> {
    if wanted.is_ipv6() {
        allow_mapped(socket)?;
    }
    // Unlike a process id, the opened file is never another process's memory. Whose it is shows the
    // question that follows.
    let memory = OpenOptions::new().write(true).open(format!("/proc/{}/mem", call.thread))?;
    if !listener.is_waiting(call) {
        return Ok(());
    }
    let (bytes, length) = encode(wanted, own);
    memory.write_all_at(&bytes[..length], call.arguments[1] + PORT_OFFSET)
}

/// `own` in the place of `wanted`, of the same family and so of the same length.
fn encode(wanted: SocketAddr, own: SocketAddrV4) -> ([u8; V6_BYTES], usize) {
    let mut bytes = [0; V6_BYTES];
    bytes[..2].copy_from_slice(&own.port().to_be_bytes());
    match wanted {
        SocketAddr::V4(_) => {
            bytes[2..V4_BYTES].copy_from_slice(&own.ip().octets());
            (bytes, V4_BYTES)
        }
        SocketAddr::V6(_) => {
            // No flow label: what goes out is IPv4.
            bytes[6..].copy_from_slice(&own.ip().to_ipv6_mapped().octets());
            (bytes, V6_BYTES)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolation::parse;

    #[test]
    fn a_rewritten_address_keeps_its_family_and_names_the_replica() {
        let own: SocketAddrV4 = "127.70.1.2:9090".parse().unwrap();
        for (wanted, head, total, expected) in [
            ("127.0.0.1:8080", libc::AF_INET, 16, "127.70.1.2:9090"),
            ("[::1]:8080", libc::AF_INET6, 28, "[::ffff:127.70.1.2]:9090"),
        ] {
            let (bytes, length) = encode(wanted.parse().unwrap(), own);
            let mut raw = vec![0; total];
            raw[..2].copy_from_slice(&(head as u16).to_ne_bytes());
            raw[PORT_OFFSET as usize..][..length].copy_from_slice(&bytes[..length]);
            assert_eq!(parse(&raw), Some(expected.parse().unwrap()));
        }
    }
}
