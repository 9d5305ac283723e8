//! Every status that users see, reached from `up` by events alone, with the reason that is shown.

use super::fixture::{FAILURE_THRESHOLD_MS, Fixture, INITIAL_DELAY_MS, ended, preempted, running};
use crate::limits::{LAUNCHES_AT_ONCE_MAX, TERMINATE_ATTEMPTS_SHOWN};
use crate::{Event, OperationKind, Phase, ReplicaId, ReplicaStatus as R, ServiceStatus as S, Stage};
use std::collections::BTreeSet;

fn started() -> Fixture {
    let mut fixture = Fixture::new(1);
    fixture.called(1, OperationKind::Launch);
    fixture.observe(1, running(1));
    fixture
}

fn cleanup_failed(mut fixture: Fixture) -> Fixture {
    for _ in 0..TERMINATE_ATTEMPTS_SHOWN {
        fixture.call_failed(1, OperationKind::Terminate, true);
    }
    fixture
}

fn with(mut fixture: Fixture, change: impl FnOnce(&mut Fixture)) -> Fixture {
    change(&mut fixture);
    fixture
}

/// A service whose replica 1 (or the last of many) has the status, and the reason that is shown.
fn replica_in(status: R) -> (Fixture, u64, &'static str) {
    let reached = |fixture, reason| (fixture, 1, reason);
    match status {
        R::Pending => {
            let many = LAUNCHES_AT_ONCE_MAX + 1;
            let fixture = Fixture::new(u32::try_from(many).expect("it is small"));
            (fixture, many as u64, "waiting for its turn to be launched")
        }
        R::Provisioning => reached(
            with(Fixture::new(1), |fixture| {
                fixture.observe(1, Phase::Provisioning { reason: Some("pulling the image".to_owned()) });
            }),
            "pulling the image",
        ),
        R::Starting => reached(
            with(Fixture::new(1), |fixture| {
                fixture.observe(1, Phase::SettingUp);
            }),
            "its setup commands are running",
        ),
        R::Ready => reached(Fixture::ready(1), ""),
        R::NotReady => reached(
            with(Fixture::ready(1), |fixture| {
                fixture.probe(1, false);
            }),
            "its readiness probe fails: it answered 503",
        ),
        R::ShuttingDown => reached(
            with(Fixture::ready(1), |fixture| {
                fixture.terminate(1, false);
            }),
            "replica 1 was taken down by `down --replica-id`",
        ),
        R::Failed => reached(
            with(started(), |fixture| {
                fixture.observe(1, ended(Stage::Setup));
            }),
            "it exited with code 3 after 12 s",
        ),
        R::FailedInitialDelay => reached(
            with(started(), |fixture| {
                fixture.pass_ms(INITIAL_DELAY_MS + 1);
                fixture.probe(1, false);
            }),
            "it was not ready within initial_delay_seconds (20 s); its last probe: it answered 503",
        ),
        R::FailedProbing => reached(
            with(Fixture::ready(1), |fixture| {
                fixture.probe(1, false);
                fixture.pass_ms(FAILURE_THRESHOLD_MS);
                fixture.probe(1, false);
            }),
            "its readiness probe failed for 9 s; the last one: it answered 503",
        ),
        R::FailedProvision => reached(
            with(Fixture::new(1), |fixture| {
                fixture.call_failed(1, OperationKind::Launch, false);
            }),
            "no capacity",
        ),
        R::FailedCleanup => reached(
            cleanup_failed(with(Fixture::ready(1), |fixture| {
                fixture.observe(1, preempted());
            })),
            "no capacity",
        ),
        R::Preempted => reached(
            with(Fixture::ready(1), |fixture| {
                fixture.observe(1, preempted());
            }),
            "the node was reclaimed",
        ),
        R::Unknown => {
            let fixture = with(Fixture::ready(1), |fixture| {
                fixture.apply(&Event::Orphaned { uid: fixture.service.uid(ReplicaId(4)) });
            });
            (fixture, 4, "it was found at the provider without a record here; it is being removed")
        }
    }
}

