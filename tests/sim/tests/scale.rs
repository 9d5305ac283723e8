//! Thousands of replicas on the real core and database: what starting, ticking and publishing cost, and how that grows.
//! What is asserted are ratios of processor time within one run, never a time.

// Helpers of tests fail like tests: by panicking.
#![allow(clippy::unwrap_used)]

use nix::time::{ClockId, clock_gettime};
use skyserve_controller::core::{Core, Output};
use skyserve_model::limits::LAUNCHES_AT_ONCE_MAX;
use skyserve_model::{Ended, Phase, ReplicaUid, Stage};
use skyserve_sim::stand::Stand;
use skyserve_sim::{Plan, campaign_seeds, play_all};
use std::time::Duration;

/// A measurement is the least of so many: what else the machine does only adds.
const TIMES: u32 = 3;
/// How far above n log n a growth may be measured: processor caches, and what else the machine does.
const SLACK: f64 = 1.6;

/// Processor time of this thread.
fn cpu() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap())
}

/// A shape of the same number of replicas: services, and replicas of each.
type Shape = fn(u32) -> (u32, u32);
const SHAPES: [(&str, Shape); 2] =
    [("one service", |replicas| (1, replicas)), ("services of 10", |replicas| (replicas / 10, 10))];

/// Processor time of what `act` does on a stand.
fn least(prepare: impl Fn() -> Stand, act: impl Fn(&mut Stand)) -> Duration {
    let once = || {
        let mut stand = prepare();
        let began = cpu();
        act(&mut stand);
        cpu() - began
    };
    (0..TIMES).map(|_| once()).min().unwrap()
}

/// Opens the database, and takes over all that runs: the provider shows each replica, and lists all.
fn take_over(stand: &mut Stand) {
    stand.restart();
    let shown: Vec<(ReplicaUid, Phase)> =
        stand.resources.iter().map(|(uid, phase)| (uid.clone(), phase.clone())).collect();
    for (uid, phase) in shown {
        stand.shows(&uid, phase);
    }
    stand.run_for(1_000);
    assert!(stand.launched.is_empty() && stand.terminated.is_empty(), "each is taken over as it is");
    assert_eq!(stand.routed().len(), stand.resources.len());
}

/// How the costs of these sizes grow, as a multiple of n log n: 1 if just so, and 2 for each doubling if as n².
fn growth(costs: &[(u32, f64)]) -> f64 {
    let n_log_n = |n: u32| f64::from(n) * f64::from(n).log2();
    let (&(first, least), &(last, most)) = (costs.first().unwrap(), costs.last().unwrap());
    most / least / (n_log_n(last) / n_log_n(first))
}

/// Measures at each size, shows it, and judges the growth.
fn grows(what: &str, sizes: &[u32], measure: impl Fn(u32) -> Duration) {
    let costs: Vec<(u32, f64)> = sizes.iter().map(|size| (*size, measure(*size).as_secs_f64() * 1e3)).collect();
    let shown: Vec<String> = costs.iter().map(|(size, ms)| format!("{size}: {ms:.2} ms")).collect();
    let growth = growth(&costs);
    println!("campaign 11, {what}: {}; {growth:.2} × the growth of n log n", shown.join(", "));
    assert!(growth < SLACK, "{what} grows faster than n log n: {costs:?}");
}

#[test]
fn a_growth_as_the_square_is_noticed() {
    let sizes = [1_000, 2_000, 4_000];
    let n_log_n = |n: u32| f64::from(n) * f64::from(n).log2();
    assert!(growth(&sizes.map(|n| (n, n_log_n(n)))) < SLACK);
    assert!(growth(&sizes.map(|n| (n, f64::from(n) * f64::from(n)))) > SLACK);
}

#[test]
#[ignore = "campaign: benches/faults/run 11"]
fn campaign_11_taking_over() {
    for (shape, of) in SHAPES {
        grows(&format!("taking over, {shape}"), &[2_500, 5_000, 10_000], |replicas| {
            let (services, each) = of(replicas);
            least(|| Stand::taking_over(services, each), take_over)
        });
    }
}

