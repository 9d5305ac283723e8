//! Each check can fail: bugs planted on purpose are caught, and by the invariant that they break.

use skyserve_sim::{Bug, CrashPoint, Invariant, Plan, Run, Side, run};
use std::collections::BTreeSet;

/// Seeds in which a bug must show itself.
const SEEDS: u64 = 120;
/// Characters of a violation that a list of them shows.
const SHOWN: usize = 240;

const CONTROLS: [(Bug, Invariant); 22] = [
    (Bug::StoreForgets, Invariant::StoredIsRead),
    (Bug::StoreIgnoresEpoch, Invariant::OneWriter),
    (Bug::DriverLaunchesFirst, Invariant::LaunchIsDecidedFirst),
    (Bug::DriverEndsOnFailedProbe, Invariant::TerminationIsDecidedFirst),
    (Bug::DriverCallsTwice, Invariant::OneCallAtATime),
    (Bug::DriverInventsProbes, Invariant::ReadyByProbe),
    (Bug::DriverLosesAnswers, Invariant::Converges),
    (Bug::DriverTakesErrorForEmpty, Invariant::HealthyIsLeftAlone),
    (Bug::DriverPublishesEmptyTable, Invariant::RoutesAreTheRows),
    (Bug::DriverKeepsEpoch, Invariant::EpochsAndTablesGrow),
    (Bug::DriverRepeatsTable, Invariant::EpochsAndTablesGrow),
    (Bug::DriverIsLate, Invariant::NoBusyLoop),
    (Bug::ProviderLaunchesAgain, Invariant::OneResourceForOneReplica),
    (Bug::ProviderForgetsTerminations, Invariant::GoneIsGone),
    (Bug::AnswersBeforeStoring, Invariant::AcknowledgedIsKept),
    (Bug::RecoveryRaisesTarget, Invariant::NeverMoreThanTarget),
    (Bug::RecoveryForgetsIds, Invariant::Converges),
    (Bug::StoreTakesUsedIds, Invariant::IdsAreUsedOnce),
    (Bug::RecoveryTakesStartingForReady, Invariant::UpdateNeverReducesService),
    (Bug::DriverLaunchesNewest, Invariant::LaunchedAsItsVersion),
    (Bug::BalancerHidesRequests, Invariant::DrainsFirst),
    (Bug::BalancerClaimsToListen, Invariant::EndpointIsTrue),
];

/// A service's life with a crash somewhere, and a random run, in turn.
fn plan(seed: u64, bug: Bug) -> Plan {
    let crash =
        CrashPoint { boundary: seed * 7 % 60, side: if seed.is_multiple_of(4) { Side::Before } else { Side::After } };
    let mut plan = if seed.is_multiple_of(2) { Plan::life(seed, &[crash]) } else { Plan::random(seed) };
    // What several of the bugs need to show themselves.
    plan.faults.call_slow = 500;
    plan.faults.list_fails = 500;
    plan.faults.stopped = 500;
    plan.with_bug(bug)
}

fn caught(bug: Bug, invariant: Invariant) -> Result<Run, String> {
    let mut others = BTreeSet::new();
    for seed in 0..SEEDS {
        let played = run(&plan(seed, bug));
        match &played.violation {
            Some(violation) if violation.invariant == invariant => return Ok(played),
            Some(violation) => drop(others.insert(violation.invariant)),
            None => {}
        }
    }
    Err(format!("{bug:?} is not caught by {invariant:?} in {SEEDS} seeds, only by {others:?}"))
}

#[test]
fn every_planted_bug_is_caught_by_the_invariant_that_it_breaks() {
    let results: Vec<Result<Run, String>> =
        CONTROLS.into_iter().map(|(bug, invariant)| caught(bug, invariant)).collect();
    let missed: Vec<&String> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(missed.is_empty(), "{missed:#?}");
    for run in results.iter().flatten() {
        let violation = run.violation.as_ref().map(ToString::to_string).unwrap_or_default();
        let shown: String = violation.chars().take(SHOWN).collect();
        println!("{:?}, seed {}: {shown}", run.plan.bug, run.plan.seed);
    }
}

#[test]
fn every_invariant_has_a_control() {
    let controlled: BTreeSet<Invariant> = CONTROLS.into_iter().map(|(_, invariant)| invariant).collect();
    let without: Vec<&Invariant> = Invariant::ALL.iter().filter(|invariant| !controlled.contains(invariant)).collect();
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn a_failure_shows_its_seed_its_history_and_how_to_see_it_again() {
    let played = caught(Bug::AnswersBeforeStoring, Invariant::AcknowledgedIsKept).expect("it is caught");
    let shown = played.to_string();
    let seed = played.plan.seed;
    for part in
        [&format!("SEED={seed} cargo test -p skyserve-sim"), "a user: up", "what a user was told is done stays done"]
    {
        assert!(shown.contains(part), "{part} is missing in: {shown}");
    }
}

#[test]
fn the_invariants_in_architecture_md_are_these() {
    let document = include_str!("../../../ARCHITECTURE.md");
    for (number, invariant) in Invariant::ALL.iter().enumerate() {
        let line = format!("{}. **{invariant:?}**: {}.", number + 1, invariant.text());
        assert!(document.contains(&line), "ARCHITECTURE.md lacks: {line}");
    }
}
