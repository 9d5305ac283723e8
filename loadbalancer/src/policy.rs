//! Which replica gets a request: SkyServe's load-balancing policies as a pure choice among indices.
//!
//! Invariants:
//! * Only the cursor is changed, and only by a choice.
//! * Among equals the choice rotates; the cursor runs over all replicas, so those that are equal now
//!   keep their place in the rotation (`load_balancing_policies.py`, `_select_tied_replica`).
//! * Threads may choose at the same time: the cursor may then give one place twice, never a wrong index.

use crate::sync::{AtomicUsize, Ordering};
use skyserve_routes::Policy;

/// Chooses one of `count` replicas. `load` gives a replica's load relative to its weight, or `None`
/// when it must not be chosen.
pub(crate) fn choose(
    policy: Policy,
    cursor: &AtomicUsize,
    count: usize,
    load: impl Fn(usize) -> Option<f64>,
) -> Option<usize> {
    if count == 0 {
        return None;
    }
    let start = cursor.load(Ordering::Relaxed) % count;
    let rotation = (start..count).chain(0..start);
    let chosen = match policy {
        Policy::RoundRobin => rotation.into_iter().find(|&index| load(index).is_some()),
        Policy::LeastLoad | Policy::InstanceAwareLeastLoad => first_least_loaded(rotation, load),
    }?;
    cursor.store((chosen + 1) % count, Ordering::Relaxed);
    Some(chosen)
}

fn first_least_loaded(rotation: impl Iterator<Item = usize>, load: impl Fn(usize) -> Option<f64>) -> Option<usize> {
    let mut least: Option<(usize, f64)> = None;
    for index in rotation {
        if let Some(load) = load(index)
            && least.is_none_or(|(_, least)| load < least)
        {
            least = Some((index, load));
        }
    }
    least.map(|(index, _)| index)
}

#[cfg(test)]
mod tests;
