//! What the provider and the load balancer show, turned into events of the services concerned.

use super::{Core, Fatal, LIST_INTERVAL_MS, Outside, PUBLISH_AGAIN_MS};
use skyserve_model::{Event, Observation, Phase, ReplicaId, ReplicaUid, Timestamp};
use skyserve_recovery::Store;
use skyserve_routes::TableVersion;
use skyserve_routes::report::Report;
use std::collections::BTreeSet;

/// No database gives out so many. A name that somebody made up does not use up the numbers that one can store.
const INCARNATIONS_BELIEVED: u64 = 1 << 48;

impl<S: Store> Core<S> {
    pub(super) fn observed(&mut self, observation: &Observation, seen_at: Timestamp) {
        let Some((name, replica)) = self.owner(&observation.uid) else {
            self.strange(&observation.uid);
            return;
        };
        self.note(&name, Event::Observed { replica, phase: observation.phase.clone(), seen_at });
    }

    pub(super) fn listed(&mut self, observations: &[Observation], began_at: Timestamp, now: Timestamp) {
        self.listing = false;
        if !self.has_listed {
            self.has_listed = true;
            self.revision += 1;
        }
        self.list_at = if self.list_again { now } else { now.plus_ms(LIST_INTERVAL_MS) };
        let mut seen = BTreeSet::new();
        for observation in observations {
            let Some((name, replica)) = self.owner(&observation.uid) else {
                tracing::warn!("replica {} runs but belongs to no service; nothing is done to it", observation.uid);
                self.strange(&observation.uid);
                continue;
            };
            seen.insert(observation.uid.clone());
            let known = self.services.get(&name).is_some_and(|managed| managed.service.replicas.contains_key(&replica));
            let event = if known {
                Event::Observed { replica, phase: observation.phase.clone(), seen_at: began_at }
            } else {
                Event::Orphaned { uid: observation.uid.clone() }
            };
            self.note(&name, event);
        }
        let absent: Vec<(String, ReplicaId)> = self
            .services
            .values()
            .flat_map(|managed| managed.service.alive().map(|replica| (managed.service.head.name.clone(), replica)))
            .filter(|(_, replica)| replica.operation.is_none() && !seen.contains(&replica.uid))
            .map(|(name, replica)| (name, replica.id))
            .collect();
        for (name, replica) in absent {
            self.note(&name, Event::Observed { replica, phase: Phase::Absent, seen_at: began_at });
        }
    }

    /// A replica of an incarnation that this database does not know, such as after an older copy was put back: no service
    /// gets that incarnation, or the replica would be taken for its.
    fn strange(&mut self, uid: &ReplicaUid) {
        let used = uid.incarnation().filter(|incarnation| *incarnation < INCARNATIONS_BELIEVED);
        self.next_incarnation = self.next_incarnation.max(used.map_or(0, |incarnation| incarnation + 1));
    }

    pub(super) fn load(&mut self, report: &Report, now: Timestamp) -> Result<(), Fatal> {
        let mut events: Vec<(String, Event)> = Vec::new();
        let mut displaced: Vec<String> = Vec::new();
        let knows = |since: TableVersion| report.table.is_some_and(|table| table >= since);
        for (name, managed) in &self.services {
            let load = report.services.get(name);
            if let Some(load) = load.filter(|_| managed.awaits_endpoint() && managed.offered.is_some_and(knows)) {
                if load.listening {
                    events.push((name.clone(), Event::EndpointListens));
                } else if load.address_in_use {
                    displaced.push(name.clone());
                }
            }
            for (replica, since) in &managed.draining {
                let uid = managed.service.uid(*replica);
                let busy =
                    load.and_then(|load| load.replicas_in_flight.get(uid.as_str())).is_some_and(|count| *count > 0);
                if !busy && knows(*since) {
                    events.push((name.clone(), Event::Drained { replica: *replica }));
                }
            }
        }
        for (name, event) in events {
            self.note(&name, event);
        }
        self.note_report(report, now);
        if report.table_error.is_some() && self.publish_again_at <= now {
            // The file was damaged or removed under the load balancer: give it another.
            self.publish_again_at = now.plus_ms(PUBLISH_AGAIN_MS);
            self.publish_failed();
        }
        // One after the other: each takes its port before the next looks for one.
        for name in displaced {
            self.displace(&name, now)?;
        }
        Ok(())
    }

    /// What the report says that only views show.
    fn note_report(&mut self, report: &Report, now: Timestamp) {
        if report.metrics_address.is_some() && report.metrics_address != self.metrics_address {
            self.metrics_address = report.metrics_address;
            self.revision += 1;
        }
        let problem = |name: &String| report.services.get(name).and_then(|load| load.listen_error.clone());
        let news: Vec<(String, Option<String>)> = self
            .services
            .iter()
            .map(|(name, managed)| (name.clone(), problem(name), &managed.listen_problem))
            .filter(|(_, now, before)| now != *before)
            .map(|(name, now, _)| (name, now))
            .collect();
        for (name, problem) in news {
            if let Some(managed) = self.services.get_mut(&name) {
                managed.listen_problem = problem;
            }
            self.changed(&name, now);
        }
    }

    /// Only views show it.
    pub(super) fn exposed(&mut self, name: &str, outside: Outside, now: Timestamp) {
        let Some(managed) = self.services.get_mut(name) else { return };
        if self.options.exposed && managed.outside.as_ref() != Some(&outside) {
            managed.outside = Some(outside);
            self.changed(name, now);
        }
    }

    /// Another program has taken the port of an endpoint that nobody was told of yet.
    pub(super) fn displace(&mut self, name: &str, now: Timestamp) -> Result<(), Fatal> {
        let Some(managed) = self.services.get_mut(name) else { return Ok(()) };
        self.ports_taken.insert(managed.service.head.listen.port());
        let Ok(listen) = self.free_address(&|_| true) else { return Ok(()) };
        tracing::warn!(service = %name, "the endpoint's port is in use by another program, moving to {listen}");
        self.apply(name, &[Event::EndpointMoves { listen }], now)?;
        // Unless that could not be stored, and it stays.
        if let Some(managed) = self.services.get_mut(name).filter(|managed| managed.service.head.listen == listen) {
            managed.offered = None;
        }
        Ok(())
    }

    /// The service that has or had the replica `uid`, and the replica's id.
    pub(super) fn owner(&self, uid: &ReplicaUid) -> Option<(String, ReplicaId)> {
        let name = uid.as_str().rsplitn(3, '-').nth(2)?;
        let replica = self.services.get(name)?.service.replica_id(uid)?;
        Some((name.to_owned(), replica))
    }
}
