//! Services as they change: what `--wait`, `--watch` and `down` look at.

use crate::client::{Client, ClientError};
use skyserve_api::ServiceView;

/// Follows the controller's revisions, across its restarts.
#[derive(Debug)]
pub(crate) struct Watch {
    client: Client,
    /// The revision shown last; `None` when another controller may have taken over.
    revision: Option<u64>,
}

impl Watch {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, revision: None }
    }

    /// Every service: at once the first time, later as soon as anything has changed (or now and then).
    ///
    /// # Errors
    /// When the controller stays away for longer than a restart takes. The next call begins afresh.
    pub(crate) async fn next(&mut self) -> Result<Vec<ServiceView>, ClientError> {
        if let Some(revision) = self.revision.take()
            && let Ok(changes) = self.client.changes(revision).await
        {
            self.revision = Some(changes.revision);
            return Ok(changes.services);
        }
        // The revision first: what changes in between is then shown twice rather than never.
        let revision = self.client.controller().await?.revision;
        let services = self.client.services().await?;
        self.revision = Some(revision);
        Ok(services)
    }
}
