//! Removes everything that carries a controller's label, and waits until it is gone.

use super::objects::{Search, Seen};
use super::{ClusterError, PAUSE, Remote};
use crate::output::warning;
use crate::progress::Progress;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait for everything to be gone: pods drain, volumes are detached and deleted.
const GONE_WITHIN: Duration = Duration::from_secs(600);
/// Beyond its own grace, how long a pod may take to end before its node is taken for lost.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// Objects named in a message; there may be hundreds.
const NAMED_MAX: usize = 5;

/// What becomes of pods that do not end, because their node is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leftovers {
    /// They are waited for.
    Kept,
    /// They are struck off: as `--purge` says, they may go on running.
    Forgotten,
}

impl Remote {
    /// Whether anything carries the controller's label.
    pub(crate) async fn has_anything(&self) -> Result<bool, ClusterError> {
        Ok(!self.search().await?.seen.is_empty())
    }

    /// Removes all that carries the controller's label. Safe to repeat, and to interrupt.
    pub(crate) async fn remove(&self, leftovers: Leftovers, progress: &mut Progress) -> Result<(), ClusterError> {
        let deadline = Instant::now() + GONE_WITHIN;
        let mut leaving_since = BTreeMap::new();
        loop {
            let search = match self.search().await {
                Err(error) if error.is_passing() && Instant::now() < deadline => {
                    progress.now(&error.to_string());
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                search => search?,
            };
            if search.seen.is_empty() {
                return self.nothing_unseen(&search);
            }
            if Instant::now() >= deadline {
                return Err(self.cannot_be_removed(&search.seen, "is still there"));
            }
            progress.now(&format!("removing {}", named(&search.seen)));
            self.delete_all(&search.seen, leftovers, &mut leaving_since).await?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn delete_all(
        &self,
        seen: &[Seen],
        leftovers: Leftovers,
        leaving_since: &mut BTreeMap<String, Instant>,
    ) -> Result<(), ClusterError> {
        let mut refusals = Vec::new();
        for object in seen {
            let since = *leaving_since.entry(object.uid.clone()).or_insert_with(Instant::now);
            let is_lost = object.kind.kind == "Pod"
                && object.is_leaving
                && since.elapsed() > Duration::from_secs(object.grace_seconds) + LOST_AFTER;
            let outcome = if object.is_to_be_deleted() {
                self.delete(object, false).await
            } else if is_lost && leftovers == Leftovers::Forgotten {
                warning(&format!(
                    "{} did not end; it is struck off, and may go on running on a lost node",
                    object.text()
                ));
                self.delete(object, true).await
            } else {
                continue;
            };
            match outcome {
                Err(error) if error.is_passing() => {}
                Err(error) => refusals.push((object.clone(), error.to_string())),
                Ok(()) => {}
            }
        }
        match refusals.first() {
            None => Ok(()),
            Some((_, reason)) => {
                let objects: Vec<Seen> = refusals.iter().map(|(object, _)| object.clone()).collect();
                Err(self.cannot_be_removed(&objects, &format!("stays: {reason}")))
            }
        }
    }

    fn cannot_be_removed(&self, seen: &[Seen], why: &str) -> ClusterError {
        let held: Vec<&str> = seen.iter().flat_map(|object| &object.finalizers).map(String::as_str).collect();
        let held = match held.first() {
            Some(finalizer) => format!(" (held by {finalizer})"),
            None => String::new(),
        };
        ClusterError::Refused(format!(
            "not everything of {self} could be removed: {} {why}{held}. To try again, run the command again; to see \
             what is left: `kubectl -n {} get all,pvc -l {}`",
            named(seen),
            self.cluster.namespace,
            self.label()
        ))
    }

    /// Nothing is left of what may be looked for.
    fn nothing_unseen(&self, search: &Search) -> Result<(), ClusterError> {
        if search.forbidden.is_empty() {
            return Ok(());
        }
        Err(ClusterError::Refused(format!(
            "what could be found of {self} was removed, but you may not look for {} there: ask whoever runs the cluster \
             to remove those with the label {}",
            search.forbidden.join(", "),
            self.label()
        )))
    }
}

/// `Pod a, Service b and 3 more`.
fn named(seen: &[Seen]) -> String {
    let names: Vec<String> = seen.iter().take(NAMED_MAX).map(Seen::text).collect();
    match seen.len().saturating_sub(NAMED_MAX) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests;
