//! `logs` where the log is somewhere else: as a stream from the controller, taken up again when it breaks off.
//!
//! Invariant: bytes come out in the order they were written, none twice. Bytes are missed only when they are gone at
//! the other side as well; that is told.

use super::CommandError;
use crate::client::{Client, LogError, RETRY_REMOTE_FOR, service_path};
use crate::invocation::{LogOf, Logs};
use crate::output::{Screen, message, warning};
use skyserve_api::ServiceView;
use std::io::{self, Write};
use std::time::Duration;
use tokio::time::Instant;

/// Pause before a log that broke off is asked for again.
const PAUSE: Duration = Duration::from_millis(500);
/// The last bytes shown, by which our place is found again: long enough to be unique in a log with times in it.
const RECENT_BYTES: usize = 256;

pub(super) async fn show(
    command: &Logs,
    service: &ServiceView,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), CommandError> {
    let path = match command.of {
        LogOf::Controller => "/v1/logs/controller".to_owned(),
        LogOf::LoadBalancer => "/v1/logs/loadbalancer".to_owned(),
        LogOf::Replica(id) => format!("{}/replicas/{id}/log", service_path(&service.name)),
        LogOf::Unsaid => return Err(super::logs::unsaid(service)),
    };
    let replica = match command.of {
        LogOf::Replica(id) => Some((id, service.replicas.iter().any(|replica| replica.id == id))),
        _ => None,
    };
    let stream = Stream { client, path: &path, tail: command.tail, follow: command.follow, may_end: replica.is_some() };
    match (stream.show(&mut *screen.out).await, replica) {
        (Ok(()), Some((id, is_there))) if command.follow || !is_there => {
            message(&format!("Replica {id} of {} has ended; this was its log.", service.name));
            Ok(())
        }
        (Ok(()), _) => Ok(()),
        (Err(LogError::Sink(error)), _) => Err(error.into()),
        (Err(LogError::Client(error)), Some((id, false))) if error.is_not_found() => {
            Err(super::logs::no_replica(service, id))
        }
        (Err(LogError::Client(error)), _) => Err(error.into()),
    }
}

/// One log at the controller.
struct Stream<'a> {
    client: &'a Client,
    path: &'a str,
    tail: Option<u64>,
    follow: bool,
    /// Whether the end of the stream is the end of the log: a replica ends, a controller comes back.
    may_end: bool,
}

impl Stream<'_> {
    async fn show(&self, out: &mut dyn Write) -> Result<(), LogError> {
        let mut place = Place::default();
        let mut deadline = Instant::now() + RETRY_REMOTE_FOR;
        let tail = self.tail.map(|lines| format!("&tail={lines}")).unwrap_or_default();
        let mut query = format!("{}?follow={}{tail}", self.path, self.follow);
        loop {
            let before = place.seen;
            let streamed = self.client.follow_log(&query, &mut |piece| place.show(piece, out)).await;
            let error = match streamed {
                Ok(()) if self.may_end || !self.follow => return Ok(()),
                Ok(()) => None,
                Err(LogError::Client(error)) if error.is_absence() => Some(error),
                Err(error) => return Err(error),
            };
            if place.seen > before {
                deadline = Instant::now() + RETRY_REMOTE_FOR;
            }
            if let Some(error) = error.filter(|_| Instant::now() >= deadline) {
                return Err(error.into());
            }
            tokio::time::sleep(PAUSE).await;
            if place.has_shown() {
                self.catch_up(&mut place, out).await?;
                if !self.follow {
                    return Ok(());
                }
                query = format!("{}?follow=true", self.path);
            }
        }
    }

    /// Shows what was added while there was no stream, and goes to its end.
    async fn catch_up(&self, place: &mut Place, out: &mut dyn Write) -> Result<(), LogError> {
        let whole = match self.client.log(self.path).await {
            Ok(whole) => whole,
            // The replica and its log are gone: the stream says so too.
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let at = place.find_in(&whole).unwrap_or_else(|| {
            warning("some of the log may be missing here: it broke off, and its place was not found again");
            0
        });
        place.skip = 0;
        place.show(&whole[at..], out).map_err(LogError::Sink)?;
        // The next stream begins with all of this.
        place.seen = whole.len() as u64;
        place.skip = place.seen;
        Ok(())
    }
}

/// How far a log has been shown.
#[derive(Debug, Default)]
struct Place {
    /// Bytes of the log up to here; without its beginning if only its tail was asked for.
    seen: u64,
    /// Bytes of the next stream that have been shown already.
    skip: u64,
    recent: Vec<u8>,
}

impl Place {
    fn has_shown(&self) -> bool {
        !self.recent.is_empty()
    }

    fn show(&mut self, piece: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
        self.skip -= skipped as u64;
        self.seen += (piece.len() - skipped) as u64;
        let piece = &piece[skipped..];
        out.write_all(piece)?;
        self.recent.extend_from_slice(&piece[piece.len().saturating_sub(RECENT_BYTES)..]);
        let surplus = self.recent.len().saturating_sub(RECENT_BYTES);
        self.recent.drain(..surplus);
        out.flush()
    }

    /// Where what was shown ends in the whole log.
    fn find_in(&self, whole: &[u8]) -> Option<usize> {
        let ends_at = |end: usize| whole[..end].ends_with(&self.recent);
        let counted = usize::try_from(self.seen).ok().filter(|seen| *seen <= whole.len() && ends_at(*seen));
        counted.or_else(|| (self.recent.len()..=whole.len()).rev().find(|end| ends_at(*end)))
    }
}

#[cfg(test)]
mod tests;
