//! A local replica's output, while it is in the replica's folder.

use super::Site;
use crate::{LOG_PIECES_QUEUED_MAX, LogRequest, LogStream, ProviderError};
use skyserve_logs::Follower;
use skyserve_model::ReplicaUid;
use tokio::sync::mpsc;

/// Follows the output until nothing of the replica runs any more, or its folder is gone.
pub(super) fn open(site: &Site, uid: &ReplicaUid, request: LogRequest) -> Option<LogStream> {
    let folder = site.folder(uid);
    if !folder.output_log().exists() {
        return None;
    }
    let (sender, receiver) = mpsc::channel(LOG_PIECES_QUEUED_MAX);
    let follower = Follower::new(folder.output_log(), request.tail);
    let is_complete = move |_: &Follower| !request.follow || folder.exit_file().exists() || !folder.dir().exists();
    let mut pieces = skyserve_logs::stream(follower, is_complete);
    tokio::spawn(async move {
        while let Some(piece) = pieces.recv().await {
            let broke_off =
                |error| ProviderError { message: format!("its log cannot be read: {error}"), retryable: true };
            if sender.send(piece.map_err(broke_off)).await.is_err() {
                return;
            }
        }
    });
    Some(receiver)
}
