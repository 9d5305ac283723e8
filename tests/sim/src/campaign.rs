//! Many runs, counted; the first that breaks an invariant is shown and ends it.

use crate::scenario::{Plan, Run, run};
use crate::world::Counts;
use skyserve_model::ReplicaStatus;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

/// How much a campaign did.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub runs: u64,
    pub counts: Counts,
    /// Every status that a replica had in any run.
    pub statuses: BTreeSet<ReplicaStatus>,
}

impl Tally {
    /// Plays a plan; panics with its history if an invariant is broken.
    pub fn play(&mut self, plan: &Plan) -> Run {
        let run = run(plan);
        assert!(run.violation.is_none(), "\n{run}");
        self.runs += 1;
        self.statuses.extend(&run.statuses);
        self.counts.steps += run.counts.steps;
        self.counts.crashes += run.counts.crashes;
        self.counts.commits += run.counts.commits;
        self.counts.boundaries += run.counts.boundaries;
        self.counts.virtual_ms += run.counts.virtual_ms;
        run
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { steps, crashes, commits, boundaries, virtual_ms } = self.counts;
        let minutes = virtual_ms / 60_000;
        let runs = self.runs;
        write!(
            f,
            "{runs} runs, {crashes} crashes, {steps} steps, {commits} commits, {boundaries} boundaries, {minutes} virtual minutes"
        )
    }
}

/// The seeds to play: `SEED` alone; or one for each `share` of those that `SEEDS` says, and never fewer
/// than `few`; or `few`.
pub fn seeds(few: u64, share: u64) -> Range<u64> {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    };
    match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(many)) => 0..few.max(many / share),
        (None, None) => 0..few,
    }
}

/// Whether one seed was asked for, whose history is to be shown.
pub fn is_replay() -> bool {
    std::env::var_os("SEED").is_some()
}
