//! What holds after any sequence of events, sensible or not.

use super::fixture::{Fixture, address, ended, preempted, rules, running, runs};
use crate::{
    CallFailure, Event, OperationKind, Phase, ReplicaId, ReplicaStatus, ReplicaUid, Service, Stage, Timestamp, step,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        1 => Just(Phase::Provisioning { reason: None }),
        1 => Just(Phase::SettingUp),
        4 => (1..4u8).prop_map(running),
        1 => Just(ended(Stage::Setup)),
        1 => Just(ended(Stage::Run)),
        1 => Just(ended(Stage::Provision)),
        1 => Just(preempted()),
        1 => Just(Phase::Absent),
    ]
}

fn call_result() -> impl Strategy<Value = Result<(), CallFailure>> {
    let failure = |retryable| Err(CallFailure { message: "refused".to_owned(), retryable });
    prop_oneof![4 => Just(Ok(())), 2 => Just(failure(true)), 1 => Just(failure(false))]
}

fn event() -> impl Strategy<Value = Event> {
    let id = || (1..12u64).prop_map(ReplicaId);
    let kind = prop_oneof![Just(OperationKind::Launch), Just(OperationKind::Terminate)];
    let result = prop_oneof![3 => Just(Ok(())), 2 => Just(Err("it answered 503".to_owned()))];
    prop_oneof![
        3 => Just(Event::Tick),
        6 => (id(), phase()).prop_map(|(replica, phase)| Event::Observed { replica, phase, seen_at: Timestamp(0) }),
        1 => id().prop_map(|id| Event::Orphaned { uid: ReplicaUid::new("svc", 7, id) }),
        6 => (id(), kind, call_result()).prop_map(|(replica, kind, result)| Event::Called { replica, kind, result }),
        6 => (id(), result).prop_map(|(replica, result)| Event::Probed { replica, result }),
        1 => id().prop_map(|replica| Event::Drained { replica }),
        1 => Just(Event::EndpointListens),
        1 => Just(Event::EndpointMoves { listen: address(77) }),
        2 => (id(), any::<bool>()).prop_map(|(replica, purge)| Event::TerminateReplica { replica, purge }),
        2 => update(),
    ]
}

/// One of a few versions, so that later ones may be as earlier ones were.
fn update() -> impl Strategy<Value = Event> {
    (0..5u32, 0..3u64, any::<bool>()).prop_map(|(replicas, run, patient)| {
        let mut rules = if run == 0 { rules(replicas) } else { runs(&format!("serve {run}"), replicas) };
        rules.probe.initial_delay_ms *= if patient { 2 } else { 1 };
        Event::Update { rules: Arc::new(rules), source: String::new() }
    })
}

/// How many replicas; events, each with the time that passes before it; and perhaps after which of them
/// a `down` comes, and whether it purges.
type History = (u32, Vec<(u64, Event)>, Option<(usize, bool)>);

fn history() -> impl Strategy<Value = History> {
    let pause_ms = prop_oneof![Just(0u64), 1..2_000u64, Just(30_000), Just(400_000)];
    let down = proptest::option::weighted(0.3, (0..60usize, any::<bool>()));
    (0..5u32, proptest::collection::vec((pause_ms, event()), 0..60), down)
}

fn due(service: &Service, now: Timestamp) -> Vec<(ReplicaId, OperationKind)> {
    [OperationKind::Launch, OperationKind::Terminate]
        .into_iter()
        .flat_map(|kind| service.due(kind, now).map(move |replica| (replica.id, kind)).collect::<Vec<_>>())
        .collect()
}

/// Nothing happens by itself before `wake_at`, and never if there is none.
fn check_waking(fixture: &Fixture) {
    let (service, now) = (&fixture.service, fixture.now);
    let wake_at = service.wake_at(now);
    assert!(wake_at.is_none_or(|moment| moment > now), "{wake_at:?} is not after {now:?}");
    let before_waking = wake_at.map_or(now.plus_ms(1 << 40), |moment| Timestamp(moment.0 - 1));
    let mut later = service.clone();
    let (changes, _undo) = step(&mut later, &Event::Tick, before_waking);
    assert_eq!(changes, [], "a tick before {wake_at:?} does something");
    assert_eq!(due(service, before_waking), due(service, now), "a call falls due before {wake_at:?}");
}

/// Of the replicas that were READY, none is ended by ourselves unless as many are READY as there should be.
fn check_service_is_kept(fixture: &Fixture, event: &Event, was_ready: &BTreeSet<ReplicaId>) {
    let service = &fixture.service;
    let ended =
        |id: &&ReplicaId| service.replicas.get(id).is_some_and(|replica| replica.status == ReplicaStatus::ShuttingDown);
    let ended: Vec<&ReplicaId> = was_ready.iter().filter(ended).collect();
    if ended.is_empty() || matches!(event, Event::TerminateReplica { .. }) {
        return;
    }
    let ready = service.ready().count();
    assert!(ready >= was_ready.len().min(service.target()), "{event:?} ended {ended:?}, {ready} are READY");
}

