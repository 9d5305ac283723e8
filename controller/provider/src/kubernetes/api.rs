//! Calls to the API server: each with a bound, repeated while the answer says that this helps.

use super::failure::CallError;
use k8s_openapi::api::core::v1::{Pod, Secret};
use skyserve_kube::Advice;
use skyserve_kube::kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use skyserve_kube::kube::{self, Api, Client};
use skyserve_manifests::names::{COMPONENT_LABEL, COMPONENT_REPLICA, CONTROLLER_LABEL, FIELD_MANAGER, Names};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Pods asked for at once: what fits well into one answer.
const PAGE: u32 = 250;
/// Lists begun anew because the server forgot the page that was to follow.
const LISTS_MAX: u32 = 5;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// One answer of the API server. Its own limit is 60 s; what takes longer than this is better asked again.
    pub answer: Duration,
    /// One call of the provider, repeated while the API server is away or busy. Shorter than a person waits for a
    /// reason to show, since the reason shows when the call has failed; the controller calls again.
    pub patience: Duration,
    /// Pause before a call is repeated for the first time; doubles from there.
    pub pause_first: Duration,
    pub pause_max: Duration,
    /// How long the server is asked to keep one watch open (whole seconds); the next goes on where it ended, and what
    /// ends later than that is dead.
    pub watch: Duration,
    /// From the first look at a pod to its commands' start: image, volumes, a node that has to be made for it.
    pub provision: Duration,
    /// Opening a log before a replica is ended, or reading that of one that has ended; its removal does not wait longer.
    pub log: Duration,
    /// What a kubelet that is alive needs beyond a replica's grace to say that its containers have ended.
    pub word: Duration,
    /// What it may take from there on: it unmounts volumes, and tells the API server that the pod may go.
    pub removal: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(15),
            patience: Duration::from_secs(20),
            pause_first: Duration::from_millis(200),
            pause_max: Duration::from_secs(5),
            watch: Duration::from_secs(120),
            provision: Duration::from_secs(600),
            log: Duration::from_secs(3),
            word: Duration::from_secs(5),
            removal: Duration::from_secs(30),
        }
    }
}

/// The two kinds of objects of a replica. Secrets are made and never read: who may read one in a namespace may read all.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) pods: Api<Pod>,
    secrets: Api<Secret>,
    pub(super) selector: String,
    pub(super) bounds: Bounds,
}

/// When an object was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Now,
    /// Now, by a call whose answer was lost; or before.
    Perhaps,
    Before,
}

/// All pods of ours at one moment.
pub(super) struct Listed {
    pub(super) pods: Vec<Pod>,
    /// From which on a watch tells what changes.
    pub(super) version: String,
}

impl Cluster {
    pub(super) fn new(client: &Client, namespace: &str, names: &Names, bounds: Bounds) -> Self {
        Self {
            pods: Api::namespaced(client.clone(), namespace),
            secrets: Api::namespaced(client.clone(), namespace),
            selector: format!("{CONTROLLER_LABEL}={},{COMPONENT_LABEL}={COMPONENT_REPLICA}", names.controller),
            bounds,
        }
    }

    pub(super) async fn create_pod(&self, pod: &Pod) -> Result<Pod, CallError> {
        self.patiently(|| async { self.pods.create(&post(), pod).await }).await
    }

    pub(super) async fn create_secret(&self, secret: &Secret) -> Result<Made, CallError> {
        let mut tries = 0;
        let result = self.patiently(|| {
            tries += 1;
            async { self.secrets.create(&post(), secret).await }
        });
        match result.await {
            Ok(_) => Ok(Made::Now),
            Err(error) if error.advice() != Advice::AlreadyExists => Err(error),
            Err(_) => Ok(if tries > 1 { Made::Perhaps } else { Made::Before }),
        }
    }

    pub(super) async fn pod(&self, name: &str) -> Result<Option<Pod>, CallError> {
        self.patiently(|| self.pods.get_opt(name)).await
    }

    /// Deletes the pod of this name if it still is the one with this UID; false if the server says that it is not as
    /// that expects, so that it has to be looked at again.
    pub(super) async fn delete_pod(&self, name: &str, object_uid: &str, grace_seconds: u32) -> Result<bool, CallError> {
        let preconditions = Preconditions { uid: Some(object_uid.to_owned()), resource_version: None };
        let params = DeleteParams {
            grace_period_seconds: Some(grace_seconds),
            preconditions: Some(preconditions),
            ..DeleteParams::background()
        };
        match self.patiently(|| async { self.pods.delete(name, &params).await.map(drop) }).await {
            Ok(()) => Ok(true),
            Err(error) if error.advice() == Advice::NotFound => Ok(true),
            Err(error) if error.advice() == Advice::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Every pod of ours, or the pod of that name whosever it is: all or an error, never some.
    pub(super) async fn list_pods(&self, name: Option<&str>) -> Result<Listed, CallError> {
        let mut error = None;
        for _ in 0..LISTS_MAX {
            match self.try_list(name).await {
                Ok(listed) => return Ok(listed),
                Err(failed) if failed.advice() == Advice::Relist => error = Some(failed),
                Err(failed) => return Err(failed),
            }
        }
        Err(error.unwrap_or(CallError::NoAnswer { waited: Duration::ZERO }))
    }

    async fn try_list(&self, name: Option<&str>) -> Result<Listed, CallError> {
        let mut params = match name {
            None => ListParams::default().labels(&self.selector).limit(PAGE),
            Some(name) => ListParams::default().fields(&format!("metadata.name={name}")),
        };
        let mut pods = Vec::new();
        loop {
            let page = self.once(self.pods.list(&params)).await?;
            pods.extend(page.items);
            let next = page.metadata.continue_.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(Listed { pods, version: page.metadata.resource_version.unwrap_or_default() });
            }
            params.continue_token = next;
        }
    }

    /// One call, once.
    pub(super) async fn once<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        let waited = self.bounds.answer;
        match timeout(waited, call).await {
            Ok(result) => result.map_err(CallError::Kube),
            Err(_) => Err(CallError::NoAnswer { waited }),
        }
    }

    /// One call, repeated while that helps and patience lasts. Whatever is called so may be applied twice.
    async fn patiently<T, C: Future<Output = kube::Result<T>>>(
        &self,
        mut call: impl FnMut() -> C,
    ) -> Result<T, CallError> {
        let end = Instant::now() + self.bounds.patience;
        let mut pause = self.bounds.pause_first;
        loop {
            let error = match self.once(call()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let after = match error.advice() {
                Advice::Retry { after } => after.unwrap_or_default(),
                // No list and no update: the server (or something on the way) has lost its thread.
                Advice::Relist => Duration::ZERO,
                Advice::AlreadyExists
                | Advice::Conflict
                | Advice::NotFound
                | Advice::Unauthorized
                | Advice::Forbidden
                | Advice::QuotaExceeded
                | Advice::Refused => return Err(error),
            };
            let wait = pause.max(after);
            if Instant::now() + wait >= end {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(self.bounds.pause_max);
        }
    }
}

fn post() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}
