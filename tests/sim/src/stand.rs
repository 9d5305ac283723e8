//! A test stand: the real core on the real database, with a provider and a load balancer that do at once what they are
//! told, and can be told to fail. For tests of one thing that happened, where [`run`](crate::run) plays anything at all;
//! and for thousands of replicas.

use crate::crash::{CrashPoint, Side};
use skyserve_controller::core::{Core, CoreOptions, Fatal, Held, Input, Output};
use skyserve_model::{
    CallFailure, Change, LaunchSpec, Observation, OperationKind, Phase, Replica, ReplicaId, ReplicaStatus, ReplicaUid,
    Service, Timestamp,
};
use skyserve_recovery::{SqliteStore, Store, StoreError};
use skyserve_routes::RouteTable;
use skyserve_routes::report::{Report, ServiceLoad};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// When the stand's clock begins: some day in 2030.
const BEGINS: Timestamp = Timestamp(1_900_000_000_000);
/// Room for as many services as any test makes.
const PORTS: std::ops::RangeInclusive<u16> = 20_001..=30_000;

/// The database, which may be made to crash the controller at one of its next commits.
#[derive(Debug)]
pub struct StandStore {
    database: SqliteStore,
    crash: Arc<Mutex<Option<CrashPoint>>>,
}

impl Store for StandStore {
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let mut planned = self.crash.lock().expect("a stand has one thread");
        let here = planned.take_if(|point| point.boundary == 0);
        if let Some(point) = planned.as_mut() {
            point.boundary -= 1;
        }
        match here.map(|point| point.side) {
            None => self.database.commit(changes),
            Some(side) => {
                if side == Side::After {
                    self.database.commit(changes)?;
                }
                Err(StoreError::FailedEarlier { path: PathBuf::from("the simulated disk") })
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Stand {
    folder: TempDir,
    crash: Arc<Mutex<Option<CrashPoint>>>,
    /// `None` once it has crashed.
    pub core: Option<Core<StandStore>>,
    pub now: Timestamp,
    /// What the provider has.
    pub resources: BTreeMap<ReplicaUid, Phase>,
    pub launched: Vec<LaunchSpec>,
    pub terminated: Vec<ReplicaUid>,
    /// In force at the load balancer.
    pub table: Option<Arc<RouteTable>>,
    /// Requests in flight at the load balancer, by uid.
    pub in_flight: BTreeMap<String, u64>,
    /// The provider does not answer lists.
    pub lists_fail: bool,
    /// The provider cannot remove anything.
    pub removals_fail: bool,
    /// Replicas that do not answer probes.
    pub silent: BTreeSet<ReplicaUid>,
    probed: BTreeMap<ReplicaUid, (String, ReplicaId, SocketAddr)>,
    made: u32,
}

impl Default for Stand {
    fn default() -> Self {
        Self::new()
    }
}

impl Stand {
    /// A controller on an empty database.
    pub fn new() -> Self {
        let in_memory = Path::new("/dev/shm");
        let folder = if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
        let mut stand = Self {
            folder: folder.expect("a folder for the database can be made"),
            crash: Arc::default(),
            core: None,
            now: BEGINS,
            resources: BTreeMap::new(),
            launched: Vec::new(),
            terminated: Vec::new(),
            table: None,
            in_flight: BTreeMap::new(),
            lists_fail: false,
            removals_fail: false,
            silent: BTreeSet::new(),
            probed: BTreeMap::new(),
            made: 0,
        };
        stand.restart();
        stand
    }

    /// A controller that is about to take over so many services, each with so many READY replicas of an earlier one.
    pub fn taking_over(services: u32, replicas: u32) -> Self {
        let mut stand = Self::new();
        stand.core = None;
        let mut database = SqliteStore::open(&stand.database()).expect("the database can be opened").store;
        for number in 0..services {
            let changes = stand.serving(number, replicas);
            database.commit(&changes).expect("it can be stored");
        }
        stand
    }

    fn serving(&mut self, number: u32, replicas: u32) -> Vec<Change> {
        let port = PORTS.start() + u16::try_from(number).expect("there are few services");
        let listen = SocketAddr::from(([127, 0, 0, 1], port));
        let name = format!("service-{number}");
        let rules = crate::rules(replicas, "serve");
        let mut service = Service::new(name.clone(), u64::from(number) + 1, listen, rules, self.now);
        service.head.endpoint_confirmed = true;
        service.head.ever_ready = true;
        service.head.ready_since = Some(self.now);
        service.head.next_replica_id = ReplicaId(u64::from(replicas) + 1);
        let (head, rules) = (service.head.clone(), Arc::clone(&service.rules));
        let mut changes = vec![Change::InsertService { head, rules, source: "a YAML".to_owned() }];
        for id in (1..=u64::from(replicas)).map(ReplicaId) {
            let address = self.next_address();
            let uid = service.uid(id);
            self.resources.insert(uid.clone(), Phase::Running { address });
            let replica = Replica {
                id,
                uid,
                version: service.head.version,
                status: ReplicaStatus::Ready,
                status_since: self.now,
                reason: None,
                address: Some(address),
                launched_at: self.now,
                first_ready_at: Some(self.now),
                operation: None,
            };
            changes.push(Change::InsertReplica { service: name.clone(), replica });
        }
        changes
    }

    fn next_address(&mut self) -> SocketAddr {
        self.made += 1;
        SocketAddr::from((0x7f01_0000_u32.wrapping_add(self.made).to_be_bytes(), 8080))
    }

    /// Where the database is.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("skyserve.db")
    }

    /// The controller dies, if it has not yet, and another one begins on its database; it has done nothing yet.
    pub fn restart(&mut self) {
        self.core = None;
        self.core = Some(self.another());
        self.probed.clear();
        self.launched.clear();
        self.terminated.clear();
    }

    /// Another controller on the same database.
    pub fn another(&self) -> Core<StandStore> {
        let opened = SqliteStore::open(&self.database()).expect("the database can be opened");
        let options = CoreOptions {
            listen_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            listen_ports: PORTS,
            infra: "stand".to_owned(),
            exposed: false,
        };
        let held = Held { epoch: opened.epoch, next_incarnation: opened.next_incarnation, services: opened.services };
        let store = StandStore { database: opened.store, crash: Arc::clone(&self.crash) };
        Core::new(options, store, held, self.table.as_ref().map(|table| table.version()), self.now)
    }

    /// The controller will die at this commit, counted from the next.
    pub fn crash_at(&mut self, point: CrashPoint) {
        *self.crash.lock().expect("a stand has one thread") = Some(point);
    }

    /// Whether the controller has died; if not, it will not.
    pub fn has_crashed(&mut self) -> bool {
        *self.crash.lock().expect("a stand has one thread") = None;
        self.core.is_none()
    }

    /// Does something with the core; a fatal error ends it.
    pub fn with_core<T>(
        &mut self,
        act: impl FnOnce(&mut Core<StandStore>, Timestamp) -> Result<T, Fatal>,
    ) -> Option<T> {
        let now = self.now;
        let done = act(self.core.as_mut()?, now);
        if done.is_err() {
            self.core = None;
        }
        done.ok()
    }

    pub fn tell(&mut self, input: Input) {
        self.with_core(|core, now| core.handle(input, now));
    }

    /// Lets so much time pass, with all that the controller does in it.
    pub fn run_for(&mut self, duration_ms: u64) {
        let until = self.now.plus_ms(duration_ms);
        loop {
            while let Some(outputs) = self.with_core(Core::flush).filter(|outputs| !outputs.is_empty()) {
                outputs.into_iter().for_each(|output| self.carry_out(output));
                self.report();
            }
            let Some(core) = &self.core else { return };
            let next = core.wake_at();
            if next > until {
                self.now = until;
                return;
            }
            self.now = next;
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Launch { service, replica, spec } => {
                let address = self.next_address();
                let phase = self.resources.entry(spec.uid.clone()).or_insert(Phase::Running { address }).clone();
                let uid = spec.uid.clone();
                self.launched.push(*spec);
                self.called(service, replica, &uid, OperationKind::Launch, Ok(()));
                self.shows(&uid, phase);
            }
            Output::Terminate { service, replica, uid, .. } => {
                self.terminated.push(uid.clone());
                let failure = CallFailure { message: "the machine does not answer".to_owned(), retryable: true };
                let result = if self.removals_fail { Err(failure) } else { Ok(()) };
                if result.is_ok() {
                    self.resources.remove(&uid);
                }
                self.called(service, replica, &uid, OperationKind::Terminate, result);
            }
            Output::StartProbe { service, replica, uid, address, .. } => {
                self.probed.insert(uid.clone(), (service, replica, address));
                self.probe(&uid);
            }
            Output::StopProbe { uid } => drop(self.probed.remove(&uid)),
            Output::Publish(table) => self.table = Some(table),
            Output::List => self.list(),
        }
    }

    fn called(
        &mut self,
        service: String,
        replica: ReplicaId,
        uid: &ReplicaUid,
        kind: OperationKind,
        result: Result<(), CallFailure>,
    ) {
        self.tell(Input::Called { service, replica, uid: uid.clone(), kind, result });
    }

    /// The provider shows a replica in this phase.
    pub fn shows(&mut self, uid: &ReplicaUid, phase: Phase) {
        let observation = Observation { uid: uid.clone(), phase };
        let seen_at = self.now;
        self.tell(Input::Observed { observation, seen_at });
    }

    /// What the provider lists.
    pub fn list(&mut self) {
        let began_at = self.now;
        if self.lists_fail {
            return self.tell(Input::ListFailed { message: "the provider does not answer".to_owned() });
        }
        let observations =
            self.resources.iter().map(|(uid, phase)| Observation { uid: uid.clone(), phase: phase.clone() });
        let observations = observations.collect();
        self.tell(Input::Listed { observations, began_at });
    }

    /// Probes the replica, if it is to be probed.
    pub fn probe(&mut self, uid: &ReplicaUid) {
        let Some((service, replica, address)) = self.probed.get(uid).cloned() else { return };
        let answers = self.resources.contains_key(uid) && !self.silent.contains(uid);
        let result = if answers { Ok(()) } else { Err("cannot connect".to_owned()) };
        self.tell(Input::Probed { service, replica, uid: uid.clone(), address, result });
    }

    /// Probes every replica that is to be probed.
    pub fn probe_all(&mut self) {
        let uids: Vec<ReplicaUid> = self.probed.keys().cloned().collect();
        uids.iter().for_each(|uid| self.probe(uid));
    }

    /// The load balancer says how it is.
    fn report(&mut self) {
        let Some(table) = self.table.clone() else { return };
        let load = |name: &str| {
            let of_service = |uid: &String| uid.starts_with(&format!("{name}-"));
            let replicas_in_flight = self.in_flight.iter().filter(|(uid, _)| of_service(uid));
            let replicas_in_flight = replicas_in_flight.map(|(uid, count)| (uid.clone(), *count)).collect();
            ServiceLoad { listening: true, replicas_in_flight, ..ServiceLoad::default() }
        };
        let services = table.services.iter().map(|service| (service.name.clone(), load(&service.name))).collect();
        let report = Report { table: Some(table.version()), services, ..Report::default() };
        self.tell(Input::Load(Box::new(report)));
    }

    /// The service, which must be there.
    pub fn service(&self, name: &str) -> &Service {
        let core = self.core.as_ref().expect("the controller runs");
        core.services().find(|service| service.head.name == name).expect("the service is there")
    }

    /// Uids of the service's READY replicas.
    pub fn ready(&self, name: &str) -> Vec<ReplicaUid> {
        self.service(name).ready().map(|replica| replica.uid.clone()).collect()
    }

    /// Uids of replicas that get requests.
    pub fn routed(&self) -> Vec<String> {
        let services = self.table.iter().flat_map(|table| &table.services);
        services.flat_map(|service| &service.replicas).map(|replica| replica.uid.clone()).collect()
    }

    /// The statuses of the service's replicas.
    pub fn statuses(&self, name: &str) -> Vec<ReplicaStatus> {
        self.service(name).replicas.values().map(|replica| replica.status).collect()
    }
}