fn check_state(fixture: &Fixture) {
    let service = &fixture.service;
    let alive = service.alive().count();
    let most = service.target() + if service.is_updating() { crate::limits::SURGE } else { 0 };
    assert!(alive <= most, "{alive} replicas are alive, the target is {}", service.target());
    let head = &service.head;
    assert!(head.proven.is_none() || !head.ever_ready, "{:?} although the newest was ready", head.proven);
    let in_use = service.versions_in_use();
    assert!(service.earlier.keys().all(|version| in_use.contains(version)), "{:?} are kept", service.earlier.keys());
    for replica in service.replicas.values() {
        let intent = replica.operation.map(|operation| operation.kind);
        if replica.status.is_alive() {
            assert_ne!(intent, Some(OperationKind::Terminate), "{replica:?}");
        } else if !replica.status.is_kept_as_record() {
            assert_eq!(intent, Some(OperationKind::Terminate), "nobody removes {replica:?}");
        }
        if replica.status == ReplicaStatus::Pending {
            assert_eq!(intent, Some(OperationKind::Launch), "{replica:?}");
        }
        if matches!(replica.status, ReplicaStatus::Ready | ReplicaStatus::NotReady) {
            assert!(replica.address.is_some() && replica.first_ready_at.is_some(), "{replica:?}");
        }
    }
    let ready = service.ready().next().is_some();
    assert_eq!(ready, service.head.ready_since.is_some());
    let _ = (service.status(), service.status_reason());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    // Undoing, and that the rows suffice, the fixture checks at each step.
    #[test]
    fn no_sequence_of_events_breaks_what_always_holds((replicas, events, down) in history()) {
        let mut fixture = Fixture::new(replicas);
        let mut launched: BTreeSet<ReplicaId> = fixture.service.replicas.keys().copied().collect();
        for (number, (pause_ms, event)) in events.into_iter().enumerate() {
            fixture.now = fixture.now.plus_ms(pause_ms);
            let known: BTreeSet<ReplicaId> = fixture.service.replicas.keys().copied().collect();
            let event = match event {
                Event::Observed { replica, phase, .. } => Event::Observed { replica, phase, seen_at: fixture.now },
                other => other,
            };
            let was_ready: BTreeSet<ReplicaId> = fixture.service.ready().map(|replica| replica.id).collect();
            let changes = fixture.apply(&event);
            check_service_is_kept(&fixture, &event, &was_ready);
            for replica in fixture.service.replicas.values().filter(|replica| !known.contains(&replica.id)) {
                let orphan = replica.status == ReplicaStatus::Unknown;
                prop_assert!(launched.insert(replica.id) || orphan, "id {} is used twice", replica.id);
            }
            for replica in fixture.service.ready().filter(|replica| !was_ready.contains(&replica.id)) {
                let passed = Event::Probed { replica: replica.id, result: Ok(()) };
                prop_assert_eq!(&event, &passed, "only a probe that passed makes READY");
            }
            if down.is_some_and(|(at, _)| at == number) {
                fixture.apply(&Event::Shutdown { purge: down.is_some_and(|(_, purge)| purge) });
            }
            check_state(&fixture);
            if event == Event::Tick || !changes.is_empty() {
                check_waking(&fixture);
            }
        }
    }

    #[test]
    fn what_happened_at_once_is_applied_at_once_and_breaks_nothing_either((replicas, events, _) in history(), size in 2..9usize) {
        let mut fixture = Fixture::new(replicas);
        for chunk in events.chunks(size) {
            fixture.now = fixture.now.plus_ms(chunk[0].0);
            let is_update = |event: &&Event| matches!(event, Event::Update { .. });
            let (updates, mut others): (Vec<&Event>, Vec<&Event>) = chunk.iter().map(|(_, event)| event).partition(is_update);
            updates.into_iter().for_each(|update| drop(fixture.apply(update)));
            others.push(&Event::Tick);
            let was_ready: BTreeSet<ReplicaId> = fixture.service.ready().map(|replica| replica.id).collect();
            fixture.apply_all(&others.iter().map(|event| (*event).clone()).collect::<Vec<_>>());
            for replica in fixture.service.ready().filter(|replica| !was_ready.contains(&replica.id)) {
                let passed = Event::Probed { replica: replica.id, result: Ok(()) };
                prop_assert!(others.contains(&&passed), "only a probe that passed makes READY");
            }
            check_state(&fixture);
            check_waking(&fixture);
        }
    }

    #[test]
    fn a_service_that_goes_is_gone_once_every_removal_has_passed((replicas, events, _) in history(), purge: bool) {
        let mut fixture = Fixture::new(replicas);
        for (pause_ms, event) in events {
            fixture.now = fixture.now.plus_ms(pause_ms);
            fixture.apply(&event);
        }
        fixture.apply(&Event::Shutdown { purge });
        while let Some(moment) = fixture.service.wake_at(fixture.now) {
            fixture.now = moment;
            fixture.apply(&Event::Tick);
        }
        for id in fixture.due(OperationKind::Terminate) {
            fixture.called(id, OperationKind::Terminate);
        }
        prop_assert!(fixture.service.is_gone(), "{:?}", fixture.service.replicas);
    }
}
