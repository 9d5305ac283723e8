use super::*;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One recorded run of SkyServe's policies (`policies.jsonl`).
#[derive(Deserialize)]
struct Trace {
    name: String,
    policy: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Step {
    SetReady { order_after: Vec<String> },
    SetInfo { gpu: BTreeMap<String, String> },
    SetQps { qps: InOrder },
    Select { chosen: Option<String> },
    Begin { request: String, url: String },
    Release { request: String },
}

/// A map as written: among keys that match an accelerator the first wins.
struct InOrder(Vec<(String, f64)>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> serde::de::Visitor<'de> for Entries {
            type Value = InOrder;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a map of rates")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<InOrder, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(InOrder(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Replays a trace against [`choose`], with the bookkeeping that the proxy does around it.
#[derive(Default)]
struct Replay {
    ready: Vec<String>,
    loads: BTreeMap<String, u64>,
    weights: BTreeMap<String, f64>,
    accelerators: BTreeMap<String, String>,
    qps: Vec<(String, f64)>,
    open: BTreeMap<String, String>,
    cursor: AtomicUsize,
}

impl Replay {
    fn set_ready(&mut self, policy: Policy, ready: Vec<String>) {
        if ready != self.ready && policy == Policy::RoundRobin {
            self.cursor.store(0, Ordering::Relaxed);
        }
        self.loads.retain(|url, _| ready.contains(url));
        self.ready = ready;
        self.weigh();
    }

    /// The controller's part: weights are the target rates of the replicas' accelerators.
    fn weigh(&mut self) {
        for url in &self.ready {
            let accelerator = self.accelerators.get(url).map_or("unknown", String::as_str);
            let exact = self.qps.iter().find(|(key, _)| key == accelerator);
            let by_base = || self.qps.iter().find(|(key, _)| key.split(':').next() == Some(accelerator));
            self.weights.insert(url.clone(), exact.or_else(by_base).map_or(1.0, |(_, qps)| *qps));
        }
    }

    fn select(&self, policy: Policy) -> Option<String> {
        let load = |index: usize| {
            let url = &self.ready[index];
            Some(self.loads.get(url).copied().unwrap_or(0) as f64 / self.weights[url])
        };
        choose(policy, &self.cursor, self.ready.len(), load).map(|index| self.ready[index].clone())
    }

    fn run(&mut self, trace: Trace) {
        let policy: Policy = serde_json::from_value(trace.policy.into()).unwrap();
        for (number, step) in trace.steps.into_iter().enumerate() {
            match step {
                Step::SetReady { order_after } => self.set_ready(policy, order_after),
                Step::SetInfo { gpu } => self.accelerators = gpu,
                Step::SetQps { qps } => self.qps = qps.0,
                Step::Select { chosen } => assert_eq!(self.select(policy), chosen, "{} step {number}", trace.name),
                Step::Begin { request, url } => {
                    *self.loads.entry(url.clone()).or_default() += 1;
                    self.open.insert(request, url);
                }
                Step::Release { request } => {
                    if let Some(load) = self.open.remove(&request).and_then(|url| self.loads.get_mut(&url)) {
                        *load -= 1;
                    }
                }
            }
            self.weigh();
        }
    }
}

#[test]
fn recorded_choices_of_skyserve_are_made_again() {
    let folder = std::env::var_os("COMPAT_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/compat")), PathBuf::from);
    // The record is not part of the repository; the cases below always run.
    let Ok(lines) = std::fs::read_to_string(folder.join("policies.jsonl")) else { return };
    let traces: Vec<Trace> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!traces.is_empty());
    // Where SkyServe shuffles, the record says what came of it.
    for trace in traces {
        Replay::default().run(trace);
    }
}

fn select(policy: Policy, cursor: &AtomicUsize, loads: &[Option<f64>], times: usize) -> Vec<Option<usize>> {
    (0..times).map(|_| choose(policy, cursor, loads.len(), |index| loads[index])).collect()
}

const FREE: Option<f64> = Some(0.0);

#[test]
fn round_robin_visits_every_replica_in_turn() {
    let cursor = AtomicUsize::new(0);
    let chosen = select(Policy::RoundRobin, &cursor, &[FREE, Some(9.0), FREE], 4);
    assert_eq!(chosen, [Some(0), Some(1), Some(2), Some(0)]);
}

#[test]
fn round_robin_passes_over_replicas_that_cannot_take_a_request() {
    let cursor = AtomicUsize::new(0);
    let chosen = select(Policy::RoundRobin, &cursor, &[FREE, None, FREE], 3);
    assert_eq!(chosen, [Some(0), Some(2), Some(0)]);
}

#[test]
fn least_load_takes_the_least_and_rotates_among_equals() {
    let cursor = AtomicUsize::new(0);
    let chosen = select(Policy::LeastLoad, &cursor, &[FREE, Some(1.0), FREE], 3);
    assert_eq!(chosen, [Some(0), Some(2), Some(0)]);
}

#[test]
fn least_load_keeps_its_cursor_when_the_set_shrinks() {
    let cursor = AtomicUsize::new(0);
    select(Policy::LeastLoad, &cursor, &[FREE; 5], 4);
    assert_eq!(select(Policy::LeastLoad, &cursor, &[FREE; 3], 2), [Some(1), Some(2)]);
}

#[test]
fn nothing_is_chosen_when_nothing_can_take_a_request() {
    let cursor = AtomicUsize::new(0);
    for policy in [Policy::RoundRobin, Policy::LeastLoad, Policy::InstanceAwareLeastLoad] {
        assert_eq!(choose(policy, &cursor, 0, |_| FREE), None);
        assert_eq!(choose(policy, &cursor, 2, |_| None), None);
    }
}
