//! What is played in a run: the life of one service, or anything at all.

use crate::clock::Random;
use crate::crash::{CrashPoint, Side};
use crate::faults::{Bug, Faults};
use crate::invariants::{Invariant as I, Violation};
use crate::many::many;
use crate::provider::{Fate, Turn};
use crate::user::{Answer, BROKEN, RUN, rules};
use crate::world::{Counts, World};
use skyserve_model::{Ended, Phase, ReplicaId, ReplicaStatus, ReplicaUid, Stage};
use std::collections::BTreeSet;
use std::fmt;

/// Longest time until the world equals what was asked for: two hangs one after the other, the longest
/// pauses between calls and launches, a drain and a list, with room.
const CONVERGES_MS_MAX: u64 = 1_500_000;
/// How long it is watched to stay so: longer than the pause between two lists.
const STAYS_MS: u64 = 70_000;
/// How long calls, lists and probes may go on that began while things went wrong: a slow call that leaves something
/// behind, the list that finds it, and its removal.
const SETTLES_MS: u64 = 110_000;
/// Longest time for each part of the life of one service: a drain, a list and some pauses.
pub(crate) const PART_MS_MAX: u64 = 400_000;
/// How long users and faults go on in a random run, at most.
const RANDOM_MS_MAX: u64 = 240_000;
const NAMES: [&str; 4] = ["chat", "chat-2", "my.svc", "my_svc"];
const LIFE: &str = "life";
/// What another version runs.
const NEXT_RUN: &str = "serve more";

/// What users do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// up → scale up → update → a replica of the old version dies meanwhile → one is taken down → scale down → down.
    Life,
    /// Several services, made, changed and taken down at random.
    Random,
    /// So many services with so many replicas each, of which many die at once.
    Many { services: u32, replicas: u32 },
}

/// All that decides a run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub story: Story,
    pub faults: Faults,
    pub crashes: Vec<CrashPoint>,
    pub bug: Option<Bug>,
}

impl Plan {
    /// The life of one service in which nothing goes wrong but the crashes.
    pub fn life(seed: u64, crashes: &[CrashPoint]) -> Self {
        Self { seed, story: Story::Life, faults: Faults::none(), crashes: crashes.to_vec(), bug: None }
    }

    /// Anything at all.
    pub fn random(seed: u64) -> Self {
        let mut random = Random::new(!seed);
        let faults = Faults::random(&mut random);
        let crashes = if random.per_mille(500) { Vec::new() } else { crashes(&mut random) };
        Self { seed, story: Story::Random, faults, crashes, bug: None }
    }

    /// Many replicas, and crashes while they are launched, die and go.
    pub fn many(seed: u64, services: u32, replicas: u32) -> Self {
        let crashes = crashes(&mut Random::new(!seed));
        let story = Story::Many { services, replicas };
        Self { seed, story, faults: Faults::none(), crashes, bug: None }
    }

    /// The same with a planted bug.
    pub fn with_bug(self, bug: Bug) -> Self {
        Self { bug: Some(bug), ..self }
    }
}

/// Crashes at boundaries, several of them soon after the restart from the one before.
fn crashes(random: &mut Random) -> Vec<CrashPoint> {
    let one = |random: &mut Random| {
        let soon = random.per_mille(500);
        let side = if random.per_mille(500) { Side::Before } else { Side::After };
        CrashPoint { boundary: random.between(0, if soon { 4 } else { 60 }), side }
    };
    (0..random.between(1, 8)).map(|_| one(random)).collect()
}

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    pub plan: Plan,
    pub counts: Counts,
    pub history: crate::history::History,
    pub violation: Option<Violation>,
    /// Whether every planned crash came.
    pub all_crashed: bool,
    /// Boundaries from the restart after the latest crash until all was as it should be again.
    pub recovery: u64,
    /// Every status that a replica had.
    pub statuses: BTreeSet<ReplicaStatus>,
}

impl fmt::Display for Run {
    /// For the person who has to find out why.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seed, story, crashes, bug, .. } = &self.plan;
        writeln!(f, "{}", self.history.tail())?;
        match &self.violation {
            Some(violation) => writeln!(f, "\nseed {seed}, {story:?}, crashes {crashes:?}, bug {bug:?}\n{violation}")?,
            None => writeln!(f, "\nseed {seed}, {story:?}: every invariant holds")?,
        }
        write!(f, "to see it again: SEED={seed} cargo test -p skyserve-sim -- --nocapture")
    }
}

/// Plays `plan` from beginning to end.
pub fn run(plan: &Plan) -> Run {
    let mut world = World::new(plan.seed, plan.faults.clone(), &plan.crashes, plan.bug);
    let played = world.start_controller().and_then(|()| match plan.story {
        Story::Life => life(&mut world),
        Story::Random => random(&mut world),
        Story::Many { services, replicas } => many(&mut world, services, replicas),
    });
    let ledger = world.ledger.clone();
    let mut counts = Counts { virtual_ms: world.clock.now_ms, ..world.counts };
    drop(world);
    let mut ledger = ledger.get();
    (counts.boundaries, counts.commits) = (ledger.boundaries.total, ledger.commits);
    Run {
        plan: plan.clone(),
        counts,
        history: std::mem::take(&mut ledger.history),
        violation: played.err(),
        all_crashed: ledger.boundaries.all_crashed(),
        recovery: ledger.boundaries.of_recovery(),
        statuses: std::mem::take(&mut ledger.statuses),
    }
}

