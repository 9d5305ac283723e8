//! The driver, simulated: tells the core what happened, and carries out what follows; provider calls,
//! lists, probes and publications each take their time and may go wrong.

use crate::crash::Side;
use crate::faults::Bug;
use crate::invariants::{Invariant as I, Violation};
use crate::provider::{Fate, Turn, course};
use crate::store::{Disk, SimStore};
use crate::user::BROKEN;
use crate::world::{Happening, World};
use skyserve_controller::core::{Core, Fatal, Input, Output};
use skyserve_model::{CallFailure, Observation, OperationKind, ReplicaId, ReplicaUid, Timestamp, VersionRules};
use skyserve_routes::RouteTable;
use std::net::SocketAddr;
use std::sync::Arc;

/// The driver's: how often the load balancer is asked, at most and at least (in steps of the simulation:
/// the real one asks every 20 ms).
const REPORT_MS_BUSY: u64 = 100;
const REPORT_MS_IDLE: u64 = 10_000;
/// The driver's pause before a table is written again.
const PUBLISH_RETRY_MS: u64 = 1_000;
/// Longest time that a call takes, when it is slow.
const CALL_MS_MAX: u64 = 40_000;
/// Longest time until a list is read at the provider, and again until it arrives, when it is slow. Well below
/// the initial delay of the simulated services, even when one fails and the next is asked for: news that take longer
/// than that are too late for anybody.
const LIST_MS_MAX: u64 = 3_000;

/// A provider call under way.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) tenure: u64,
    pub(crate) service: String,
    pub(crate) replica: ReplicaId,
    pub(crate) uid: ReplicaUid,
    pub(crate) kind: OperationKind,
    result: Result<(), CallFailure>,
}

/// A replica that is probed.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    service: String,
    replica: ReplicaId,
    uid: ReplicaUid,
    address: SocketAddr,
    rules: Arc<VersionRules>,
    gap_ms: u64,
}

impl World {
    /// Tells the core, which may end of it.
    pub(crate) fn tell(&mut self, mut input: Input) -> Result<(), Violation> {
        if let Input::Observed { seen_at, observation } = &mut input {
            *seen_at = self.clock.wall();
            let line = format!("seen: {} {:?}", observation.uid, observation.phase);
            self.note(format_args!("{line}"));
        }
        self.with_core(|core, now| core.handle(input, now))
    }

