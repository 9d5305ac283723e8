//! What may go wrong in a run: the world's faults, which must be survived, and bugs planted on purpose,
//! which must be caught.

use crate::clock::Random;

/// How often what goes wrong; times in a thousand where nothing else is said.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub call_fails: u64,
    pub call_fails_for_good: u64,
    pub removal_fails: u64,
    pub reply_lost: u64,
    pub call_slow: u64,
    pub list_fails: u64,
    pub list_slow: u64,
    /// A list shows what was there some time before it was asked for.
    pub list_stale: u64,
    pub observation_repeated: u64,
    pub observation_late: u64,
    /// Of the replicas: ends, hangs, vanishes, is never ready, …
    pub replica_ill: u64,
    pub probe_flakes: u64,
    pub balancer_dies: u64,
    pub table_not_written: u64,
    pub table_read_late: u64,
    pub port_taken: u64,
    /// Each second.
    pub crash: u64,
    /// Each second.
    pub disk_full: u64,
    /// Each second.
    pub commit_in_doubt: u64,
    /// At a restart.
    pub clock_set: u64,
    /// Of the crashes: the process is only stopped, and goes on when another has taken over.
    pub stopped: u64,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// Some kinds of faults, each rare or frequent: runs that differ find more than runs that all have
    /// a little of everything.
    pub fn random(random: &mut Random) -> Self {
        let mut rate = |most: u64| match random.between(0, 3) {
            0 | 1 => 0,
            2 => most.div_ceil(8),
            _ => most,
        };
        Self {
            call_fails: rate(300),
            call_fails_for_good: rate(60),
            removal_fails: rate(900),
            reply_lost: rate(300),
            call_slow: rate(300),
            list_fails: rate(300),
            list_slow: rate(500),
            observation_repeated: rate(300),
            observation_late: rate(300),
            replica_ill: rate(500),
            probe_flakes: rate(60),
            balancer_dies: rate(30),
            table_not_written: rate(100),
            table_read_late: rate(300),
            port_taken: rate(500),
            crash: rate(80),
            disk_full: rate(40),
            commit_in_doubt: rate(40),
            clock_set: rate(300),
            stopped: rate(500),
            list_stale: rate(300),
        }
    }
}

/// A bug planted on purpose, to show that a check can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The store acknowledges updates of replicas without storing them.
    StoreForgets,
    /// The store does not refuse a controller that was overtaken.
    StoreIgnoresEpoch,
    /// The driver launches a new service's first replica before the core has stored it.
    DriverLaunchesFirst,
    /// The driver ends replicas that fail a probe, by itself.
    DriverEndsOnFailedProbe,
    /// The driver makes each call twice.
    DriverCallsTwice,
    /// The driver says that probes pass without probing.
    DriverInventsProbes,
    /// Answers of provider calls never reach the core.
    DriverLosesAnswers,
    /// The driver takes a list that could not be had for one that is empty.
    DriverTakesErrorForEmpty,
    /// The driver publishes an empty table before it opens the database.
    DriverPublishesEmptyTable,
    /// The driver gives every controller the first one's epoch.
    DriverKeepsEpoch,
    /// The driver publishes every table under the first one's version.
    DriverRepeatsTable,
    /// The driver's idea of the time lags behind.
    DriverIsLate,
    /// The provider starts another resource for each launch of a uid.
    ProviderLaunchesAgain,
    /// The provider forgets what it has terminated, so that a late launch brings it back.
    ProviderForgetsTerminations,
    /// A user is told that a service goes although nothing was stored.
    AnswersBeforeStoring,
    /// The recovering controller wants one replica more than the users.
    RecoveryRaisesTarget,
    /// The recovering controller counts replica ids from 1 again.
    RecoveryForgetsIds,
    /// The recovering controller counts replica ids from 1 again, and the store takes them.
    StoreTakesUsedIds,
    /// The recovering controller takes replicas of the newest version that are starting for READY ones.
    RecoveryTakesStartingForReady,
    /// The driver launches every replica as the newest version says.
    DriverLaunchesNewest,
    /// The load balancer says that no request is in flight when some are.
    BalancerHidesRequests,
    /// The load balancer says that it listens where another program does.
    BalancerClaimsToListen,
}
