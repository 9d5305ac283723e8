//! One replica as the proxy sees it: where it is, how much it has to do, and whether it can be reached.
//!
//! Invariants:
//! * `in_flight` counts the requests from the choice of the replica to the end of the reply's body, or
//!   to whatever ends the exchange before.
//! * While a replica is in its cool-down it gets no request as long as another can take it; when the
//!   cool-down is over exactly one request tries.

use crate::sync::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::net::SocketAddr;

/// First cool-down after a failed connect. A process that restarts takes about that long.
const COOL_DOWN_MS_FIRST: u64 = 1_000;

/// Longest cool-down, doubled up to here: then a dead replica costs one connect in 10 s.
const COOL_DOWN_MS_MAX: u64 = 10_000;

/// Keeps a counter on cache lines of its own: two, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// A replica, from the first table that names it to the end of its last exchange.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) uid: String,
    pub(crate) id: u64,
    pub(crate) address: SocketAddr,
    /// Tells replicas apart within this process, cheaper than `uid`.
    pub(crate) key: u64,
    retired: AtomicBool,
    load: Padded<Load>,
}

#[derive(Debug, Default)]
struct Load {
    in_flight: AtomicU64,
    requests: AtomicU64,
    /// When the cool-down ends; 0 while the replica can be reached.
    cool_until_ms: AtomicU64,
    cool_down_ms: AtomicU64,
}

impl Replica {
    pub(crate) fn new(uid: String, id: u64, address: SocketAddr, key: u64) -> Self {
        Self { uid, id, address, key, retired: AtomicBool::new(false), load: Padded::default() }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.load.0.in_flight.load(Relaxed)
    }

    /// Requests given to the replica so far.
    pub(crate) fn requests(&self) -> u64 {
        self.load.0.requests.load(Relaxed)
    }

    pub(crate) fn begin(&self) {
        self.load.0.requests.fetch_add(1, Relaxed);
        self.load.0.in_flight.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self) {
        self.load.0.in_flight.fetch_sub(1, Relaxed);
    }

    /// Whether the replica is in no table any more: then its idle connections are of no use.
    pub(crate) fn retire(&self, retired: bool) {
        self.retired.store(retired, Relaxed);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    pub(crate) fn is_reachable(&self) -> bool {
        self.load.0.cool_until_ms.load(Relaxed) == 0
    }

    /// Whether the caller is the one to try this replica again after its cool-down.
    pub(crate) fn claim_trial(&self, now_ms: u64) -> bool {
        let until = self.load.0.cool_until_ms.load(Relaxed);
        let next = now_ms + COOL_DOWN_MS_FIRST;
        until != 0
            && until <= now_ms
            && self.load.0.cool_until_ms.compare_exchange(until, next, Relaxed, Relaxed).is_ok()
    }

    /// A connect failed.
    pub(crate) fn connect_failed(&self, now_ms: u64) {
        let load = &self.load.0;
        let until = load.cool_until_ms.load(Relaxed);
        let last = load.cool_down_ms.load(Relaxed);
        // Connects that were under way together fail together: they count as one.
        let cool_down_ms = match last {
            0 => COOL_DOWN_MS_FIRST,
            last if until > now_ms + COOL_DOWN_MS_FIRST => last,
            last => (last * 2).min(COOL_DOWN_MS_MAX),
        };
        load.cool_down_ms.store(cool_down_ms, Relaxed);
        load.cool_until_ms.store(now_ms + cool_down_ms, Relaxed);
    }

    /// A connect succeeded. True if the replica could not be reached before.
    pub(crate) fn connected(&self) -> bool {
        self.load.0.cool_down_ms.store(0, Relaxed);
        self.load.0.cool_until_ms.swap(0, Relaxed) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica() -> Replica {
        Replica::new("a-1".into(), 1, "127.0.0.1:1".parse().unwrap(), 1)
    }

    #[test]
    fn after_a_cool_down_exactly_one_request_tries() {
        let replica = replica();
        replica.connect_failed(10_000);
        assert!(!replica.is_reachable());
        assert!(!replica.claim_trial(10_999));
        assert!(replica.claim_trial(11_000));
        assert!(!replica.claim_trial(11_000));
        assert!(replica.connected());
        assert!(replica.is_reachable());
        assert!(!replica.claim_trial(99_000), "a reachable replica needs no trial");
    }

    #[test]
    fn cool_downs_double_up_to_their_bound() {
        let replica = replica();
        let mut now_ms = 10_000;
        for expected in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
            replica.connect_failed(now_ms);
            assert!(!replica.claim_trial(now_ms + expected - 1), "{expected}");
            now_ms += expected;
            assert!(replica.claim_trial(now_ms), "{expected}");
        }
    }
}
