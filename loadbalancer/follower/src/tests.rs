use super::*;
use futures_util::stream;
use skyserve_routes::{FORMAT, encode, read};
use std::collections::BTreeMap;

const KEY: &str = "routes.json";

fn table(epoch: u64, seq: u64) -> RouteTable {
    RouteTable { format: FORMAT, epoch, seq, services: Vec::new() }
}

fn map(content: Option<Vec<u8>>) -> ConfigMap {
    let text = content.map(|bytes| String::from_utf8(bytes).unwrap());
    ConfigMap { data: text.map(|text| BTreeMap::from([(KEY.to_owned(), text)])), ..ConfigMap::default() }
}

fn holding(epoch: u64, seq: u64) -> ConfigMap {
    map(Some(encode(&table(epoch, seq))))
}

struct Site {
    folder: tempfile::TempDir,
    supervisor: UnixDatagram,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let supervisor = UnixDatagram::bind(folder.path().join("notify.sock")).unwrap();
        supervisor.set_nonblocking(true).unwrap();
        Self { folder, supervisor }
    }

    fn options(&self) -> Options {
        Options {
            routes_file: self.folder.path().join("routes.json"),
            namespace: "sky".into(),
            config_map: "routes".into(),
            key: KEY.into(),
            look_interval: LOOK_INTERVAL,
            notify_socket: Some(self.folder.path().join("notify.sock")),
        }
    }

    /// Follows these to their end.
    fn follow(&self, events: Vec<WatchResult>) -> Follower {
        let mut follower = Follower::new(self.options());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(follower.follow(stream::iter(events)));
        follower
    }

    fn version(&self) -> Option<(u64, u64)> {
        read(&self.options().routes_file).ok().map(|table| (table.epoch, table.seq))
    }

    fn was_told(&self) -> bool {
        let mut message = [0; 64];
        self.supervisor.recv(&mut message).is_ok_and(|bytes| &message[..bytes] == b"READY=1\n")
    }
}

#[test]
fn the_file_follows_the_map_and_never_goes_back() {
    let site = Site::new();
    site.follow(vec![Ok(Event::Init), Ok(Event::InitApply(holding(2, 3))), Ok(Event::InitDone)]);
    assert_eq!(site.version(), Some((2, 3)));
    // An API server that lags behind, and a controller that was overtaken.
    site.follow(vec![
        Ok(Event::Apply(holding(2, 4))),
        Ok(Event::Apply(holding(2, 2))),
        Ok(Event::Apply(holding(1, 9))),
    ]);
    assert_eq!(site.version(), Some((2, 4)));
    site.follow(vec![Ok(Event::Apply(holding(3, 1)))]);
    assert_eq!(site.version(), Some((3, 1)));
}

#[test]
fn a_map_that_is_broken_emptied_or_removed_changes_nothing() {
    let site = Site::new();
    site.follow(vec![Ok(Event::Apply(holding(2, 3)))]);
    let mut torn = encode(&table(9, 9));
    torn.truncate(torn.len() / 2);
    let newer = encode(&RouteTable { format: FORMAT + 1, ..table(9, 9) });
    for event in [Event::Apply(map(Some(torn))), Event::Apply(map(Some(newer))), Event::Apply(map(None))] {
        site.follow(vec![Ok(event)]);
        assert_eq!(site.version(), Some((2, 3)));
    }
    let follower = site.follow(vec![Ok(Event::Delete(holding(2, 3)))]);
    assert_eq!(site.version(), Some((2, 3)));
    assert!(follower.trouble.unwrap().contains("removed"));
}

#[test]
fn the_supervisor_is_told_once_there_are_routes_and_those_of_an_earlier_start_are_routes() {
    let site = Site::new();
    site.follow(vec![Ok(Event::Init), Ok(Event::InitApply(map(None))), Ok(Event::InitDone)]);
    assert!(!site.was_told());
    site.follow(vec![Ok(Event::Apply(holding(1, 1))), Ok(Event::Apply(holding(1, 2)))]);
    assert!(site.was_told() && !site.was_told());
    // The API server is away.
    site.follow(vec![Err(watcher::Error::NoResourceVersion)]);
    assert!(site.was_told());
}

#[test]
fn a_table_that_cannot_be_written_is_written_later() {
    let site = Site::new();
    let mut options = site.options();
    options.routes_file = site.folder.path().join("later/routes.json");
    let mut follower = Follower::new(options.clone());
    follower.take(Ok(Event::Apply(holding(1, 1))));
    assert!(follower.unwritten.is_some() && !site.was_told());
    std::fs::create_dir(site.folder.path().join("later")).unwrap();
    follower.write();
    assert!(follower.unwritten.is_none() && site.was_told());
    assert_eq!(read(&options.routes_file).unwrap(), table(1, 1));
}
