use super::*;
use skyserve_routes::TableVersion;

fn version(epoch: u64, seq: u64) -> TableVersion {
    TableVersion { epoch, seq }
}

fn load(listening: bool, in_flight: &[(&str, u64)]) -> ServiceLoad {
    ServiceLoad {
        listening,
        requests_total: 10,
        in_flight: in_flight.iter().map(|(_, count)| count).sum(),
        queued: 1,
        responses_by_class: [0, 9, 0, 0, 1],
        replicas_in_flight: in_flight.iter().map(|(uid, count)| ((*uid).to_owned(), *count)).collect(),
        ..ServiceLoad::default()
    }
}

fn report(table: Option<TableVersion>, services: &[(&str, ServiceLoad)]) -> Report {
    let services = services.iter().map(|(name, load)| ((*name).to_owned(), load.clone())).collect();
    Report { table, services, ..Report::default() }
}

#[test]
fn the_oldest_table_in_force_counts_and_none_while_one_has_none() {
    let with = |versions: &[Option<TableVersion>]| {
        let reports: Vec<Option<Report>> = versions.iter().map(|table| Some(report(*table, &[]))).collect();
        merge(&reports).table
    };
    assert_eq!(with(&[Some(version(2, 1)), Some(version(1, 9))]), Some(version(1, 9)));
    assert_eq!(with(&[Some(version(2, 1)), None]), None);
    assert_eq!(merge(&[Some(report(Some(version(2, 1)), &[])), None]).table, None, "one is silent");
}

#[test]
fn an_endpoint_listens_only_when_it_does_with_all() {
    let listens = |loads: &[Option<bool>]| {
        let of = |listening: &Option<bool>| match listening {
            Some(listening) => Some(report(None, &[("a", load(*listening, &[]))])),
            None => Some(report(None, &[])),
        };
        let reports: Vec<Option<Report>> = loads.iter().map(of).collect();
        merge(&reports).services["a"].listening
    };
    assert!(listens(&[Some(true), Some(true)]));
    assert!(!listens(&[Some(true), Some(false)]) && !listens(&[Some(false), Some(true)]));
    assert!(!listens(&[Some(true), None]), "one does not know the service yet");
}

#[test]
fn requests_are_summed_by_replica_also_of_a_service_that_one_has_left() {
    let first = report(None, &[("a", load(true, &[("a-1-1", 2), ("a-1-2", 1)]))]);
    let second = report(None, &[("a", load(true, &[("a-1-1", 3)])), ("gone", load(false, &[("gone-1-1", 1)]))]);
    let merged = merge(&[Some(first), Some(second)]);
    let a = &merged.services["a"];
    assert_eq!((a.requests_total, a.in_flight, a.queued, a.responses_by_class), (20, 6, 2, [0, 18, 0, 0, 2]));
    assert_eq!(a.replicas_in_flight, BTreeMap::from([("a-1-1".into(), 5), ("a-1-2".into(), 1)]));
    assert_eq!(merged.services["gone"].replicas_in_flight["gone-1-1"], 1);
}

#[test]
fn a_table_that_is_lost_is_told_and_one_that_has_not_come_yet_is_not() {
    let error = |table| Report { table_error: Some("no such file".into()), ..report(table, &[]) };
    assert_eq!(merge(&[Some(error(None))]).table_error, None);
    assert!(merge(&[Some(error(Some(version(1, 1))))]).table_error.is_some());
}

#[test]
fn a_load_balancer_that_says_nothing_is_waited_for_but_not_for_ever() {
    let mut hearing = Hearing::default();
    let start = Instant::now();
    let current = || Ok(report(Some(version(2, 1)), &[]));
    let silent = || Err("no answer".to_owned());
    let named = |answers: [Result<Report, String>; 2]| {
        ["a", "b"].map(str::to_owned).into_iter().zip(answers).collect::<Vec<_>>()
    };
    assert_eq!(hearing.take(named([current(), current()]), start).unwrap().table, Some(version(2, 1)));
    let lost_at = start + Duration::from_secs(60);
    hearing.take(named([current(), current()]), lost_at).unwrap();
    let short_of = lost_at + SILENCE_MAX - Duration::from_millis(1);
    assert_eq!(hearing.take(named([current(), silent()]), short_of).unwrap().table, None);
    assert_eq!(hearing.take(named([current(), silent()]), lost_at + SILENCE_MAX).unwrap().table, Some(version(2, 1)));
    // It comes back with what it had.
    let stale = Ok(report(Some(version(1, 1)), &[]));
    assert_eq!(hearing.take(named([current(), stale]), lost_at + SILENCE_MAX).unwrap().table, Some(version(1, 1)));
    // A new one under the same roof is waited for from when it was first asked.
    let new = vec![("a".to_owned(), current()), ("c".to_owned(), silent())];
    assert_eq!(hearing.take(new, lost_at + 2 * SILENCE_MAX).unwrap().table, None);
    assert!(!hearing.heard.contains_key("b"));
}

#[test]
fn without_any_answer_there_is_no_report() {
    let mut hearing = Hearing::default();
    assert!(hearing.take(Vec::new(), Instant::now()).unwrap_err().contains("none of their pods runs"));
    let silent = vec![("a".to_owned(), Err("no answer".to_owned()))];
    assert_eq!(hearing.take(silent, Instant::now()).unwrap_err(), "no answer");
}

#[test]
fn a_pod_is_asked_once_it_runs_and_has_an_address() {
    let pod = |phase: &str, ip: Option<&str>| {
        let status = k8s_openapi::api::core::v1::PodStatus {
            phase: Some(phase.to_owned()),
            pod_ip: ip.map(str::to_owned),
            ..Default::default()
        };
        Pod { status: Some(status), ..Pod::default() }
    };
    assert_eq!(address(&pod("Running", Some("10.0.0.1")), 9090), Some("10.0.0.1:9090".parse().unwrap()));
    for other in [pod("Pending", Some("10.0.0.1")), pod("Running", None), pod("Failed", Some("10.0.0.1"))] {
        assert_eq!(address(&other, 9090), None);
    }
}
