//! Each call, each fault, once and three times in a row: in the end there is a Service (and an Ingress, where endpoints
//! are reached through one) for each endpoint that is wanted, and none besides that is ours.

use crate::{NAMESPACE, Site, bounds, reached_at};
use serde_json::{Value, json};
use skyserve_fake_kube::{FakeKube, Fault, StreamFault};
use skyserve_spec::config::EndpointKind;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Most of a life is waiting; more at once than this would wait for the processor.
const LIVES_AT_ONCE: usize = 24;
/// Somebody else's.
const FOREIGN: &str = "other";

/// What can go wrong with any call.
fn anywhere() -> Vec<Fault> {
    vec![
        Fault::CONFLICT,
        Fault::GONE,
        Fault::BUSY,
        Fault::INTERNAL,
        Fault::UNAVAILABLE,
        Fault::UNAUTHORIZED,
        Fault::DENIED,
        Fault::BadGateway,
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::HangBefore,
        Fault::HangAfter,
        Fault::HalfAnswer,
    ]
}

#[derive(Debug, Clone)]
struct Trial {
    /// Such as `get services`.
    call: String,
    fault: Fault,
    times: u32,
}

fn trials() -> Vec<Trial> {
    let mut cells: Vec<(&'static str, Fault)> = Vec::new();
    for verb in ["get", "patch", "delete", "list", "watch"] {
        cells.extend(anywhere().into_iter().map(|fault| (verb, fault)));
    }
    for verb in ["patch", "delete"] {
        cells.extend([3, 12].map(|calls| (verb, Fault::Late { calls })));
    }
    cells.extend([1, 3, 20].map(|changes| ("list", Fault::Stale { changes })));
    cells.extend(StreamFault::ALL.map(Fault::Stream).into_iter().map(|fault| ("watch", fault)));
    let mut trials = Vec::new();
    for kind in ["services", "ingresses"] {
        for (verb, fault) in &cells {
            let trial = |times| Trial { call: format!("{verb} {kind}"), fault: fault.clone(), times };
            trials.extend([1, 3].map(trial));
        }
    }
    trials
}

/// Endpoints come, one is removed by somebody, and one goes. Gives what was not as wanted.
async fn live(trial: &Trial) -> Result<(), String> {
    let fake = FakeKube::start().await.unwrap();
    let with_ingress = trial.call.ends_with("ingresses");
    let (kind, faulty) =
        if with_ingress { (EndpointKind::Ingress, "ingresses") } else { (EndpointKind::NodePort, "services") };
    let foreign = fake.create(faulty, NAMESPACE, json!({ "metadata": { "name": FOREIGN } }));
    fake.fault(&trial.call, trial.fault.clone(), trial.times);
    let mut site = Site::with(fake, kind, bounds());
    let (a, b) = (site.names.endpoint("a"), site.names.endpoint("b"));
    let problem = |site: &Site, what: &str| {
        let all = (site.objects(), site.fake.objects("ingresses", NAMESPACE));
        Err(format!("{what}: {all:?} {:?}", site.fake.calls()))
    };

    site.want(&[("a", 30001), ("b", 30002)]);
    if !comes_to(&site, with_ingress, &[&a, &b], 0).await {
        return problem(&site, "two are wanted");
    }
    let uid_of_b = uid(&site, faulty, &b);
    site.fake.remove(faulty, NAMESPACE, &a);
    if !comes_to(&site, with_ingress, &[&a, &b], 0).await {
        return problem(&site, "one was removed and is wanted");
    }
    site.want(&[("b", 30002)]);
    // What comes late has come when so many more have been asked.
    let calls = match trial.fault {
        Fault::Late { calls } => calls,
        _ => 0,
    };
    let asked = site.fake.calls().len() + calls;
    if !comes_to(&site, with_ingress, &[&b], asked).await {
        return problem(&site, "one is wanted");
    }
    let reached = if with_ingress {
        let ready =
            |object: &mut Value| object["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.7" }] } });
        site.fake.change("ingresses", NAMESPACE, &b, ready);
        format!("http://203.0.113.7{}", skyserve_manifests::endpoint::ingress_path(&site.names, NAMESPACE, "b"))
    } else {
        site.give_node_port("b", 31234);
        "http://192.0.2.10:31234".to_owned()
    };
    if let Err(last) = site.hears("b", reached_at(&reached)).await {
        return problem(&site, &format!("where it is reached is not told, but {last:?}"));
    }
    if !comes_to(&site, with_ingress, &[&b], 0).await {
        return problem(&site, "one is still wanted");
    }
    if uid(&site, faulty, &b) != uid_of_b {
        return problem(&site, "the one that nothing was done to is another now");
    }
    if !site.fake.objects(faulty, NAMESPACE).iter().any(|object| Some(object) == foreign.as_ref()) {
        return problem(&site, "somebody else's was touched");
    }
    if site.fake.faults_left() == trial.times {
        return problem(&site, "the fault never came to pass: nothing was shown");
    }
    Ok(())
}

fn uid(site: &Site, kind: &str, name: &str) -> Option<Value> {
    let object = site.fake.objects(kind, NAMESPACE).into_iter().find(|object| object["metadata"]["name"] == name)?;
    Some(object["metadata"]["uid"].clone())
}

/// Waits until what is ours is just what has these names, and so many calls were made.
async fn comes_to(site: &Site, with_ingress: bool, names: &[&str], calls: usize) -> bool {
    let are = |objects: &[Value]| {
        let mut found: Vec<&str> = objects.iter().filter_map(|object| object["metadata"]["name"].as_str()).collect();
        found.retain(|name| *name != FOREIGN);
        found == names
    };
    let ingresses_are = || !with_ingress || are(&site.fake.objects("ingresses", NAMESPACE));
    site.comes_to(|services| are(services) && ingresses_are() && site.fake.calls().len() >= calls).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_with_whichever_call_there_is_what_is_wanted() {
    let mut lives = JoinSet::new();
    let room = Arc::new(Semaphore::new(LIVES_AT_ONCE));
    let trials = trials();
    let count = trials.len();
    for trial in trials {
        let room = Arc::clone(&room);
        lives.spawn(async move {
            let _room = room.acquire().await.unwrap();
            let result = live(&trial).await;
            (trial, result)
        });
    }
    let mut diverged = Vec::new();
    while let Some(life) = lives.join_next().await {
        if let (trial, Err(problem)) = life.unwrap() {
            diverged.push(format!("{} × {:?} × {}: {problem}", trial.call, trial.fault, trial.times));
        }
    }
    println!("{count} lives, {} diverged", diverged.len());
    assert!(diverged.is_empty(), "{} of {count} diverged:\n{}", diverged.len(), diverged.join("\n"));
}
