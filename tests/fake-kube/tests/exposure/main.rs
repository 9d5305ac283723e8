//! Endpoints on a fake cluster: made, found, kept, removed; and what goes wrong is told.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod matrix;

use serde_json::{Value, json};
use skyserve_controller::core::Outside;
use skyserve_controller::exposure::{Bounds, Exposed, Exposure, KubernetesExposure, Listening, Settings, Wanted};
use skyserve_fake_kube::{FakeKube, Fault, StreamFault};
use skyserve_manifests::names::{COMPONENT_ENDPOINT, COMPONENT_LABEL, CONTROLLER_LABEL, Names};
use skyserve_manifests::{Owner, OwnerKind};
use skyserve_spec::config::EndpointKind;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

const NAMESPACE: &str = "sky";
/// How long anything may take before a test fails: far more than it does on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bounds that make a hung call a matter of a second, and not of a busy machine.
fn bounds() -> Bounds {
    Bounds {
        answer: Duration::from_secs(1),
        pause_first: Duration::from_millis(5),
        pause_max: Duration::from_millis(50),
        list_interval: Duration::from_secs(1),
    }
}

struct Site {
    fake: FakeKube,
    names: Names,
    wanted: watch::Sender<Wanted>,
    owner: watch::Sender<Option<Owner>>,
    told: mpsc::Receiver<Exposed>,
    task: tokio::task::AbortHandle,
}

impl Site {
    /// A controller whose node is 192.0.2.10, at work on a cluster.
    fn on(fake: FakeKube, kind: EndpointKind) -> Self {
        Self::with(fake, kind, Bounds::default())
    }

    fn with(fake: FakeKube, kind: EndpointKind, bounds: Bounds) -> Self {
        let names = Names::of_user("0123abcd");
        let owner = Owner { kind: OwnerKind::Deployment, name: names.deployment(), uid: "owner-uid".into() };
        let (owner, owner_known) = watch::channel(Some(owner));
        let (wanted, wants) = watch::channel(Wanted::new());
        let (tell, told) = mpsc::channel(64);
        let (namespace, node_ip) = (NAMESPACE.into(), Some("192.0.2.10".into()));
        let settings = Settings { names: names.clone(), namespace, kind, node_ip, bounds };
        let exposure = KubernetesExposure { settings, client: fake.client().unwrap(), owner: owner_known };
        let task = tokio::spawn(exposure.keep(wants, tell)).abort_handle();
        Self { fake, names, wanted, owner, told, task }
    }

    async fn new(kind: EndpointKind) -> Self {
        Self::on(FakeKube::start().await.unwrap(), kind)
    }

    fn want(&self, services: &[(&str, u16)]) {
        let listening = |(name, port): &(&str, u16)| ((*name).to_owned(), Listening { port: *port, incarnation: 1 });
        self.wanted.send_replace(services.iter().map(listening).collect());
    }

    fn objects(&self) -> Vec<Value> {
        self.fake.objects("services", NAMESPACE)
    }

    /// Waits until the cluster's Services are so.
    async fn until(&self, holds: impl Fn(&[Value]) -> bool) {
        assert!(self.comes_to(holds).await, "{:#?}", self.objects());
    }

    /// Waits until the cluster's Services are so; false if they are not in time.
    async fn comes_to(&self, holds: impl Fn(&[Value]) -> bool) -> bool {
        let wait = async {
            while !holds(&self.objects()) {
                // What changes between the look and the wait is looked at a moment later.
                let _ = timeout(Duration::from_millis(20), self.fake.changed()).await;
            }
        };
        timeout(PATIENCE, wait).await.is_ok()
    }

    /// Waits until this is told of a service.
    async fn told(&mut self, service: &str, holds: impl Fn(&Outside) -> bool) -> Outside {
        self.hears(service, holds).await.unwrap_or_else(|last| panic!("the last that was told: {last:?}"))
    }

    /// Waits until this is told of a service; the last that was told if that does not come in time.
    async fn hears(&mut self, service: &str, holds: impl Fn(&Outside) -> bool) -> Result<Outside, Option<Exposed>> {
        let mut last = None;
        let wait = async {
            while let Some((name, outside)) = self.told.recv().await {
                if name == service && holds(&outside) {
                    return outside;
                }
                last = Some((name, outside));
            }
            unreachable!("it goes on for ever")
        };
        timeout(PATIENCE, wait).await.map_err(|_| last)
    }