    /// Does something with the core, if it runs; a fatal error ends it, as it ends the process.
    pub(crate) fn with_core(
        &mut self,
        act: impl FnOnce(&mut Core<SimStore>, Timestamp) -> Result<(), Fatal>,
    ) -> Result<(), Violation> {
        let now = self.clock.wall();
        let Some(core) = &mut self.core else { return Ok(()) };
        let ended = act(core, now).is_err();
        if ended {
            self.crash("its store failed");
        }
        match self.ledger.get().violation.take() {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }

    /// A controller that was stopped goes on, and knows nothing of what happened since: it must end as soon
    /// as it decides anything. Calls that it still makes were decided in its time; they count by what they
    /// do, which the checks of the world see.
    pub(crate) fn stopped_goes_on(&mut self) -> Result<(), Violation> {
        let Some(mut core) = self.stopped.take().filter(|_| self.core.is_some()) else { return Ok(()) };
        self.note(format_args!("a controller that was stopped goes on"));
        let now = self.clock.wall();
        let list = Input::Listed { observations: self.provider.list(), began_at: now };
        let goes_on = core.handle(list, now).and_then(|()| core.flush(now));
        for output in goes_on.unwrap_or_default() {
            match output {
                Output::Launch { spec, .. } => {
                    self.note(format_args!("it launches {}", spec.uid));
                    self.launched.entry(spec.uid.clone()).or_insert_with(|| (*spec).clone());
                    self.launch_takes_effect(&spec.uid);
                }
                Output::Terminate { uid, .. } => {
                    self.note(format_args!("it terminates {uid}"));
                    self.provider.terminate(&uid);
                }
                // Its table is older than the one in force, which the load balancer keeps.
                Output::Publish(table) => {
                    let found = self.file.as_ref().map(RouteTable::version);
                    if found.is_some_and(|found| table.version() >= found) {
                        let detail = format!("an overtaken controller's {:?} is not before {found:?}", table.version());
                        return Err(Violation::new(I::EpochsAndTablesGrow, detail));
                    }
                }
                Output::StartProbe { .. } | Output::StopProbe { .. } | Output::List => {}
            }
        }
        match self.ledger.get().violation.take() {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }

    pub(crate) fn flush(&mut self) -> Result<(), Violation> {
        let mut outputs = Vec::new();
        let late_ms = if self.bug == Some(Bug::DriverIsLate) { 500 } else { 0 };
        self.with_core(|core, now| {
            outputs = core.flush(Timestamp(now.0 - late_ms))?;
            Ok(())
        })?;
        self.ledger.get().passing.clear();
        let tenure = self.tenure;
        for output in outputs {
            if tenure != self.tenure || self.core.is_none() {
                return Ok(());
            }
            self.carry_out(output)?;
        }
        self.ask_for_report();
        Ok(())
    }

    fn ask_for_report(&mut self) {
        let Some(core) = &self.core else { return };
        let busy = core.awaits_load();
        if self.report_due.is_some_and(|was_busy| was_busy || !busy) {
            return;
        }
        let tenure = self.tenure;
        self.report_due = Some(busy);
        self.schedule.retain(|happening| !matches!(happening, Happening::ReportDue { .. }));
        let pause_ms = if busy { REPORT_MS_BUSY } else { REPORT_MS_IDLE };
        self.schedule.at(self.clock.now_ms + pause_ms, Happening::ReportDue { tenure });
    }

    fn carry_out(&mut self, output: Output) -> Result<(), Violation> {
        match output {
            Output::Launch { service, replica, mut spec } => {
                if self.bug == Some(Bug::DriverLaunchesNewest)
                    && let Some(row) = self.ledger.get().services.get(&service)
                {
                    spec.run.clone_from(&row.rules().launch.run);
                }
                self.check_launch(&service, &spec)?;
                self.call(service, replica, spec.uid.clone(), OperationKind::Launch)
            }
            Output::Terminate { service, replica, uid, .. } => {
                self.call(service, replica, uid, OperationKind::Terminate)
            }
            Output::StartProbe { service, replica, uid, address, rules } => {
                self.probes.retain(|_, probe| probe.uid != uid);
                let number = self.number();
                let gap_ms = 100.min(rules.probe.interval_ms);
                self.probes.insert(number, Probe { service, replica, uid, address, rules, gap_ms });
                let tenure = self.tenure;
                self.after(0, 5, Happening::ProbeDue { tenure, probe: number });
                Ok(())
            }
            Output::StopProbe { uid } => {
                self.probes.retain(|_, probe| probe.uid != uid);
                Ok(())
            }
            Output::Publish(table) => self.publish(table.as_ref().clone()),
            Output::List => {
                let (tenure, began_at) = (self.tenure, self.clock.wall());
                let longest_ms = if self.random.per_mille(self.faults.list_slow) { LIST_MS_MAX } else { 100 };
                self.after(1, longest_ms, Happening::ListRead { tenure, began_at });
                Ok(())
            }
        }
    }

    fn publish(&mut self, mut table: RouteTable) -> Result<(), Violation> {
        if self.bug == Some(Bug::DriverRepeatsTable) {
            table.seq = 1;
        }
        let crash = self.ledger.get().boundaries.cross();
        if crash == Some(Side::Before) {
            self.crash("before it published");
            return Ok(());
        }
        if self.random.per_mille(self.faults.table_not_written) {
            self.note(format_args!("table {}/{} cannot be written", table.epoch, table.seq));
            self.publish_again = true;
            let tenure = self.tenure;
            self.after(PUBLISH_RETRY_MS, PUBLISH_RETRY_MS, Happening::PublishAgain { tenure });
        } else {
            let version = table.version();
            let before = self.file.replace(table.clone()).map(|before| before.version());
            if before.is_some_and(|before| before >= version) {
                let detail = format!("{version:?} was published after {before:?}");
                return Err(Violation::new(I::EpochsAndTablesGrow, detail));
            }
            let routes: Vec<String> = table
                .services
                .iter()
                .map(|service| {
                    let replicas =
                        service.replicas.iter().map(|replica| format!("{}:{:?}", replica.uid, replica.state));
                    format!("{} [{}]", service.name, replicas.collect::<Vec<_>>().join(" "))
                })
                .collect();
            self.note(format_args!("table {}/{}: {}", table.epoch, table.seq, routes.join(", ")));
            self.check_routes()?;
            let longest_ms = if self.random.per_mille(self.faults.table_read_late) { 3_000 } else { 50 };
            self.after(1, longest_ms, Happening::TableRead);
        }
        if crash == Some(Side::After) {
            self.crash("after it published");
        }
        Ok(())
    }

    fn call(
        &mut self,
        service: String,
        replica: ReplicaId,
        uid: ReplicaUid,
        kind: OperationKind,
    ) -> Result<(), Violation> {
        let crash = self.ledger.get().boundaries.cross();
        if crash == Some(Side::Before) {
            self.crash("before a provider call");
            return Ok(());
        }
        self.start_call(service.clone(), replica, uid.clone(), kind)?;
        if self.bug == Some(Bug::DriverCallsTwice) {
            self.start_call(service, replica, uid, kind)?;
        }
        if crash == Some(Side::After) {
            // It has been sent, and takes effect whatever becomes of the sender.
            if let Some(call) = self.calls.keys().next_back().copied() {
                self.call_takes_effect(call);
            }
            self.crash("after a provider call");
        }
        Ok(())
    }

    pub(crate) fn start_call(
        &mut self,
        service: String,
        replica: ReplicaId,
        uid: ReplicaUid,
        kind: OperationKind,
    ) -> Result<(), Violation> {
        self.check_call(&service, replica, &uid, kind)?;
        let (has_effect, result) = self.outcome(&service, replica, &uid, kind);
        let told = match &result {
            Ok(()) => "passes".to_owned(),
            Err(failure) => format!(
                "fails ({}retryable, {}applied)",
                if failure.retryable { "" } else { "not " },
                if has_effect { "" } else { "not " }
            ),
        };
        self.note(format_args!("{} {uid} {told}", kind.name()));
        let number = self.number();
        let tenure = self.tenure;
        self.calls.insert(number, Call { tenure, service, replica, uid, kind, result });
        let longest_ms = if self.random.per_mille(self.faults.call_slow) { CALL_MS_MAX } else { 300 };
        let effect_ms = self.random.between(0, longest_ms);
        let answer_ms = self.random.between(effect_ms, longest_ms);
        let now_ms = self.clock.now_ms;
        if has_effect {
            self.schedule.at(now_ms + effect_ms, Happening::CallTakesEffect { call: number });
        }
        if self.bug != Some(Bug::DriverLosesAnswers) {
            self.schedule.at(now_ms + answer_ms, Happening::CallAnswered { tenure, call: number });
        }
        Ok(())
    }

    /// Whether a call takes effect, and what it answers.
    fn outcome(
        &mut self,
        service: &str,
        replica: ReplicaId,
        uid: &ReplicaUid,
        kind: OperationKind,
    ) -> (bool, Result<(), CallFailure>) {
        let fails = |message: &str, retryable| Err(CallFailure { message: message.to_owned(), retryable });
        let is_launch = kind == OperationKind::Launch;
        // What exists is adopted, whatever there is no room for.
        let is_new = is_launch && self.provider.find(uid).is_none();
        let (has_effect, result) = if is_new && self.random.per_mille(self.faults.call_fails_for_good) {
            (self.random.per_mille(300), fails("there is no such accelerator", false))
        } else if !is_launch && self.random.per_mille(self.faults.removal_fails) {
            (false, fails("the machine does not answer", true))
        } else if self.random.per_mille(self.faults.call_fails) {
            (false, fails("no capacity", true))
        } else if self.random.per_mille(self.faults.reply_lost) {
            (true, fails("the connection was lost", true))
        } else {
            (true, Ok(()))
        };
        let is_known_to_run = self.ledger.get().replica(service, replica).is_some_and(|row| row.status.is_probed());
        if is_launch && result.is_err() && !is_known_to_run {
            self.ledger.get().harmed.insert(uid.clone());
        }
        (has_effect, result)
    }

    pub(crate) fn call_takes_effect(&mut self, number: u64) {
        self.schedule.retain(|happening| !matches!(happening, Happening::CallTakesEffect { call } if *call == number));
        let Some(call) = self.calls.get(&number).cloned() else { return };
        match call.kind {
            OperationKind::Terminate => {
                self.provider.terminate(&call.uid);
                self.note(format_args!("{} is removed", call.uid));
            }
            OperationKind::Launch => self.launch_takes_effect(&call.uid),
        }
    }

    fn launch_takes_effect(&mut self, uid: &ReplicaUid) {
        let is_broken = self.launched.get(uid).is_some_and(|spec| spec.run.as_deref() == Some(BROKEN));
        let ill = self.random.per_mille(self.faults.replica_ill);
        let fate = match (is_broken, ill) {
            (true, _) => Fate::broken(&mut self.random),
            (false, true) => Fate::ill(&mut self.random),
            (false, false) => Fate::Healthy,
        };
        let Some(instance) = self.provider.launch(uid, fate, self.bug) else { return };
        self.note(format_args!("{uid} is being made; its fate: {fate:?}"));
        if fate != Fate::Healthy {
            self.ledger.get().harmed.insert(uid.clone());
        }
        let mut moment = self.clock.now_ms;
        for (after_ms, turn) in course(instance, fate, &mut self.random) {
            moment += after_ms;
            self.schedule.at(moment, Happening::Turns { number: instance, turn });
        }
    }

    pub(crate) fn turns(&mut self, number: u64, turn: &Turn) {
        let warm_up_ms = self.random.between(0, 3_000);
        if let Some(observation) = self.provider.turn(number, turn, self.clock.now_ms, warm_up_ms) {
            self.note(format_args!("{} {turn:?}", observation.uid));
            self.observed_later(observation);
        }
    }

    pub(crate) fn call_answered(&mut self, number: u64) -> Result<(), Violation> {
        let Some(Call { service, replica, uid, kind, result, .. }) = self.calls.remove(&number) else { return Ok(()) };
        self.tell(Input::Called { service, replica, uid, kind, result })
    }

    pub(crate) fn list_read(&mut self, began_at: Timestamp) {
        let tenure = self.tenure;
        let fails = self.random.per_mille(self.faults.list_fails);
        let input = if fails && self.bug == Some(Bug::DriverTakesErrorForEmpty) {
            Input::Listed { observations: Vec::new(), began_at }
        } else if fails {
            Input::ListFailed { message: "the provider does not answer".to_owned() }
        } else if self.random.per_mille(self.faults.list_stale) {
            Input::Listed { observations: self.stale_list(), began_at }
        } else {
            Input::Listed { observations: self.provider.list(), began_at }
        };
        // What was read may be old news by the time it arrives.
        let longest_ms = if self.random.per_mille(self.faults.list_slow) { LIST_MS_MAX } else { 50 };
        self.after(1, longest_ms, Happening::Told { tenure, input: Box::new(input) });
    }

    /// What was there a while ago. Where that is wrong by now it may cost a replica its life, but not one that is READY:
    /// its probes are to be believed more than a list.
    fn stale_list(&mut self) -> Vec<Observation> {
        let listed = self.lists.front().cloned().unwrap_or_default();
        self.note(format_args!("a list of {} s ago is read", self.lists.len()));
        let ready: Vec<ReplicaUid> = self.serving().map(|instance| instance.uid.clone()).collect();
        let wrong = self.provider.list().into_iter().filter(|observation| !listed.contains(observation));
        let wrong: Vec<ReplicaUid> =
            wrong.map(|observation| observation.uid).filter(|uid| !ready.contains(uid)).collect();
        self.ledger.get().harmed.extend(wrong);
        listed
    }

    pub(crate) fn probe_due(&mut self, number: u64) {
        let now_ms = self.clock.now_ms;
        let flakes = self.random.per_mille(self.faults.probe_flakes);
        let Some(probe) = self.probes.get_mut(&number) else { return };
        let mut result = self.provider.probe(&probe.uid, now_ms);
        if flakes && result.is_ok() {
            self.ledger.get().harmed.insert(probe.uid.clone());
            result = Err("no answer within 1 s".to_owned());
        }
        if self.bug == Some(Bug::DriverInventsProbes) {
            result = Ok(());
        }
        let interval_ms = probe.rules.probe.interval_ms;
        let latency_ms = if result.is_ok() { 50 } else { probe.rules.probe.timeout_ms };
        let gap_ms = if result.is_ok() { interval_ms } else { probe.gap_ms };
        probe.gap_ms = (probe.gap_ms * 2).min(interval_ms);
        let (tenure, uid) = (self.tenure, probe.uid.clone());
        let took_ms = self.random.between(1, latency_ms);
        self.schedule.at(now_ms + took_ms, Happening::ProbeEnds { tenure, probe: number, uid, result });
        self.schedule.at(now_ms + gap_ms.max(took_ms), Happening::ProbeDue { tenure, probe: number });
    }

    pub(crate) fn probe_ends(
        &mut self,
        number: u64,
        uid: &ReplicaUid,
        result: Result<(), String>,
    ) -> Result<(), Violation> {
        let Some(Probe { service, replica, address, .. }) = self.probes.get(&number).cloned() else { return Ok(()) };
        let passes =
            result.is_ok() && self.provider.find(uid).is_none_or(|instance| instance.ready_at <= self.clock.now_ms);
        let fails = result.is_err();
        self.ledger.get().passing.extend(passes.then(|| uid.clone()));
        self.tell(Input::Probed { service: service.clone(), replica, uid: uid.clone(), address, result })?;
        if fails && self.bug == Some(Bug::DriverEndsOnFailedProbe) {
            self.start_call(service, replica, uid.clone(), OperationKind::Terminate)?;
        }
        Ok(())
    }

    /// Nothing goes wrong from now on; what is ill already takes its course.
    pub(crate) fn calm(&mut self) {
        self.note(format_args!("from here on nothing new goes wrong"));
        self.faults = crate::faults::Faults::none();
        self.ledger.get().disk = Disk::Works;
        if !self.balancer.is_up {
            self.schedule.at(self.clock.now_ms, Happening::BalancerStarts);
        }
    }
}
