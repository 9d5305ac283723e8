//! How often a service's requests may be sent again.
//!
//! Only a request that is safe to repeat is ever sent again (see [`crate::dispatch`]); the budget bounds
//! what that adds to a replica that is already in trouble. Connecting elsewhere after a refused
//! connect is not counted: nothing was sent, and the cool-down bounds it.
//!
//! Invariant: over any time at most [`RETRIES_FLOOR`] retries a second plus [`RETRIES_PERCENT`] % of the
//! requests are made, and never more than [`SAVED_RETRIES_MAX`] beyond the floor at once.

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Share of the requests that may be repeated: enough for a replica out of five to restart.
const RETRIES_PERCENT: u64 = 20;

/// Retries a second that are always allowed, so that a quiet service has some too.
const RETRIES_FLOOR: u64 = 10;

/// Most retries that can be saved up: one second of a busy service.
const SAVED_RETRIES_MAX: u64 = 1_000;

/// One retry, in the account's unit.
const RETRY: u64 = 100;

/// One service's account. Counted in hundredths of a retry.
#[derive(Debug, Default)]
pub(crate) struct RetryBudget {
    saved: AtomicU64,
    /// The second, and in the lowest [`USED_BITS`] how many of its retries are used: one number, because a thread
    /// that begins a second must not take back what another has used of it.
    floor: AtomicU64,
}

const USED_BITS: u32 = 8;

impl RetryBudget {
    /// A request came: some share of a retry is earned.
    pub(crate) fn earn(&self) {
        let earned = |saved: u64| (saved < SAVED_RETRIES_MAX * RETRY).then_some(saved + RETRIES_PERCENT);
        let _ = self.saved.fetch_update(Relaxed, Relaxed, earned);
    }

    /// Whether a request may be sent again now.
    pub(crate) fn spend(&self, now_ms: u64) -> bool {
        let now = (now_ms / 1_000) << USED_BITS;
        let used = |floor: u64| {
            // Threads read the clock before they come here: the second of another may be later.
            let floor = floor.max(now);
            (floor & ((1 << USED_BITS) - 1) < RETRIES_FLOOR).then_some(floor + 1)
        };
        if self.floor.fetch_update(Relaxed, Relaxed, used).is_ok() {
            return true;
        }
        self.saved.fetch_update(Relaxed, Relaxed, |saved| saved.checked_sub(RETRY)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_service_has_the_floor_and_no_more() {
        let budget = RetryBudget::default();
        let allowed = (0..100).filter(|_| budget.spend(5_000)).count();
        assert_eq!(allowed, 10);
        assert!(budget.spend(6_000), "the next second has its own floor");
    }

    #[test]
    fn a_thread_whose_clock_was_read_earlier_takes_no_second_back() {
        let budget = RetryBudget::default();
        let allowed = (0..100).filter(|call| budget.spend(5_000 - call % 2)).count();
        assert_eq!(allowed, 10);
    }

    #[test]
    fn requests_earn_a_fifth_of_a_retry_each() {
        let budget = RetryBudget::default();
        (0..100).for_each(|_| budget.earn());
        let allowed = (0..100).filter(|_| budget.spend(5_000)).count();
        assert_eq!(allowed, 10 + 20);
    }

    #[test]
    fn savings_are_bounded() {
        let budget = RetryBudget::default();
        (0..100_000).for_each(|_| budget.earn());
        let allowed = (0..100_000).filter(|_| budget.spend(5_000)).count();
        assert!(allowed <= 10 + 1_000, "{allowed}");
    }
}
