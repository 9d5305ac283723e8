//! Whatever is stored reads back as it was, and what is refused leaves no trace: against an
//! independent account of the rules, and against the model's own steps.
#![allow(clippy::unwrap_used, reason = "in a test, an error is a failure")]

mod samples;

use proptest::collection::vec;
use proptest::prelude::*;
use samples::{any_head, any_replica, any_rules, moment, text};
use skyserve_model::{
    CallFailure, Change, Ended, Event, Head, OperationKind, Phase, Replica, ReplicaId, ReplicaStatus, ReplicaUid,
    Service, Stage, Timestamp, Version, VersionRules, step,
};
use skyserve_recovery::{SqliteStore, Store};
use std::collections::BTreeMap;
use std::sync::Arc;

const NAMES: [&str; 3] = ["a", "a-1", "B.x"];

/// A change that is nearly right: each choice is made from what exists when its turn comes.
#[derive(Debug, Clone)]
enum Attempt {
    InsertService { name: usize, fresh: bool, head: Head, rules: Box<VersionRules>, source: String },
    InsertVersion { name: usize, step: u64, rules: Box<VersionRules>, source: String },
    DeleteVersion { name: usize, version: u64 },
    UpdateService { name: usize, step: u64, reserve: i64, head: Head },
    DeleteService { name: usize },
    InsertReplica { name: usize, offset: u64, strange_uid: bool, replica: Replica },
    UpdateReplica { name: usize, id: u64, replica: Replica },
    DeleteReplica { name: usize, id: u64 },
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let name = || 0..NAMES.len();
    let rarely = || prop::bool::weighted(0.05);
    // From the service's newest version.
    let step = || prop_oneof![12 => Just(0_u64), 6 => Just(1), 1 => Just(2)];
    let version = || 1..4_u64;
    prop_oneof![
        2 => (name(), prop::bool::weighted(0.9), any_head(), any_rules(), text()).prop_map(
            |(name, fresh, head, rules, source)| {
                Attempt::InsertService { name, fresh, head, rules: Box::new(rules), source }
            }
        ),
        3 => (name(), step(), any_rules(), text()).prop_map(|(name, step, rules, source)| {
            Attempt::InsertVersion { name, step, rules: Box::new(rules), source }
        }),
        2 => (name(), version()).prop_map(|(name, version)| Attempt::DeleteVersion { name, version }),
        4 => (name(), step(), -1..4_i64, any_head())
            .prop_map(|(name, step, reserve, head)| Attempt::UpdateService { name, step, reserve, head }),
        1 => name().prop_map(|name| Attempt::DeleteService { name }),
        6 => (name(), 0..4_u64, rarely(), version(), any_replica()).prop_map(
            |(name, offset, strange_uid, version, replica)| {
                let replica = Replica { version: Version(version), ..replica };
                Attempt::InsertReplica { name, offset, strange_uid, replica }
            }
        ),
        4 => (name(), 1..6_u64, version(), any_replica()).prop_map(|(name, id, version, replica)| {
            Attempt::UpdateReplica { name, id, replica: Replica { version: Version(version), ..replica } }
        }),
        2 => (name(), 1..6_u64).prop_map(|(name, id)| Attempt::DeleteReplica { name, id }),
    ]
}

/// What the store should hold, by rules written down a second time.
#[derive(Debug, Clone, Default, PartialEq)]
struct Expected {
    services: BTreeMap<String, Rows>,
    last_incarnation: u64,
}

/// One service's rows.
#[derive(Debug, Clone, PartialEq)]
struct Rows {
    head: Head,
    versions: BTreeMap<Version, (Arc<VersionRules>, String)>,
    replicas: BTreeMap<ReplicaId, Replica>,
    used: ReplicaId,
}

impl Rows {
    fn uid(&self, id: ReplicaId) -> ReplicaUid {
        ReplicaUid::new(&self.head.name, self.head.incarnation, id)
    }

    /// Whether every version that a row refers to is there: judged when the transaction ends.
    fn refer_to_versions_that_are_there(&self) -> bool {
        let mut versions = self.replicas.values().map(|replica| replica.version).chain([self.head.version]);
        versions.all(|version| self.versions.contains_key(&version))
            && self.versions.keys().all(|version| *version <= self.head.version)
    }

    /// The service as a controller is to find it.
    fn service(&self) -> Service {
        let mut rules: BTreeMap<Version, Arc<VersionRules>> =
            self.versions.iter().map(|(version, (rules, _))| (*version, Arc::clone(rules))).collect();
        let newest = rules.remove(&self.head.version).expect("the newest version is stored");
        Service { head: self.head.clone(), rules: newest, earlier: rules, replicas: self.replicas.clone() }
    }
}

