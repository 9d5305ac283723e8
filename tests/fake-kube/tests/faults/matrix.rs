//! Each call, each fault, once and three times in a row.

use crate::life::{Trial, live};
use crate::rig::{PATIENCE, Rig};
use skyserve_fake_kube::{Fault, StreamFault};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Most of a life is waiting; more at once than this would wait for the processor.
const LIVES_AT_ONCE: usize = 24;

/// What can go wrong with any call.
fn anywhere() -> Vec<Fault> {
    vec![
        Fault::CONFLICT,
        Fault::GONE,
        Fault::BUSY,
        Fault::INTERNAL,
        Fault::UNAVAILABLE,
        Fault::UNAUTHORIZED,
        Fault::BadGateway,
        Fault::ResetBefore,
        Fault::HangBefore,
        Fault::HalfAnswer,
    ]
}

/// What can go wrong besides with a call that changes something.
fn applied() -> Vec<Fault> {
    vec![Fault::ResetAfter, Fault::HangAfter, Fault::Late { calls: 3 }, Fault::Late { calls: 12 }]
}

fn trials() -> Vec<Trial> {
    let mut cells: Vec<(&'static str, Fault)> = Vec::new();
    for call in ["create pods", "create secrets", "get pods", "delete pods", "get pods/log", "list pods", "watch pods"]
    {
        cells.extend(anywhere().into_iter().map(|fault| (call, fault)));
    }
    for call in ["create pods", "create secrets", "delete pods"] {
        cells.extend(applied().into_iter().map(|fault| (call, fault)));
    }
    cells.push(("create pods", Fault::QUOTA));
    cells.extend([1, 3, 20].map(|changes| ("list pods", Fault::Stale { changes })));
    cells.extend(StreamFault::ALL.map(Fault::Stream).into_iter().map(|fault| ("watch pods", fault)));
    let trial =
        |(call, fault): (&'static str, Fault), times| Trial { call, fault, times, lists: true, patience: PATIENCE };
    cells.into_iter().flat_map(|cell| [1, 3].map(|times| trial(cell.clone(), times))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_with_whichever_call_the_world_comes_to_what_was_asked() {
    let mut lives = JoinSet::new();
    let room = Arc::new(Semaphore::new(LIVES_AT_ONCE));
    let trials = trials();
    let count = trials.len();
    for trial in trials {
        let room = Arc::clone(&room);
        lives.spawn(async move {
            let _room = room.acquire().await.unwrap();
            let rig = Rig::new().await;
            let wrong = live(&rig, &rig.provider(), &trial).await;
            let calls = if wrong.is_empty() { Vec::new() } else { rig.fake.calls() };
            (trial, wrong, calls)
        });
    }
    let mut diverged = Vec::new();
    while let Some(life) = lives.join_next().await {
        let (trial, wrong, calls) = life.unwrap();
        if !wrong.is_empty() {
            diverged.push(format!("{} × {:?} × {}: {wrong:#?} {calls:?}", trial.call, trial.fault, trial.times));
        }
    }
    println!("{count} lives, {} diverged", diverged.len());
    assert!(diverged.is_empty(), "{} of {count} diverged:\n{}", diverged.len(), diverged.join("\n"));
}
