//! What takes more than one fault to tell.

use crate::checks;
use crate::rig::{Belief, NAMESPACE, PATIENCE, Rig, bounds, persist, spec};
use serde_json::json;
use skyserve_fake_kube::{ChangeKind, Fault, StreamFault};
use skyserve_model::launch::Stage;
use skyserve_model::{Ended, LaunchSpec, Phase, ReplicaUid};
use skyserve_provider::Provider;
use skyserve_provider::kubernetes::Bounds;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

type Phases = BTreeMap<ReplicaUid, Phase>;

fn runs<'a>(spec: &'a LaunchSpec) -> impl Fn(&Phases) -> bool + 'a {
    |phases| matches!(phases.get(&spec.uid), Some(Phase::Running { .. }))
}

fn preempted<'a>(spec: &'a LaunchSpec, part: &'a str) -> impl Fn(&Phases) -> bool + 'a {
    move |phases| matches!(phases.get(&spec.uid), Some(Phase::Preempted { reason }) if reason.contains(part))
}

#[tokio::test]
async fn what_has_a_replicas_name_and_is_not_ours_is_named_and_left_alone() {
    let (rig, spec) = (Rig::new().await, spec(1));
    rig.add_foreign("pods", json!({"metadata": {"name": rig.pod_name(&spec)}, "spec": {"containers": []}}));
    let error = rig.provider().launch(&spec).await.unwrap_err();
    assert!(!error.retryable && error.message.contains(&rig.pod_name(&spec)), "{error:?}");
    rig.provider().terminate(&spec.uid, 1_000).await.unwrap();
    assert_eq!(checks::always(&rig), Vec::<String>::new());
}

#[tokio::test]
async fn a_secret_of_an_earlier_pod_is_waited_for_until_it_is_gone() {
    let (rig, spec) = (Rig::new().await, spec(1));
    let provider = rig.provider();
    rig.fake.kubelet(|kubelet| kubelet.collects_no_garbage = true);
    provider.launch(&spec).await.unwrap();
    rig.fake.remove("pods", NAMESPACE, &rig.pod_name(&spec));
    let error = provider.launch(&spec).await.unwrap_err();
    assert!(error.retryable && error.message.contains("secret"), "{error:?}");
    rig.fake.kubelet(|kubelet| kubelet.collects_no_garbage = false);
    rig.until("the old Secret goes", |rig| rig.fake.objects("secrets", NAMESPACE).len() == 1).await;
    provider.launch(&spec).await.unwrap();
    assert_eq!(checks::settled(&rig, &BTreeSet::from([spec.uid.clone()])), Vec::<String>::new());
}

#[tokio::test]
async fn a_create_that_lands_after_the_termination_comes_to_nothing() {
    for observes in [true, false] {
        let (rig, spec) = (Rig::new().await, spec(1));
        rig.fake.fault("create pods", Fault::Late { calls: 2 }, 1);
        // A controller that is killed while its call is still on the way.
        let pause_first = Duration::from_secs(60);
        let overtaken = rig.provider_with(Bounds { pause_first, patience: PATIENCE * 10, ..bounds() });
        let launch = tokio::time::timeout(Duration::from_millis(300), overtaken.launch(&spec));
        assert!(launch.await.is_err());
        let provider = rig.provider();
        let observed = observes.then(|| provider.observe());
        provider.terminate(&spec.uid, 1_000).await.unwrap();
        provider.list().await.unwrap();
        let has_landed = |rig: &Rig| {
            let name = rig.pod_name(&spec);
            rig.fake.history().iter().any(|change| change.object["metadata"]["name"] == name.as_str())
        };
        rig.until("the create lands", has_landed).await;
        if !observes {
            provider.list().await.unwrap();
        }
        rig.until("the late pod goes", |rig| checks::settled(rig, &BTreeSet::new()).is_empty()).await;
        assert_eq!(checks::always(&rig), Vec::<String>::new());
        drop(observed);
    }
}

#[tokio::test]
async fn a_termination_during_the_launch_wins() {
    let (rig, spec) = (Rig::new().await, spec(1));
    let provider = rig.provider();
    rig.fake.fault("create pods", Fault::UNAVAILABLE, 5);
    let (launched, terminated) = tokio::join!(provider.launch(&spec), provider.terminate(&spec.uid, 1_000));
    launched.unwrap();
    terminated.unwrap();
    assert_eq!(checks::settled(&rig, &BTreeSet::new()), Vec::<String>::new());
}

