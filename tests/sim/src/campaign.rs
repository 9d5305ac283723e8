//! Many runs, counted; the first that breaks an invariant is shown and ends it. Seeds are shared out among the
//! machine's cores; each run has one thread.

use crate::scenario::{Plan, Run, run};
use crate::world::Counts;
use skyserve_model::ReplicaStatus;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::thread;

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
        self.count(run.counts);
        run
    }

    fn count(&mut self, counts: Counts) {
        self.counts.steps += counts.steps;
        self.counts.crashes += counts.crashes;
        self.counts.commits += counts.commits;
        self.counts.boundaries += counts.boundaries;
        self.counts.virtual_ms += counts.virtual_ms;
    }

    fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.statuses.extend(&other.statuses);
        self.count(other.counts);
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

/// Plays what `each` says for every seed, on every core; the first panic ends it.
pub fn play_all(seeds: Range<u64>, each: impl Fn(u64, &mut Tally) + Sync) -> Tally {
    let left = Mutex::new(seeds);
    let next = || left.lock().ok().and_then(|mut seeds| seeds.next());
    let worker = || {
        let mut tally = Tally::default();
        while let Some(seed) = next() {
            let ends = EndsOthers(&left);
            each(seed, &mut tally);
            std::mem::forget(ends);
        }
        tally
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let mut total = Tally::default();
        for worker in workers {
            match worker.join() {
                Ok(tally) => total.add(&tally),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        total
    })
}

/// Leaves nothing for the others to play, when a panic unwinds past it.
struct EndsOthers<'a>(&'a Mutex<Range<u64>>);

impl Drop for EndsOthers<'_> {
    fn drop(&mut self) {
        if let Ok(mut seeds) = self.0.lock() {
            *seeds = 0..0;
        }
    }
}

/// The seeds of an ordinary test: `SEED` alone, or the first `few`.
pub fn seeds(few: u64) -> Range<u64> {
    match std::env::var("SEED") {
        Ok(seed) => number(&seed)..number(&seed) + 1,
        Err(_) => 0..few,
    }
}

/// The seeds of a campaign: `SEED` alone; or those that `SEEDS` says (`1000`, or `1000..2000` to go on where an earlier
/// campaign ended); or, as `FAULTS` says, of its short or its long form.
pub fn campaign_seeds(short: u64, long: u64) -> Range<u64> {
    match std::env::var("SEEDS") {
        Ok(many) if !is_replay() => match many.split_once("..") {
            Some((first, end)) => number(first)..number(end),
            None => 0..number(&many),
        },
        _ => seeds(if is_long() { long } else { short }),
    }
}

/// Whether the long form of the campaigns is asked for.
pub fn is_long() -> bool {
    match std::env::var("FAULTS").as_deref() {
        Ok("long") => true,
        Ok("short") | Err(_) => false,
        Ok(other) => panic!("FAULTS is `short` or `long`, not `{other}`"),
    }
}

/// Whether one seed was asked for, whose history is to be shown.
pub fn is_replay() -> bool {
    std::env::var_os("SEED").is_some()
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is not a number of seeds"))
}
