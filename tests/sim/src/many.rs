//! Many replicas: up → a third dies at once → half as many → down, with crashes in between.

use crate::invariants::Violation;
use crate::scenario::{PART_MS_MAX, insist, kill, stay, wait};
use crate::user::{Answer, RUN, rules};
use crate::world::World;
use skyserve_model::ReplicaUid;

/// Of the replicas, how many are left alone for each that dies, and that one.
const DIES_ONE_OF: usize = 3;

pub(crate) fn many(world: &mut World, services: u32, replicas: u32) -> Result<(), Violation> {
    let names: Vec<String> = (1..=services).map(|number| format!("service-{number}")).collect();
    for name in &names {
        insist(world, |world| {
            let is_there = world.ledger.get().services.contains_key(name);
            Ok(is_there || world.up(name, replicas)? == Answer::Done)
        })?;
    }
    wait(world, PART_MS_MAX, "all are READY", World::is_settled)?;
    stay(world)?;

    let uids: Vec<ReplicaUid> = world.serving().map(|instance| instance.uid.clone()).collect();
    uids.iter().step_by(DIES_ONE_OF).for_each(|uid| kill(world, uid));
    world.step()?;
    wait(world, PART_MS_MAX, "those that died are replaced", World::is_settled)?;

    for name in &names {
        insist(world, |world| Ok(world.update(name, rules(replicas / 2, RUN), None)? == Answer::Done))?;
    }
    wait(world, PART_MS_MAX, "half of them are left", World::is_settled)?;

    for name in &names {
        insist(world, |world| {
            let goes = world.ledger.get().services.get(name).is_none_or(|row| row.head.shutdown.is_some());
            Ok(goes || world.down(name, false)? == Answer::Done)
        })?;
    }
    wait(world, PART_MS_MAX, "all are gone", |world| {
        let left = world.ledger.get().services.len() + world.provider.instances.len();
        if left == 0 { world.is_settled() } else { Err(format!("{left} rows and resources are left")) }
    })
}
