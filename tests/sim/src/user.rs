//! Users: what they ask for, what they were told, and which of it must be kept.

use crate::faults::Bug;
use crate::invariants::Violation;
use crate::world::World;
use skyserve_controller::core::{Core, RequestError};
use skyserve_model::{LaunchTemplate, OperationKind, ProbeRules, ReplicaId, ReplicaUid, Timestamp, VersionRules};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Refused(String),
    /// The controller ended, or was not there: nobody knows.
    Lost,
}

/// What replicas run that serve.
pub(crate) const RUN: &str = "serve";
/// What replicas run that never become ready.
pub(crate) const BROKEN: &str = "broken";

/// What a user's YAML asks for: so many replicas that run this.
pub fn rules(replicas: u32, run: &str) -> VersionRules {
    VersionRules {
        replicas,
        probe: ProbeRules {
            path: "/".to_owned(),
            post_data: None,
            headers: BTreeMap::new(),
            timeout_ms: 1_000,
            interval_ms: 2_000,
            initial_delay_ms: 20_000,
            failure_threshold_ms: 9_000,
        },
        launch: LaunchTemplate {
            setup: None,
            run: Some(run.to_owned()),
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

impl World {
    pub(crate) fn up(&mut self, name: &str, replicas: u32) -> Result<Answer, Violation> {
        if self.bug == Some(Bug::DriverLaunchesFirst) {
            let uid = ReplicaUid::new(name, 1, ReplicaId(1));
            self.start_call(name.to_owned(), ReplicaId(1), uid, OperationKind::Launch)?;
        }
        let taken = self.ledger.get().ports_taken.clone();
        let answer = self.ask(&format!("up {name}, {replicas} replicas"), |core, now| {
            let free = |address: std::net::SocketAddr| !taken.contains(&address.port());
            core.up(name, rules(replicas, RUN), "the YAML".to_owned(), &free, now).map(drop)
        })?;
        if answer == Answer::Done {
            self.wanted.insert(name.to_owned(), Arc::new(rules(replicas, RUN)));
        }
        self.learn_fate(name, &answer);
        // Between the check of a port and the load balancer's use of it, anybody may take it.
        let listen = self.ledger.get().services.get(name).map(|row| row.head.listen.port());
        if let Some(port) = listen.filter(|_| self.random.per_mille(self.faults.port_taken)) {
            self.ledger.get().ports_taken.insert(port);
        }
        self.flush()?;
        self.check()?;
        Ok(answer)
    }

    /// `expected` is the version that the user has seen.
    pub(crate) fn update(
        &mut self,
        name: &str,
        rules: VersionRules,
        expected: Option<u64>,
    ) -> Result<Answer, Violation> {
        let (replicas, run) = (rules.replicas, rules.launch.run.clone().unwrap_or_default());
        let asked = rules.clone();
        let what = format!("update {name}, {replicas} replicas that run `{run}`, after version {expected:?}");
        let answer =
            self.ask(&what, |core, now| core.update(name, asked, "another YAML".to_owned(), expected, now).map(drop))?;
        if answer == Answer::Done {
            self.wanted.insert(name.to_owned(), Arc::new(rules));
        }
        self.learn_fate(name, &answer);
        self.flush()?;
        self.check()?;
        Ok(answer)
    }

    pub(crate) fn down(&mut self, name: &str, purge: bool) -> Result<Answer, Violation> {
        {
            let mut ledger = self.ledger.get();
            let uids: Vec<ReplicaUid> = ledger
                .services
                .get(name)
                .map(|row| row.replicas.values().map(|replica| replica.uid.clone()).collect())
                .unwrap_or_default();
            ledger.harmed.extend(uids);
        }
        self.note_purge(name, purge);
        let answer = if self.bug == Some(Bug::AnswersBeforeStoring) {
            Answer::Done
        } else {
            self.ask(&format!("down {name}, purge {purge}"), |core, now| core.down(name, purge, now).map(drop))?
        };
        if answer == Answer::Done {
            self.wanted.remove(name);
        }
        self.learn_fate(name, &answer);
        self.flush()?;
        self.check()?;
        Ok(answer)
    }

    pub(crate) fn terminate_replica(&mut self, name: &str, id: ReplicaId, purge: bool) -> Result<Answer, Violation> {
        let uid = self.ledger.get().replica(name, id).map(|replica| replica.uid.clone());
        self.ledger.get().harmed.extend(uid);
        self.note_purge(name, purge);
        let answer = self.ask(&format!("down {name}, replica {id}, purge {purge}"), |core, now| {
            core.terminate_replica(name, id, purge, now).map(drop)
        })?;
        self.flush()?;
        self.check()?;
        Ok(answer)
    }

    fn note_purge(&mut self, name: &str, purge: bool) {
        let mut ledger = self.ledger.get();
        let prefix = ledger.services.get(name).map(|row| format!("{name}-{}-", row.head.incarnation));
        ledger.purged.extend(prefix.filter(|_| purge));
    }

    fn ask(
        &mut self,
        what: &str,
        request: impl FnOnce(&mut Core<crate::store::SimStore>, Timestamp) -> Result<(), RequestError>,
    ) -> Result<Answer, Violation> {
        let mut answer = Answer::Lost;
        self.with_core(|core, now| match request(core, now) {
            Ok(()) => {
                answer = Answer::Done;
                Ok(())
            }
            Err(RequestError::Refused(refusal)) => {
                answer = Answer::Refused(refusal.to_string());
                Ok(())
            }
            Err(RequestError::Fatal(fatal)) => Err(fatal),
        })?;
        self.note(format_args!("a user: {what}: {answer:?}"));
        Ok(answer)
    }

    /// After an answer that was lost, what is stored is what was decided.
    fn learn_fate(&mut self, name: &str, answer: &Answer) {
        if *answer != Answer::Lost {
            return;
        }
        let stored = self
            .ledger
            .get()
            .services
            .get(name)
            .filter(|row| row.head.shutdown.is_none())
            .map(|row| Arc::clone(row.rules()));
        match stored {
            Some(rules) => self.wanted.insert(name.to_owned(), rules),
            None => self.wanted.remove(name),
        };
    }
}
