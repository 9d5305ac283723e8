//! A new readiness probe, tried on the replicas that serve before they are judged by it: one that is wrong would take
//! all of them off the routes at once, and no replica is restarted that could pass it instead.

use crate::probe;
use skyserve_model::{ProbeRules, ReplicaId};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long an answer is waited for: less than the client waits for ours. A probe that takes longer is believed.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Why the probe is refused, if every replica that answers in time fails it. One that fails it alone may be ill.
pub(crate) async fn rehearse(replicas: Vec<(ReplicaId, SocketAddr)>, rules: &ProbeRules) -> Result<(), String> {
    let mut tries = JoinSet::new();
    for (id, address) in replicas {
        let rules = rules.clone();
        tries.spawn(async move { (id, timeout(ANSWER_WITHIN, probe::probe(address, &rules)).await) });
    }
    let mut problem = None;
    while let Some(tried) = tries.join_next().await {
        match tried {
            Ok((id, Ok(Err(why)))) => problem = Some(format!("replica {id}: {why}")),
            // It passes, or nobody knows.
            Ok((_, Ok(Ok(())) | Err(_))) | Err(_) => return Ok(()),
        }
    }
    problem.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::tests::{replica, rules};

    async fn rehearsed(replicas: &[SocketAddr]) -> Result<(), String> {
        let replicas = replicas.iter().zip(1..).map(|(address, id)| (ReplicaId(id), *address)).collect();
        rehearse(replicas, &rules("/health")).await
    }

    #[tokio::test]
    async fn a_probe_that_every_replica_fails_is_refused_and_one_that_any_passes_is_not() {
        let (good, _heads) = replica(&[("/health", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")]).await;
        let (bad, _heads) = replica(&[("/health", "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")]).await;
        assert_eq!(rehearsed(&[]).await, Ok(()));
        assert_eq!(rehearsed(&[good]).await, Ok(()));
        assert_eq!(rehearsed(&[bad, good]).await, Ok(()));
        let refused = rehearsed(&[bad, bad]).await.unwrap_err();
        assert!(refused.contains("404 Not Found to /health"), "{refused}");
    }
}
