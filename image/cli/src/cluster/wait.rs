//! Waiting for a controller that can be talked to, and saying meanwhile what it waits for.

use super::pod::{Crashed, PodState};
use super::{ClusterError, PAUSE, Remote};
use crate::output::printable;
use crate::progress::Progress;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim};
use kube::Api;
use kube::api::{ListParams, LogParams};
use std::time::Duration;
use tokio::time::Instant;

/// Of a log that explains a failure: its last lines, and at most so many bytes.
const LOG_LINES_SHOWN: i64 = 12;
const LOG_BYTES_SHOWN: i64 = 4096;

/// How long a new controller is waited for, in seconds, for whoever knows better.
const WITHIN_VARIABLE: &str = "SKYSERVE_CONTROLLER_WITHIN";

/// How long to wait for a controller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// While it is on its way.
    coming: Duration,
    /// While it looks as if it needs a person: image registries and nodes recover by themselves at times.
    stuck: Duration,
    /// What to do when it has taken too long.
    advice: &'static str,
}

impl Patience {
    /// One that was there before: its pod may be on a lost node, whose loss is noticed after 50 s and acted on after
    /// another 30 s.
    pub(crate) const REPLACED: Self = Self {
        coming: Duration::from_secs(150),
        stuck: Duration::from_secs(10),
        advice: ". To give it up with all of its services: `sky down --purge sky-serve-controller`",
    };
    /// To find out whether it can be asked at all.
    pub(crate) const BRIEF: Self = Self { coming: Duration::from_secs(10), stuck: Duration::ZERO, advice: "" };

    /// A new controller: nodes may have to be added, a volume made, an image pulled.
    pub(crate) fn for_a_new_one() -> Self {
        let given = std::env::var(WITHIN_VARIABLE).ok().and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let stuck = Duration::from_secs(60);
        Self {
            coming: given.unwrap_or(Duration::from_secs(600)),
            stuck: given.map_or(stuck, |given| given.min(stuck)),
            advice: ". What was made stays, and goes on starting: run the command again once this is mended, or remove \
                     it with `sky down --purge sky-serve-controller`",
        }
    }
}

