//! The controller has exactly the permissions it uses: with the shipped Role all works, with one verb fewer something
//! does not.

use crate::site::{Site, http_service, text, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A verb that is missing shows within this time, or it was not needed.
const SHOWS_WITHIN: Duration = Duration::from_secs(45);

/// The Role's rules, as shipped.
fn rules(site: &Site) -> (String, Vec<Value>) {
    let roles = site.objects("roles", "skyserve.dev/component=controller");
    let role = roles.first().expect("the controller has a Role");
    let name = role["metadata"]["name"].as_str().unwrap().to_owned();
    (name, role["rules"].as_array().unwrap().clone())
}

fn set_rules(site: &Site, role: &str, rules: &[Value]) {
    let patch = json!([{"op": "replace", "path": "/rules", "value": rules}]).to_string();
    site.kubectl_ok(&["patch", "role", role, "--type=json", "-p", &patch]);
}

/// Every way to take one verb of one resource away: what is taken, and the rules without it.
fn one_verb_fewer(rules: &[Value]) -> Vec<(String, Vec<Value>)> {
    let mut fewer = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        for verb in rule["verbs"].as_array().unwrap() {
            let mut changed = rules.to_vec();
            changed[at]["verbs"].as_array_mut().unwrap().retain(|other| other != verb);
            if changed[at]["verbs"].as_array().unwrap().is_empty() {
                changed.remove(at);
            }
            fewer.push((format!("{} {}", verb.as_str().unwrap(), rule["resources"]), changed));
        }
    }
    fewer
}

/// What a controller does in its life, started anew with these permissions: `Err` says what it could not do.
fn whole_life(site: &Site) -> Result<(), String> {
    site.kubectl_ok(&["delete", "pod", "-l", "skypilot-head-node=1", "--grace-period=1"]);
    let deadline = Instant::now() + SHOWS_WITHIN;
    let denied = || {
        let logs = site.kubectl(&["logs", "-l", "skypilot-head-node=1", "--tail=-1", "--prefix=false"]);
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
    step("up", &mut || site.run(&["up", "-y", "-n", "probe", web.to_str().unwrap()]).status.success())?;
    step("ready", &mut || site.service("probe").is_some_and(|service| service["status"] == "READY"))?;
    step("logs", &mut || site.run(&["logs", "probe", "1", "--no-follow"]).status.success())?;
    step("down", &mut || site.run(&["down", "-y", "probe"]).status.success())?;
    step("gone", &mut || site.objects("services", "skyserve.dev/component=endpoint").is_empty())
}

#[test]
fn the_shipped_role_is_enough_and_one_verb_fewer_is_not() {
    let Some(site) = Site::highly_available() else { return };
    site.up("web", &http_service());
    site.ok(&["down", "-y", "web"]);
    let (role, shipped) = rules(&site);
    assert!(shipped.iter().all(|rule| !rule.to_string().contains('*')), "no wildcard: {shipped:?}");
    assert_eq!(whole_life(&site), Ok(()), "with what is shipped everything works");
    let mut needless = Vec::new();
    for (taken, fewer) in one_verb_fewer(&shipped) {
        set_rules(&site, &role, &fewer);
        match whole_life(&site) {
            Err(problem) => println!("without {taken}: {problem}"),
            Ok(()) => needless.push(taken),
        }
        set_rules(&site, &role, &shipped);
        site.run(&["down", "-y", "-a", "--purge"]);
        until(
            "no replica of the last round",
            || if site.replica_uids().is_empty() { Ok(()) } else { Err(site.state()) },
        );
    }
    assert!(needless.is_empty(), "permissions that nothing needs: {needless:?}");
}
