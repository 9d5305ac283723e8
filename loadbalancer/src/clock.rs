//! Milliseconds on a monotonic clock, small enough for an atomic.
//!
//! Invariant: the clock never goes back and never reads 0, so 0 can stand for "not set".

use std::sync::OnceLock;
use std::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();

/// Stands for "no deadline".
pub(crate) const NEVER: u64 = u64::MAX;

/// Milliseconds since the process first asked, plus one.
pub(crate) fn now_ms() -> u64 {
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(NEVER - 1) + 1
}
