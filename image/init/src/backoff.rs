//! When to start again what has ended.

use std::time::Duration;

use crate::options::RestartBounds;

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after an end that came `up` after the start.
    pub(crate) fn after_end(&mut self, up: Duration, bounds: RestartBounds) -> Duration {
        if up >= bounds.healthy_after {
            self.failures = 0;
            return Duration::ZERO;
        }
        let doublings = self.failures;
        self.failures = self.failures.saturating_add(1);
        2_u32
            .checked_pow(doublings)
            .and_then(|factor| bounds.first.checked_mul(factor))
            .unwrap_or(bounds.max)
            .min(bounds.max)
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: RestartBounds = RestartBounds {
        first: Duration::from_millis(10),
        max: Duration::from_millis(100),
        healthy_after: Duration::from_secs(1),
    };

    #[test]
    fn waits_double_up_to_the_bound_and_stay_there() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..6).map(|_| backoff.after_end(Duration::ZERO, BOUNDS).as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 100, 100]);
        let wait_after_many = (0..100).map(|_| backoff.after_end(Duration::ZERO, BOUNDS)).last();
        assert_eq!(wait_after_many, Some(BOUNDS.max));
    }

    #[test]
    fn what_was_healthy_is_started_again_at_once_and_its_failures_are_forgotten() {
        let mut backoff = Backoff::default();
        backoff.after_end(Duration::ZERO, BOUNDS);
        backoff.after_end(Duration::ZERO, BOUNDS);
        assert_eq!(backoff.after_end(BOUNDS.healthy_after, BOUNDS), Duration::ZERO);
        assert_eq!(backoff.after_end(Duration::ZERO, BOUNDS), BOUNDS.first);
    }
}
