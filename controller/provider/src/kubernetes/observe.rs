//! Reports what the watch tells of pods, and what it does not tell in time: a pod that never gets to run.
//!
//! Where the word comes from makes a difference. A pod that the API server says was deleted is *preempted*: that is a
//! fact. A pod that is merely missing from a list is *absent*: a list may be wrong, so the controller makes sure.

use super::phase::phase;
use super::watch::{News, Watch};
use super::{Site, identity};
use k8s_openapi::api::core::v1::Pod;
use skyserve_model::launch::{Ended, Phase, Stage};
use skyserve_model::{Observation, ReplicaUid};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Runs until nobody listens any more.
pub(super) async fn observe(site: Arc<Site>, sender: mpsc::Sender<Observation>) {
    let mut watch = Watch::all(&site.cluster);
    let mut observer = Observer { site, sender, reported: BTreeMap::new() };
    loop {
        let late = observer.next_late();
        let told = tokio::select! {
            () = observer.sender.closed() => return,
            news = watch.next() => observer.tell(news).await,
            () = sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => observer.tell_late().await,
        };
        if told.is_err() {
            return;
        }
    }
}

/// Nobody listens any more.
struct Closed;

/// What was last said of a replica.
struct Report {
    phase: Phase,
    /// When it must run, as long as it does not: counted from the first look, so that no two clocks are compared.
    runs_by: Option<Instant>,
}

struct Observer {
    site: Arc<Site>,
    sender: mpsc::Sender<Observation>,
    reported: BTreeMap<ReplicaUid, Report>,
}

impl Observer {
    async fn tell(&mut self, news: News) -> Result<(), Closed> {
        match news {
            News::All(pods) => {
                let mut seen = BTreeSet::new();
                for pod in pods {
                    seen.extend(self.tell_pod(&pod).await?);
                }
                let missing = |uid: &&ReplicaUid| !seen.contains(*uid);
                let missing: Vec<ReplicaUid> = self.reported.keys().filter(missing).cloned().collect();
                for uid in missing {
                    self.reported.remove(&uid);
                    self.send(uid, Phase::Absent).await?;
                }
                Ok(())
            }
            News::Changed(pod) => self.tell_pod(&pod).await.map(drop),
            News::Gone(pod) => {
                let Some(uid) = self.site.uid_of(&pod) else { return Ok(()) };
                self.reported.remove(&uid);
                if self.site.is_ending(&uid) {
                    return self.send(uid, Phase::Absent).await;
                }
                let reason = format!("its pod {} was deleted, and not by us", identity::name(&pod.metadata));
                self.send(uid, Phase::Preempted { reason }).await
            }
        }
    }

    /// Tells of this pod unless that is old news, and gives the replica whose it is.
    async fn tell_pod(&mut self, pod: &Pod) -> Result<Option<ReplicaUid>, Closed> {
        let Some(uid) = self.site.uid_of(pod) else { return Ok(None) };
        if self.site.is_ending(&uid) {
            // What we do to it ourselves is no news.
            return Ok(Some(uid));
        }
        let now = phase(pod);
        let before = self.reported.get(&uid);
        if before.is_none() {
            // A launch that was under way when the replica was terminated shows here first.
            self.site.reap_if_terminated(&uid, pod).await;
        }
        let waits = matches!(now, Phase::Provisioning { .. });
        let first = before.is_none().then(|| Instant::now() + self.site.options.bounds.provision);
        let runs_by = waits.then(|| before.map_or(first, |report| report.runs_by)).flatten();
        let is_news = before.is_none_or(|report| report.phase != now);
        self.reported.insert(uid.clone(), Report { phase: now.clone(), runs_by });
        if is_news {
            self.send(uid.clone(), now).await?;
        }
        Ok(Some(uid))
    }

    fn next_late(&self) -> Option<Instant> {
        self.reported.values().filter_map(|report| report.runs_by).min()
    }

    /// Gives up on pods that have not come so far as to run, each once.
    async fn tell_late(&mut self) -> Result<(), Closed> {
        let (now, seconds) = (Instant::now(), self.site.options.bounds.provision.as_secs());
        let mut late = Vec::new();
        for (uid, report) in &mut self.reported {
            if report.runs_by.is_some_and(|moment| moment <= now) {
                report.runs_by = None;
                let Phase::Provisioning { reason } = &report.phase else { continue };
                let reason = reason.as_deref().unwrap_or("its pod says nothing about why");
                late.push((uid.clone(), format!("it did not get to run within {seconds} s: {reason}")));
            }
        }
        for (uid, reason) in late {
            self.send(uid, Phase::Ended(Ended { stage: Stage::Provision, reason })).await?;
        }
        Ok(())
    }

    async fn send(&self, uid: ReplicaUid, phase: Phase) -> Result<(), Closed> {
        self.sender.send(Observation { uid, phase }).await.map_err(|_| Closed)
    }
}