fn life(world: &mut World) -> Result<(), Violation> {
    insist(world, |world| {
        let is_there = world.ledger.get().services.contains_key(LIFE);
        if is_there { Ok(true) } else { Ok(world.up(LIFE, 2)? == Answer::Done) }
    })?;
    wait(world, PART_MS_MAX, "two replicas are READY", World::is_settled)?;

    insist(world, |world| Ok(world.update(LIFE, rules(3, RUN), Some(1))? == Answer::Done))?;
    wait(world, PART_MS_MAX, "a third is READY", World::is_settled)?;

    insist(world, |world| Ok(world.update(LIFE, rules(3, NEXT_RUN), Some(2))? == Answer::Done))?;
    wait(world, PART_MS_MAX, "one of the new version is launched", |world| {
        let ledger = world.ledger.get();
        let row = ledger.services.get(LIFE).ok_or("it is gone")?;
        if row.replicas.values().any(|replica| replica.version.0 == 3) { Ok(()) } else { Err("none yet".to_owned()) }
    })?;
    kill_one_of_the_old(world);
    wait(world, PART_MS_MAX, "all are of the new version, and the dead one is replaced", World::is_settled)?;

    let taken_down = ids(world).into_iter().min().unwrap_or(0);
    insist(world, |world| {
        let goes = !ids(world).contains(&taken_down);
        if goes { Ok(true) } else { Ok(world.terminate_replica(LIFE, ReplicaId(taken_down), false)? == Answer::Done) }
    })?;
    wait(world, PART_MS_MAX, "the replica that was taken down is replaced", |world| {
        let goes = !ids(world).contains(&taken_down);
        world.is_settled().and_then(|()| if goes { Ok(()) } else { Err("not replaced".to_owned()) })
    })?;

    insist(world, |world| Ok(world.update(LIFE, rules(1, NEXT_RUN), Some(3))? == Answer::Done))?;
    wait(world, PART_MS_MAX, "one is READY", World::is_settled)?;
    let version = world.ledger.get().services.get(LIFE).map(|row| row.head.version.0);
    if version != Some(4) {
        let detail = format!("three updates, however often they were asked for, led to version {version:?}");
        return Err(Violation::new(I::AcknowledgedIsKept, detail));
    }

    insist(world, |world| {
        let goes = world.ledger.get().services.get(LIFE).is_none_or(|row| row.head.shutdown.is_some());
        if goes { Ok(true) } else { Ok(world.down(LIFE, false)? == Answer::Done) }
    })?;
    wait(world, PART_MS_MAX, "the service is gone", |world| {
        let left = world.ledger.get().services.len() + world.provider.instances.len();
        if left == 0 { world.is_settled() } else { Err(format!("{left} rows and resources are left")) }
    })?;
    stay(world)
}

/// One of the version before the newest dies, if there is still one.
fn kill_one_of_the_old(world: &mut World) {
    let old = {
        let ledger = world.ledger.get();
        let row = ledger.services.get(LIFE);
        let old = row.and_then(|row| row.ready().find(|replica| !row.is_newest(replica)));
        old.map(|replica| replica.uid.clone())
    };
    old.iter().for_each(|uid| kill(world, uid));
}

/// The replica's commands end.
pub(crate) fn kill(world: &mut World, uid: &ReplicaUid) {
    let mut instances = world.provider.instances.iter();
    let number = instances.find(|(_, instance)| instance.uid == *uid).map(|(number, _)| *number);
    let Some(number) = number else { return };
    world.ledger.get().harmed.insert(uid.clone());
    let ended = Ended { stage: Stage::Run, reason: "run was killed by signal 9".to_owned() };
    world.turns(number, &Turn::Comes(Phase::Ended(ended)));
}

/// Ids of the replicas that are READY.
fn ids(world: &World) -> Vec<u64> {
    let ledger = world.ledger.get();
    let rows = ledger.services.get(LIFE).into_iter().flat_map(|row| row.replicas.values());
    rows.filter(|replica| replica.status == ReplicaStatus::Ready).map(|replica| replica.id.0).collect()
}

/// Does something again and again until it is done, as a user does whose command breaks off.
pub(crate) fn insist(
    world: &mut World,
    mut act: impl FnMut(&mut World) -> Result<bool, Violation>,
) -> Result<(), Violation> {
    let deadline = world.clock.now_ms + PART_MS_MAX;
    while world.clock.now_ms < deadline {
        if world.core.is_some() && act(world)? {
            return Ok(());
        }
        world.step()?;
    }
    Err(Violation::new(I::Converges, "what a user asks for again and again is never done"))
}