impl Expected {
    fn change(&self, attempt: Attempt) -> Change {
        let known = |name: &str| self.services.get(name).map(|rows| rows.head.clone());
        let newest = |name: usize| known(NAMES[name]).map_or(1, |head| head.version.0);
        let uid = |name: &str, id| ReplicaUid::new(name, known(name).map_or(9, |head| head.incarnation), ReplicaId(id));
        let owned = |name: usize| NAMES[name].to_owned();
        match attempt {
            Attempt::InsertService { name, fresh, head, rules, source } => {
                let incarnation = self.last_incarnation + u64::from(fresh);
                let head = Head { name: owned(name), incarnation, ..head };
                Change::InsertService { head, rules: Arc::new(*rules), source }
            }
            Attempt::InsertVersion { name, step, rules, source } => Change::InsertVersion {
                service: owned(name),
                version: Version(newest(name) + step),
                rules: Arc::new(*rules),
                source,
            },
            Attempt::DeleteVersion { name, version } => {
                Change::DeleteVersion { service: owned(name), version: Version(version) }
            }
            Attempt::UpdateService { name, step, reserve, head } => {
                let (incarnation, next) =
                    known(NAMES[name]).map_or((1, 1), |head| (head.incarnation, head.next_replica_id.0));
                let next_replica_id = ReplicaId(next.saturating_add_signed(reserve));
                let version = Version(newest(name) + step);
                Change::UpdateService(Head { name: owned(name), incarnation, version, next_replica_id, ..head })
            }
            Attempt::DeleteService { name } => Change::DeleteService { name: owned(name) },
            Attempt::InsertReplica { name, offset, strange_uid, replica } => {
                let next = known(NAMES[name]).map_or(1, |head| head.next_replica_id.0);
                let id = next.saturating_sub(offset);
                let uid = uid(NAMES[name], if strange_uid { id + 7 } else { id });
                Change::InsertReplica { service: owned(name), replica: Replica { id: ReplicaId(id), uid, ..replica } }
            }
            Attempt::UpdateReplica { name, id, replica } => {
                let uid = uid(NAMES[name], id);
                Change::UpdateReplica { service: owned(name), replica: Replica { id: ReplicaId(id), uid, ..replica } }
            }
            Attempt::DeleteReplica { name, id } => Change::DeleteReplica { service: owned(name), id: ReplicaId(id) },
        }
    }

