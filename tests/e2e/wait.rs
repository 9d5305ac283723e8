//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// How long a test waits for what should come soon: far more than it takes, even on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Waits until `condition` gives a value, and gives it; fails with `what` and the last problem.
pub fn until<T>(what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
    until_within(SOON, what, condition)
}

/// The same, for what may take another time than [`SOON`].
pub fn until_within<T>(within: Duration, what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + within;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(problem) => assert!(Instant::now() < deadline, "still waiting for: {what}; {problem}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `condition` holds.
pub fn until_true(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || if condition() { Ok(()) } else { Err("it does not hold yet".to_owned()) });
}
