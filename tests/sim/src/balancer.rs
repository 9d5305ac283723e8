//! The load balancer, simulated: takes the published table, has requests in flight, reports on itself.
//! It goes on while no controller runs, and may itself be down.

use crate::clock::Random;
use crate::faults::Bug;
use skyserve_routes::report::{Report, ServiceLoad};
use skyserve_routes::{ReplicaRouteState, RouteTable};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Balancer {
    pub(crate) is_up: bool,
    /// Each time it starts it is another process.
    pub(crate) life: u64,
    pub(crate) table: Option<RouteTable>,
    /// By service and replica uid.
    in_flight: BTreeMap<(String, String), u64>,
}

impl Balancer {
    pub(crate) fn new() -> Self {
        Self { is_up: true, ..Self::default() }
    }

    /// Reads the published table; one that is not newer than the one in force is left alone.
    pub(crate) fn read(&mut self, file: Option<&RouteTable>) {
        let Some(file) = file.filter(|_| self.is_up) else { return };
        if self.table.as_ref().is_none_or(|table| table.version() < file.version()) {
            self.table = Some(file.clone());
        }
    }

    pub(crate) fn die(&mut self) {
        self.is_up = false;
        self.life += 1;
        self.table = None;
        self.in_flight.clear();
    }

    /// Where it listens, by service.
    pub(crate) fn listens(&self, ports_taken: &BTreeSet<u16>) -> Vec<(String, SocketAddr)> {
        let services = self.table.iter().flat_map(|table| &table.services);
        services
            .filter(|service| !ports_taken.contains(&service.listen.port()))
            .map(|service| (service.name.clone(), service.listen))
            .collect()
    }

    /// Sends a request to a replica that gets requests; gives the service and the uid.
    pub(crate) fn forward(&mut self, random: &mut Random) -> Option<(String, String)> {
        let table = self.table.as_ref()?;
        let targets: Vec<(String, String)> = table
            .services
            .iter()
            .flat_map(|service| service.replicas.iter().map(|replica| (&service.name, replica)))
            .filter(|(_, replica)| replica.state == ReplicaRouteState::Ready)
            .map(|(name, replica)| (name.clone(), replica.uid.clone()))
            .collect();
        let target = random.pick(&targets)?.clone();
        *self.in_flight.entry(target.clone()).or_default() += 1;
        Some(target)
    }

    pub(crate) fn answer(&mut self, target: &(String, String)) {
        if let Some(count) = self.in_flight.get_mut(target) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(target);
            }
        }
    }

    pub(crate) fn requests_of(&self, uid: &str) -> u64 {
        self.in_flight.iter().filter(|((_, other), _)| other == uid).map(|(_, count)| count).sum()
    }

    /// What it says of itself; nothing while it is down.
    pub(crate) fn report(&self, ports_taken: &BTreeSet<u16>, bug: Option<Bug>) -> Option<Report> {
        if !self.is_up {
            return None;
        }
        let mut services: BTreeMap<String, ServiceLoad> = BTreeMap::new();
        for service in self.table.iter().flat_map(|table| &table.services) {
            let claims = bug == Some(Bug::BalancerClaimsToListen);
            let taken = ports_taken.contains(&service.listen.port()) && !claims;
            let load = ServiceLoad { listening: !taken, address_in_use: taken, ..ServiceLoad::default() };
            services.insert(service.name.clone(), load);
        }
        // A service that left the table is still spoken of while it has requests.
        for ((service, uid), count) in self.in_flight.iter().filter(|_| bug != Some(Bug::BalancerHidesRequests)) {
            let load = services.entry(service.clone()).or_default();
            load.in_flight += count;
            load.replicas_in_flight.insert(uid.clone(), *count);
        }
        Some(Report { table: self.table.as_ref().map(RouteTable::version), services, ..Report::default() })
    }
}
