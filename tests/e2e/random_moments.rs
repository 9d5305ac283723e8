//! The runtime is killed whole at a random moment of `up`, of a replica's replacement, of `update` and of `down`,
//! then started again: nothing is lost, doubled or orphaned.
//!
//! `SEED=n` runs one seed; `MOMENTS=n` sets how many seeds run (default 12, in CI 50).

use crate::home::{TestHome, binary};
use crate::posts;
use crate::wait;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// What is under way when the runtime is killed.
#[derive(Debug, Clone, Copy)]
enum During {
    Up,
    Replacement,
    Update,
    Down,
}

impl During {
    /// About as long as the step takes when nobody disturbs it, and then some: a moment is drawn from within.
    fn window_ms(self) -> u64 {
        match self {
            Self::Up => 600,
            Self::Replacement => 700,
            Self::Update => 1_500,
            Self::Down => 150,
        }
    }
}

fn yaml(home: &TestHome, version: u64) -> std::path::PathBuf {
    // Each replica notes its start: a replica that is started twice shows.
    let starts = home.path().join("starts");
    home.yaml(
        "web.yaml",
        &format!(
            "service:\n  readiness_probe: /\n  replicas: 2\nresources:\n  ports: 8080\nenvs:\n  STARTS: {}\n\
             run: |\n  # {version}\n  echo $SKYPILOT_SERVE_REPLICA_ID >> $STARTS\n  exec python3 -m http.server 8080 --bind 0.0.0.0\n",
            starts.display()
        ),
    )
}

/// SplitMix64: the same seed gives the same moments.
fn random(seed: u64) -> u64 {
    let mut value = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn assert_each_started_once(home: &TestHome) {
    let starts = std::fs::read_to_string(home.path().join("starts")).unwrap_or_default();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    starts.lines().for_each(|id| *times.entry(id).or_default() += 1);
    assert!(times.values().all(|count| *count == 1), "a replica was started more than once: {times:?}");
}

/// One shim for each replica that is shown, and the other way round.
fn assert_replicas_and_shims_agree(home: &TestHome) {
    let shown = home.replicas("web", "READY").len();
    let shims = home.processes().iter().filter(|process| process.is_role("shim")).count();
    assert_eq!(shims, shown, "a shim for each replica: {:?}", home.processes());
}

fn one(seed: u64) {
    let home = TestHome::new();
    let during = [During::Up, During::Replacement, During::Update, During::Down][(seed % 4) as usize];
    let moment = Duration::from_millis(random(seed) % during.window_ms());
    println!("seed {seed}: killed {moment:?} into {during:?}");
    let yaml = yaml(&home, 1);
    match during {
        During::Up => {
            let mut up = spawn(&home, &["up", "-y", "-n", "web", yaml.to_str().unwrap()]);
            std::thread::sleep(moment);
            home.kill_runtime();
            let accepted = up.wait().unwrap().success();
            // What was acknowledged must be there; what was not may be, whole, or not at all.
            restart(&home);
            if accepted || home.service("web").is_some() {
                settled(&home);
            } else {
                home.up("web", &yaml);
                settled(&home);
            }
        }
        During::Replacement => {
            home.up("web", &yaml);
            let ready = home.wait_for_ready_replicas("web", 2);
            posts::kill_replica(&home, ready[0]["uid"].as_str().unwrap());
            std::thread::sleep(moment);
            home.kill_runtime();
            restart(&home);
            settled(&home);
        }
        During::Update => {
            home.up("web", &yaml);
            home.wait_for_ready_replicas("web", 2);
            let next = self::yaml(&home, 2);
            let mut update = spawn(&home, &["update", "-y", "web", next.to_str().unwrap()]);
            std::thread::sleep(moment);
            home.kill_runtime();
            let accepted = update.wait().unwrap().success();
            restart(&home);
            let version = home.service("web").unwrap()["version"].as_u64().unwrap();
            assert!(version == 2 || !accepted, "an update that was acknowledged is lost: version {version}");
            wait::until("the version that was asked for", || {
                let service = home.service("web").unwrap_or_default();
                let replicas = service["replicas"].as_array().cloned().unwrap_or_default();
                let done = service["rollout"] == "done" && replicas.len() == 2;
                let all = replicas.iter().all(|replica| replica["version"] == version && replica["status"] == "READY");
                if done && all { Ok(()) } else { Err(format!("{service:#}")) }
            });
            settled(&home);
        }
        During::Down => {
            home.up("web", &yaml);
            home.wait_for_ready_replicas("web", 2);
            let mut down = spawn(&home, &["down", "-y", "web"]);
            std::thread::sleep(moment);
            home.kill_runtime();
            let _ = down.wait();
            restart(&home);
            assert_each_started_once(&home);
        }
    }
    // What is left of it, perhaps a `down` that is being resumed just now, and the runtime itself.
    home.ok(&["down", "-y", "-a"]);
    home.assert_nothing_left();
}

fn settled(home: &TestHome) {
    home.wait_for_ready_replicas("web", 2);
    assert_each_started_once(home);
    assert_replicas_and_shims_agree(home);
}

fn spawn(home: &TestHome, arguments: &[&str]) -> std::process::Child {
    home.command(binary()).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Any command that looks starts the runtime again where there is something to run.
fn restart(home: &TestHome) {
    wait::until("the runtime to answer again", || {
        let output = home.run(&["status", "-o", "json"]);
        if output.status.success() { Ok(()) } else { Err(crate::home::text(&output.stderr)) }
    });
}

#[test]
fn a_runtime_killed_at_a_random_moment_loses_doubles_and_orphans_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => one(seed),
        None => (0..number("MOMENTS").unwrap_or(12)).for_each(one),
    }
}

#[test]
fn the_check_for_a_second_start_can_fail() {
    let home = TestHome::new();
    std::fs::write(Path::new(&home.path()).join("starts"), "1\n2\n1\n").unwrap();
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| assert_each_started_once(&home)));
    assert!(found.is_err(), "replica 1 was started twice, and the check says nothing");
}
