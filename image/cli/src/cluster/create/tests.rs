use super::*;
use crate::cluster::testing::{FakeApi, HANGS, RESETS, object, others_object, run, status};
use serde_json::{Value, json};
use skyserve_spec::config::Config;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const IMAGE: &str = "example.com/sky:1";

fn highly_available() -> Config {
    Config { high_availability: true, ..Config::default() }
}

/// The answers of a cluster with nothing in it, which takes all that is applied.
fn empty_cluster(what: &str) -> (u16, Value) {
    match what.split(' ').next() {
        Some("PATCH") => (200, object("v1", "Thing", what.rsplit('/').next().unwrap_or_default())),
        Some("POST") => (201, json!({ "spec": {}, "status": { "allowed": true } })),
        _ if what.ends_with("/storageclasses") => {
            let annotations = json!({ DEFAULT_CLASS_ANNOTATION: "true" });
            (
                200,
                json!({ "metadata": {}, "items": [
                { "metadata": { "name": "standard", "annotations": annotations }, "provisioner": "p" }] }),
            )
        }
        _ if what.ends_with("/pods") => (
            200,
            json!({ "metadata": {}, "items": [{
            "metadata": { "name": "c-1" },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }] }),
        ),
        _ => status(404, "not found"),
    }
}

fn prepared(api: &FakeApi, config: &Config) -> Result<Preparation, ClusterError> {
    run(async { api.remote().prepare(config, IMAGE).await })
}

fn refused(config: &Config, answer: impl Fn(&str) -> (u16, Value) + Send + Sync + 'static) -> String {
    let api = FakeApi::answering(answer);
    let error = prepared(&api, config).unwrap_err().to_string();
    let made: Vec<String> = api.asked().into_iter().filter(|asked| is_write(asked)).collect();
    assert!(made.is_empty(), "{made:?}");
    error
}

fn is_write(asked: &str) -> bool {
    !asked.starts_with("GET") && !asked.contains("dryRun=All") && !asked.contains("selfsubjectaccessreviews")
}

#[test]
fn everything_is_judged_before_anything_is_made_and_made_in_order_then_owned() {
    let api = FakeApi::answering(empty_cluster);
    run(async {
        let remote = api.remote();
        let preparation = remote.prepare(&highly_available(), IMAGE).await.unwrap();
        assert!(preparation.makes_a_controller());
        assert!(!api.asked().iter().any(|asked| is_write(asked)), "{:?}", api.asked());
        let judged = preparation.objects.len();
        remote.ensure(&preparation, &mut Progress::start()).await.unwrap();
        let applied: Vec<String> = api.asked().into_iter().filter(|asked| is_write(asked)).collect();
        // The controller is the last of the first round; the second gives it the others.
        assert_eq!(applied.len(), judged + judged - 1);
        assert!(applied[judged - 1].contains("/deployments/sky-serve-controller-0123abcd-deployment"), "{applied:?}");
        assert!(applied.iter().all(|asked| asked.contains("fieldManager=skyserve") && asked.contains("force=true")));
    });
}

#[test]
fn a_namespace_that_does_not_exist_is_told_with_how_to_make_it() {
    let error = refused(&highly_available(), |what| match what.starts_with("PATCH") {
        true => status(404, "namespaces \"ns\" not found"),
        false => empty_cluster(what),
    });
    assert!(error.ends_with(
        "in namespace ns of context test: namespaces \"ns\" not found; make it with `kubectl create namespace ns`, or name \
         another in kubernetes.namespace of your configuration"
    ), "{error}");
}

#[test]
fn a_missing_permission_and_a_spent_quota_are_told_in_the_api_servers_words() {
    for (words, advice) in [
        ("roles is forbidden: User \"ann\" cannot patch resource \"roles\"", "ask whoever runs the cluster"),
        ("pods \"c\" is forbidden: exceeded quota: q", "ask for a larger quota"),
    ] {
        let error = refused(&highly_available(), move |what| match what.starts_with("PATCH") {
            true => status(403, words),
            false => empty_cluster(what),
        });
        assert!(error.contains(words) && error.contains(advice), "{error}");
    }
}

