//! A load balancer in a child process, replicas that record, clients that speak bytes.

mod balancer;
mod client;
mod replica;

pub(crate) use balancer::{Balancer, service};
pub(crate) use client::{Client, get, try_get};
pub(crate) use replica::{Peer, Recorded, Replica};

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything that should happen: far more than it takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `condition` gives something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A loopback address that no other test uses: an IP of this process and call, and a port free on it.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 64 + high % 128, low, NEXT.fetch_add(1, Ordering::Relaxed));
    TcpListener::bind((ip, 0)).and_then(|listener| listener.local_addr()).unwrap()
}
