//! What runs replicas, simulated: the truth about resources, apart from the calls and reports through
//! which the controller learns of it.
//!
//! It keeps the contract of `skyserve_provider`: a launch of a uid that exists adopts it, one of a uid
//! that was terminated does nothing, and terminating what does not exist succeeds.

use crate::clock::Random;
use crate::faults::Bug;
use skyserve_model::{Ended, Observation, Phase, ReplicaUid, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// How a resource's life goes on from its launch; times in milliseconds from when it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Healthy,
    FailsProvision,
    FailsSetup,
    SetupHangs,
    ExitsAfter(u64),
    NeverReady,
    HangsAfter(u64),
    PreemptedAfter(u64),
    VanishesAfter(u64),
}

impl Fate {
    pub(crate) fn ill(random: &mut Random) -> Self {
        let after = random.between(1, 120_000);
        match random.between(0, 8) {
            0 => Self::FailsProvision,
            1 => Self::FailsSetup,
            2 => Self::SetupHangs,
            3 => Self::ExitsAfter(1),
            4 => Self::ExitsAfter(after),
            5 => Self::NeverReady,
            6 => Self::HangsAfter(after),
            7 => Self::PreemptedAfter(after),
            _ => Self::VanishesAfter(after),
        }
    }

    /// Of a replica whose commands cannot work.
    pub(crate) fn broken(random: &mut Random) -> Self {
        match random.between(0, 2) {
            0 => Self::FailsProvision,
            1 => Self::FailsSetup,
            _ => Self::NeverReady,
        }
    }
}

/// One resource.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) uid: ReplicaUid,
    pub(crate) phase: Phase,
    pub(crate) fate: Fate,
    /// From when on its probes pass, if it is not ill.
    pub(crate) ready_at: u64,
    hung: bool,
}

/// What a resource comes to by itself, and when (milliseconds after it came to the one before).
pub(crate) type Course = Vec<(u64, Turn)>;

/// A turn in a resource's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    Comes(Phase),
    Hangs,
    Vanishes,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Provider {
    pub(crate) instances: BTreeMap<u64, Instance>,
    terminated: BTreeSet<ReplicaUid>,
    started: u64,
}

impl Provider {
    /// Carries out a launch; gives the number of the resource that it starts, if it starts one.
    pub(crate) fn launch(&mut self, uid: &ReplicaUid, fate: Fate, bug: Option<Bug>) -> Option<u64> {
        let exists = self.find(uid).is_some() && bug != Some(Bug::ProviderLaunchesAgain);
        let ended = self.terminated.contains(uid) && bug != Some(Bug::ProviderForgetsTerminations);
        if exists || ended {
            return None;
        }
        let number = self.started;
        self.started += 1;
        let phase = Phase::Provisioning { reason: Some("it is being made".to_owned()) };
        let instance = Instance { uid: uid.clone(), phase, fate, ready_at: u64::MAX, hung: false };
        self.instances.insert(number, instance);
        Some(number)
    }

    /// Carries out a termination.
    pub(crate) fn terminate(&mut self, uid: &ReplicaUid) {
        self.instances.retain(|_, instance| instance.uid != *uid);
        self.terminated.insert(uid.clone());
    }

    pub(crate) fn find(&self, uid: &ReplicaUid) -> Option<&Instance> {
        self.instances.values().find(|instance| instance.uid == *uid)
    }

    pub(crate) fn list(&self) -> Vec<Observation> {
        let show = |instance: &Instance| Observation { uid: instance.uid.clone(), phase: instance.phase.clone() };
        self.instances.values().map(show).collect()
    }

    /// Whether a probe of it passes; `Err` says why not.
    pub(crate) fn probe(&self, uid: &ReplicaUid, now_ms: u64) -> Result<(), String> {
        let Some(instance) = self.find(uid) else { return Err("cannot connect".to_owned()) };
        match &instance.phase {
            _ if instance.hung => Err("no answer within 1 s".to_owned()),
            Phase::Running { .. } if now_ms >= instance.ready_at => Ok(()),
            Phase::Running { .. } => Err("it answered 503 to /".to_owned()),
            _ => Err("cannot connect".to_owned()),
        }
    }

    /// Takes the turn, if the resource is still there; says whether it was.
    pub(crate) fn turn(&mut self, number: u64, turn: &Turn, now_ms: u64, warm_up_ms: u64) -> Option<Observation> {
        let instance = self.instances.get_mut(&number)?;
        match turn {
            Turn::Comes(phase) => {
                instance.phase = phase.clone();
                if instance.fate != Fate::NeverReady {
                    instance.ready_at = now_ms + warm_up_ms;
                }
            }
            Turn::Hangs => instance.hung = true,
            Turn::Vanishes => {
                let uid = instance.uid.clone();
                self.instances.remove(&number);
                return Some(Observation { uid, phase: Phase::Absent });
            }
        }
        Some(Observation { uid: instance.uid.clone(), phase: instance.phase.clone() })
    }
}

/// What a resource that was just started comes to.
pub(crate) fn course(number: u64, fate: Fate, random: &mut Random) -> Course {
    let host = u8::try_from(number % 250).expect("it is below 250") + 1;
    let address = SocketAddr::from(([127, 0, 1, host], 8080));
    let ended =
        |stage, what: &str| Turn::Comes(Phase::Ended(Ended { stage, reason: format!("{what} exited with code 1") }));
    let setting_up = (random.between(1, 2_000), Turn::Comes(Phase::SettingUp));
    let run = (random.between(1, 3_000), Turn::Comes(Phase::Running { address }));
    match fate {
        Fate::Healthy | Fate::NeverReady => vec![setting_up, run],
        Fate::FailsProvision => vec![(random.between(1, 2_000), ended(Stage::Provision, "the maker"))],
        Fate::FailsSetup => vec![setting_up, (random.between(1, 5_000), ended(Stage::Setup, "setup"))],
        Fate::SetupHangs => vec![setting_up],
        Fate::ExitsAfter(after) => vec![setting_up, run, (after, ended(Stage::Run, "run"))],
        Fate::HangsAfter(after) => vec![setting_up, run, (after, Turn::Hangs)],
        Fate::PreemptedAfter(after) => {
            vec![setting_up, run, (after, Turn::Comes(Phase::Preempted { reason: "it was reclaimed".to_owned() }))]
        }
        Fate::VanishesAfter(after) => vec![setting_up, run, (after, Turn::Vanishes)],
    }
}
