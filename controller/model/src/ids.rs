//! Identifiers and moments as types, so that one cannot be taken for another.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A replica's number within its service, from 1; grows, and is never used twice.
    ReplicaId
);
number!(
    /// A service's version, from 1; `update` makes the next.
    Version
);
number!(
    /// One controller's tenure; grows with every controller start.
    Epoch
);

/// Milliseconds since the Unix epoch, as the driver's clock counts them (never backwards within one
/// process).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This moment and `milliseconds` more.
    pub fn plus_ms(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// Milliseconds from `earlier` to this moment; 0 if `earlier` is later (a clock was set back).
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A replica's name for ever, at every provider: `<service>-<incarnation>-<replica id>`. A service
/// that is taken down and made again under the same name has another incarnation, so its replicas
/// never share a uid with the earlier ones'.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaUid(String);

impl ReplicaUid {
    /// The uid of replica `id` of the service `name` in its incarnation `incarnation`.
    pub fn new(name: &str, incarnation: u64, id: ReplicaId) -> Self {
        Self(format!("{name}-{incarnation}-{id}"))
    }

    /// A uid read back from a provider's label or folder name; `None` if it cannot be one (it is used
    /// as a folder name, so it must not be able to leave its folder).
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.rsplitn(3, '-');
        let number =
            |part: &str| !part.is_empty() && part.len() <= 20 && part.bytes().all(|byte| byte.is_ascii_digit());
        let shape = parts.next().is_some_and(number)
            && parts.next().is_some_and(number)
            && parts.next().is_some_and(|name| {
                name.starts_with(|first: char| first.is_ascii_alphabetic())
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            });
        shape.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The incarnation of its service. No service was ever given one that is not a number of 64 bits.
    pub fn incarnation(&self) -> Option<u64> {
        self.0.rsplit('-').nth(1)?.parse().ok()
    }
}

impl fmt::Display for ReplicaUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_reads_back_and_a_path_is_not_a_uid() {
        let uid = ReplicaUid::new("my-svc.a_b", 3, ReplicaId(12));
        let longest = ReplicaUid::new("a", u64::MAX, ReplicaId(u64::MAX));
        assert_eq!(uid.to_string(), "my-svc.a_b-3-12");
        for uid in [uid, longest] {
            assert_eq!(ReplicaUid::parse(uid.as_str()), Some(uid));
        }
        for bad in ["", "a", "a-1", "../x-1-1", "a/b-1-1", "-1-1", "a-1-x", "a--1", "9a-1-1"] {
            assert_eq!(ReplicaUid::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn time_between_moments_is_never_negative() {
        assert_eq!(Timestamp(5).since_ms(Timestamp(9)), 0);
        assert_eq!(Timestamp(9).since_ms(Timestamp(5)), 4);
    }
}