    fn give_node_port(&self, service: &str, port: u16) {
        let change = |object: &mut Value| object["spec"]["ports"][0]["nodePort"] = json!(port);
        self.fake.change("services", NAMESPACE, &self.names.endpoint(service), change);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn reached_at(url: &str) -> impl Fn(&Outside) -> bool {
    move |outside| outside.endpoint.as_deref() == Some(url)
}

#[tokio::test]
async fn a_service_is_reached_by_node_port_until_its_load_balancer_has_an_address() {
    let mut site = Site::new(EndpointKind::LoadBalancer).await;
    site.want(&[("a", 30001)]);
    site.until(|objects| objects.len() == 1).await;
    let object = site.objects().remove(0);
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "owner-uid");
    assert_eq!(object["spec"]["type"], "LoadBalancer");
    site.give_node_port("a", 31234);
    let meanwhile = site.told("a", reached_at("http://192.0.2.10:31234")).await;
    assert!(meanwhile.note.unwrap().contains("the LoadBalancer's address"));
    let name = site.names.endpoint("a");
    site.fake.change("services", NAMESPACE, &name, |object| {
        object["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.7" }] } });
    });
    assert_eq!(site.told("a", reached_at("http://203.0.113.7:30001")).await.note, None);
}

#[tokio::test]
async fn what_belongs_to_no_service_is_removed_and_what_is_not_ours_is_left() {
    let fake = FakeKube::start().await.unwrap();
    let names = Names::of_user("0123abcd");
    let labels = json!({ CONTROLLER_LABEL: names.controller, COMPONENT_LABEL: COMPONENT_ENDPOINT });
    // Of a service that went while no controller ran; the controller's own; somebody else's.
    fake.create("services", NAMESPACE, json!({ "metadata": { "name": names.endpoint("gone"), "labels": labels } }));
    fake.create(
        "services",
        NAMESPACE,
        json!({ "metadata": { "name": names.bundle_service(), "labels": {
        CONTROLLER_LABEL: names.controller, COMPONENT_LABEL: "controller" } } }),
    );
    fake.create("services", NAMESPACE, json!({ "metadata": { "name": "other" } }));
    let site = Site::on(fake, EndpointKind::PodIp);
    site.want(&[("a", 30001)]);
    let has = |objects: &[Value], name: &str| objects.iter().any(|object| object["metadata"]["name"] == name);
    let (a, gone, files) = (names.endpoint("a"), names.endpoint("gone"), names.bundle_service());
    site.until(|objects| has(objects, &a) && !has(objects, &gone)).await;
    site.want(&[]);
    site.until(|objects| !has(objects, &a)).await;
    assert!(has(&site.objects(), &files) && has(&site.objects(), "other"));
}

#[tokio::test]
async fn a_service_that_somebody_removes_is_made_again_and_its_port_follows() {
    let mut site = Site::new(EndpointKind::NodePort).await;
    site.want(&[("a", 30001)]);
    site.until(|objects| objects.len() == 1).await;
    site.fake.remove("services", NAMESPACE, &site.names.endpoint("a"));
    site.until(|objects| objects.len() == 1).await;
    site.want(&[("a", 30002)]);
    site.until(|objects| objects.iter().any(|object| object["spec"]["ports"][0]["port"] == 30002)).await;
    site.give_node_port("a", 31235);
    site.told("a", reached_at("http://192.0.2.10:31235")).await;
}

#[tokio::test]
async fn an_api_server_that_is_away_is_told_and_asked_again() {
    let fake = FakeKube::start().await.unwrap();
    let away = Fault::Refuse { code: 503, reason: "ServiceUnavailable", message: "away", retry_after_seconds: 0 };
    fake.fault("patch services", away, 2);
    fake.fault("watch services", Fault::ResetBefore, 2);
    let mut site = Site::on(fake, EndpointKind::NodePort);
    site.want(&[("a", 30001)]);
    site.told("a", |outside| outside.note.as_ref().is_some_and(|note| note.contains("away"))).await;
    site.until(|objects| objects.len() == 1).await;
    site.give_node_port("a", 31234);
    assert_eq!(site.told("a", reached_at("http://192.0.2.10:31234")).await.note, None);
}