#[test]
fn who_may_not_forward_ports_is_told_before_a_controller_is_made() {
    let error = refused(&highly_available(), |what| match what.starts_with("POST") {
        true => (201, json!({ "spec": {}, "status": { "allowed": false } })),
        false => empty_cluster(what),
    });
    assert!(error.contains("may not forward ports to pods in namespace ns of context test"), "{error}");
}

#[test]
fn a_storage_class_that_is_missing_is_told_with_those_that_are_there() {
    let named = Config { storage_class_name: Some("fast".into()), ..highly_available() };
    assert_eq!(
        refused(&named, empty_cluster),
        "a highly available controller needs a volume, and in context test StorageClass fast \
         (kubernetes.high_availability.storage_class_name) does not exist. Name one in \
         kubernetes.high_availability.storage_class_name; existing StorageClasses: standard"
    );
    let without_default = |what: &str| match what.ends_with("/storageclasses") {
        true => (200, json!({ "metadata": {}, "items": [] })),
        false => empty_cluster(what),
    };
    assert!(refused(&highly_available(), without_default).contains("no StorageClass is the default"));
    // Without a volume there is nothing to look for.
    assert!(prepared(&FakeApi::answering(without_default), &Config::default()).is_ok());
    // Who may not see them may use them.
    let forbidden = |what: &str| match what.ends_with("/storageclasses") {
        true => status(403, "no"),
        false => empty_cluster(what),
    };
    assert!(prepared(&FakeApi::answering(forbidden), &named).is_ok());
}

#[test]
fn an_object_that_misses_another_of_ours_is_judged_by_its_turn() {
    let api = FakeApi::answering(|what| match what.contains("rolebindings") {
        true => status(404, "roles.rbac.authorization.k8s.io \"sky-serve-controller-0123abcd\" not found"),
        false => empty_cluster(what),
    });
    assert!(prepared(&api, &highly_available()).is_ok());
}

/// A cluster with a controller of this image.
fn with_controller(image: &'static str) -> impl Fn(&str) -> (u16, Value) + Send + Sync + 'static {
    move |what| match what {
        _ if what.contains("/deployments/") && what.starts_with("GET") => {
            let mut deployment = object("apps/v1", "Deployment", "d");
            deployment["spec"] = json!({ "selector": {}, "template": { "spec": { "containers": [
                { "name": "controller", "image": image }] } } });
            (200, deployment)
        }
        _ if what.contains("/configmaps/") && what.starts_with("GET") => {
            let mut map = object("v1", "ConfigMap", "m");
            map["data"] = json!({ "config.yaml": "as it was" });
            map["metadata"]["ownerReferences"] =
                json!([{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "uid-of-d" }]);
            (200, map)
        }
        _ => empty_cluster(what),
    }
}

#[test]
fn an_existing_controller_is_used_as_it_is_and_the_differences_are_told() {
    let api = FakeApi::answering(with_controller("example.com/sky:0"));
    run(async {
        let remote = api.remote();
        let preparation = remote.prepare(&highly_available(), IMAGE).await.unwrap();
        assert!(!preparation.makes_a_controller());
        assert_eq!(preparation.notes.len(), 2);
        assert_eq!(
            preparation.notes[0],
            "the existing controller goes on with its image example.com/sky:0; example.com/sky:1 takes effect for a new \
             controller only"
        );
        remote.ensure(&preparation, &mut Progress::start()).await.unwrap();
    });
    assert!(!api.asked().iter().any(|asked| is_write(asked)), "{:?}", api.asked());
}

#[test]
fn a_flag_that_contradicts_the_existing_controller_is_refused() {
    let error = refused(&Config::default(), with_controller(IMAGE));
    assert!(error.starts_with("InconsistentHighAvailabilityError: "), "{error}");
}

/// What `up` would apply, with a load balancer and a Prometheus Operator besides.
fn everything() -> Config {
    let mut config = highly_available();
    config.load_balancer.replicas = 2;
    config.kubernetes.pod_monitor = true;
    config
}

#[test]
fn an_object_of_somebody_elses_is_named_and_left_alone_whichever_it_is() {
    let all = {
        let api = FakeApi::answering(empty_cluster);
        prepared(&api, &everything()).unwrap().objects
    };
    assert!(all.len() > 10, "{}", all.len());
    for object in &all {
        let path = format!("/{}/{}", object.plural(), object.name());
        let theirs = others_object(object.api_version(), object.kind(), object.name());
        let api = FakeApi::answering(move |what| match what.starts_with("GET") && what.ends_with(&path) {
            true => (200, theirs.clone()),
            false => empty_cluster(what),
        });
        let error = prepared(&api, &everything()).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "the {} {} in namespace ns of context test is not ours (it does not have the label \
                 skyserve.dev/controller=sky-serve-controller-0123abcd), and a controller needs its name. Nothing was \
                 changed: rename or remove it, or name another namespace in kubernetes.namespace of your configuration",
                object.kind(),
                object.name()
            )
        );
        let applied: Vec<String> = api.asked().into_iter().filter(|asked| asked.starts_with("PATCH")).collect();
        assert!(applied.is_empty(), "not even for show: {applied:?}");
    }
}

