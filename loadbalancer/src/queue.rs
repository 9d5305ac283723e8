//! Where requests wait for a replica: until one is ready, and while none of the ready ones can be reached.
//!
//! Invariants:
//! * At most `queue_requests_max` requests of a service wait, none longer than `queue_wait_ms_max`.
//! * Nothing of a waiting request was sent to any replica.
//! * The replica is chosen when the request leaves the queue. All are woken in the order they came.
//! * While no ready replica can be reached, one waiting request at a time tries; the others follow when
//!   it succeeds.

use crate::client;
use crate::options::Limits;
use crate::service::{Lease, Pick, Service};
use crate::sync::Ordering::Relaxed;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Pause between two tries to reach a service of which no replica can be reached: short beside the
/// start of any server, and ten refused connects a second cost nothing.
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// How often a waiting request looks whether its client is still there. hyper notices that by itself
/// only for requests without a body.
const CLIENT_CHECK: Duration = Duration::from_millis(500);

/// Why a request got no replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The queue has `queue_requests_max` requests.
    QueueFull,
    /// None is ready, and none is to come.
    NoneExpected,
    /// None became available within `queue_wait_ms_max`.
    NoneReady,
    /// Replicas are ready, but none accepted a connection within `queue_wait_ms_max`.
    NoneReachable,
    /// The service left the table.
    Removed,
    /// The client went away.
    ClientLeft,
}

/// One request's wait, over all its tries to reach a replica.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    service: &'a Arc<Service>,
    limits: &'a Limits,
    client: &'a TcpStream,
    place: Option<Place<'a>>,
    probe: Option<ProbeRole<'a>>,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(service: &'a Arc<Service>, limits: &'a Limits, client: &'a TcpStream) -> Self {
        Self { service, limits, client, place: None, probe: None }
    }

    /// The next replica to try; waits for one if need be.
    pub(crate) async fn replica(&mut self) -> Result<Lease, Refusal> {
        if let Pick::Replica(lease) = self.service.pick() {
            return Ok(lease);
        }
        if self.place.is_none() {
            self.place = Some(Place::take(self.service, self.limits)?);
        }
        self.wait().await
    }

    /// A replica accepted a connection: the request waits no more.
    pub(crate) fn satisfied(&mut self) {
        self.probe = None;
        self.place = None;
    }

    async fn wait(&mut self) -> Result<Lease, Refusal> {
        let service = self.service;
        let mut pause = self.probe.is_some();
        loop {
            // Registered before looking: a change after the look is not missed.
            let changed = service.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let refusal = match service.pick() {
                Pick::Replica(lease) => return Ok(lease),
                Pick::NoneReachable if pause => Refusal::NoneReachable,
                Pick::NoneReachable => {
                    if self.probe.is_none() {
                        self.probe = ProbeRole::claim(service);
                    }
                    if self.probe.is_some()
                        && let Pick::Replica(lease) = service.pick_unreachable()
                    {
                        return Ok(lease);
                    }
                    Refusal::NoneReachable
                }
                Pick::NoneReady => {
                    self.probe = None;
                    if service.is_removed() {
                        return Err(Refusal::Removed);
                    }
                    if !service.view().expects_replicas {
                        return Err(Refusal::NoneExpected);
                    }
                    Refusal::NoneReady
                }
            };
            let deadline = self.place.as_ref().map_or_else(Instant::now, |place| place.deadline);
            if Instant::now() >= deadline {
                return Err(refusal);
            }
            if client::has_left(self.client) {
                return Err(Refusal::ClientLeft);
            }
            let look_again = Instant::now() + if self.probe.is_some() { PROBE_PAUSE } else { CLIENT_CHECK };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(deadline.min(look_again)) => pause = false,
            }
        }
    }
}

/// A place in a service's queue.
#[derive(Debug)]
struct Place<'a> {
    service: &'a Service,
    since: Instant,
    deadline: Instant,
}

impl<'a> Place<'a> {
    fn take(service: &'a Service, limits: &Limits) -> Result<Self, Refusal> {
        if service.is_removed() {
            return Err(Refusal::Removed);
        }
        let free = |queued: usize| (queued < limits.queue_requests_max).then_some(queued + 1);
        service.queued.fetch_update(Relaxed, Relaxed, free).map_err(|_| Refusal::QueueFull)?;
        service.wakes.notify_waiters();
        let since = Instant::now();
        Ok(Self { service, since, deadline: since + Duration::from_millis(limits.queue_wait_ms_max) })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.service.queued.fetch_sub(1, Relaxed);
        self.service.metrics.queue_wait.observe(self.since.elapsed().as_secs_f64());
    }
}

/// The task of trying replicas that could not be reached.
#[derive(Debug)]
struct ProbeRole<'a> {
    service: &'a Service,
}

impl<'a> ProbeRole<'a> {
    fn claim(service: &'a Service) -> Option<Self> {
        (!service.probed.swap(true, Relaxed)).then_some(Self { service })
    }
}

impl Drop for ProbeRole<'_> {
    fn drop(&mut self) {
        self.service.probed.store(false, Relaxed);
        // Another takes over, if this one was not successful.
        self.service.changed.notify_waiters();
    }
}