    /// Whether the change is right, and then makes it.
    fn apply(&mut self, change: &Change) -> bool {
        match change {
            Change::InsertService { head, rules, source } => {
                let right = !self.services.contains_key(&head.name)
                    && head.incarnation > self.last_incarnation
                    && head.next_replica_id > ReplicaId(0)
                    && head.proven.is_none();
                if right {
                    self.last_incarnation = head.incarnation;
                    let versions = BTreeMap::from([(head.version, (rules.clone(), source.clone()))]);
                    let rows = Rows { head: head.clone(), versions, replicas: BTreeMap::new(), used: ReplicaId(0) };
                    self.services.insert(head.name.clone(), rows);
                }
                right
            }
            Change::InsertVersion { service, version, rules, source } => {
                let Some(rows) = self.services.get_mut(service) else { return false };
                let right = *version > rows.head.version && !rows.versions.contains_key(version);
                if right {
                    rows.versions.insert(*version, (rules.clone(), source.clone()));
                }
                right
            }
            Change::DeleteVersion { service, version } => {
                let Some(rows) = self.services.get_mut(service) else { return false };
                let needed = rows.head.proven.is_some_and(|proven| proven.version == *version);
                !needed && rows.versions.remove(version).is_some()
            }
            Change::UpdateService(head) => {
                let Some(rows) = self.services.get_mut(&head.name) else { return false };
                let proven = head.proven.map(|proven| proven.version);
                let right = head.next_replica_id > rows.used
                    && head.version >= rows.head.version
                    && proven.is_none_or(|proven| proven < head.version && rows.versions.contains_key(&proven));
                if right {
                    rows.head = head.clone();
                }
                right
            }
            Change::DeleteService { name } => self.services.remove(name).is_some(),
            Change::InsertReplica { service, replica } => {
                let Some(rows) = self.services.get_mut(service) else { return false };
                let orphan = replica.status == ReplicaStatus::Unknown && !rows.replicas.contains_key(&replica.id);
                let right = (replica.id > rows.used || orphan)
                    && replica.id < rows.head.next_replica_id
                    && replica.uid == rows.uid(replica.id);
                if right {
                    rows.used = replica.id.max(rows.used);
                    rows.replicas.insert(replica.id, replica.clone());
                }
                right
            }
            Change::UpdateReplica { service, replica } => {
                let stored = self.services.get_mut(service).and_then(|rows| rows.replicas.get_mut(&replica.id));
                stored.map(|stored| *stored = replica.clone()).is_some()
            }
            Change::DeleteReplica { service, id } => {
                self.services.get_mut(service).is_some_and(|rows| rows.replicas.remove(id).is_some())
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_stored_reads_back_and_a_batch_with_one_wrong_change_leaves_no_trace(
        batches in vec(vec(attempt(), 1..5), 1..24)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("skyserve.db");
        let mut expected = Expected::default();
        let mut opened = SqliteStore::open(&path).unwrap();
        for batch in batches {
            let mut after = expected.clone();
            let mut changes = Vec::new();
            let mut right = true;
            for attempt in batch {
                let change = after.change(attempt);
                right &= after.apply(&change);
                changes.push(change);
            }
            right &= after.services.values().all(Rows::refer_to_versions_that_are_there);
            let result = opened.store.commit(&changes);
            prop_assert_eq!(result.is_ok(), right, "{:?} for {:?}", result, changes);
            if right {
                expected = after;
            }
            opened = SqliteStore::open(&path).unwrap();
            let services: Vec<Service> = expected.services.values().map(Rows::service).collect();
            prop_assert_eq!(&opened.services, &services);
            prop_assert_eq!(opened.next_incarnation, expected.last_incarnation + 1);
            for (name, rows) in &expected.services {
                for (version, (_, source)) in &rows.versions {
                    let stored = opened.store.source(name, *version).unwrap();
                    prop_assert_eq!(stored.as_ref(), Some(source));
                }
            }
        }
    }

    #[test]
    fn after_any_steps_of_the_model_the_store_holds_what_is_in_memory(
        events in vec((event(), 0..100_000_u64), 1..120)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("skyserve.db");
        let mut store = SqliteStore::open(&path).unwrap().store;
        let mut service = samples::service("my-service", 1);
        store.commit(&[samples::insert(&service)]).unwrap();
        let mut now = service.head.created_at;
        for (event, pause_ms) in events {
            now = now.plus_ms(pause_ms);
            let (changes, _undo) = step(&mut service, &event, now);
            store.commit(&changes).unwrap();
        }
        drop(store);
        prop_assert_eq!(SqliteStore::open(&path).unwrap().services, vec![service]);
    }
}

fn event() -> impl Strategy<Value = Event> {
    let replica = || (1..6_u64).prop_map(ReplicaId);
    let kind = || prop_oneof![Just(OperationKind::Launch), Just(OperationKind::Terminate)];
    let failure = (text(), any::<bool>()).prop_map(|(message, retryable)| CallFailure { message, retryable });
    let called = prop_oneof![3 => Just(Ok(())), 1 => failure.prop_map(Err)];
    let probed = prop_oneof![2 => Just(Ok(())), 1 => text().prop_map(Err)];
    prop_oneof![
        3 => Just(Event::Tick),
        6 => (replica(), phase(), moment()).prop_map(|(replica, phase, seen_at)| {
            let seen_at = Timestamp(seen_at.0 % 1_000_000);
            Event::Observed { replica, phase, seen_at }
        }),
        1 => replica().prop_map(|id| Event::Orphaned { uid: ReplicaUid::new("my-service", 1, ReplicaId(id.0 * 2)) }),
        6 => (replica(), kind(), called).prop_map(|(replica, kind, result)| Event::Called { replica, kind, result }),
        4 => (replica(), probed).prop_map(|(replica, result)| Event::Probed { replica, result }),
        1 => replica().prop_map(|replica| Event::Drained { replica }),
        1 => Just(Event::EndpointListens),
        1 => (replica(), any::<bool>()).prop_map(|(replica, purge)| Event::TerminateReplica { replica, purge }),
        2 => (0..4_u32, 0..3_u8, text()).prop_map(|(replicas, run, source)| {
            let mut rules = VersionRules { replicas, ..samples::rules() };
            rules.launch.run = Some(format!("serve {run}"));
            Event::Update { rules: Arc::new(rules), source }
        }),
        1 => prop::bool::weighted(0.2).prop_map(|purge| Event::Shutdown { purge }),
    ]
}

fn phase() -> impl Strategy<Value = Phase> {
    let stage = prop_oneof![Just(Stage::Provision), Just(Stage::Setup), Just(Stage::Run)];
    prop_oneof![
        proptest::option::of(text()).prop_map(|reason| Phase::Provisioning { reason }),
        Just(Phase::SettingUp),
        samples::socket_address().prop_map(|address| Phase::Running { address }),
        (stage, text()).prop_map(|(stage, reason)| Phase::Ended(Ended { stage, reason })),
        text().prop_map(|reason| Phase::Preempted { reason }),
        Just(Phase::Absent),
    ]
}
