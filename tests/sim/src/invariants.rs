//! What must hold, as a list: the checks, their messages and the documentation all take it from here.

use std::fmt;

macro_rules! invariants {
    ($($name:ident: $text:literal,)*) => {
        /// What is checked; each at every step where it can break.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Invariant { $(#[doc = $text] $name,)* }

        impl Invariant {
            /// Every invariant.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The sentence that must hold.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

invariants! {
    IdsAreUsedOnce: "a replica id and uid is never used twice",
    OneResourceForOneReplica: "at most one resource is ever started for a replica's uid",
    LaunchIsDecidedFirst: "nothing is launched without a stored decision to launch it",
    TerminationIsDecidedFirst: "nothing is terminated without a stored decision to terminate it",
    OneCallAtATime: "at most one call of a kind is under way for a replica",
    ReadyByProbe: "a replica becomes READY only by a probe that passed since it last was not",
    NeverMoreThanTarget: "no more replicas are alive than the target, and one more while an update replaces some",
    HealthyIsLeftAlone: "a replica that nothing happened to is ended only when a user says so, or a newer version is READY in its place",
    UpdateNeverReducesService: "no decision of ours but a user's leaves fewer READY than there were, if that is below the target",
    LaunchedAsItsVersion: "a replica is launched as the version in its row says, each time the same",
    DrainsFirst: "a replica that is taken down answers its requests first, for as long as it may",
    RoutesAreTheRows: "a published table names exactly the READY replicas, and draining ones that were READY",
    EndpointIsTrue: "an endpoint is said to listen only where it does, and moves only from a port that is taken",
    EpochsAndTablesGrow: "each controller has an epoch and each published table a version above every one before, across restarts too",
    AcknowledgedIsKept: "what a user was told is done stays done",
    StoredIsRead: "a new controller reads exactly what was acknowledged as stored",
    OneWriter: "a controller that was overtaken stores nothing",
    GoneIsGone: "once a service is gone, nothing of it is left at the provider or comes back",
    NoBusyLoop: "the controller asks to be woken only for later, and works a bounded number of times a second",
    Converges: "when faults stop, the world soon equals what the users asked for, and stays so",
}

/// An invariant that does not hold, and how.
#[derive(Debug, Clone)]
pub struct Violation {
    pub invariant: Invariant,
    pub detail: String,
}

impl Violation {
    pub(crate) fn new(invariant: Invariant, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is broken ({}): {}", self.invariant, self.invariant.text(), self.detail)
    }
}
