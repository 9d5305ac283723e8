use super::*;
use crate::launch::Amount;
use crate::step::tests::fixture::{rules, runs};

fn words(before: &VersionRules, after: &VersionRules) -> Vec<(String, bool)> {
    let differences = before.differences(after).into_iter();
    differences.map(|difference| (difference.what, difference.needs_new_replicas)).collect()
}

#[test]
fn what_is_the_same_differs_in_nothing() {
    assert_eq!(rules(2).differences(&rules(2)), []);
}

#[test]
fn numbers_are_shown_and_need_no_new_replicas() {
    let mut after = rules(4);
    after.probe.path = "/health".to_owned();
    after.probe.initial_delay_ms = 1_500;
    after.load_balancing_policy = "round_robin".to_owned();
    after.stream_timeout_ms = 60_000;
    let expected = [
        "replicas: 2 → 4",
        "readiness_probe.path: / → /health",
        "readiness_probe.initial_delay_seconds: 20 → 1.5",
        "load_balancing_policy: least_load → round_robin",
        "stream_timeout_seconds: 120 → 60",
    ];
    assert_eq!(words(&rules(2), &after), expected.map(|what| (what.to_owned(), false)));
}

/// A change of how replicas are launched.
type Launch = fn(&mut LaunchTemplate);

#[test]
fn whatever_differs_in_how_replicas_are_launched_is_named_and_needs_new_ones() {
    let changes: [(&str, Launch); 14] = [
        ("setup", |launch| launch.setup = Some("x".to_owned())),
        ("run", |launch| launch.run = Some("x".to_owned())),
        ("envs: A (new)", |launch| launch.envs = BTreeMap::from([("A".to_owned(), "hush".to_owned())])),
        ("secrets: A (new)", |launch| launch.secrets = BTreeMap::from([("A".to_owned(), "hush".to_owned())])),
        ("port of each replica: 8080 → 9090", |launch| launch.port = 9090),
        ("resources", |launch| launch.ports = vec![1]),
        ("resources", |launch| launch.cpus = Some(Amount { value: 1.0, or_more: true })),
        ("resources", |launch| launch.memory_gb = Some(Amount { value: 1.0, or_more: true })),
        ("resources", |launch| launch.accelerators = BTreeMap::from([("A100".to_owned(), 1.0)])),
        ("resources", |launch| launch.use_spot = true),
        ("image: the default → x", |launch| launch.image = Some("x".to_owned())),
        ("the files of workdir and file_mounts", |launch| launch.bundle = Some("x".to_owned())),
        ("the files of workdir and file_mounts", |launch| launch.has_workdir = true),
        ("the files of workdir and file_mounts", |launch| launch.file_mounts = vec!["x".to_owned()]),
    ];
    for (what, change) in changes {
        let mut after = rules(1);
        change(&mut after.launch);
        assert_ne!(after.launch, rules(1).launch);
        assert_eq!(words(&rules(1), &after), [(what.to_owned(), true)]);
    }
}

#[test]
fn variables_are_named_and_their_values_never_shown() {
    let (mut before, mut after) = (runs("serve", 1), runs("serve", 1));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    before.launch.envs = BTreeMap::from([pair("GONE", "hush"), pair("SAME", "hush"), pair("OTHER", "hush")]);
    after.launch.envs = BTreeMap::from([pair("SAME", "hush"), pair("OTHER", "hush 2"), pair("NEW", "hush")]);
    after.probe.headers = BTreeMap::from([pair("Authorization", "hush")]);
    let shown = words(&before, &after);
    assert_eq!(
        shown,
        [
            ("readiness_probe.headers: Authorization (new)".to_owned(), false),
            ("envs: NEW (new), OTHER, GONE (left out)".to_owned(), true)
        ]
    );
}
