//! An upgraded connection: bytes both ways until either side ends it.
//!
//! Invariant: the tunnel counts as a request in flight of its replica until it ends.

use crate::reply::Exchange;
use crate::service::Lease;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::time::Duration;

/// Bytes read at once in each direction. WebSocket messages of models are mostly smaller.
const TUNNEL_BUFFER_BYTES: usize = 4 * 1024;

/// Joins the two connections once both are free of HTTP.
pub(crate) async fn run(client: OnUpgrade, replica: OnUpgrade, lease: Lease, exchange: Exchange) {
    let (Ok(client), Ok(replica)) = (client.await, replica.await) else { return };
    let (mut client, mut replica) = (TokioIo::new(client), TokioIo::new(replica));
    let copying =
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut replica, TUNNEL_BUFFER_BYTES, TUNNEL_BUFFER_BYTES);
    tokio::select! {
        copied = copying => {
            if let Err(error) = copied {
                tracing::debug!(service = exchange.service.name, replica = lease.replica.id, %error, "a tunnel broke");
            }
        }
        () = silence(&exchange) => {}
    }
}

/// Ends when no byte has passed the client's connection for `tunnel_idle_ms_max`.
async fn silence(exchange: &Exchange) {
    let idle_max = Duration::from_millis(exchange.worker.limits().tunnel_idle_ms_max);
    let mut passed = exchange.client.traffic_bytes();
    loop {
        tokio::time::sleep(idle_max).await;
        let now = exchange.client.traffic_bytes();
        if now == passed {
            return;
        }
        passed = now;
    }
}
