//! A provider that is not known yet: calls wait for it a while, then fail in a way that has them made again.

use skyserve_model::{LaunchSpec, Observation, ReplicaUid};
use skyserve_provider::{LogRequest, LogStream, OBSERVATIONS_QUEUED_MAX, Provider, ProviderError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// How long a call waits: as long as a provider itself is patient with the API server, so that its reason shows soon.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub(super) struct Awaited<P> {
    provider: watch::Receiver<Option<P>>,
}

impl<P: Provider + Clone> Awaited<P> {
    pub(super) fn new(provider: watch::Receiver<Option<P>>) -> Self {
        Self { provider }
    }

    /// The provider, however long it takes; `None` if it never comes.
    async fn known(&self) -> Option<P> {
        let mut provider = self.provider.clone();
        provider.wait_for(Option::is_some).await.ok().and_then(|known| known.clone())
    }

    async fn soon(&self) -> Result<P, ProviderError> {
        timeout(PATIENCE, self.known()).await.ok().flatten().ok_or_else(|| ProviderError {
            message: "the API server has not yet said who owns replicas and where their files are; the controller's \
                      log says what it answers"
                .to_owned(),
            retryable: true,
        })
    }
}

impl<P: Provider + Clone> Provider for Awaited<P> {
    async fn launch(&self, spec: &LaunchSpec) -> Result<(), ProviderError> {
        self.soon().await?.launch(spec).await
    }

    async fn terminate(&self, uid: &ReplicaUid, grace_ms: u64) -> Result<(), ProviderError> {
        self.soon().await?.terminate(uid, grace_ms).await
    }

    async fn list(&self) -> Result<Vec<Observation>, ProviderError> {
        self.soon().await?.list().await
    }

    fn observe(&self) -> mpsc::Receiver<Observation> {
        let (sender, receiver) = mpsc::channel(OBSERVATIONS_QUEUED_MAX);
        let awaited = self.clone();
        tokio::spawn(async move {
            let Some(provider) = awaited.known().await else { return };
            let mut observations = provider.observe();
            while let Some(observation) = observations.recv().await {
                if sender.send(observation).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    async fn log(&self, uid: &ReplicaUid, request: LogRequest) -> Result<Option<LogStream>, ProviderError> {
        self.soon().await?.log(uid, request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows no replicas.
    #[derive(Clone)]
    struct Empty;

    impl Provider for Empty {
        async fn launch(&self, _: &LaunchSpec) -> Result<(), ProviderError> {
            Ok(())
        }
        async fn terminate(&self, _: &ReplicaUid, _: u64) -> Result<(), ProviderError> {
            Ok(())
        }
        async fn list(&self) -> Result<Vec<Observation>, ProviderError> {
            Ok(Vec::new())
        }
        fn observe(&self) -> mpsc::Receiver<Observation> {
            mpsc::channel(1).1
        }
        async fn log(&self, _: &ReplicaUid, _: LogRequest) -> Result<Option<LogStream>, ProviderError> {
            Ok(None)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_fail_for_now_while_it_is_not_known_and_work_once_it_is() {
        let (known, provider) = watch::channel(None);
        let awaited = Awaited::new(provider);
        assert!(awaited.list().await.unwrap_err().retryable);
        let waiting = tokio::spawn({
            let awaited = awaited.clone();
            async move { awaited.list().await }
        });
        known.send_replace(Some(Empty));
        assert_eq!(waiting.await.unwrap(), Ok(Vec::new()));
    }
}
