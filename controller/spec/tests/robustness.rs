//! Whatever the bytes, there is a verdict: no panic, and none that takes long.

use proptest::prelude::*;
use skyserve_spec::config::Config;
use skyserve_spec::{Command, LoadOptions, Target, TaskSpec, load, parse_env_file};

/// A task that has something in nearly every field.
const TASK: &str = "\
name: web
envs: {MODEL: m, PORT: 8080, NONE: \"\"}
secrets: {TOKEN: t, OTHER: }
workdir: ./src/$MODEL
file_mounts:
  /etc/app: ./${MODEL}.conf
  /data: {name: bucket, mode: MOUNT}
service:
  readiness_probe:
    path: /health
    initial_delay_seconds: 1:30
    post_data: &data {model: $MODEL, list: [1, 2.5, ~, yes]}
    headers: {Authorization: Bearer $TOKEN}
  replica_policy:
    <<: {min_replicas: 2, max_replicas: 2}
    max_replicas: 2
  load_balancing_policy: round_robin
  load_balancer: {stream_timeout_seconds: 5}
  ports: 8080
resources:
  ports: [8080, 9000-9010]
  any_of:
    - {cpus: 2+, memory: 8GB, accelerators: \"A100:2\"}
    - {infra: k8s/ctx, image_id: docker:ubuntu, disk_size: 1TB}
setup: |
  pip install x
run: >-
  serve --port $PORT
";

/// Pieces that mean something to YAML or to a task.
const PIECES: [&str; 40] = [
    ":",
    ": ",
    "- ",
    "\n",
    "\n  ",
    " ",
    "\t",
    "#",
    " #",
    "{",
    "}",
    "[",
    "]",
    ",",
    "&a ",
    "*a",
    "*data",
    "!",
    "!!str ",
    "!x,",
    "|",
    ">",
    "|2\n",
    "\"",
    "'",
    "\\",
    "%",
    "@",
    "? ",
    "<<: ",
    "---",
    "\n---\n",
    "$MODEL",
    "${",
    "~",
    ".nan",
    "-1",
    "99999999999999999999",
    "\u{feff}",
    "é\u{2028}",
];

#[derive(Debug, Clone)]
enum Mutation {
    Insert(usize, usize),
    Remove(usize, usize),
    Repeat(usize, usize),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let mutation = prop_oneof![
        (any::<usize>(), 0..PIECES.len()).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        (any::<usize>(), 1..20usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (any::<usize>(), 1..80usize).prop_map(|(at, length)| Mutation::Repeat(at, length)),
    ];
    prop::collection::vec(mutation, 1..5)
}

fn mutated(mutations: &[Mutation]) -> String {
    let mut text: Vec<char> = TASK.chars().collect();
    for mutation in mutations {
        match *mutation {
            Mutation::Insert(at, piece) => {
                let at = at % (text.len() + 1);
                text.splice(at..at, PIECES[piece].chars());
            }
            Mutation::Remove(at, length) if !text.is_empty() => {
                let at = at % text.len();
                text.drain(at..(at + length).min(text.len()));
            }
            Mutation::Repeat(at, length) if !text.is_empty() => {
                let at = at % text.len();
                let piece = text[at..(at + length).min(text.len())].to_vec();
                text.splice(at..at, piece);
            }
            Mutation::Remove(..) | Mutation::Repeat(..) => {}
        }
    }
    text.into_iter().collect()
}

/// Judges for every command and target; what is accepted must survive being stored, and what is
/// refused must say where and why.
fn judge(source: &[u8]) {
    for command in [Command::ServeUp, Command::PoolApply] {
        for target in [Target::LocalProcesses, Target::Kubernetes] {
            match load(source, "x.yaml", &LoadOptions { command, target, ..LoadOptions::default() }) {
                Ok(loaded) => {
                    let json = serde_json::to_string(&loaded.task).expect("a task is JSON");
                    let stored: TaskSpec = serde_json::from_str(&json).expect("its JSON is a task");
                    assert_eq!(stored, loaded.task);
                    loaded.task.service.probe();
                    loaded.task.launch_amounts();
                    assert!(loaded.task.service.pool || loaded.task.ports().contains(&loaded.task.service.port()));
                    assert!(loaded.task.normalised().is_object());
                }
                Err(error) => assert!(error.to_string().starts_with("x.yaml") && !error.problem.is_empty()),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_get_a_verdict(source in prop::collection::vec(any::<u8>(), 0..400)) {
        judge(&source);
        let _verdict = Config::parse(&source, "config.yaml");
        let _verdict = parse_env_file(&source, "dev.env", |_| None);
    }

    #[test]
    fn any_text_of_yaml_pieces_gets_a_verdict(pieces in prop::collection::vec(0..PIECES.len(), 0..60)) {
        let text: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        judge(text.as_bytes());
        let _verdict = Config::parse(text.as_bytes(), "config.yaml");
        let _verdict = parse_env_file(text.as_bytes(), "dev.env", |_| None);
    }

    #[test]
    fn a_task_with_slips_of_the_finger_gets_a_verdict(mutations in mutations()) {
        judge(mutated(&mutations).as_bytes());
    }

    #[test]
    fn a_task_cut_off_anywhere_gets_a_verdict(length in 0..TASK.len()) {
        judge(&TASK.as_bytes()[..length]);
    }
}

#[test]
fn the_task_that_is_mutated_is_a_good_one() {
    let loaded = load(TASK.as_bytes(), "x.yaml", &LoadOptions::default()).expect("a valid task");
    assert_eq!(loaded.task.workdir, Some(skyserve_spec::Workdir::Local("./src/m".to_owned())));
    assert_eq!(loaded.task.service.min_replicas, 2);
}

#[test]
fn probes_come_in_a_form_that_can_be_sent() {
    let loaded = load(TASK.as_bytes(), "x.yaml", &LoadOptions::default()).expect("a valid task");
    let probe = loaded.task.service.probe();
    assert_eq!((probe.method.as_str(), probe.path.as_str()), ("POST", "/health"));
    assert_eq!(probe.body.as_deref(), Some(r#"{"model": "m", "list": [1, 2.5, null, true]}"#));
    assert_eq!(probe.headers["Authorization"], "Bearer t");
    assert_eq!((probe.initial_delay.as_secs(), probe.timeout.as_secs(), probe.interval.as_secs()), (90, 15, 10));
    assert_eq!(probe.failure_threshold.as_secs(), 180);
    let amounts = loaded.task.launch_amounts();
    assert_eq!(amounts.cpus.map(|cpus| (cpus.value, cpus.or_more)), Some((2.0, true)));
    assert_eq!(amounts.memory_gb.map(|memory| (memory.value, memory.or_more)), Some((8.0, false)));
    assert_eq!(loaded.task.ports().len(), 12);
    let shown = format!("{:?} {probe:?}", loaded.task);
    assert!(!shown.contains("Bearer t"), "{shown}");
}

#[test]
fn a_file_made_to_cost_much_is_refused_soon() {
    let fields: String = (0..20_000).map(|number| format!("replica{number}: 1\n")).collect();
    judge(fields.as_bytes());
    let choices = format!("service: {{}}\nresources: {{ports: 1, any_of: [{}]}}\n", "{gpus: [a, b]}, ".repeat(5000));
    judge(choices.as_bytes());
    let variables =
        format!("envs: {{V: {}}}\nservice: {{readiness_probe: \"{}\"}}\n", "x".repeat(500_000), "/$V".repeat(100_000));
    judge(variables.as_bytes());
    judge("[".repeat(500_000).as_bytes());
    judge("{a: ".repeat(200_000).as_bytes());
    judge("- ".repeat(400_000).as_bytes());
}
