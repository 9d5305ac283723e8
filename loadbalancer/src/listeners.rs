//! The listening sockets: bound once, kept by the supervisor, never shut down.
//!
//! Invariants:
//! * A socket that the supervisor kept is used again before anything is bound.
//! * A kept socket is let go only when a readable table does not name its address.
//! * `shutdown()` is never called on a listener: it would end it for its next holder, too.
//! * SO_REUSEPORT is never set: connections in one socket's backlog would be lost with the socket.

use crate::handover::{self, METRICS_NAME, Supervisor};
use crate::inherit::InheritedListener;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that wait in the kernel while no process accepts: what 4,096 clients open in a restart.
/// The kernel lowers it to its own bound (`net.core.somaxconn`, 4,096 by default).
const BACKLOG: i32 = 4_096;

/// The sockets of all services, by address.
#[derive(Debug)]
pub(crate) struct Listeners {
    supervisor: Supervisor,
    /// Kept over a restart and not yet claimed by a table.
    kept: BTreeMap<SocketAddr, TcpListener>,
    open: BTreeMap<SocketAddr, TcpListener>,
    kept_metrics: Option<TcpListener>,
}

impl Listeners {
    /// Takes over what the supervisor kept. Sockets that are not what their name says are let go.
    pub(crate) fn adopt(supervisor: Supervisor, inherited: Vec<InheritedListener>) -> Self {
        let mut listeners = Self { supervisor, kept: BTreeMap::new(), open: BTreeMap::new(), kept_metrics: None };
        for InheritedListener { name, socket } in inherited {
            let socket = Socket::from(socket);
            let listens = socket.is_listener().unwrap_or(false) && socket.set_nonblocking(true).is_ok();
            let address = socket.local_addr().ok().and_then(|address| address.as_socket()).filter(|_| listens);
            let expected = handover::listener_address(&name);
            match address {
                Some(_) if name == METRICS_NAME => listeners.kept_metrics = Some(socket.into()),
                Some(address) if expected == Some(address) => {
                    listeners.kept.insert(address, socket.into());
                }
                _ => {
                    tracing::warn!(
                        name,
                        "a descriptor that was passed on is not the listener its name says; closing it"
                    );
                    listeners.supervisor.forget(&name);
                }
            }
        }
        listeners
    }

    pub(crate) fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// A duplicate of the socket that listens at `address`, bound now if it is not yet.
    pub(crate) fn open(&mut self, address: SocketAddr) -> io::Result<TcpListener> {
        if let Some(open) = self.open.get(&address) {
            return open.try_clone();
        }
        let listener = match self.kept.remove(&address) {
            Some(kept) => kept,
            None => {
                let listener = bind(address)?;
                self.supervisor.keep(&handover::listener_name(address), &listener);
                listener
            }
        };
        let duplicate = listener.try_clone()?;
        self.open.insert(address, listener);
        Ok(duplicate)
    }

    /// Lets go of every socket whose address is not among the table's. Returns those that were open.
    pub(crate) fn retain(&mut self, addresses: &BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
        let unwanted = |sockets: &BTreeMap<SocketAddr, TcpListener>| -> Vec<SocketAddr> {
            sockets.keys().filter(|address| !addresses.contains(address)).copied().collect()
        };
        for address in unwanted(&self.kept) {
            self.kept.remove(&address);
            self.supervisor.forget(&handover::listener_name(address));
        }
        let closed = unwanted(&self.open);
        for address in &closed {
            self.open.remove(address);
            self.supervisor.forget(&handover::listener_name(*address));
        }
        closed
    }

    /// The socket for metrics and health: the kept one if it fits, else bound anew, if need be on a
    /// free port.
    pub(crate) fn open_metrics(&mut self, wanted: SocketAddr) -> io::Result<TcpListener> {
        if let Some(kept) = self.kept_metrics.take() {
            let address = kept.local_addr()?;
            if address.ip() == wanted.ip() && (wanted.port() == 0 || address.port() == wanted.port()) {
                return Ok(kept);
            }
            self.supervisor.forget(METRICS_NAME);
        }
        let listener = bind(wanted).or_else(|error| {
            if wanted.port() == 0 {
                return Err(error);
            }
            tracing::error!(
                address = %wanted,
                %error,
                "cannot serve metrics and health there; taking a free port instead. Stop what uses the port, or configure \
                 another, and restart the load balancer"
            );
            bind(SocketAddr::new(wanted.ip(), 0))
        })?;
        self.supervisor.keep(METRICS_NAME, &listener);
        Ok(listener)
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A listener that was just closed leaves connections behind; they are no reason to fail.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // An address of the table means itself: IPv4 has its own.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
