//! Reports changes of local replicas. Nothing is polled but a slow look at everything, in case the
//! kernel lost an event: a shim replaces files in its folder (inotify), and its death makes its pidfd
//! readable.

use super::phase::{self, Look};
use super::readiness::Readiness;
use super::{Site, launch};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use skyserve_model::launch::Phase;
use skyserve_model::{Observation, ReplicaUid};
use skyserve_shim::pidfd::ProcessIdentity;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Between two looks at every replica.
const RESCAN_MS: u64 = 10_000;

/// Runs until nobody listens any more.
pub(super) async fn observe(site: Arc<Site>, sender: mpsc::Sender<Observation>) {
    let watcher = match Watcher::new(&site) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "replicas are looked at every {RESCAN_MS} ms only: no inotify");
            None
        }
    };
    let mut observer =
        Observer { site, sender, watcher, reported: HashMap::new(), shims: HashMap::new(), ends: JoinSet::new() };
    let mut rescan = tokio::time::interval(Duration::from_millis(RESCAN_MS));
    rescan.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let changed = tokio::select! {
            () = observer.sender.closed() => return,
            _ = rescan.tick() => Changed::Any,
            changed = Watcher::changed(observer.watcher.as_mut()) => changed,
            Some(Ok(uid)) = observer.ends.join_next() => {
                observer.shims.remove(&uid);
                Changed::These(BTreeSet::from([uid]))
            }
        };
        if observer.report(changed).await.is_err() {
            return;
        }
    }
}

/// Replicas that may have changed.
enum Changed {
    Any,
    These(BTreeSet<ReplicaUid>),
}

/// Nobody listens any more.
struct Closed;

struct Observer {
    site: Arc<Site>,
    sender: mpsc::Sender<Observation>,
    watcher: Option<Watcher>,
    /// The last report of each replica that has not been reported absent.
    reported: HashMap<ReplicaUid, Phase>,
    /// Shims whose end is waited for.
    shims: HashMap<ReplicaUid, ProcessIdentity>,
    ends: JoinSet<ReplicaUid>,
}

impl Observer {
    /// Looks at the replicas that may have changed, and reports those that have.
    async fn report(&mut self, changed: Changed) -> Result<(), Closed> {
        let uids = match changed {
            Changed::These(uids) => uids,
            Changed::Any => {
                let dir = self.site.home.replicas_dir();
                let listed = tokio::task::spawn_blocking(move || phase::uids(&dir)).await;
                let mut uids: BTreeSet<_> = self.reported.keys().cloned().collect();
                match listed {
                    Ok(Ok(listed)) => uids.extend(listed),
                    Ok(Err(error)) => tracing::warn!(%error, "local replicas cannot be listed"),
                    Err(_) => return Err(Closed),
                }
                uids
            }
        };
        for uid in uids {
            // Watched first: what changes after the look is then told.
            if let Some(watcher) = &mut self.watcher {
                watcher.watch(&self.site, &uid);
            }
            let (site, looked) = (Arc::clone(&self.site), uid.clone());
            let Ok(look) = tokio::task::spawn_blocking(move || look(&site, &looked)).await else { return Err(Closed) };
            self.wait_for_end(&uid, look.shim);
            self.send(uid, look.phase.unwrap_or(Phase::Absent)).await?;
        }
        Ok(())
    }

    async fn send(&mut self, uid: ReplicaUid, phase: Phase) -> Result<(), Closed> {
        match self.reported.get(&uid) {
            Some(reported) if *reported == phase => return Ok(()),
            None if phase == Phase::Absent => return Ok(()),
            _ => {}
        }
        if phase == Phase::Absent {
            self.reported.remove(&uid);
            if let Some(watcher) = &mut self.watcher {
                watcher.forget(&uid);
            }
        } else {
            self.reported.insert(uid.clone(), phase.clone());
        }
        self.sender.send(Observation { uid, phase }).await.map_err(|_| Closed)
    }

    /// Looks again once this shim has ended.
    fn wait_for_end(&mut self, uid: &ReplicaUid, shim: Option<ProcessIdentity>) {
        let Some(shim) = shim.filter(|shim| self.shims.get(uid) != Some(shim)) else { return };
        // None if it has ended since it was seen.
        let Ok(pidfd) = shim.open() else { return };
        let ended = pidfd.map(|pidfd| Readiness::of(&pidfd));
        self.shims.insert(uid.clone(), shim);
        let uid = uid.clone();
        self.ends.spawn(async move {
            if let Some(Ok(ended)) = ended {
                let _ = ended.readable().await;
            }
            uid
        });
    }
}

/// Looks at one replica. One whose shim was killed gets another, which ends what is left and records it.
fn look(site: &Site, uid: &ReplicaUid) -> Look {
    let look = phase::look(&site.folder(uid));
    if look.abandoned
        && let Err(failure) = launch::start_shim(site, uid)
    {
        tracing::warn!(%uid, %failure, "the end of a replica whose shim was killed could not be recorded");
    }
    look
}

/// Tells which folders changed.
struct Watcher {
    inotify: Inotify,
    readiness: Readiness,
    all: WatchDescriptor,
    folders: HashMap<WatchDescriptor, ReplicaUid>,
}

impl Watcher {
    fn new(site: &Site) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let comes_and_goes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ONLYDIR;
        let all = inotify.add_watch(&site.home.replicas_dir(), comes_and_goes)?;
        let readiness = Readiness::of(&inotify)?;
        Ok(Self { inotify, readiness, all, folders: HashMap::new() })
    }

    /// Watches a replica's folder. Only renames are asked for: the output log is written all the time.
    fn watch(&mut self, site: &Site, uid: &ReplicaUid) {
        if self.folders.values().any(|watched| watched == uid) {
            return;
        }
        let flags = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
        if let Ok(descriptor) = self.inotify.add_watch(site.folder(uid).dir(), flags) {
            self.folders.insert(descriptor, uid.clone());
        }
    }

    /// The kernel has removed the watch together with the folder.
    fn forget(&mut self, uid: &ReplicaUid) {
        self.folders.retain(|_, watched| watched != uid);
    }

    /// Waits for the next changes; for ever without a watcher.
    async fn changed(watcher: Option<&mut Self>) -> Changed {
        let Some(watcher) = watcher else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = watcher.readiness.readable().await else { return std::future::pending().await };
            let events = match watcher.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(_) => return Changed::Any,
            };
            let mut uids = BTreeSet::new();
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    return Changed::Any;
                }
                if event.wd == watcher.all {
                    uids.extend(event.name.as_ref().and_then(|name| ReplicaUid::parse(name.to_str()?)));
                } else {
                    uids.extend(watcher.folders.get(&event.wd).cloned());
                }
            }
            return Changed::These(uids);
        }
    }
}