pub(crate) fn wait(
    world: &mut World,
    longest_ms: u64,
    what: &str,
    done: impl Fn(&World) -> Result<(), String>,
) -> Result<(), Violation> {
    let began_ms = world.clock.now_ms;
    while let Err(missing) = done(world) {
        if world.clock.now_ms > began_ms + longest_ms {
            return Err(Violation::new(I::Converges, format!("{what}: {missing}, after {longest_ms} ms")));
        }
        world.step()?;
    }
    world.note(format_args!("so it is: {what}"));
    if world.is_settled().is_ok() {
        world.ledger.get().boundaries.note_settled();
    }
    Ok(())
}

/// Watches that nothing changes any more.
pub(crate) fn stay(world: &mut World) -> Result<(), Violation> {
    let until_ms = world.clock.now_ms + STAYS_MS;
    while world.clock.now_ms < until_ms {
        world.step()?;
        if let Err(missing) = world.is_settled() {
            return Err(Violation::new(I::Converges, format!("it did not stay so: {missing}")));
        }
    }
    Ok(())
}

fn random(world: &mut World) -> Result<(), Violation> {
    let until_ms = world.random.between(20_000, RANDOM_MS_MAX);
    let mut user_at = 0;
    while world.clock.now_ms < until_ms {
        if world.clock.now_ms >= user_at && world.core.is_some() {
            user_acts(world)?;
            let longest_ms = if world.random.per_mille(300) { 1_000 } else { 30_000 };
            user_at = world.clock.now_ms + world.random.between(1, longest_ms);
        }
        world.step()?;
    }
    world.calm();
    // What was under way when it became calm ends as it must.
    let ends_ms = world.clock.now_ms + SETTLES_MS;
    while world.clock.now_ms < ends_ms {
        world.step()?;
    }
    settle(world)?;
    stay(world)?;
    // Where an update failed and an earlier version serves, a mended one takes its place.
    let failed: Vec<String> = {
        let ledger = world.ledger.get();
        ledger.services.values().filter(|row| row.head.given_up.is_some()).map(|row| row.head.name.clone()).collect()
    };
    for name in &failed {
        world.update(name, rules(2, NEXT_RUN), None)?;
    }
    settle(world)
}

/// Waits until all is as the users want it; what will never be is taken down.
fn settle(world: &mut World) -> Result<(), Violation> {
    while let Err(hopeless) = wait_or_give_up(world)? {
        for name in &hopeless {
            world.down(name, false)?;
        }
    }
    Ok(())
}

/// Waits until the world has settled, or gives the services that will never by themselves.
fn wait_or_give_up(world: &mut World) -> Result<Result<(), Vec<String>>, Violation> {
    let began_ms = world.clock.now_ms;
    loop {
        let hopeless: Vec<String> = {
            let ledger = world.ledger.get();
            let rows = ledger.services.values();
            rows.filter(|row| row.settles_with().is_none() && row.head.shutdown.is_none())
                .map(|row| row.head.name.clone())
                .collect()
        };
        if !hopeless.is_empty() && world.core.is_some() {
            return Ok(Err(hopeless));
        }
        let ill = world.serving().any(|instance| instance.fate != Fate::Healthy);
        let missing = match world.is_settled() {
            Ok(()) if !ill => return Ok(Ok(())),
            Ok(()) => "some replicas are still to fail".to_owned(),
            Err(missing) => missing,
        };
        if world.clock.now_ms > began_ms + CONVERGES_MS_MAX {
            let detail = format!("{missing}, {CONVERGES_MS_MAX} ms after the last fault");
            return Err(Violation::new(I::Converges, detail));
        }
        world.step()?;
    }
}

/// Now and then more than are launched at once.
fn some_replicas(world: &mut World) -> u32 {
    let most = if world.random.per_mille(60) { 20 } else { 4 };
    u32::try_from(world.random.between(0, most)).expect("it is small")
}

fn user_acts(world: &mut World) -> Result<(), Violation> {
    let name = *world.random.pick(&NAMES).expect("there are names");
    let purge = world.random.per_mille(150);
    match world.random.between(0, 13) {
        0..=4 => {
            let replicas = some_replicas(world);
            world.up(name, replicas)?;
        }
        5..=8 => {
            let run = *world.random.pick(&[RUN, RUN, NEXT_RUN, NEXT_RUN, BROKEN]).expect("there are some");
            let replicas = some_replicas(world);
            let newest = world.ledger.get().services.get(name).map(|row| row.head.version.0);
            // Now and then of a version that is another by now.
            let expected = if world.random.per_mille(100) { Some(1) } else { newest };
            world.update(name, rules(replicas, run), expected)?;
        }
        9..=11 => {
            let id = {
                let ledger = world.ledger.get();
                let rows = ledger.services.get(name).into_iter().flat_map(|row| row.replicas.keys().copied());
                rows.collect::<Vec<_>>()
            };
            let id = world.random.pick(&id).copied().unwrap_or(ReplicaId(1));
            world.terminate_replica(name, id, purge)?;
        }
        _ => {
            world.down(name, purge)?;
        }
    }
    Ok(())
}
