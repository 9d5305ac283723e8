//! A service and its rows, moved by events.

use super::rows::Rows;
use crate::{
    CallFailure, Change, Ended, Event, LaunchTemplate, OperationKind, Phase, ProbeRules, Replica, ReplicaId,
    ReplicaStatus, Service, Stage, Timestamp, VersionRules, step, step_all,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

pub(super) const START: Timestamp = Timestamp(1_000_000);
pub(super) const INITIAL_DELAY_MS: u64 = 20_000;
pub(super) const FAILURE_THRESHOLD_MS: u64 = 9_000;

pub(crate) fn rules(replicas: u32) -> VersionRules {
    VersionRules {
        replicas,
        probe: ProbeRules {
            path: "/".to_owned(),
            post_data: None,
            headers: BTreeMap::new(),
            timeout_ms: 1_000,
            interval_ms: 1_000,
            initial_delay_ms: INITIAL_DELAY_MS,
            failure_threshold_ms: FAILURE_THRESHOLD_MS,
        },
        launch: LaunchTemplate {
            setup: None,
            run: Some("serve".to_owned()),
            envs: BTreeMap::new(),
            secrets: BTreeMap::new(),
            port: 8080,
            ports: vec![8080],
            cpus: None,
            memory_gb: None,
            accelerators: BTreeMap::new(),
            use_spot: false,
            image: None,
            bundle: None,
            has_workdir: false,
            file_mounts: Vec::new(),
        },
        load_balancing_policy: "least_load".to_owned(),
        stream_timeout_ms: 120_000,
        resources: "1x()".to_owned(),
    }
}

/// What a version asks for whose replicas run `run`.
pub(crate) fn runs(run: &str, replicas: u32) -> VersionRules {
    let mut rules = rules(replicas);
    rules.launch.run = Some(run.to_owned());
    rules
}

pub(super) fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 1, host], 8080))
}

pub(super) fn running(host: u8) -> Phase {
    Phase::Running { address: address(host) }
}

pub(super) fn ended(stage: Stage) -> Phase {
    Phase::Ended(Ended { stage, reason: "it exited with code 3 after 12 s".to_owned() })
}

