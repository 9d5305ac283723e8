//! What becomes of objects, told by the API server: a list, then a watch from there; and a list again at an interval,
//! which finds what a watch has lost or a dead connection has kept to itself.
//!
//! Every wait for an answer has a bound, and a server that fails or ends each watch at once is asked after a pause.

use crate::calls::{Problem, in_time};
use crate::exposure::Bounds;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use serde::de::DeserializeOwned;
use skyserve_kube::Advice;
use skyserve_kube::kube::api::{ListParams, WatchEvent, WatchParams};
use skyserve_kube::kube::runtime::watcher::Event;
use skyserve_kube::kube::{self, Api, ResourceExt};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Objects asked for at once: what fits well into one answer.
const PAGE: u32 = 250;

/// Tells of all objects with these labels, for ever. A list is told when it is whole.
pub(crate) fn watching<K>(api: Api<K>, labels: &str, bounds: Bounds) -> BoxStream<'static, Result<Event<K>, Problem>>
where
    K: ResourceExt + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let watching = Watching {
        api,
        labels: labels.to_owned(),
        bounds,
        untold: VecDeque::new(),
        place: None,
        stream: None,
        pause: bounds.pause_first,
        rest: None,
    };
    let next = |mut watching: Watching<K>| async move { Some((watching.next().await, watching)) };
    stream::unfold(watching, next).boxed()
}

struct Watching<K> {
    api: Api<K>,
    labels: String,
    bounds: Bounds,
    untold: VecDeque<Event<K>>,
    /// When all is listed again, and the version up to which everything has been told; `None` before the first list,
    /// and when the place is lost.
    place: Option<(Instant, String)>,
    stream: Option<BoxStream<'static, kube::Result<WatchEvent<K>>>>,
    /// Before the server is asked again; grows while nothing comes of it.
    pause: Duration,
    /// At least so long is paused before the next step; `None` if there is no pause.
    rest: Option<Duration>,
}

impl<K> Watching<K>
where
    K: ResourceExt + Clone + DeserializeOwned + Debug + Send + 'static,
{
    async fn next(&mut self) -> Result<Event<K>, Problem> {
        loop {
            if let Some(event) = self.untold.pop_front() {
                return Ok(event);
            }
            if let Some(at_least) = self.rest.take() {
                tokio::time::sleep(self.pause.max(at_least)).await;
                self.pause = (self.pause * 2).min(self.bounds.pause_max);
            }
            if let Err(problem) = self.step().await {
                (self.stream, self.rest) = (None, Some(problem.advice.pause()));
                if problem.advice == Advice::Relist {
                    self.place = None;
                }
                return Err(problem);
            }
        }
    }

    /// One step: a list, the start of a watch, or one event of it.
    async fn step(&mut self) -> Result<(), Problem> {
        let now = Instant::now();
        let Some((list_at, version)) = self.place.as_mut().filter(|(list_at, _)| now < *list_at) else {
            return self.list().await;
        };
        let Some(stream) = &mut self.stream else {
            let seconds = u32::try_from(self.bounds.list_interval.as_secs()).unwrap_or(u32::MAX).max(1);
            let params = WatchParams::default().labels(&self.labels).timeout(seconds);
            self.stream = Some(in_time(self.bounds.answer, self.api.watch(&params, version)).await?.boxed());
            return Ok(());
        };
        let Ok(event) = timeout_at(*list_at, stream.next()).await else {
            // All is well as far as it tells.
            self.pause = self.bounds.pause_first;
            return Ok(());
        };
        let Some(event) = event else {
            (self.stream, self.rest) = (None, Some(Duration::ZERO));
            return Ok(());
        };
        let (told, event) = match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                (object.resource_version(), Some(Event::Apply(object)))
            }
            WatchEvent::Deleted(object) => (object.resource_version(), Some(Event::Delete(object))),
            WatchEvent::Bookmark(mark) => (Some(mark.metadata.resource_version), None),
            WatchEvent::Error(status) => return Err(status.into()),
        };
        if let Some(told) = told.filter(|told| !told.is_empty()) {
            *version = told;
        }
        self.pause = self.bounds.pause_first;
        self.untold.extend(event);
        Ok(())
    }

    async fn list(&mut self) -> Result<(), Problem> {
        self.stream = None;
        let list_at = Instant::now() + self.bounds.list_interval;
        let mut params = ListParams::default().labels(&self.labels).limit(PAGE);
        let mut all = VecDeque::from([Event::Init]);
        loop {
            let page = in_time(self.bounds.answer, self.api.list(&params)).await?;
            all.extend(page.items.into_iter().map(Event::InitApply));
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                all.push_back(Event::InitDone);
                self.place = Some((list_at, page.metadata.resource_version.unwrap_or_default()));
                self.untold = all;
                return Ok(());
            }
        }
    }
}
