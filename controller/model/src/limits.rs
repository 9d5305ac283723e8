//! Bounds of the decisions, each with its reason.

/// Pause before the launch that follows the second failure in a row; doubles from there. Short,
/// because most failures are over by then.
pub const LAUNCH_PAUSE_MS_FIRST: u64 = 1_000;
/// Longest pause between launches: a person who has mended what was wrong does not wait longer.
pub const LAUNCH_PAUSE_MS_MAX: u64 = 300_000;
/// Failures in a row, before any replica of the version was ever ready, after which launching is given
/// up: something is wrong that another launch does not mend, and each may cost money.
pub const FAILURES_BEFORE_READY_MAX: u32 = 5;
/// The same for replicas that could not be made: room may come back, so the growing pauses between these take some
/// four minutes; what will never work (a mount that is not allowed) still ends in FAILED.
pub const PROVISION_FAILURES_BEFORE_READY_MAX: u32 = 10;
/// Replicas that an update may have alive beyond the target: the new one is ready before an old one goes, and each may
/// cost money.
pub const SURGE: usize = 1;
/// A replica that was ready for this long was healthy: its end starts a new count of failures.
pub const HEALTHY_AFTER_MS: u64 = 60_000;
/// Replicas of one service that a provider makes at the same time; the others wait as PENDING.
pub const LAUNCHES_AT_ONCE_MAX: usize = 16;
/// Calls for one launch before it counts as FAILED_PROVISION.
pub const LAUNCH_ATTEMPTS_MAX: u32 = 5;
/// Calls for one termination before it shows as FAILED_CLEANUP (it goes on being tried).
pub const TERMINATE_ATTEMPTS_SHOWN: u32 = 5;
/// Pause after a provider call failed the first time; doubles from there.
pub const CALL_PAUSE_MS_FIRST: u64 = 500;
/// Longest pause between provider calls for one operation.
pub const CALL_PAUSE_MS_MAX: u64 = 60_000;
/// How long a replica that is ended by a decision may finish its requests (SkyServe's 120 s).
pub const DRAIN_MS_MAX: u64 = 120_000;
/// The same when the whole service is taken down: somebody waits for that, and has said that it may go.
pub const SHUTDOWN_DRAIN_MS_MAX: u64 = 10_000;
/// How long a replica may take to end after it was asked to, before it is made to.
pub const TERMINATE_GRACE_MS: u64 = 10_000;
/// Records of failed replicas kept for a service: enough to see a pattern, few enough to read.
pub const FAILED_RECORDS_MAX: usize = 5;

/// A replica id from here on is none of ours (every reader of JSON and the database hold the ones below
/// exactly): a resource that claims it is left alone.
pub const REPLICA_ID_MAX: u64 = 1 << 53;

/// `first` doubled for each attempt after the first, at most `most`.
pub fn backoff_ms(first: u64, most: u64, attempt: u32) -> u64 {
    first.saturating_mul(1u64.checked_shl(attempt).unwrap_or(u64::MAX)).min(most)
}