#[test]
#[ignore = "campaign: benches/faults/run 11"]
fn campaign_11_starting_from_nothing() {
    // Each wave of launches publishes a table of all that serve, so it is the cost of a wave that is judged.
    let wave = |replicas: u32| {
        let all = least(Stand::new, |stand| {
            let now = stand.now;
            let rules = skyserve_sim::rules(replicas, "serve");
            stand.core.as_mut().unwrap().up("svc", rules, String::new(), &|_| true, now).unwrap();
            stand.run_for(1_000);
            assert_eq!(stand.resources.len(), replicas as usize);
        });
        println!("campaign 11, launching all {replicas} replicas of one service: {} ms", all.as_millis());
        all / replicas.div_ceil(u32::try_from(LAUNCHES_AT_ONCE_MAX).unwrap())
    };
    grows("launching 16 of one service", &[1_250, 2_500, 5_000], wave);
}

fn fails(stand: &mut Stand, uid: &ReplicaUid) {
    let ended = Ended { stage: Stage::Run, reason: "run exited with code 1".to_owned() };
    stand.shows(uid, Phase::Ended(ended));
}

#[test]
#[ignore = "campaign: benches/faults/run 11"]
fn campaign_11_all_of_a_service_dying_at_once() {
    grows("all replicas of one service failing at once", &[1_250, 2_500, 5_000], |replicas| {
        let prepare = || {
            let mut stand = Stand::taking_over(1, replicas);
            take_over(&mut stand);
            stand
        };
        least(prepare, |stand| {
            let uids: Vec<ReplicaUid> = stand.resources.keys().cloned().collect();
            uids.iter().for_each(|uid| fails(stand, uid));
            stand.with_core(Core::flush).unwrap();
            assert_eq!(stand.ready("service-0").len(), 0);
        })
    });
}

#[test]
#[ignore = "campaign: benches/faults/run 11"]
fn campaign_11_a_probe_that_passes() {
    for (shape, of) in SHAPES {
        grows(&format!("a probe of every replica, {shape}"), &[2_500, 5_000, 10_000], |replicas| {
            let (services, each) = of(replicas);
            let prepare = || {
                let mut stand = Stand::taking_over(services, each);
                take_over(&mut stand);
                stand
            };
            least(prepare, |stand| {
                stand.probe_all();
                assert!(stand.with_core(Core::flush).unwrap().is_empty(), "no news");
            })
        });
    }
}

#[test]
#[ignore = "campaign: benches/faults/run 11"]
fn campaign_11_many_replicas_in_the_simulator() {
    let seeds = campaign_seeds(4, 100);
    let many = seeds.clone();
    let tally = play_all(seeds, |seed, tally| {
        let (services, replicas) = if seed.is_multiple_of(2) { (1, 200) } else { (20, 10) };
        tally.play(&Plan::many(seed, services, replicas));
    });
    println!("campaign 11, simulator, 1 × 200 and 20 × 10 replicas: seeds {many:?}, 0 invariants broken in {tally}");
}

/// The `share`th of `times`, in milliseconds.
fn percentile(times: &mut [Duration], share: usize) -> f64 {
    times.sort();
    times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3
}

#[test]
#[ignore = "campaign: benches/faults/run 11"]
fn campaign_11_publication_tick_and_memory() {
    for (shape, of) in SHAPES {
        let (services, each) = of(10_000);
        let mut stand = Stand::taking_over(services, each);
        let began = cpu();
        take_over(&mut stand);
        let taken_over = cpu() - began;
        let file = stand.database().with_file_name("routes.json");
        let (mut decided, mut published) = (Vec::new(), Vec::new());
        let victims: Vec<ReplicaUid> = stand.resources.keys().step_by(97).take(100).cloned().collect();
        for victim in victims {
            let began = cpu();
            fails(&mut stand, &victim);
            let outputs = stand.with_core(Core::flush).unwrap();
            let middle = cpu();
            let table = outputs.iter().find_map(|output| match output {
                Output::Publish(table) => Some(table),
                _ => None,
            });
            skyserve_routes::publish(&file, table.expect("it is taken off the routes")).unwrap();
            decided.push(middle - began);
            published.push(cpu() - middle);
        }
        println!(
            "campaign 11, 10,000 replicas, {shape}: taken over in {:.0} ms; a replica that fails is decided in {:.2} ms (p99 {:.2}) and its table \
             published in {:.2} ms (p99 {:.2}), processor time; most memory {} MiB",
            taken_over.as_secs_f64() * 1e3,
            percentile(&mut decided, 50),
            percentile(&mut decided, 99),
            percentile(&mut published, 50),
            percentile(&mut published, 99),
            memory_mib_most(),
        );
    }
    assert!(memory_mib_most() <= 150, "{} MiB", memory_mib_most());
}

/// The most that this process ever had in memory, the stand's own provider and load balancer included.
fn memory_mib_most() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}
