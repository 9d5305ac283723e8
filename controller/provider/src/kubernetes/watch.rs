//! What becomes of pods, told by the API server: one list, then a watch from there; bookmarks keep the place while
//! nothing happens. What is lost is found by another list: after a watch that is too old, never by asking regularly.
//!
//! Every wait for an answer has a bound, and so has silence: a connection that is dead without saying so is noticed
//! when the watch is overdue to end.

use super::api::Cluster;
use super::failure::CallError;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use skyserve_kube::Advice;
use skyserve_kube::kube;
use skyserve_kube::kube::api::{WatchEvent, WatchParams};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// What has been learnt of the pods that are watched.
pub(super) enum News {
    /// These are all that there are.
    All(Vec<Pod>),
    /// This one was made or has changed.
    Changed(Pod),
    /// This one is gone; it is as it last was.
    Gone(Pod),
}

type Events = BoxStream<'static, kube::Result<WatchEvent<Pod>>>;

/// Watches pods for ever.
pub(super) struct Watch {
    cluster: Cluster,
    /// One pod, or all of ours.
    name: Option<String>,
    /// Everything up to here has been told; `None` before the first list, and when the place is lost.
    version: Option<String>,
    stream: Option<(Instant, Events)>,
    /// Before the server is asked again; grows while nothing comes of it.
    pause: Duration,
    /// Whether the trouble has been told to the log.
    told: bool,
}

impl Watch {
    /// Watches all pods of ours.
    pub(super) fn all(cluster: &Cluster) -> Self {
        let pause = cluster.bounds.pause_first;
        Self { cluster: cluster.clone(), name: None, version: None, stream: None, pause, told: false }
    }

    /// Watches the pod of this name.
    pub(super) fn one(cluster: &Cluster, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..Self::all(cluster) }
    }

    /// Waits for news, through whatever trouble. May be dropped while it waits: nothing is lost.
    pub(super) async fn next(&mut self) -> News {
        loop {
            match self.try_next().await {
                Ok(Some(news)) => {
                    if std::mem::take(&mut self.told) {
                        tracing::info!("the API server tells of pods again");
                    }
                    self.pause = self.cluster.bounds.pause_first;
                    return news;
                }
                Ok(None) => {}
                Err(error) => self.recover(&error).await,
            }
        }
    }

    /// One step: a list, the start of a watch, or one event of it.
    async fn try_next(&mut self) -> Result<Option<News>, CallError> {
        let Some(version) = &self.version else {
            let listed = self.cluster.list_pods(self.name.as_deref()).await?;
            self.version = Some(listed.version);
            return Ok(Some(News::All(listed.pods)));
        };
        let Some((began, stream)) = &mut self.stream else {
            let params = self.params();
            let stream = self.cluster.once(self.cluster.pods.watch(&params, version)).await?;
            self.stream = Some((Instant::now(), stream.boxed()));
            return Ok(None);
        };
        let silence_max = self.cluster.bounds.watch + self.cluster.bounds.answer;
        let Ok(event) = timeout(silence_max, stream.next()).await else {
            return Err(CallError::NoAnswer { waited: silence_max });
        };
        let (version, news) = match event {
            None => {
                // Its time is over. But a server that ends each watch at once is not asked without a pause.
                let at_once = began.elapsed() < self.cluster.bounds.pause_max.min(self.cluster.bounds.watch / 2);
                self.stream = None;
                if at_once {
                    self.pause(Duration::ZERO).await;
                }
                return Ok(None);
            }
            Some(Err(error)) => return Err(CallError::Kube(error)),
            Some(Ok(WatchEvent::Error(status))) => return Err(CallError::Kube(kube::Error::Api(status))),
            Some(Ok(WatchEvent::Bookmark(mark))) => (Some(mark.metadata.resource_version), None),
            Some(Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod))) => {
                (pod.metadata.resource_version.clone(), Some(News::Changed(pod)))
            }
            Some(Ok(WatchEvent::Deleted(pod))) => (pod.metadata.resource_version.clone(), Some(News::Gone(pod))),
        };
        self.version = version.filter(|version| !version.is_empty()).or(self.version.take());
        Ok(news)
    }

    async fn recover(&mut self, error: &CallError) {
        self.stream = None;
        let advice = error.advice();
        if advice == Advice::Relist {
            self.version = None;
        }
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!("changes of pods are not told for the moment, asking again: {error}");
        }
        self.pause(advice.pause()).await;
    }

    async fn pause(&mut self, at_least: Duration) {
        let pause = self.pause.max(at_least);
        self.pause = (self.pause * 2).min(self.cluster.bounds.pause_max);
        tokio::time::sleep(pause).await;
    }

    fn params(&self) -> WatchParams {
        let seconds = u32::try_from(self.cluster.bounds.watch.as_secs()).unwrap_or(u32::MAX).max(1);
        let params = WatchParams::default().timeout(seconds);
        match &self.name {
            None => params.labels(&self.cluster.selector),
            Some(name) => params.fields(&format!("metadata.name={name}")),
        }
    }
}