#[tokio::test]
async fn a_pod_that_stays_says_why_and_goes_when_it_may() {
    let (rig, spec) = (Rig::new().await, spec(1));
    let provider = rig.provider();
    provider.launch(&spec).await.unwrap();
    let name = rig.pod_name(&spec);
    rig.until("it has a node", |rig| rig.pods_of(&spec.uid)[0]["spec"]["nodeName"].is_string()).await;
    let finalizers = |finalizers| {
        rig.fake.change("pods", NAMESPACE, &name, |pod| pod["metadata"]["finalizers"] = finalizers);
    };
    finalizers(json!(["example.com/keeps"]));
    let error = provider.terminate(&spec.uid, 1_000).await.unwrap_err();
    assert!(error.retryable && error.message.contains("example.com/keeps"), "{error:?}");
    finalizers(json!([]));
    rig.fake.kubelet(|kubelet| kubelet.is_away = true);
    let error = provider.terminate(&spec.uid, 1_000).await.unwrap_err();
    assert!(error.retryable && error.message.contains("node-1"), "{error:?}");
    rig.fake.kubelet(|kubelet| kubelet.is_away = false);
    provider.terminate(&spec.uid, 1_000).await.unwrap();
}

#[tokio::test]
async fn a_pod_that_takes_the_name_between_the_look_and_the_delete_lives() {
    let (rig, spec) = (Rig::new().await, spec(1));
    let provider = rig.provider();
    provider.launch(&spec).await.unwrap();
    let name = rig.pod_name(&spec);
    // The provider has looked, and its delete is on the way for so long that it is sent again.
    rig.fake.fault("delete pods", Fault::HangBefore, 1);
    let replace = async {
        rig.until("the delete is on the way", |rig| rig.fake.faults_left() == 0).await;
        rig.fake.remove("pods", NAMESPACE, &name);
        let other = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "other"}]}});
        rig.fake.create("pods", NAMESPACE, other).unwrap()
    };
    let (terminated, other) = tokio::join!(provider.terminate(&spec.uid, 1_000), replace);
    terminated.unwrap();
    let deletes = rig.fake.calls().iter().filter(|call| *call == "delete pods").count();
    assert!(deletes > 1, "nothing was deleted by the name that it has now: nothing was shown");
    let touched = rig.fake.history().iter().any(|change| {
        change.object["metadata"]["uid"] == other["metadata"]["uid"]
            && (change.kind == ChangeKind::Deleted || change.object["metadata"]["deletionTimestamp"].is_string())
    });
    assert!(!touched, "the pod that has the name now was deleted");
}

