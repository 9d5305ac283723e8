//! The controller's clock: wall time at the start, and from then on only what has truly passed. A
//! wall clock that is set while the controller runs changes no decision.

use skyserve_model::Timestamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
    began_at: Timestamp,
}

impl Clock {
    /// A clock that starts at the wall clock's time.
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let began_at = Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX));
        Self { began: Instant::now(), began_at }
    }

    /// This moment.
    pub(crate) fn now(&self) -> Timestamp {
        self.began_at.plus_ms(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// How long until `moment`; zero if it has passed.
    pub(crate) fn until(&self, moment: Timestamp) -> Duration {
        Duration::from_millis(moment.since_ms(self.now()))
    }
}
