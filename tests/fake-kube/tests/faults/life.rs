//! One replica's life through a fault, while another one lives on beside it.

use crate::checks;
use crate::rig::{Belief, Rig, persist, spec};
use serde_json::Value;
use skyserve_fake_kube::Fault;
use skyserve_model::Phase;
use skyserve_provider::Provider;
use std::collections::BTreeSet;
use std::time::Duration;

/// A fault to live through.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    pub(crate) call: &'static str,
    pub(crate) fault: Fault,
    pub(crate) times: u32,
    /// Whether the controller asks for a list now and then, as it should.
    pub(crate) lists: bool,
    /// How long it may take to learn of what happened.
    pub(crate) patience: Duration,
}

/// Lives through the trial; gives every way in which the world was not as asked.
pub(crate) async fn live<P: Provider>(rig: &Rig, provider: &P, trial: &Trial) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Err(reason) = try_to_live(rig, provider, trial, &mut wrong).await {
        wrong.push(reason);
    }
    wrong.extend(checks::always(rig));
    if rig.fake.faults_left() == trial.times {
        wrong.push("the fault never came to pass: nothing was shown".to_owned());
    }
    wrong
}

async fn try_to_live<P: Provider>(
    rig: &Rig,
    provider: &P,
    trial: &Trial,
    wrong: &mut Vec<String>,
) -> Result<(), String> {
    let (mortal, other) = (spec(1), spec(2));
    let both = BTreeSet::from([mortal.uid.clone(), other.uid.clone()]);
    rig.fake.fault(trial.call, trial.fault.clone(), trial.times);
    let mut belief = Belief::new(provider, trial.lists);

    let launches = tokio::join!(persist(|| provider.launch(&mortal)), persist(|| provider.launch(&other)));
    launches.0.and(launches.1).map_err(|error| format!("launch failed for good: {error}"))?;
    let runs = |phase: Option<&Phase>| matches!(phase, Some(Phase::Running { .. }));
    let both_run = belief.comes_to_within(trial.patience, |phases| both.iter().all(|uid| runs(phases.get(uid))));
    if !both_run.await {
        wrong.push(format!("both run, and the controller believes {:?}", belief.phases));
    }
    wrong.extend(checks::settled(rig, &both));
    let pod = rig.pods_of(&other.uid);

    // A controller that starts anew launches again what it has not heard of.
    persist(|| provider.launch(&mortal)).await.map_err(|error| format!("launch again failed: {error}"))?;
    wrong.extend(checks::settled(rig, &both));

    persist(|| provider.terminate(&mortal.uid, 1_000)).await.map_err(|error| format!("terminate failed: {error}"))?;
    // A create that lands late may land just now; it must come to nothing in the end.
    let is_late = matches!(trial.fault, Fault::Late { .. });
    let ours = |pod: &Value| pod["metadata"]["labels"]["skyserve.dev/controller"] == rig.names.controller.as_str();
    if !is_late && rig.pods_of(&mortal.uid).iter().any(ours) {
        wrong.push("it is said to be gone, and its pod is there".to_owned());
    }
    let gone =
        belief.comes_to_within(trial.patience, |phases| !runs(phases.get(&mortal.uid)) && runs(phases.get(&other.uid)));
    if !gone.await {
        wrong.push(format!("one of two is gone, and the controller believes {:?}", belief.phases));
    }
    // Late launches come to nothing, and what calls still hang is over.
    persist(|| provider.launch(&mortal)).await.map_err(|error| format!("late launch failed: {error}"))?;
    // The Secret goes by garbage collection.
    let only = BTreeSet::from([other.uid.clone()]);
    let settled = tokio::time::timeout(trial.patience, async {
        while !checks::settled(rig, &only).is_empty() {
            let _ = tokio::time::timeout(Duration::from_millis(20), rig.fake.changed()).await;
            let _ = provider.list().await;
        }
    });
    if settled.await.is_err() {
        wrong.extend(checks::settled(rig, &only));
    }
    let now = rig.pods_of(&other.uid);
    if pod.first().map(|pod| &pod["metadata"]["uid"]) != now.first().map(|pod| &pod["metadata"]["uid"]) {
        wrong.push("the replica that nothing was done to has another pod now".to_owned());
    }
    Ok(())
}