#[test]
fn what_is_ours_already_is_applied_again_and_what_cannot_be_looked_at_is_not() {
    let ours = |what: &str| match what.starts_with("GET") && what.contains("/configmaps/") {
        true => (200, object("v1", "ConfigMap", "m")),
        false => empty_cluster(what),
    };
    assert!(prepared(&FakeApi::answering(ours), &highly_available()).is_ok());
    let words = "roles is forbidden: User \"ann\" cannot get resource \"roles\"";
    let error = refused(&highly_available(), move |what| match what.starts_with("GET") && what.contains("/roles/") {
        true => status(403, words),
        false => empty_cluster(what),
    });
    assert!(error.contains(words) && error.contains("ask whoever runs the cluster"), "{error}");
}

#[test]
fn an_object_that_somebody_else_made_since_the_judgement_is_left_alone() {
    for config in [highly_available(), Config::default()] {
        let is_there = Arc::new(AtomicBool::new(false));
        let now = Arc::clone(&is_there);
        let api = FakeApi::answering(move |what| {
            match now.load(Ordering::Relaxed) && what.starts_with("GET") && what.contains("/services/") {
                true => (200, others_object("v1", "Service", "s")),
                false => empty_cluster(what),
            }
        });
        run(async {
            let remote = api.remote();
            let preparation = remote.prepare(&config, IMAGE).await.unwrap();
            is_there.store(true, Ordering::Relaxed);
            let error = remote.ensure(&preparation, &mut Progress::start()).await.unwrap_err().to_string();
            assert!(error.starts_with("the Service sky-serve-controller-0123abcd-files in namespace ns"), "{error}");
        });
        assert!(!api.asked().iter().any(|asked| is_write(asked)), "{:?}", api.asked());
    }
}

#[test]
fn what_an_interrupted_up_left_to_be_owned_is_looked_at_first() {
    let with_config_map = |map: Value| {
        let there = with_controller(IMAGE);
        FakeApi::answering(move |what| match what.contains("/configmaps/") && what.starts_with("GET") {
            true => (200, map.clone()),
            false => there(what),
        })
    };
    let ensured = |api: &FakeApi| {
        run(async {
            let remote = api.remote();
            let preparation = remote.prepare(&highly_available(), IMAGE).await?;
            remote.ensure(&preparation, &mut Progress::start()).await
        })
    };
    let ours = with_config_map(object("v1", "ConfigMap", "m"));
    ensured(&ours).unwrap();
    assert!(ours.asked().iter().any(|asked| is_write(asked)));
    let theirs = with_config_map(others_object("v1", "ConfigMap", "m"));
    let error = ensured(&theirs).unwrap_err().to_string();
    assert!(error.starts_with("the ConfigMap sky-serve-controller-0123abcd-config in namespace ns"), "{error}");
    assert!(!theirs.asked().iter().any(|asked| is_write(asked)), "{:?}", theirs.asked());
}

