//! A load balancer in a child process, replicas that record, clients that speak bytes.

mod balancer;
mod client;
mod replica;

pub(crate) use balancer::{Balancer, service};
pub(crate) use client::{Client, get, try_get};
pub(crate) use replica::{Peer, Recorded, Replica};

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
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

/// Below the ports that the kernel hands out by itself.
const FIRST_PORT: u16 = 20_000;

/// A loopback address that no other test uses: an IP of this process and a port of this call.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT_PORT: AtomicU16 = AtomicU16::new(FIRST_PORT);
    let [.., high, middle, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 64 + high % 128, middle, low);
    // Not bound to see whether it is free: a child that is started at that moment would keep it.
    SocketAddr::from((ip, NEXT_PORT.fetch_add(1, Ordering::Relaxed)))
}
