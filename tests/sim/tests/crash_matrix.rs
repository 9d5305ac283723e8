//! A crash before and after every boundary (durable write, provider call, publication) of a service's
//! life: up → scale up → update → a replica of the old version dies meanwhile → one is taken down → scale down → down.

use skyserve_sim::{CrashPoint, Plan, Random, Side, Tally, is_replay, seeds};

const SIDES: [Side; 2] = [Side::Before, Side::After];

#[test]
fn a_crash_at_any_boundary_of_a_services_life_changes_nothing_in_its_end() {
    let mut tally = Tally::default();
    for seed in seeds(2, 100) {
        let calm = tally.play(&Plan::life(seed, &[]));
        if is_replay() {
            println!("{calm}");
        }
        for boundary in 0..calm.counts.boundaries {
            for side in SIDES {
                let crashed = tally.play(&Plan::life(seed, &[CrashPoint { boundary, side }]));
                assert!(crashed.all_crashed, "the run comes to boundary {boundary}");
            }
        }
    }
    println!("crash matrix: {tally}");
    assert!(tally.counts.crashes >= 2 * 30, "a life has more boundaries than that: {tally}");
}

#[test]
fn a_second_crash_during_the_recovery_from_the_first_changes_nothing_either() {
    let mut tally = Tally::default();
    let mut random = Random::new(5);
    let mut twice = 0;
    for seed in seeds(60, 2) {
        let calm = tally.play(&Plan::life(seed, &[]));
        let first =
            CrashPoint { boundary: random.between(0, calm.counts.boundaries - 1), side: *random.pick(&SIDES).unwrap() };
        let second = CrashPoint { boundary: random.between(0, 7), side: *random.pick(&SIDES).unwrap() };
        let crashed = tally.play(&Plan::life(seed, &[first, second]));
        twice += u64::from(crashed.all_crashed);
    }
    println!("two crashes: {tally}, {twice} of them crashed twice");
    assert!(is_replay() || twice > 0, "some recoveries are long enough for a second crash");
}