#[tokio::test]
async fn a_pod_of_a_lost_node_is_deleted_without_its_nodes_word() {
    let (rig, spec) = (Rig::new().await, spec(1));
    let provider = rig.provider();
    let mut belief = Belief::new(&provider, false);
    provider.launch(&spec).await.unwrap();
    assert!(belief.comes_to(runs(&spec)).await);
    rig.fake.kubelet(|kubelet| kubelet.is_away = true);
    rig.fake.change("pods", NAMESPACE, &rig.pod_name(&spec), |pod| {
        pod["status"]["conditions"][1]["status"] = json!("False");
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    assert!(belief.comes_to(preempted(&spec, "being deleted")).await);
    provider.terminate(&spec.uid, 1_000).await.unwrap();
    rig.until("all is gone", |rig| checks::settled(rig, &BTreeSet::new()).is_empty()).await;
}

#[tokio::test]
async fn the_last_words_of_a_replica_are_kept() {
    let (rig, spec) = (Rig::new().await, spec(1));
    let provider = rig.provider();
    let mut belief = Belief::new(&provider, false);
    provider.launch(&spec).await.unwrap();
    assert!(belief.comes_to(runs(&spec)).await);
    provider.terminate(&spec.uid, 1_000).await.unwrap();
    let kept = skyserve_provider::process::replica_log_path(&rig.home(), spec.uid.as_str());
    let kept = std::fs::read_to_string(kept).unwrap();
    assert_eq!(kept, format!("{} runs\nit ends\n", rig.pod_name(&spec)));
}

#[tokio::test]
async fn pods_that_others_delete_are_preempted_at_once() {
    let (rig, first, second) = (Rig::new().await, spec(1), spec(2));
    let provider = rig.provider();
    let mut belief = Belief::new(&provider, false);
    for spec in [&first, &second] {
        provider.launch(spec).await.unwrap();
        assert!(belief.comes_to(runs(spec)).await);
    }
    rig.fake.remove("pods", NAMESPACE, &rig.pod_name(&first));
    assert!(belief.comes_to(preempted(&first, "was deleted")).await);
    rig.fake.change("pods", NAMESPACE, &rig.pod_name(&second), |pod| {
        pod["status"]["phase"] = json!("Failed");
        pod["status"]["reason"] = json!("Evicted");
        pod["status"]["message"] = json!("The node was low on resource: memory.");
    });
    assert!(belief.comes_to(preempted(&second, "low on resource")).await);
}

#[tokio::test]
async fn what_vanished_while_nobody_watched_is_absent() {
    let (rig, spec) = (Rig::new().await, spec(1));
    let provider = rig.provider();
    let mut belief = Belief::new(&provider, false);
    provider.launch(&spec).await.unwrap();
    assert!(belief.comes_to(runs(&spec)).await);
    // The watch that is open ends with a second; the next begins where nobody remembers.
    rig.fake.fault("watch pods", Fault::HangBefore, 2);
    rig.until("the watch is away", |rig| rig.fake.faults_left() < 2).await;
    rig.fake.remove("pods", NAMESPACE, &rig.pod_name(&spec));
    rig.fake.compact();
    assert!(belief.comes_to(|phases| phases.get(&spec.uid) == Some(&Phase::Absent)).await);
}

#[tokio::test]
async fn a_pod_that_never_runs_is_given_up_once() {
    let (rig, spec) = (Rig::new().await, spec(1));
    rig.fake.kubelet(|kubelet| kubelet.is_away = true);
    let provider = rig.provider_with(Bounds { provision: Duration::from_millis(400), ..bounds() });
    let mut belief = Belief::new(&provider, false);
    provider.launch(&spec).await.unwrap();
    let given_up = |phase: &Phase| matches!(phase, Phase::Ended(Ended { stage: Stage::Provision, .. }));
    assert!(belief.comes_to(|phases| phases.get(&spec.uid).is_some_and(given_up)).await);
    assert!(
        !belief.comes_to_within(Duration::from_secs(1), |phases| !phases.get(&spec.uid).is_some_and(given_up)).await
    );
    assert_eq!(belief.all.iter().filter(|told| given_up(&told.phase)).count(), 1);
}

#[tokio::test]
async fn a_list_of_many_pages_is_whole_or_fails() {
    let rig = Rig::new().await;
    // An answer is long here.
    let provider = rig.provider_with(Bounds { answer: PATIENCE, ..bounds() });
    rig.fake.kubelet(|kubelet| kubelet.is_away = true);
    let spec = spec(1);
    provider.launch(&spec).await.unwrap();
    let pod = rig.pods_of(&spec.uid).remove(0);
    for number in 2..=600 {
        let (mut pod, uid) = (pod.clone(), format!("svc-1-{number}"));
        pod["metadata"]["name"] = json!(rig.names.replica(&uid));
        pod["metadata"]["labels"]["skyserve.dev/replica"] = json!(uid);
        pod["metadata"]["annotations"]["skyserve.dev/uid"] = json!(uid);
        rig.fake.create("pods", NAMESPACE, pod).unwrap();
    }
    assert_eq!(provider.list().await.unwrap().len(), 600);
    // The second page is forgotten: all begins anew. The third is not answered: that is no list.
    rig.fake.fault_after("list pods", 1, Fault::GONE, 1);
    assert_eq!(provider.list().await.unwrap().len(), 600);
    rig.fake.fault_after("list pods", 2, Fault::INTERNAL, 1);
    provider.list().await.unwrap_err();
    rig.fake.fault("list pods", Fault::GONE, 1_000);
    provider.list().await.unwrap_err();
}

#[tokio::test]
async fn an_api_server_that_is_away_is_waited_for_and_then_named() {
    let (rig, spec) = (Rig::new().await, spec(1));
    let provider = rig.provider();
    rig.fake.fault("create pods", Fault::UNAVAILABLE, 10_000);
    let error = provider.launch(&spec).await.unwrap_err();
    assert!(error.retryable, "{error:?}");
    for part in [spec.uid.as_str(), NAMESPACE, "cannot answer now"] {
        assert!(error.message.contains(part), "{error:?}");
    }
    rig.fake.heal();
    persist(|| provider.launch(&spec)).await.unwrap();
}

#[tokio::test]
async fn what_is_refused_is_named_and_not_tried_for_ever() {
    let rig = Rig::new().await;
    let provider = rig.provider();
    for (fault, part, retryable) in [
        (Fault::INVALID, "spec.containers[0].image", false),
        (Fault::QUOTA, "exceeded quota", true),
        (Fault::DENIED, "skyserve manifests", true),
    ] {
        rig.fake.fault("create pods", fault, 1);
        let error = provider.launch(&spec(1)).await.unwrap_err();
        assert!(error.message.contains(part) && error.retryable == retryable, "{error:?}");
    }
    assert!(!rig.fake.calls().iter().any(|call| call == "create secrets"));
}

#[tokio::test]
async fn nobody_who_listens_means_nobody_who_asks() {
    let rig = Rig::new().await;
    let provider = rig.provider();
    let observed = provider.observe();
    rig.until("it watches", |rig| rig.fake.calls().iter().any(|call| call == "watch pods")).await;
    drop(observed);
    rig.fake.fault("watch pods", Fault::Stream(StreamFault::End), 1);
    // A watch lasts a second: whoever still asked would have begun another.
    let calls = rig.fake.calls().len();
    let _ =
        tokio::time::timeout(Duration::from_millis(2_500), rig.until("never", |rig| rig.fake.calls().len() > calls))
            .await;
    assert_eq!(rig.fake.calls().len(), calls);
}
