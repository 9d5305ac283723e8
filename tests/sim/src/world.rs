//! The world around the controller: one virtual clock, one source of chance, and everything that the
//! real driver would do with threads and sockets, as things that happen at a moment.

use crate::balancer::Balancer;
use crate::calls::{Call, Probe};
use crate::clock::{Clock, Random, Schedule};
use crate::crash::{Boundaries, CrashPoint, Side};
use crate::faults::{Bug, Faults};
use crate::invariants::{Invariant as I, Violation};
use crate::provider::{Provider, Turn};
use crate::store::{Disk, SharedLedger, SimStore};
use skyserve_controller::core::{Core, CoreOptions, Held, Input};
use skyserve_model::{Epoch, LaunchSpec, Observation, ReplicaUid, Timestamp, VersionRules};
use skyserve_recovery::{Opened, SqliteStore};
use skyserve_routes::RouteTable;
use skyserve_routes::report::Report;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tempfile::TempDir;

/// Times a second that the core may ask to be woken, with all its services, before it is a busy loop:
/// several for each operation under way, and there are few.
const WAKINGS_A_SECOND_MAX: u64 = 40;
/// Inputs taken before the core is asked for what follows, at most.
const INPUTS_AT_ONCE_MAX: u64 = 4;
/// How old a list may be that is stale.
const LIST_AGE_SECONDS_MAX: usize = 20;
/// Where a chance is told per second.
const SECOND_MS: u64 = 1_000;

/// Something that happens at a moment. What has a `tenure` happens to one controller process, and is lost
/// with it.
#[derive(Debug)]
pub(crate) enum Happening {
    CallTakesEffect { call: u64 },
    CallAnswered { tenure: u64, call: u64 },
    Turns { number: u64, turn: Turn },
    Told { tenure: u64, input: Box<Input> },
    ListRead { tenure: u64, began_at: Timestamp },
    ProbeDue { tenure: u64, probe: u64 },
    ProbeEnds { tenure: u64, probe: u64, uid: ReplicaUid, result: Result<(), String> },
    ReportDue { tenure: u64 },
    PublishAgain { tenure: u64 },
    TableRead,
    RequestComes,
    RequestEnds { life: u64, target: (String, String) },
    BalancerStarts,
    DiskMended,
    ControllerStarts,
    StoppedGoesOn,
    SecondPasses,
}

