//! Several versions of one service side by side: which replicas are as the newest version wants them, how many of
//! which version are missing, and which replicas are too many.
//!
//! A replica is launched once, as the version in its row says. A later version that would launch it just the same
//! (another number of replicas, another probe) takes it over as it is; any other version replaces it, one replica at a
//! time. It is all a function of the rows, so an update goes on after a crash where it was.
//!
//! Invariants:
//! * No more replicas are alive than the target, and [`limits::SURGE`] more while versions differ.
//! * A READY replica of another version goes only if without it as many are READY as there should be.
//! * A version that was never ready takes nothing from the one that serves: it is tried beside it, and what the one
//!   that serves loses meanwhile is launched again as it was ([`Proven`](crate::service::Proven)).

use crate::ids::{ReplicaId, Timestamp, Version};
use crate::limits;
use crate::replica::{Replica, ReplicaStatus};
use crate::rules::VersionRules;
use crate::service::Service;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Replicas of one version that are to be launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) version: Version,
    pub(crate) count: usize,
    pub(crate) not_before: Timestamp,
}

impl Service {
    /// What the version that `replica` was launched as asks for.
    pub fn rules_of_launch(&self, replica: &Replica) -> &Arc<VersionRules> {
        self.rules_of(replica.version)
    }

    /// The newest version that would have launched `replica` just as it is. It is shown as this one's.
    pub fn version_of(&self, replica: &Replica) -> Version {
        if self.is_newest(replica) {
            return self.head.version;
        }
        let launch = &self.rules_of_launch(replica).launch;
        let same = self.earlier.iter().rev().find(|(_, rules)| rules.launch == *launch);
        same.map_or(replica.version, |(version, _)| *version)
    }

    /// What its probes follow: the rules of [`Service::version_of`].
    pub fn rules_for(&self, replica: &Replica) -> &Arc<VersionRules> {
        self.rules_of(self.version_of(replica))
    }

    /// Whether the newest version would launch `replica` just as it is.
    pub fn is_newest(&self, replica: &Replica) -> bool {
        replica.version == self.head.version || self.rules_of_launch(replica).launch == self.rules.launch
    }

    /// Whether nothing is launched any more.
    pub fn is_given_up(&self) -> bool {
        self.head.given_up.is_some() && self.head.proven.is_none()
    }

    /// Whether replicas of another version are still to be replaced, or the newest is still to prove itself beside one.
    pub fn is_updating(&self) -> bool {
        self.head.proven.is_some() || self.alive().any(|replica| !self.is_newest(replica))
    }

    fn rules_of(&self, version: Version) -> &Arc<VersionRules> {
        // A version without rules here is the newest: the store refuses a row of a version that it does not have.
        self.earlier.get(&version).unwrap_or(&self.rules)
    }

    /// Whether the newest version, or one that would launch the same, was ready before it is asked for again.
    pub(crate) fn was_ever_ready(&self, rules: &VersionRules) -> bool {
        let newest = self.head.ever_ready && self.rules.launch == rules.launch;
        let proven = self.head.proven.is_some_and(|proven| self.rules_of(proven.version).launch == rules.launch);
        let mut replicas = self.replicas.values().filter(|replica| replica.first_ready_at.is_some());
        newest || proven || replicas.any(|replica| self.rules_of_launch(replica).launch == rules.launch)
    }

    /// Whether `replica` is as the version that goes on serving launches it.
    pub(crate) fn is_proven(&self, replica: &Replica) -> bool {
        let launch = |version| &self.rules_of(version).launch;
        self.head.proven.is_some_and(|proven| launch(proven.version) == launch(replica.version))
    }