#[tokio::test]
async fn a_name_that_somebody_else_has_is_told_and_left() {
    let fake = FakeKube::start().await.unwrap();
    let name = Names::of_user("0123abcd").endpoint("a");
    let foreign = json!({ "metadata": { "name": name }, "spec": { "ports": [{ "port": 80 }] } });
    let before = fake.create("services", NAMESPACE, foreign);
    let mut site = Site::on(fake, EndpointKind::NodePort);
    site.want(&[("a", 30001)]);
    let outside = site.told("a", |outside| outside.note.as_ref().is_some_and(|note| note.contains("not ours"))).await;
    assert_eq!(outside.endpoint, None);
    assert_eq!(site.objects(), Vec::from_iter(before));
}

#[tokio::test]
async fn nothing_is_made_before_its_owner_is_known() {
    let fake = FakeKube::start().await.unwrap();
    let mut site = Site::on(fake, EndpointKind::NodePort);
    let owner = site.owner.send_replace(None);
    site.want(&[("a", 30001)]);
    site.told("a", |outside| outside.endpoint.is_none()).await;
    assert!(!site.fake.calls().iter().any(|call| call == "patch services"));
    site.owner.send_replace(owner);
    site.until(|objects| objects.len() == 1).await;
}

#[tokio::test]
async fn a_service_that_comes_again_under_its_name_is_told_again() {
    let mut site = Site::new(EndpointKind::NodePort).await;
    site.want(&[("a", 30001)]);
    site.until(|objects| objects.len() == 1).await;
    site.give_node_port("a", 31234);
    site.told("a", reached_at("http://192.0.2.10:31234")).await;
    let again = Listening { port: 30001, incarnation: 2 };
    site.wanted.send_replace(Wanted::from([("a".to_owned(), again)]));
    site.told("a", reached_at("http://192.0.2.10:31234")).await;
}

#[tokio::test]
async fn a_removal_that_meets_a_conflict_is_tried_again() {
    let site = Site::new(EndpointKind::NodePort).await;
    site.want(&[("a", 30001)]);
    site.until(|objects| objects.len() == 1).await;
    site.fake.fault("delete services", Fault::CONFLICT, 2);
    site.want(&[]);
    site.until(<[Value]>::is_empty).await;
}

#[tokio::test]
async fn a_removal_that_the_watch_does_not_tell_is_found_by_the_next_list() {
    let fake = FakeKube::start().await.unwrap();
    fake.fault("watch services", Fault::Stream(StreamFault::BookmarksOnly), 1);
    let site = Site::with(fake, EndpointKind::NodePort, bounds());
    site.want(&[("a", 30001)]);
    site.until(|objects| objects.len() == 1 && site.fake.faults_left() == 0).await;
    site.fake.remove("services", NAMESPACE, &site.names.endpoint("a"));
    site.until(|objects| objects.len() == 1).await;
}

#[tokio::test]
async fn a_list_that_is_not_answered_is_told_and_asked_again() {
    for fault in [Fault::HangBefore, Fault::HangAfter] {
        let fake = FakeKube::start().await.unwrap();
        fake.fault("list services", fault, 1);
        let mut site = Site::with(fake, EndpointKind::NodePort, bounds());
        site.want(&[("a", 30001)]);
        let is_told = |outside: &Outside| outside.note.as_ref().is_some_and(|note| note.contains("did not answer"));
        site.told("a", is_told).await;
        site.until(|objects| objects.len() == 1).await;
    }
}

#[tokio::test]
async fn a_server_that_ends_each_watch_at_once_is_asked_after_pauses() {
    let fake = FakeKube::start().await.unwrap();
    fake.fault("watch services", Fault::Stream(StreamFault::EndAtOnce), u32::MAX);
    let bounds = Bounds { pause_first: PATIENCE * 2, pause_max: PATIENCE * 2, ..bounds() };
    let site = Site::with(fake, EndpointKind::NodePort, bounds);
    site.want(&[("a", 30001)]);
    site.until(|objects| objects.len() == 1).await;
    let watches = || site.fake.calls().iter().filter(|call| *call == "watch services").count();
    // Whoever asked without a pause would have asked often by then.
    let _ = timeout(Duration::from_millis(500), site.until(|_| watches() > 1)).await;
    assert!(watches() <= 1, "{} watches", watches());
    site.want(&[]);
    site.until(<[Value]>::is_empty).await;
}
