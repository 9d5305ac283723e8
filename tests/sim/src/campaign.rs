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

/// The seeds to play: `SEED` alone; or one for each `share` of those that `SEEDS` says (`1000`, or
/// `1000..2000` to go on where an earlier campaign ended), and never fewer than `few`; or `few`.
pub fn seeds(few: u64, share: u64) -> Range<u64> {
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is not a number of seeds"));
    if let Ok(seed) = std::env::var("SEED") {
        let seed: u64 = number(&seed);
        return seed..seed + 1;
    }
    let Ok(many) = std::env::var("SEEDS") else { return 0..few };
    let (first, end) = match many.split_once("..") {
        Some((first, end)) => (number(first), number(end)),
        None => (0, number(&many)),
    };
    let first = first / share;
    first..(end / share).max(first + few)
}

/// Whether one seed was asked for, whose history is to be shown.
pub fn is_replay() -> bool {
    std::env::var_os("SEED").is_some()
}
