//! The controller's pod is deleted at a random moment of up, scaling, update and down: no pod is lost, doubled or
//! orphaned, and what was begun is finished.
//!
//! `SEED=n` runs one seed; `CLUSTER_MOMENTS=n` says how many (default 4, in CI 30).

use crate::site::{Site, live, name, until};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone, Copy)]
enum During {
    Up,
    Scale,
    Update,
    Down,
}

/// About as long as a step takes, and then some.
const WINDOW_MS: u64 = 4_000;

/// SplitMix64: the same seed gives the same moments.
fn random(seed: u64) -> u64 {
    let mut value = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn yaml(site: &Site, file: &str, replicas: usize, text: &str) -> PathBuf {
    let text = format!(
        "service:\n  readiness_probe: /\n  replicas: {replicas}\nresources:\n  ports: 8080\n  cpus: 0.1+\n\
         run: |\n  echo {text}\n  exec python3 -m http.server 8080\n"
    );
    site.file(file, &text)
}

/// The pod of each replica, by the replica's id.
type Pods = BTreeMap<u64, String>;

/// One live pod for each replica that is shown, and no other. Who they are tells whether one was lost and replaced:
/// a replica that was launched again has another id, and a pod that was made again another uid.
fn settled(site: &Site, replicas: usize) -> Pods {
    site.wait_for_ready_replicas("web", replicas);
    until("a pod for each replica and no other", || {
        let pods = live(site.objects("pods", "skyserve.dev/component=replica"));
        let mut found = Pods::new();
        for pod in &pods {
            let uid = pod["metadata"]["annotations"]["skyserve.dev/uid"].as_str().unwrap();
            let id = uid.rsplit('-').next().unwrap().parse().unwrap();
            found.insert(id, pod["metadata"]["uid"].as_str().unwrap().to_owned());
        }
        if (found.len(), pods.len()) == (replicas, replicas) { Ok(found) } else { Err(site.state()) }
    })
}

/// That what was begun was finished without a replica too many or too few ever having been launched.
fn assert_nothing_lost_or_doubled(during: During, before: &Pods, after: &Pods) {
    let ids: Vec<u64> = after.keys().copied().collect();
    let expected: &[u64] = if matches!(during, During::Update) { &[3, 4] } else { &[1, 2] };
    assert_eq!(ids, expected, "{during:?}: replicas were launched that nobody had asked for");
    if matches!(during, During::Scale) {
        assert_eq!(after[&1], before[&1], "the replica that was there is the same pod");
    }
}

fn one(site: &Site, seed: u64) {
    let during = [During::Up, During::Scale, During::Update, During::Down][(seed % 4) as usize];
    let moment = Duration::from_millis(random(seed) % WINDOW_MS);
    println!("seed {seed}: the pod is deleted {moment:?} into {during:?}");
    let one = yaml(site, "one.yaml", 1, "first");
    let two = yaml(site, "two.yaml", 2, "first");
    let next = yaml(site, "next.yaml", 2, "second");
    let path = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let (prepare, command, replicas): (Option<&PathBuf>, Vec<String>, usize) = match during {
        During::Up => (None, vec!["up".into(), "-y".into(), "-n".into(), "web".into(), path(&two)], 2),
        During::Scale => (Some(&one), vec!["update".into(), "-y".into(), "web".into(), path(&two)], 2),
        During::Update => (Some(&two), vec!["update".into(), "-y".into(), "web".into(), path(&next)], 2),
        During::Down => (Some(&two), vec!["down".into(), "-y".into(), "web".into()], 0),
    };
    let before = prepare.map(|yaml| {
        site.up("web", yaml);
        settled(site, if matches!(during, During::Scale) { 1 } else { 2 })
    });
    let victim = site.controller();
    let mut child = site.command("skyserve").args(&command).stdout(std::process::Stdio::null()).spawn().unwrap();
    std::thread::sleep(moment);
    site.kubectl_ok(&["delete", "pod", name(&victim), "--wait=false"]);
    let accepted = child.wait().unwrap().success();
    site.controller();
    if replicas == 0 {
        if !accepted {
            site.ok(&["down", "-y", "web"]);
        }
        until("the service to be gone", || if site.service("web").is_none() { Ok(()) } else { Err(site.state()) });
    } else {
        assert!(accepted, "the command lost its controller and did not find the next: {command:?}");
        let after = settled(site, replicas);
        assert_nothing_lost_or_doubled(during, &before.unwrap_or_default(), &after);
        site.ok(&["down", "-y", "web"]);
    }
    until("no replica's pod to be left", || {
        let pods = site.objects("pods", "skyserve.dev/component=replica");
        if pods.is_empty() { Ok(()) } else { Err(site.state()) }
    });
}

#[test]
fn the_check_for_a_lost_and_a_doubled_replica_can_fail() {
    let pods = |pods: &[(u64, &str)]| pods.iter().map(|(id, uid)| (*id, (*uid).to_owned())).collect::<Pods>();
    let (one, two) = (pods(&[(1, "a")]), pods(&[(1, "a"), (2, "b")]));
    let fails = |during, before: &Pods, after: &Pods| {
        std::panic::catch_unwind(|| assert_nothing_lost_or_doubled(during, before, after)).is_err()
    };
    assert!(!fails(During::Up, &Pods::new(), &two) && !fails(During::Scale, &one, &two));
    assert!(!fails(During::Update, &two, &pods(&[(3, "c"), (4, "d")])));
    // One was lost and launched again; one too many was launched and removed; a pod was made again.
    assert!(fails(During::Up, &Pods::new(), &pods(&[(1, "a"), (3, "c")])));
    assert!(fails(During::Update, &two, &pods(&[(3, "c"), (5, "e")])));
    assert!(fails(During::Scale, &one, &pods(&[(1, "x"), (2, "b")])));
}

#[test]
fn a_controller_deleted_at_a_random_moment_loses_doubles_and_orphans_no_pod() {
    let Some(site) = Site::highly_available() else { return };
    let first = yaml(&site, "begin.yaml", 1, "begin");
    site.up("web", &first);
    site.ok(&["down", "-y", "web"]);
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => one(&site, seed),
        None => (0..number("CLUSTER_MOMENTS").unwrap_or(4)).for_each(|seed| one(&site, seed)),
    }
}
