//! How a load balancer ends after SIGTERM, as a function of what is seen: it serves on until nothing comes any more,
//! then tells clients whose connections rest that they end, then ends.
//!
//! Invariants:
//! * It accepts to the end, and ends only when neither a connection nor a request has come for a while: until then
//!   somebody still sends traffic here.
//! * With a successor, quiet alone means nothing (a client that asks once a minute is quiet, too): it serves until a
//!   later controller has published, which its successor's load balancer precedes, and the word has got around.
//! * Whatever happens, it ends at its deadline.

use crate::client::LINGER_WAIT_MAX;
use crate::options::Limits;
use crate::worker::SWEEP_PERIOD;

/// Longest time for clients whose connections rest to be told of the end and to close them: two sweeps, to tell and to
/// count, and the wait for their reaction.
const PARTING_MS_MAX: u64 = 2 * SWEEP_PERIOD.as_millis() as u64 + LINGER_WAIT_MAX.as_millis() as u64;

/// A drain under way.
#[derive(Debug)]
pub(crate) struct Drain {
    /// When the process ends, whatever is in flight.
    deadline_ms: u64,
    /// The epoch of the table that was in force at its start: one of a later epoch is a successor's.
    epoch: u64,
    successor: Successor,
    /// When clients began to be told of the end.
    parting_since_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Successor {
    None,
    Awaited,
    /// Since its first table was seen.
    Here(u64),
}

/// What is so now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) now_ms: u64,
    /// Of the table in force.
    pub(crate) epoch: u64,
    pub(crate) has_services: bool,
    /// When a connection or a request last came.
    pub(crate) last_news_ms: u64,
    /// No request is being answered.
    pub(crate) is_idle: bool,
    /// No connection is left.
    pub(crate) is_empty: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Serve,
    /// Tell clients whose connections rest that they end; serve on.
    Part,
    End,
}

impl Drain {
    pub(crate) fn start(now_ms: u64, epoch: u64, has_successor: bool, limits: &Limits) -> Self {
        let successor = if has_successor { Successor::Awaited } else { Successor::None };
        Self { deadline_ms: now_ms + limits.drain_ms_max, epoch, successor, parting_since_ms: None }
    }

    pub(crate) fn next(&mut self, seen: Seen, limits: &Limits) -> Next {
        if seen.now_ms >= self.deadline_ms {
            return Next::End;
        }
        if self.successor == Successor::Awaited && seen.epoch > self.epoch {
            tracing::info!("another controller has published its first table: its load balancer takes over");
            self.successor = Successor::Here(seen.now_ms);
        }
        let is_needed = match self.successor {
            Successor::None => false,
            Successor::Awaited => true,
            Successor::Here(since_ms) => seen.now_ms < since_ms + limits.successor_settle_ms,
        };
        let is_quiet = seen.now_ms >= seen.last_news_ms + limits.drain_quiet_ms;
        if !seen.is_idle || (seen.has_services && (is_needed || !is_quiet)) {
            return Next::Serve;
        }
        match self.parting_since_ms {
            _ if seen.is_empty => Next::End,
            None => {
                self.parting_since_ms = Some(seen.now_ms);
                Next::Part
            }
            Some(since_ms) if seen.now_ms >= since_ms + PARTING_MS_MAX => Next::End,
            Some(_) => Next::Serve,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: u64 = 1_000_000;

    fn limits() -> Limits {
        Limits { drain_ms_max: 30_000, drain_quiet_ms: 3_000, successor_settle_ms: 10_000, ..Limits::default() }
    }

    fn drain(has_successor: bool) -> Drain {
        Drain::start(START_MS, 7, has_successor, &limits())
    }

    /// So long after the start, quiet since then, nobody connected.
    fn after(ms: u64) -> Seen {
        let now_ms = START_MS + ms;
        Seen { now_ms, epoch: 7, has_services: true, last_news_ms: START_MS, is_idle: true, is_empty: true }
    }

    #[test]
    fn without_a_successor_it_ends_when_nothing_has_come_for_a_while() {
        let mut drain = drain(false);
        assert_eq!(drain.next(after(2_999), &limits()), Next::Serve);
        assert_eq!(drain.next(Seen { last_news_ms: START_MS + 1, ..after(3_000) }, &limits()), Next::Serve);
        assert_eq!(drain.next(Seen { is_idle: false, ..after(9_000) }, &limits()), Next::Serve);
        assert_eq!(drain.next(after(3_000), &limits()), Next::End);
        assert_eq!(drain.next(Seen { has_services: false, ..after(0) }, &limits()), Next::End);
    }

    #[test]
    fn with_a_successor_it_serves_until_that_has_published_and_the_word_has_got_around() {
        let mut drain = drain(true);
        assert_eq!(drain.next(after(20_000), &limits()), Next::Serve, "nobody else is there");
        let later = |ms| Seen { epoch: 8, ..after(ms) };
        assert_eq!(drain.next(later(20_001), &limits()), Next::Serve);
        assert_eq!(drain.next(later(29_999), &limits()), Next::Serve);
        assert_eq!(drain.next(Seen { is_empty: true, ..after(30_000) }, &limits()), Next::End, "its deadline");
        let mut drain = self::drain(true);
        assert_eq!(drain.next(later(1), &limits()), Next::Serve);
        assert_eq!(drain.next(Seen { last_news_ms: START_MS + 9_000, ..later(10_001) }, &limits()), Next::Serve);
        assert_eq!(drain.next(Seen { last_news_ms: START_MS + 9_000, ..later(12_000) }, &limits()), Next::End);
    }

    #[test]
    fn connections_that_rest_are_told_once_and_given_time_to_close() {
        let mut drain = drain(false);
        let connected = |ms| Seen { is_empty: false, ..after(ms) };
        assert_eq!(drain.next(connected(3_000), &limits()), Next::Part);
        assert_eq!(drain.next(connected(3_020), &limits()), Next::Serve);
        // A request after all: it is answered, and the quiet begins anew.
        let request = Seen { last_news_ms: START_MS + 3_030, is_idle: false, ..connected(3_040) };
        assert_eq!(drain.next(request, &limits()), Next::Serve);
        assert_eq!(drain.next(Seen { last_news_ms: START_MS + 3_030, ..after(4_000) }, &limits()), Next::Serve);
        assert_eq!(drain.next(Seen { last_news_ms: START_MS + 3_030, ..after(6_030) }, &limits()), Next::End);
        let mut drain = self::drain(false);
        assert_eq!(drain.next(connected(3_000), &limits()), Next::Part);
        assert_eq!(drain.next(connected(3_000 + PARTING_MS_MAX), &limits()), Next::End, "it does not react");
    }

    #[test]
    fn the_deadline_ends_it_whatever_is_in_flight() {
        let busy = Seen { is_idle: false, is_empty: false, ..after(30_000) };
        assert_eq!(drain(true).next(busy, &limits()), Next::End);
        assert_eq!(drain(false).next(Seen { now_ms: busy.now_ms - 1, ..busy }, &limits()), Next::Serve);
    }
}
