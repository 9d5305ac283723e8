//! Routes on their way from the controller to load balancers in other pods, through every fault of the calls that carry
//! them.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

use serde_json::{Value, json};
use skyserve_controller::{LoadBalancerPods, RoutesMap};
use skyserve_fake_kube::{FakeKube, Fault, StreamFault};
use skyserve_manifests::names::{METRICS_PORT, Names, ROUTES_KEY};
use skyserve_routes::{FORMAT, RouteTable, TableVersion, decode, encode, read};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

const NAMESPACE: &str = "sky";
/// How long anything may take before a test fails: far more than it does on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn table(epoch: u64, seq: u64) -> RouteTable {
    RouteTable { format: FORMAT, epoch, seq, services: Vec::new() }
}

fn version(epoch: u64, seq: u64) -> TableVersion {
    table(epoch, seq).version()
}

struct Site {
    fake: FakeKube,
    names: Names,
    folder: tempfile::TempDir,
    followers: Vec<AbortHandle>,
}

/// A controller's side.
struct Publisher {
    tables: watch::Sender<Option<Arc<RouteTable>>>,
    keeping: JoinHandle<Option<TableVersion>>,
}

impl Publisher {
    fn publish(&self, epoch: u64, seq: u64) {
        self.tables.send_replace(Some(Arc::new(table(epoch, seq))));
    }
}

impl Site {
    async fn new() -> Self {
        let fake = FakeKube::start().await.unwrap();
        let names = Names::of_user("0123abcd");
        // As `up` makes it: labelled, owned and empty.
        let map = json!({ "metadata": { "name": names.routes(), "labels": { "of": "up" } } });
        fake.create("configmaps", NAMESPACE, map).unwrap();
        Self { fake, names, folder: tempfile::tempdir().unwrap(), followers: Vec::new() }
    }

    fn map(&self) -> RoutesMap {
        RoutesMap::new(&LoadBalancerPods {
            client: self.fake.client().unwrap(),
            namespace: NAMESPACE.into(),
            names: self.names.clone(),
            metrics_port: METRICS_PORT,
        })
    }

    fn publisher(&self) -> Publisher {
        let (tables, published) = watch::channel(None);
        Publisher { tables, keeping: tokio::spawn(self.map().keep(published)) }
    }

    fn routes_file(&self) -> std::path::PathBuf {
        self.folder.path().join("routes.json")
    }

    fn follow(&mut self) {
        let options = skyserve_follower::Options {
            routes_file: self.routes_file(),
            namespace: NAMESPACE.into(),
            config_map: self.names.routes(),
            key: ROUTES_KEY.into(),
            notify_socket: None,
            look_interval: Duration::from_millis(200),
        };
        let following = tokio::spawn(skyserve_follower::follow(self.fake.client().unwrap(), options));
        self.followers.push(following.abort_handle());
    }

    fn in_map(&self) -> Option<TableVersion> {
        let map = self.fake.objects("configmaps", NAMESPACE).pop()?;
        decode(map["data"][ROUTES_KEY].as_str()?.as_bytes()).ok().map(|table| table.version())
    }

    fn in_file(&self) -> Option<TableVersion> {
        read(&self.routes_file()).ok().map(|table| table.version())
    }

