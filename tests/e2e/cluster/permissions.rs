//! The controller has exactly the permissions it uses: with the shipped Role all works, with one verb fewer something
//! does not.

use crate::site::{HIGHLY_AVAILABLE, Site, condition, http_service, live, name, text, uid, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A verb that is missing shows within this time, or it was not needed.
const SHOWS_WITHIN: Duration = Duration::from_secs(60);

/// A Role as shipped.
struct Shipped {
    role: String,
    rules: Vec<Value>,
}

impl Shipped {
    fn of(site: &Site, component: &str) -> Self {
        let roles = site.objects("roles", &format!("skyserve.dev/component={component}"));
        let role = roles.first().expect("the component has a Role");
        Self { role: name(role).to_owned(), rules: role["rules"].as_array().unwrap().clone() }
    }

    fn set(&self, site: &Site, rules: &[Value]) {
        let patch = json!([{"op": "replace", "path": "/rules", "value": rules}]).to_string();
        site.kubectl_ok(&["patch", "role", &self.role, "--type=json", "-p", &patch]);
    }

    /// Every way to take one verb of one of these resources away: what is taken, and the rules without it.
    fn one_verb_fewer(&self, of: impl Fn(&str) -> bool) -> Vec<(String, Vec<Value>)> {
        let mut fewer = Vec::new();
        for (at, rule) in self.rules.iter().enumerate() {
            let resource = rule["resources"][0].as_str().unwrap();
            for verb in rule["verbs"].as_array().unwrap().iter().filter(|_| of(resource)) {
                let mut changed = self.rules.clone();
                let verbs = changed[at]["verbs"].as_array_mut().unwrap();
                verbs.retain(|other| other != verb);
                if verbs.is_empty() {
                    changed.remove(at);
                }
                fewer.push((format!("{} {resource}", verb.as_str().unwrap()), changed));
            }
        }
        fewer
    }
}

/// Deletes these pods, so that their successors have the permissions of now.
fn start_anew(site: &Site, pods: &str) {
    let before: BTreeSet<String> = site.objects("pods", pods).iter().map(|pod| uid(pod).to_owned()).collect();
    site.kubectl_ok(&["delete", "pod", "-l", pods, "--grace-period=1"]);
    until("a successor of the deleted pods", || {
        let running = |pod: &Value| pod["status"]["phase"] == "Running" && !before.contains(uid(pod));
        if site.objects("pods", pods).iter().any(running) { Ok(()) } else { Err(site.state()) }
    });
}

/// What a controller does in its life, started anew with these permissions: `Err` says what it, or a load balancer
/// of its, could not do.
fn whole_life(site: &Site, pods: &str) -> Result<(), String> {
    start_anew(site, pods);
    let deadline = Instant::now() + SHOWS_WITHIN;
    let denied = || {
        let logs = site.kubectl(&["logs", "-l", pods, "--tail=-1", "--prefix=false"]);
        text(&logs.stdout).lines().find(|line| line.contains("forbidden")).map(str::to_owned)
    };
    let step = |what: &str, done: &mut dyn FnMut() -> bool| loop {
        if let Some(line) = denied() {
            return Err(format!("{what}: {line}"));
        }
        if done() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(format!("{what}: not done in time"));
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let web = http_service();
    let run = |arguments: &[&str]| {
        let left = deadline.saturating_duration_since(Instant::now());
        site.run_within(left, arguments).status.success()
    };
    step("up", &mut || run(&["up", "-y", "-n", "probe", web.to_str().unwrap()]))?;
    step("ready", &mut || site.service("probe").is_some_and(|service| service["status"] == "READY"))?;
    step("endpoint", &mut || run(&["status", "probe", "--endpoint"]))?;
    step("routes", &mut || {
        let pods = live(site.objects("pods", "skyserve.dev/endpoint=true"));
        !pods.is_empty() && pods.iter().all(|pod| condition(pod, "Ready").as_deref() == Some("True"))
    })?;
    step("logs", &mut || run(&["logs", "probe", "1", "--no-follow"]))?;
    step("down", &mut || run(&["down", "-y", "probe"]))?;
    step("gone", &mut || {
        let left = |kind| site.objects(kind, "skyserve.dev/component=endpoint");
        left("services").is_empty() && left("ingresses").is_empty()
    })
}

/// Takes every verb of one of these resources away from the component's Role in turn: each must be missed.
fn each_verb_is_needed(site: &Site, component: &str, of: impl Fn(&str) -> bool) {
    let pods = format!("skyserve.dev/component={component}");
    site.up("web", &http_service());
    site.ok(&["down", "-y", "web"]);
    let shipped = Shipped::of(site, component);
    assert!(shipped.rules.iter().all(|rule| !rule.to_string().contains('*')), "no wildcard: {:?}", shipped.rules);
    assert_eq!(whole_life(site, &pods), Ok(()), "with what is shipped everything works");
    let fewer = shipped.one_verb_fewer(of);
    assert!(!fewer.is_empty(), "something is granted: {:?}", shipped.rules);
    let mut needless = Vec::new();
    for (taken, fewer) in fewer {
        shipped.set(site, &fewer);
        match whole_life(site, &pods) {
            Err(problem) => println!("{component} without {taken}: {problem}"),
            Ok(()) => needless.push(taken),
        }
        shipped.set(site, &shipped.rules);
        start_anew(site, &pods);
        until("nothing left of the last round", || {
            if site.service("probe").is_some() {
                site.run_within(SHOWS_WITHIN, &["down", "-y", "probe", "--purge"]);
            }
            let clean = site.service("probe").is_none() && site.replica_uids().is_empty();
            if clean { Ok(()) } else { Err(site.state()) }
        });
    }
    assert!(needless.is_empty(), "permissions that nothing needs: {needless:?}");
}

#[test]
fn the_shipped_role_is_enough_and_one_verb_fewer_is_not() {
    let Some(site) = Site::highly_available() else { return };
    each_verb_is_needed(&site, "controller", |_| true);
}

#[test]
fn the_roles_of_load_balancers_alone_are_enough_and_one_verb_fewer_is_not() {
    let Some(site) = Site::new(&format!("{HIGHLY_AVAILABLE}  load_balancer:\n    replicas: 2\n")) else { return };
    each_verb_is_needed(&site, "controller", |resource| resource == "configmaps");
    each_verb_is_needed(&site, "load-balancer", |_| true);
}

#[test]
fn the_role_for_an_ingress_is_enough_and_one_verb_fewer_is_not() {
    let Some(site) = Site::new(&format!("{HIGHLY_AVAILABLE}kubernetes:\n  ports: ingress\n")) else { return };
    each_verb_is_needed(&site, "controller", |resource| resource == "ingresses");
}