pub(super) fn preempted() -> Phase {
    Phase::Preempted { reason: "the node was reclaimed".to_owned() }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Fixture {
    pub(super) service: Service,
    pub(super) now: Timestamp,
    rows: Rows,
}

impl Fixture {
    /// A service that has just been asked for: its replicas are being launched.
    pub(super) fn new(replicas: u32) -> Self {
        let service = Service::new("svc".to_owned(), 7, address(200), rules(replicas), START);
        let mut fixture = Self { rows: Rows::of(&service), service, now: START };
        fixture.apply(&Event::Tick);
        fixture
    }

    /// A service whose replicas are all READY and whose endpoint listens.
    pub(super) fn ready(replicas: u32) -> Self {
        let mut fixture = Self::new(replicas);
        fixture.apply(&Event::EndpointListens);
        for id in 1..=u64::from(replicas) {
            fixture.make_ready(id);
        }
        fixture
    }

    /// One service with a replica 1 put into `status` by hand, with what that status has in life.
    pub(super) fn with_status(status: ReplicaStatus) -> Self {
        let mut fixture = Self::new(1);
        let replica = fixture.service.replicas.get_mut(&ReplicaId(1)).expect("it was launched");
        replica.status = status;
        replica.status_since = START;
        replica.reason = None;
        replica.operation = match status {
            ReplicaStatus::Pending | ReplicaStatus::Provisioning => replica.operation,
            status if status.is_alive() => None,
            _ => Some(super::super::decisions::terminate_at(START, false)),
        };
        if matches!(status, ReplicaStatus::Ready | ReplicaStatus::NotReady) {
            replica.first_ready_at = Some(START);
        }
        if status.is_probed() {
            replica.address = Some(address(1));
        }
        fixture.rows = Rows::of(&fixture.service);
        fixture
    }

    pub(super) fn apply(&mut self, event: &Event) -> Vec<Change> {
        self.apply_all(std::slice::from_ref(event))
    }

    pub(super) fn apply_all(&mut self, events: &[Event]) -> Vec<Change> {
        let before = self.service.clone();
        let mut undone = self.service.clone();
        let (_, undo) = step_all(&mut undone, events, self.now);
        undone.undo(undo);
        assert_eq!(undone, before, "undoing {events:?} does not lead back");
        let (changes, _undo) = match events {
            [event] => step(&mut self.service, event, self.now),
            events => step_all(&mut self.service, events, self.now),
        };
        self.rows.commit(&changes);
        self.rows.assert_hold(&self.service);
        changes
    }

    /// Starts again as a controller that finds the service in its store at `now`.
    pub(super) fn recover(&mut self, now: Timestamp) {
        self.now = now;
        crate::recover(&mut self.service, now);
        // What recovering changes is not written; the rows follow with the next change of each.
        self.rows = Rows::of(&self.service);
    }

    /// Lets time pass, then ticks.
    pub(super) fn pass_ms(&mut self, milliseconds: u64) -> Vec<Change> {
        self.now = self.now.plus_ms(milliseconds);
        self.apply(&Event::Tick)
    }

    pub(super) fn observe(&mut self, id: u64, phase: Phase) -> Vec<Change> {
        self.apply(&Event::Observed { replica: ReplicaId(id), phase, seen_at: self.now })
    }

    pub(super) fn called(&mut self, id: u64, kind: OperationKind) -> Vec<Change> {
        self.apply(&Event::Called { replica: ReplicaId(id), kind, result: Ok(()) })
    }

    pub(super) fn call_failed(&mut self, id: u64, kind: OperationKind, retryable: bool) -> Vec<Change> {
        let failure = CallFailure { message: "no capacity".to_owned(), retryable };
        self.apply(&Event::Called { replica: ReplicaId(id), kind, result: Err(failure) })
    }

    pub(super) fn probe(&mut self, id: u64, passes: bool) -> Vec<Change> {
        let result = if passes { Ok(()) } else { Err("it answered 503".to_owned()) };
        self.apply(&Event::Probed { replica: ReplicaId(id), result })
    }

    pub(super) fn make_ready(&mut self, id: u64) {
        self.called(id, OperationKind::Launch);
        self.observe(id, running(u8::try_from(id).expect("tests have few replicas")));
        self.probe(id, true);
        assert_eq!(self.status(id), ReplicaStatus::Ready);
    }

    pub(super) fn replica(&self, id: u64) -> &Replica {
        self.service.replicas.get(&ReplicaId(id)).unwrap_or_else(|| panic!("there is no replica {id}"))
    }

    pub(super) fn status(&self, id: u64) -> ReplicaStatus {
        self.replica(id).status
    }

    pub(super) fn reason(&self, id: u64) -> &str {
        self.replica(id).reason.as_deref().unwrap_or("")
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.service.replicas.keys().map(|id| id.0).collect()
    }

    /// Ids of the replicas whose call of `kind` is due.
    pub(super) fn due(&self, kind: OperationKind) -> Vec<u64> {
        self.service.due(kind, self.now).map(|replica| replica.id.0).collect()
    }

    pub(super) fn update(&mut self, rules: VersionRules) -> Vec<Change> {
        self.apply(&Event::Update { rules: Arc::new(rules), source: "the YAML".to_owned() })
    }

    /// Ids of the replicas with this status.
    pub(super) fn with(&self, status: ReplicaStatus) -> Vec<u64> {
        self.service.replicas.values().filter(|replica| replica.status == status).map(|replica| replica.id.0).collect()
    }

    pub(super) fn terminate(&mut self, id: u64, purge: bool) -> Vec<Change> {
        self.apply(&Event::TerminateReplica { replica: ReplicaId(id), purge })
    }
}