    /// What is to be launched, whether or not its pause is over.
    pub(crate) fn missing(&self) -> Vec<Missing> {
        let (head, target) = (&self.head, self.target());
        let newest = self.alive().filter(|replica| self.is_newest(replica)).count();
        let others = self.alive().count() - newest;
        let surge = if self.is_updating() { limits::SURGE } else { 0 };
        let mut room = (target + surge).saturating_sub(newest + others);
        let wanted = match head.proven {
            _ if head.given_up.is_some() => 0,
            // It is tried beside the one that serves.
            Some(_) => target.min(limits::SURGE),
            None => target,
        };
        let mut missing = Vec::new();
        let mut launch = |version, count: usize, not_before| {
            let count = count.min(room);
            room -= count;
            missing.extend((count > 0).then_some(Missing { version, count, not_before }));
        };
        launch(head.version, wanted.saturating_sub(newest), head.launch_not_before);
        if let Some(proven) = head.proven {
            let wanted = target.min(self.rules_of(proven.version).replicas as usize);
            launch(proven.version, wanted.saturating_sub(others), proven.launch_not_before);
        }
        missing
    }

    /// Replicas that are alive and should not be, in the order in which they are to go.
    pub(crate) fn superfluous(&self) -> Vec<ReplicaId> {
        let target = self.target();
        let (mut newest, mut others): (Vec<&Replica>, Vec<&Replica>) =
            self.alive().partition(|replica| self.is_newest(replica));
        newest.sort_by_cached_key(|replica| self.going_order(replica));
        others.sort_by_cached_key(|replica| self.going_order(replica));
        let mut going: Vec<&Replica> = Vec::new();
        // Of a version that never served and is not wanted any more: nothing is lost with them.
        others.retain(|replica| {
            let stays = replica.first_ready_at.is_some() || self.is_proven(replica);
            going.extend((!stays).then_some(*replica));
            stays
        });
        going.extend(newest.drain(..newest.len().saturating_sub(target)));
        let ready = newest.iter().filter(|replica| replica.status == ReplicaStatus::Ready).count();
        let kept = target.saturating_sub(ready);
        going.extend(others.drain(..others.len().saturating_sub(kept)));
        // Of those that are READY there are not more than the target by now.
        let surge = if others.is_empty() && self.head.proven.is_none() { 0 } else { limits::SURGE };
        let over = (newest.len() + others.len()).saturating_sub(target + surge);
        let mut starting: Vec<&Replica> =
            newest.into_iter().chain(others).filter(|replica| replica.status != ReplicaStatus::Ready).collect();
        starting.sort_by_cached_key(|replica| self.going_order(replica));
        going.extend(starting.into_iter().take(over));
        going.into_iter().map(|replica| replica.id).collect()
    }

    /// Earlier versions that something still depends on.
    pub(crate) fn versions_in_use(&self) -> BTreeSet<Version> {
        let launched = self.replicas.values().map(|replica| replica.version);
        let followed = self.replicas.values().map(|replica| self.version_of(replica));
        launched.chain(followed).chain(self.head.proven.map(|proven| proven.version)).collect()
    }

    /// How far an update is, for a person; `None` if none is under way.
    pub(crate) fn rollout_reason(&self) -> Option<String> {
        if self.head.given_up.is_some() || !self.is_updating() {
            return self.head.given_up.clone();
        }
        let (version, target) = (self.head.version, self.target());
        let ready = self.ready().filter(|replica| self.is_newest(replica)).count();
        let failed = self
            .replicas
            .values()
            .rfind(|replica| self.is_newest(replica) && replica.status.is_kept_as_record())
            .filter(|_| self.head.proven.is_some());
        let failed = failed.map_or_else(String::new, |replica| {
            let reason = replica.reason.as_deref().unwrap_or("no reason was given");
            format!("; its replica {} is {}: {reason}", replica.id, replica.status)
        });
        Some(format!("version {version} is being rolled out: {ready} of {target} replicas are READY{failed}"))
    }

    /// SkyServe's order of going: the least far in its life first, of those the oldest version's, of those the newest.
    fn going_order(&self, replica: &Replica) -> (u8, Version, Reverse<ReplicaId>) {
        let rank = match replica.status {
            ReplicaStatus::Pending => 0,
            ReplicaStatus::Provisioning => 1,
            ReplicaStatus::Starting => 2,
            ReplicaStatus::NotReady => 3,
            _ => 4,
        };
        (rank, self.version_of(replica), Reverse(replica.id))
    }
}
