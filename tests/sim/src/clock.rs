//! Virtual time and chance: nothing else in a run decides what happens when.

use skyserve_model::Timestamp;
use std::collections::BTreeMap;

/// What a seed leads to: SplitMix64, the same numbers on every machine for ever.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d }
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.number() % (high - low + 1)
    }

    /// Whether something happens that happens this many times in a thousand.
    pub fn per_mille(&mut self, times: u64) -> bool {
        self.number() % 1_000 < times
    }

    /// One of `choices`.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        let last = choices.len().checked_sub(1)? as u64;
        let index = self.between(0, last);
        choices.get(usize::try_from(index).expect("it is below the length"))
    }
}

/// What is to happen, in the order of time and, at one moment, in the order in which it was decided.
#[derive(Debug)]
pub(crate) struct Schedule<T> {
    due: BTreeMap<(u64, u64), T>,
    decided: u64,
}

impl<T> Schedule<T> {
    pub(crate) fn new() -> Self {
        Self { due: BTreeMap::new(), decided: 0 }
    }

    pub(crate) fn at(&mut self, moment_ms: u64, happening: T) {
        self.due.insert((moment_ms, self.decided), happening);
        self.decided += 1;
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.due.first_key_value().map(|((moment, _), _)| *moment)
    }

    /// The first thing that is due at `now_ms`.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<T> {
        let entry = self.due.first_entry()?;
        (entry.key().0 <= now_ms).then(|| entry.remove())
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.due.retain(|_, happening| keep(happening));
    }
}

/// True time, and the controller's wall clock, which may be set while the controller is down.
#[derive(Debug)]
pub(crate) struct Clock {
    pub(crate) now_ms: u64,
    /// What the wall clock shows at the beginning of the run, moved whenever it is set.
    wall_ms: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        // Some day in 2030, far enough from zero to set it back by years.
        Self { now_ms: 0, wall_ms: 1_900_000_000_000 }
    }

    /// What a controller that runs now takes for the time.
    pub(crate) fn wall(&self) -> Timestamp {
        Timestamp(self.wall_ms + self.now_ms)
    }

    /// When the wall clock will show `moment`.
    pub(crate) fn when(&self, moment: Timestamp) -> u64 {
        moment.0.saturating_sub(self.wall_ms)
    }

    pub(crate) fn set_wall(&mut self, by_ms: i64) {
        self.wall_ms = self.wall_ms.saturating_add_signed(by_ms);
    }
}
