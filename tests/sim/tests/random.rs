//! Anything at all: several services, users, faults and crashes at random, then calm.

use skyserve_model::ReplicaStatus;
use skyserve_sim::{Plan, Tally, campaign_seeds, is_replay, play_all, run, seeds};

#[test]
fn whatever_goes_wrong_nothing_is_lost_and_in_the_end_all_is_as_asked_for() {
    let mut tally = Tally::default();
    for seed in seeds(250) {
        let played = tally.play(&Plan::random(seed));
        if is_replay() {
            println!("{played}");
        }
    }
    println!("random: {tally}");
    let missing: Vec<_> = ReplicaStatus::ALL.into_iter().filter(|status| !tally.statuses.contains(status)).collect();
    assert!(is_replay() || missing.is_empty(), "no replica was ever {missing:?}");
    assert!(is_replay() || tally.counts.crashes > tally.runs / 4, "crashes are part of it: {tally}");
}

#[test]
fn the_same_seed_is_the_same_run_to_the_last_byte() {
    let mut lines = 0;
    for seed in [3, 41, 77, 78] {
        let (first, second) = (run(&Plan::random(seed)), run(&Plan::random(seed)));
        assert_eq!(first.history.text(), second.history.text(), "seed {seed}");
        assert_eq!(first.counts.steps, second.counts.steps);
        lines += first.history.text().lines().count();
    }
    assert!(lines > 200, "something happens: {lines} lines");
    assert_ne!(run(&Plan::random(1)).history.text(), run(&Plan::random(2)).history.text());
}

#[test]
#[ignore = "campaign: benches/faults/run 1"]
fn campaign_1_whatever_goes_wrong() {
    let seeds = campaign_seeds(5_000, 100_000);
    let many = seeds.clone();
    let tally = play_all(seeds, |seed, tally| drop(tally.play(&Plan::random(seed))));
    println!("campaign 1: seeds {many:?}, 0 invariants broken in {tally}");
}