    /// Every table that the map ever held, in order, each once.
    fn history(&self) -> Vec<TableVersion> {
        let tables = self.fake.history().into_iter().filter_map(|change| {
            let text = change.object["data"][ROUTES_KEY].as_str()?.to_owned();
            decode(text.as_bytes()).ok().map(|table| table.version())
        });
        let mut tables: Vec<TableVersion> = tables.collect();
        tables.dedup();
        tables
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.followers.iter().for_each(AbortHandle::abort);
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_table_reaches_the_load_balancer_and_leaves_the_map_to_whoever_made_it() {
    let mut site = Site::new().await;
    site.follow();
    let publisher = site.publisher();
    publisher.publish(3, 1);
    until("the first table", || site.in_file() == Some(version(3, 1))).await;
    publisher.publish(3, 2);
    until("the next table", || site.in_file() == Some(version(3, 2))).await;
    let map = site.fake.objects("configmaps", NAMESPACE).remove(0);
    assert_eq!(map["metadata"]["labels"], json!({ "of": "up" }));
    assert_eq!(site.map().version().await, Some(version(3, 2)));
}

#[tokio::test]
async fn whatever_happens_to_its_calls_the_newest_table_arrives_and_none_goes_back() {
    let faults = [
        Fault::CONFLICT,
        Fault::DENIED,
        Fault::BUSY,
        Fault::INTERNAL,
        Fault::UNAVAILABLE,
        Fault::BadGateway,
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::HalfAnswer,
        // Of a patch: it is carried out after the next one, and comes too late.
        Fault::Late { calls: 2 },
    ];
    for fault in faults {
        for call in ["get configmaps", "patch configmaps"] {
            let mut site = Site::new().await;
            site.follow();
            site.fake.fault(call, fault.clone(), 1);
            let publisher = site.publisher();
            publisher.publish(1, 1);
            until("the fault", || site.fake.faults_left() == 0).await;
            publisher.publish(1, 2);
            until(&format!("the newest table after {fault:?} of {call}"), || site.in_file() == Some(version(1, 2)))
                .await;
            assert!(site.history().is_sorted(), "{fault:?} of {call}: {:?}", site.history());
        }
    }
}

#[tokio::test]
async fn a_watch_that_breaks_off_or_is_too_old_is_begun_again() {
    let mut site = Site::new().await;
    site.fake.fault("watch configmaps", Fault::ResetBefore, 1);
    site.fake.fault("list configmaps", Fault::BadGateway, 1);
    site.fake.fault("watch configmaps", Fault::Stream(StreamFault::Cut), 1);
    site.follow();
    let publisher = site.publisher();
    for seq in 1..=5 {
        publisher.publish(1, seq);
        until("the table", || site.in_file() == Some(version(1, seq))).await;
        site.fake.compact();
    }
}

#[tokio::test]
async fn what_a_watch_does_not_tell_is_found_all_the_same() {
    for fault in [StreamFault::Drop, StreamFault::Silent, StreamFault::Gone, StreamFault::Internal, StreamFault::Twice]
    {
        let mut site = Site::new().await;
        site.fake.fault("watch configmaps", Fault::Stream(fault.clone()), 1);
        site.follow();
        until("the watch", || site.fake.faults_left() == 0).await;
        site.publisher().publish(1, 1);
        until(&format!("the table in spite of {fault:?}"), || site.in_file() == Some(version(1, 1))).await;
    }
}

#[tokio::test]
async fn a_controller_that_was_overtaken_changes_nothing_and_learns_it() {
    let site = Site::new().await;
    let overtaken = site.publisher();
    overtaken.publish(4, 9);
    until("its table", || site.in_map() == Some(version(4, 9))).await;
    let successor = site.publisher();
    successor.publish(5, 1);
    until("its successor's", || site.in_map() == Some(version(5, 1))).await;
    overtaken.publish(4, 10);
    let later = timeout(PATIENCE, overtaken.keeping).await.unwrap().unwrap();
    assert_eq!(later, Some(version(5, 1)));
    assert_eq!(site.in_map(), Some(version(5, 1)));
}

#[tokio::test]
async fn a_map_that_is_lost_or_broken_leaves_the_load_balancer_its_routes() {
    let mut site = Site::new().await;
    site.follow();
    let publisher = site.publisher();
    publisher.publish(1, 1);
    until("the table", || site.in_file() == Some(version(1, 1))).await;
    let broken = |map: &mut Value| map["data"][ROUTES_KEY] = json!("{}");
    site.fake.change("configmaps", NAMESPACE, &site.names.routes(), broken);
    publisher.publish(1, 2);
    until("a whole one", || site.in_file() == Some(version(1, 2))).await;
    site.fake.remove("configmaps", NAMESPACE, &site.names.routes());
    publisher.publish(1, 3);
    let before = site.fake.calls().len();
    until("another try", || site.fake.calls().len() > before + 1).await;
    assert_eq!(site.in_file(), Some(version(1, 2)));
    // `up` makes it again.
    let text = String::from_utf8(encode(&table(1, 1))).unwrap();
    let map = json!({ "metadata": { "name": site.names.routes() }, "data": { ROUTES_KEY: text } });
    site.fake.create("configmaps", NAMESPACE, map).unwrap();
    until("the newest table", || site.in_file() == Some(version(1, 3))).await;
}

#[tokio::test]
async fn without_an_api_server_the_controller_starts_with_what_it_knows() {
    let site = Site::new().await;
    site.fake.fault("get configmaps", Fault::HangBefore, 1);
    let asked = timeout(PATIENCE, site.map().version()).await.unwrap();
    assert_eq!(asked, None);
}