/// How much happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub steps: u64,
    pub crashes: u64,
    pub commits: u64,
    pub boundaries: u64,
    pub virtual_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) clock: Clock,
    pub(crate) schedule: Schedule<Happening>,
    pub(crate) faults: Faults,
    pub(crate) bug: Option<Bug>,
    pub(crate) ledger: SharedLedger,
    pub(crate) core: Option<Core<SimStore>>,
    /// A controller that was stopped, and will go on when another has taken over.
    pub(crate) stopped: Option<Core<SimStore>>,
    pub(crate) tenure: u64,
    pub(crate) provider: Provider,
    pub(crate) balancer: Balancer,
    /// `routes.json`.
    pub(crate) file: Option<RouteTable>,
    pub(crate) publish_again: bool,
    /// What the provider had at each of the last seconds, the oldest first.
    pub(crate) lists: VecDeque<Vec<Observation>>,
    pub(crate) calls: BTreeMap<u64, Call>,
    pub(crate) probes: BTreeMap<u64, Probe>,
    pub(crate) numbered: u64,
    /// Whether the load balancer is asked soon (or late); nothing while it is not to be asked at all.
    pub(crate) report_due: Option<bool>,
    /// Services that users were told they have, with what they ask for.
    pub(crate) wanted: BTreeMap<String, Arc<VersionRules>>,
    /// What each replica was launched with.
    pub(crate) launched: BTreeMap<ReplicaUid, LaunchSpec>,
    pub(crate) clock_was_set: bool,
    /// The latest controller's.
    epoch: Option<Epoch>,
    pub(crate) counts: Counts,
    wakings: (u64, u64),
    folder: TempDir,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults, crashes: &[CrashPoint], bug: Option<Bug>) -> Self {
        let in_memory = std::path::Path::new("/dev/shm");
        let folder = if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
        let mut world = Self {
            random: Random::new(seed),
            clock: Clock::new(),
            schedule: Schedule::new(),
            faults,
            bug,
            ledger: SharedLedger::new(Boundaries::with_crashes(crashes), bug),
            core: None,
            stopped: None,
            tenure: 0,
            provider: Provider::default(),
            balancer: Balancer::new(),
            file: None,
            publish_again: false,
            lists: VecDeque::new(),
            calls: BTreeMap::new(),
            probes: BTreeMap::new(),
            numbered: 0,
            report_due: None,
            wanted: BTreeMap::new(),
            launched: BTreeMap::new(),
            clock_was_set: false,
            epoch: None,
            counts: Counts::default(),
            wakings: (0, 0),
            folder: folder.expect("a folder for the database can be made"),
        };
        world.schedule.at(SECOND_MS, Happening::SecondPasses);
        world.schedule.at(SECOND_MS, Happening::RequestComes);
        world
    }

    pub(crate) fn note(&self, what: std::fmt::Arguments<'_>) {
        self.ledger.get().note(what);
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    /// Schedules something in `low` to `high` milliseconds.
    pub(crate) fn after(&mut self, low: u64, high: u64, happening: Happening) {
        let moment = self.clock.now_ms + self.random.between(low, high);
        self.schedule.at(moment, happening);
    }

    /// Goes to the next moment at which anything happens, lets it happen, and checks everything.
    pub(crate) fn step(&mut self) -> Result<(), Violation> {
        self.counts.steps += 1;
        let waking = self.core.as_ref().map(|core| self.clock.when(core.wake_at()));
        let happening = self.schedule.next_at().unwrap_or(u64::MAX);
        let moment = waking.unwrap_or(u64::MAX).min(happening).max(self.clock.now_ms);
        self.clock.now_ms = moment;
        self.ledger.get().history.now_ms = moment;
        if happening > moment {
            self.count_waking()?;
        }
        for _ in 0..self.random.between(1, INPUTS_AT_ONCE_MAX) {
            let Some(happening) = self.schedule.take_due(moment) else { break };
            self.happen(happening)?;
        }
        self.flush()?;
        self.check()
    }

    fn count_waking(&mut self) -> Result<(), Violation> {
        let second = self.clock.now_ms / SECOND_MS;
        self.wakings = if self.wakings.0 == second { (second, self.wakings.1 + 1) } else { (second, 1) };
        if self.wakings.1 > WAKINGS_A_SECOND_MAX {
            let detail = format!("it was woken {} times within a second, with nothing happening", self.wakings.1);
            return Err(Violation::new(I::NoBusyLoop, detail));
        }
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::CallTakesEffect { call } => self.call_takes_effect(call),
            Happening::CallAnswered { tenure, call } if tenure == self.tenure => self.call_answered(call)?,
            Happening::Told { tenure, input } if tenure == self.tenure => self.tell(*input)?,
            Happening::ListRead { tenure, began_at } if tenure == self.tenure => self.list_read(began_at),
            Happening::ProbeDue { tenure, probe } if tenure == self.tenure => self.probe_due(probe),
            Happening::ProbeEnds { tenure, probe, uid, result } if tenure == self.tenure => {
                self.probe_ends(probe, &uid, result)?;
            }
            Happening::ReportDue { tenure } if tenure == self.tenure => self.report(),
            Happening::PublishAgain { tenure } if tenure == self.tenure => {
                self.publish_again = false;
                if let Some(core) = &mut self.core {
                    core.publish_failed();
                }
            }
            // Meant for a controller that is no more.
            Happening::CallAnswered { .. }
            | Happening::Told { .. }
            | Happening::ListRead { .. }
            | Happening::ProbeDue { .. }
            | Happening::ProbeEnds { .. }
            | Happening::ReportDue { .. }
            | Happening::PublishAgain { .. } => {}
            Happening::Turns { number, turn } => self.turns(number, &turn),
            Happening::TableRead => self.table_read(),
            Happening::RequestComes => self.request_comes(),
            Happening::RequestEnds { life, target } => {
                if life == self.balancer.life {
                    self.balancer.answer(&target);
                }
            }
            Happening::BalancerStarts => {
                self.note(format_args!("the load balancer starts"));
                self.balancer.is_up = true;
                self.table_read();
            }
            Happening::DiskMended => {
                self.note(format_args!("the disk works again"));
                self.ledger.get().disk = Disk::Works;
            }
            Happening::ControllerStarts => self.start_controller()?,
            Happening::StoppedGoesOn => self.stopped_goes_on()?,
            Happening::SecondPasses => self.second_passes(),
        }
        Ok(())
    }

    /// What goes wrong by itself, once a second.
    fn second_passes(&mut self) {
        self.schedule.at(self.clock.now_ms + SECOND_MS, Happening::SecondPasses);
        if self.faults.list_stale > 0 {
            self.lists.push_back(self.provider.list());
            if self.lists.len() > LIST_AGE_SECONDS_MAX {
                self.lists.pop_front();
            }
        }
        if self.core.is_some() && self.random.per_mille(self.faults.crash) {
            self.crash("it is killed");
        }
        if self.balancer.is_up && self.random.per_mille(self.faults.balancer_dies) {
            self.note(format_args!("the load balancer dies"));
            self.balancer.die();
            self.after(10, 20_000, Happening::BalancerStarts);
        }
        let works = self.ledger.get().disk == Disk::Works;
        if works && self.random.per_mille(self.faults.disk_full) {
            self.note(format_args!("the disk is full"));
            self.ledger.get().disk = Disk::Full;
            self.after(100, 20_000, Happening::DiskMended);
        } else if works && self.random.per_mille(self.faults.commit_in_doubt) {
            let stored = self.random.per_mille(500);
            self.ledger.get().disk = if stored { Disk::LosesAcknowledgement } else { Disk::LosesCommit };
        }
    }

    fn table_read(&mut self) {
        self.balancer.read(self.file.as_ref());
        let mut ledger = self.ledger.get();
        let listens = self.balancer.listens(&ledger.ports_taken);
        ledger.listened.extend(listens);
    }

    fn request_comes(&mut self) {
        self.after(100, 3_000, Happening::RequestComes);
        if let Some(target) = self.balancer.forward(&mut self.random) {
            let life = self.balancer.life;
            self.after(10, 20_000, Happening::RequestEnds { life, target });
        }
    }

    /// The controller's process ends at once; what it had under way at the provider may or may not go on.
    pub(crate) fn crash(&mut self, why: &str) {
        let Some(core) = self.core.take() else { return };
        if self.random.per_mille(self.faults.stopped) {
            self.stopped = Some(core);
            self.after(100, 30_000, Happening::StoppedGoesOn);
        }
        self.process_ends(why);
    }

    fn process_ends(&mut self, why: &str) {
        self.counts.crashes += 1;
        self.note(format_args!("the controller is gone: {why}"));
        self.tenure += 1;
        self.ledger.get().tenure = self.tenure;
        self.probes.clear();
        self.publish_again = false;
        self.report_due = None;
        let mut ledger = self.ledger.get();
        if matches!(ledger.disk, Disk::LosesAcknowledgement | Disk::LosesCommit) {
            ledger.disk = Disk::Works;
        }
        drop(ledger);
        let random = &mut self.random;
        let calls = &mut self.calls;
        self.schedule.retain(|happening| match happening {
            Happening::CallTakesEffect { call } => {
                let sent = random.per_mille(500);
                if !sent {
                    calls.remove(call);
                }
                sent
            }
            _ => true,
        });
        let longest_ms = if self.random.per_mille(100) { 60_000 } else { 3_000 };
        self.after(1, longest_ms, Happening::ControllerStarts);
    }

    pub(crate) fn start_controller(&mut self) -> Result<(), Violation> {
        if self.random.per_mille(self.faults.clock_set) {
            let year_ms = 365 * 24 * 3_600_000;
            let by_ms =
                *self.random.pick(&[-year_ms, -3_600_000, -1_000, 1_000, 3_600_000, year_ms]).expect("there are six");
            self.note(format_args!("the wall clock is set by {by_ms} ms"));
            self.clock.set_wall(by_ms);
            self.clock_was_set = true;
        }
        if self.bug == Some(Bug::DriverPublishesEmptyTable)
            && let Some(file) = &mut self.file
        {
            file.seq += 1;
            file.services.clear();
            self.check_routes()?;
        }
        let crash = self.ledger.get().boundaries.cross();
        if crash == Some(Side::Before) {
            self.process_ends("before it opened its database");
            return Ok(());
        }
        let Opened { store: database, epoch, mut services, next_incarnation, .. } =
            SqliteStore::open(&self.folder.path().join("skyserve.db"))
                .map_err(|error| Violation::new(I::StoredIsRead, error.to_string()))?;
        self.note(format_args!("the controller starts, epoch {epoch}"));
        self.check_stored(&services)?;
        let epoch = self.take_epoch(epoch)?;
        if crash == Some(Side::After) {
            self.process_ends("after it took its epoch");
            return Ok(());
        }
        self.plant_recovery_bug(&mut services);
        let options = CoreOptions {
            exposed: false,
            listen_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            listen_ports: 30_001..=30_020,
            infra: "simulated".to_owned(),
        };
        let published = self.file.as_ref().map(RouteTable::version);
        let store = SimStore { database, ledger: self.ledger.clone(), tenure: self.tenure };
        let held = Held { epoch, next_incarnation, services };
        self.core = Some(Core::new(options, store, held, published, self.clock.wall()));
        // The provider tells its new listener of everything once.
        for observation in self.provider.list() {
            self.observed_later(observation);
        }
        self.flush()?;
        self.check()
    }

    /// A controller's epoch is above that of every one before.
    fn take_epoch(&mut self, epoch: Epoch) -> Result<Epoch, Violation> {
        let keeps = self.bug == Some(Bug::DriverKeepsEpoch);
        let epoch = self.epoch.filter(|_| keeps).unwrap_or(epoch);
        let before = self.epoch.replace(epoch);
        if before.is_some_and(|before| before >= epoch) {
            return Err(Violation::new(I::EpochsAndTablesGrow, format!("epoch {epoch} comes after {before:?}")));
        }
        Ok(epoch)
    }

    pub(crate) fn observed_later(&mut self, observation: Observation) {
        let late = self.random.per_mille(self.faults.observation_late);
        let again = self.random.per_mille(self.faults.observation_repeated);
        for _ in 0..=u64::from(again) {
            let tenure = self.tenure;
            let longest_ms = if late { 10_000 } else { 50 };
            let (low, high) = (1, longest_ms);
            // The moment of being seen is put in when it is.
            let input = Input::Observed { observation: observation.clone(), seen_at: Timestamp(0) };
            self.after(low, high, Happening::Told { tenure, input: Box::new(input) });
        }
    }

    fn report(&mut self) {
        self.report_due = None;
        let report: Option<Report> = self.balancer.report(&self.ledger.get().ports_taken, self.bug);
        if let Some(report) = report {
            let tenure = self.tenure;
            self.after(1, 20, Happening::Told { tenure, input: Box::new(Input::Load(Box::new(report))) });
        }
    }
}
