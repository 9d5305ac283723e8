//! A crash before and after every boundary (opening of the database, durable write, provider call, publication) of a
//! service's life: up → scale up → update → a replica of the old version dies meanwhile → one is taken down → scale down →
//! down. Then a second crash at every boundary of the recovery from each of these.

use skyserve_sim::{Bug, CrashPoint, Plan, Run, Side, Tally, campaign_seeds, is_replay, play_all, run, seeds};
use std::sync::atomic::{AtomicU64, Ordering};

const SIDES: [Side; 2] = [Side::Before, Side::After];

/// Every crash point below `boundaries`.
fn points(boundaries: u64) -> impl Iterator<Item = CrashPoint> {
    (0..boundaries).flat_map(|boundary| SIDES.map(|side| CrashPoint { boundary, side }))
}

/// The life without a crash, and then with one at each point; gives how many points there are.
fn crash_everywhere(seed: u64, tally: &mut Tally) -> u64 {
    let calm = tally.play(&Plan::life(seed, &[]));
    if is_replay() {
        println!("{calm}");
    }
    for point in points(calm.counts.boundaries) {
        crashed(tally, seed, &[point]);
    }
    calm.counts.boundaries
}

/// The same, with a second crash at each point of the recovery from every `share`th of the first ones.
fn crash_everywhere_twice(seed: u64, share: usize, tally: &mut Tally) -> u64 {
    let calm = tally.play(&Plan::life(seed, &[]));
    let mut recovery = 0;
    let offset = usize::try_from(seed).expect("seeds are small") % share;
    for first in points(calm.counts.boundaries).skip(offset).step_by(share) {
        let once = crashed(tally, seed, &[first]);
        for second in points(once.recovery) {
            crashed(tally, seed, &[first, second]);
        }
        recovery += once.recovery;
    }
    recovery
}

fn crashed(tally: &mut Tally, seed: u64, crashes: &[CrashPoint]) -> Run {
    let run = tally.play(&Plan::life(seed, crashes));
    assert!(run.all_crashed, "seed {seed} does not come to {crashes:?}");
    run
}

#[test]
fn a_crash_at_any_boundary_of_a_services_life_changes_nothing_in_its_end() {
    let mut tally = Tally::default();
    let boundaries: u64 = seeds(1).map(|seed| crash_everywhere(seed, &mut tally)).sum();
    println!("crash matrix: {boundaries} boundaries before and after; {tally}");
    assert!(tally.counts.crashes >= 2 * 60, "a life has more boundaries than that: {tally}");
}

#[test]
fn a_second_crash_during_the_recovery_from_the_first_changes_nothing_either() {
    let mut tally = Tally::default();
    let recovery: u64 = seeds(1).map(|seed| crash_everywhere_twice(seed, 40, &mut tally)).sum();
    println!("two crashes: {recovery} boundaries of recoveries before and after; {tally}");
    assert!(recovery >= 10, "recoveries have boundaries: {tally}");
}

#[test]
fn a_bug_that_only_a_restart_shows_is_found_by_the_matrix_and_by_nothing_less() {
    let found = |crashes: &[CrashPoint]| run(&Plan::life(0, crashes).with_bug(Bug::RecoveryRaisesTarget)).violation;
    let calm = run(&Plan::life(0, &[]).with_bug(Bug::RecoveryRaisesTarget));
    assert!(calm.violation.is_none(), "{calm}");
    let caught = points(calm.counts.boundaries).filter(|point| found(&[*point]).is_some()).count();
    let all = points(calm.counts.boundaries).count();
    println!("negative control: {caught} of {all} crash points show the planted bug");
    assert!(caught > all / 2, "{caught} of {all}");
}

#[test]
#[ignore = "campaign: benches/faults/run 2"]
fn campaign_2_a_crash_before_and_after_every_boundary() {
    let (seeds, boundaries) = (campaign_seeds(20, 1_000), AtomicU64::new(0));
    let many = seeds.clone();
    let tally = play_all(seeds, |seed, tally| {
        boundaries.fetch_add(crash_everywhere(seed, tally), Ordering::Relaxed);
    });
    println!(
        "campaign 2, one crash: seeds {many:?}, {boundaries:?} boundaries before and after; 0 divergences in {tally}"
    );
}

#[test]
#[ignore = "campaign: benches/faults/run 2"]
fn campaign_2_a_second_crash_at_every_boundary_of_the_recovery() {
    let (seeds, boundaries) = (campaign_seeds(2, 20), AtomicU64::new(0));
    let many = seeds.clone();
    let tally = play_all(seeds, |seed, tally| {
        boundaries.fetch_add(crash_everywhere_twice(seed, 1, tally), Ordering::Relaxed);
    });
    println!(
        "campaign 2, two crashes: seeds {many:?}, {boundaries:?} boundaries of recoveries before and after; 0 divergences in {tally}"
    );
}