#[test]
fn who_may_not_see_config_maps_may_use_a_controller_that_is_there() {
    let there = with_controller("example.com/sky:0");
    let api = FakeApi::answering(move |what| match what.contains("/configmaps/") {
        true => status(403, "configmaps is forbidden: User \"ann\" cannot get resource \"configmaps\""),
        false => there(what),
    });
    run(async {
        let remote = api.remote();
        let preparation = remote.prepare(&highly_available(), IMAGE).await.unwrap();
        assert_eq!(preparation.notes.len(), 1, "that of its image: {:?}", preparation.notes);
        remote.ensure(&preparation, &mut Progress::start()).await.unwrap();
    });
    assert!(!api.asked().iter().any(|asked| is_write(asked)), "{:?}", api.asked());
}

/// `up` to a controller that can be talked to, on a cluster that answers `fault` to the first `times` of one call. Gives
/// what came of it, and all that was asked.
fn life(call: &str, fault: u16, times: u32) -> (Result<(), String>, Vec<String>) {
    let (call, left) = (call.to_owned(), AtomicU32::new(times));
    let api = FakeApi::answering(move |what| {
        let is_met = what == call && left.load(Ordering::Relaxed) > 0;
        if !is_met {
            return empty_cluster(what);
        }
        left.fetch_sub(1, Ordering::Relaxed);
        status(fault, "not now")
    });
    let outcome = run(async {
        let remote = api.remote();
        let preparation = remote.prepare(&everything(), IMAGE).await?;
        remote.ensure(&preparation, &mut Progress::start()).await
    });
    (outcome.map(drop).map_err(|error: ClusterError| error.to_string()), api.asked())
}

fn writes(asked: &[String]) -> BTreeSet<&String> {
    asked.iter().filter(|asked| is_write(asked)).collect()
}

#[test]
fn whatever_goes_wrong_once_with_whichever_call_all_is_made() {
    let (outcome, undisturbed) = life("", 0, 0);
    outcome.unwrap();
    let path = |asked: &String| asked.split('?').next().unwrap_or_default().to_owned();
    let calls: BTreeSet<String> = undisturbed.iter().map(path).collect();
    assert!(calls.len() > 30, "{calls:?}");
    for call in &calls {
        for fault in [429, 500, 502, 503, 504, RESETS] {
            let (outcome, asked) = life(call, fault, 1);
            assert!(asked.len() > undisturbed.len(), "{call} x {fault} came to pass");
            assert_eq!(outcome, Ok(()), "{call} x {fault}");
            assert_eq!(writes(&asked), writes(&undisturbed), "{call} x {fault}");
        }
        // What lasts, and no answer at all, is told; and nothing is made before everything was judged.
        for (fault, times) in [(503, u32::MAX), (RESETS, u32::MAX), (HANGS, 1), (HANGS, u32::MAX)] {
            let (outcome, asked) = life(call, fault, times);
            let Err(error) = outcome else {
                assert_eq!(writes(&asked), writes(&undisturbed), "{call} x {fault}");
                continue;
            };
            assert!(error.contains("cannot ") || error.contains("no answer"), "{call} x {fault}: {error}");
            let is_judged =
                asked.iter().filter(|asked| asked.contains("dryRun=All")).map(path).collect::<BTreeSet<_>>();
            let to_judge = undisturbed.iter().filter(|asked| asked.contains("dryRun=All")).map(path).collect();
            assert!(writes(&asked).is_empty() || is_judged == to_judge, "{call} x {fault}: {asked:?}");
        }
    }
}