#[test]
fn every_replica_status_is_reached_with_its_reason() {
    let mut names = BTreeSet::new();
    for status in R::ALL {
        let (fixture, id, reason) = replica_in(status);
        assert_eq!((fixture.status(id), fixture.reason(id)), (status, reason));
        assert_eq!(R::parse(status.name()), Some(status));
        assert_eq!(format!("{status:>22}"), format!("{:>22}", status.name()));
        names.insert(status.name());
    }
    assert_eq!(names.len(), 13, "SkyServe has 13, each with a name of its own");
    assert_eq!(R::parse("ready"), None);
    for kind in [OperationKind::Launch, OperationKind::Terminate] {
        assert_eq!(OperationKind::parse(kind.name()), Some(kind));
    }
}

/// A service in the status, and its reason; `None` for the one status that is not the model's to say.
fn service_in(status: S) -> Option<(Fixture, Option<&'static str>)> {
    let confirmed = |fixture| {
        with(fixture, |fixture: &mut Fixture| {
            fixture.apply(&Event::EndpointListens);
        })
    };
    Some(match status {
        S::ControllerInit => (Fixture::new(1), Some("waiting for the endpoint to listen on 127.0.1.200:8080")),
        S::ReplicaInit => {
            (confirmed(started()), Some("replica 1 is STARTING: waiting for its first readiness probe to pass"))
        }
        S::Ready => (Fixture::ready(1), None),
        S::NoReplica => {
            let fixture = with(Fixture::ready(1), |fixture| {
                fixture.probe(1, false);
            });
            (fixture, Some("replica 1 is NOT_READY: its readiness probe fails: it answered 503"))
        }
        S::ShuttingDown => {
            let fixture = with(Fixture::ready(1), |fixture| {
                fixture.apply(&Event::Shutdown { purge: false });
            });
            (fixture, None)
        }
        S::Failed => {
            let fixture = with(confirmed(Fixture::new(1)), |fixture| {
                for id in 1..=5 {
                    fixture.observe(id, ended(Stage::Run));
                    fixture.pass_ms(600_000);
                }
            });
            let reason = "5 replicas in a row failed before any was ready, so no more are launched; the last, replica 5: \
                          it exited with code 3 after 12 s. Read its log, mend what is wrong, then `update` the service";
            (fixture, Some(reason))
        }
        S::FailedCleanup => {
            let fixture = cleanup_failed(with(Fixture::ready(1), |fixture| {
                fixture.apply(&Event::Shutdown { purge: false });
            }));
            (fixture, Some("replica 1 cannot be removed: no capacity"))
        }
        S::ControllerFailed => return None,
    })
}

#[test]
fn every_service_status_of_the_model_is_reached_with_its_reason() {
    let mut reached = 0;
    for status in S::ALL {
        let Some((fixture, reason)) = service_in(status) else { continue };
        assert_eq!((fixture.service.status(), fixture.service.status_reason().as_deref()), (status, reason));
        assert_eq!(format!("{status:>20}"), format!("{:>20}", status.name()));
        reached += 1;
    }
    let names: BTreeSet<&str> = S::ALL.into_iter().map(S::name).collect();
    assert_eq!((names.len(), names.contains("NO_REPLICA")), (S::ALL.len(), true), "{names:?}");
    assert_eq!(reached, 7, "all but CONTROLLER_FAILED, which only the command line can see");
}

#[test]
fn a_service_that_was_ready_and_has_replicas_on_their_way_is_in_replica_init() {
    let mut fixture = Fixture::ready(1);
    fixture.observe(1, ended(Stage::Run));
    assert_eq!(fixture.service.status(), S::ReplicaInit);
    assert_eq!(fixture.service.status_reason(), None, "the newest has nothing to say yet");
}

#[test]
fn a_service_without_a_target_is_no_replica() {
    let fixture = with(Fixture::new(0), |fixture| {
        fixture.apply(&Event::EndpointListens);
    });
    assert_eq!(fixture.service.status(), S::NoReplica);
    assert_eq!(fixture.service.status_reason().as_deref(), Some("it asks for 0 replicas"));
}

#[test]
fn failed_cleanup_is_left_when_the_removal_passes_at_last() {
    let mut fixture = cleanup_failed(with(Fixture::ready(1), |fixture| {
        fixture.apply(&Event::Shutdown { purge: false });
    }));
    assert_eq!(fixture.service.status(), S::FailedCleanup);
    fixture.called(1, OperationKind::Terminate);
    assert_eq!(fixture.service.status(), S::ShuttingDown);
    assert!(fixture.service.is_gone());
}