impl Remote {
    /// Waits until the controller can be talked to.
    ///
    /// # Errors
    /// What keeps it from being ready, once that has taken longer than there is patience.
    pub(crate) async fn until_ready(&self, patience: Patience, progress: &mut Progress) -> Result<(), ClusterError> {
        let began = Instant::now();
        // Kept when it gets going again: a pod that keeps ending looks healthy in between.
        let mut stuck_since = None;
        loop {
            let (text, crashed, deadline) = match self.pod_state().await {
                Ok(PodState::Ready { .. }) => return Ok(()),
                Ok(PodState::Ended { text, crashed }) => {
                    if !self.comes_back().await? {
                        return Err(self.ended(text, crashed.as_ref()).await);
                    }
                    (format!("{text}, and its successor is not there yet"), crashed, began + patience.coming)
                }
                Ok(PodState::Stuck { text, crashed }) => {
                    (text, crashed, *stuck_since.get_or_insert_with(Instant::now) + patience.stuck)
                }
                Ok(PodState::Coming { text }) => (self.with_details(text).await, None, began + patience.coming),
                Ok(PodState::Missing) => (self.why_missing().await?, None, began + patience.coming),
                Err(error) if error.is_passing() => (error.to_string(), None, began + patience.coming),
                Err(error) => return Err(error),
            };
            if Instant::now() >= deadline {
                let log = self.log_end(crashed.as_ref()).await;
                return Err(ClusterError::Refused(format!(
                    "the controller {self} is not ready: {text}{}{log}",
                    patience.advice
                )));
            }
            progress.now(&format!("waiting for the controller: {text}"));
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether a pod that has ended gets a successor.
    async fn comes_back(&self) -> Result<bool, ClusterError> {
        Ok(self.existing().await?.is_some_and(|existing| existing.is_highly_available()))
    }

    /// A pod that nothing restarts: only a controller that is not highly available has one.
    async fn ended(&self, text: String, crashed: Option<&Crashed>) -> ClusterError {
        let log = self.log_end(crashed).await;
        ClusterError::Refused(format!(
            "the controller {self} is lost: {text}. It was made without high availability, so nothing brings it back: \
             remove what is left with `sky down --purge sky-serve-controller`, then start your services again (with \
             serve.controller.high_availability: true it would come back by itself){log}"
        ))
    }

    /// Why there is no pod. The controller may have been removed meanwhile.
    async fn why_missing(&self) -> Result<String, ClusterError> {
        match self.existing().await? {
            Some(existing) => Ok(match existing.trouble {
                Some(trouble) => format!("no pod can be made for it: {}", printable(&trouble)),
                None => "its pod is about to be made".to_owned(),
            }),
            None => {
                Err(ClusterError::Refused(format!("the controller {self} was removed while it was being waited for")))
            }
        }
    }

    /// Adds what the volume and the events of the pod say. Only to explain: what cannot be read is left out.
    async fn with_details(&self, text: String) -> String {
        let details = [self.volume_trouble().await, self.newest_warning(&text).await];
        details.into_iter().flatten().fold(text, |text, detail| format!("{text}; {detail}"))
    }

    async fn volume_trouble(&self) -> Option<String> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.cluster.client.clone(), &self.cluster.namespace);
        let name = self.names.volume_claim();
        let claim = self.ask_once("look at the volume", claims.get_opt(&name)).await.ok()??;
        let phase = claim.status.and_then(|status| status.phase).unwrap_or_default();
        if phase == "Bound" {
            return None;
        }
        let class = match claim.spec.and_then(|spec| spec.storage_class_name) {
            Some(class) => format!("StorageClass {class} has given it no volume yet"),
            None => "the cluster's default StorageClass has given it no volume yet".to_owned(),
        };
        let warning = self.warning_about(&name).await.map_or_else(String::new, |warning| format!(": {warning}"));
        Some(format!("its volume claim {name} is {phase}: {class}{warning}"))
    }

    async fn newest_warning(&self, text: &str) -> Option<String> {
        // The scheduler's words are in the pod's condition already.
        if text.contains(" is Pending: ") {
            return None;
        }
        let selector = ListParams::default().labels(&self.label());
        let pods = self.ask_once("look at the pod", self.pods().list_metadata(&selector)).await.ok()?;
        let name =
            pods.items.into_iter().filter_map(|pod| pod.metadata.name).find(|name| text.contains(name.as_str()))?;
        self.warning_about(&name).await
    }

    /// The newest warning about an object.
    async fn warning_about(&self, name: &str) -> Option<String> {
        let events: Api<Event> = Api::namespaced(self.cluster.client.clone(), &self.cluster.namespace);
        let about = ListParams::default().fields(&format!("involvedObject.name={name},type=Warning"));
        let list = self.ask_once("look at events", events.list(&about)).await.ok()?;
        // Such as FailedMount and ProvisioningFailed; other warnings keep nothing from starting.
        let fails = |event: &Event| event.reason.as_deref().is_some_and(|reason| reason.contains("Failed"));
        let newest = list.items.into_iter().filter(fails).max_by_key(|event| event.last_timestamp.clone())?;
        newest.message.map(|message| printable(message.trim()))
    }

    /// The end of a crashed container's log, on lines of its own.
    async fn log_end(&self, crashed: Option<&Crashed>) -> String {
        let Some(crashed) = crashed else { return String::new() };
        let params = LogParams {
            container: Some(crashed.container.clone()),
            previous: crashed.previous,
            tail_lines: Some(LOG_LINES_SHOWN),
            limit_bytes: Some(LOG_BYTES_SHOWN),
            ..LogParams::default()
        };
        let log = self.ask_once("read its log", self.pods().logs(&crashed.pod, &params)).await.unwrap_or_default();
        let lines: Vec<String> = log.lines().map(|line| format!("  {}", printable(line))).collect();
        if lines.is_empty() { String::new() } else { format!("\nThe end of its log:\n{}", lines.join("\n")) }
    }
}

#[cfg(test)]
mod tests;
