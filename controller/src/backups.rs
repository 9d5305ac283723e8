//! When the database is copied ([`skyserve_recovery::take_backup`]), for the day on which it is found damaged.
//!
//! Invariants:
//! * A new service, a new version and a service's end are in a copy a second later; anything else within a minute.
//! * Nothing is copied, and nobody is woken, while nothing changes.
//! * One copy at a time is made, and no decision waits for it.

use skyserve_model::{Service, Timestamp};
use skyserve_recovery::take_backup;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::runtime::Handle;

/// From what a user asked for to the copy that has it.
const PAUSE_MS_URGENT: u64 = 1_000;
/// From any other change to the copy that has it.
const PAUSE_MS: u64 = 60_000;

/// What of the services cannot be found out again from what runs: which there are, and their versions.
type Asked = BTreeMap<u64, u64>;

/// See the module.
pub(crate) struct Backups {
    database: PathBuf,
    due: Option<Timestamp>,
    transactions: u64,
    /// As of the last look.
    asked: Asked,
    busy: Arc<AtomicBool>,
}

impl Backups {
    pub(crate) fn new(database: PathBuf) -> Self {
        Self { database, due: None, transactions: 0, asked: Asked::new(), busy: Arc::default() }
    }

    /// When [`Backups::keep`] is to be called again.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.due
    }

    /// Makes a copy on `io` if it is time, given how many transactions were stored and what is stored.
    pub(crate) fn keep<'a>(
        &mut self,
        now: Timestamp,
        transactions: u64,
        services: impl Iterator<Item = &'a Service>,
        io: &Handle,
    ) {
        if transactions != self.transactions {
            self.transactions = transactions;
            let asked = services.map(|service| (service.head.incarnation, service.head.version.0)).collect();
            let pause = if asked == self.asked { PAUSE_MS } else { PAUSE_MS_URGENT };
            self.asked = asked;
            self.due = Some(now.plus_ms(pause).min(self.due.unwrap_or(Timestamp(u64::MAX))));
        }
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        if self.busy.swap(true, Relaxed) {
            self.due = Some(now.plus_ms(PAUSE_MS_URGENT));
            return;
        }
        self.due = None;
        let (database, busy) = (self.database.clone(), Arc::clone(&self.busy));
        io.spawn_blocking(move || {
            if let Err(error) = take_backup(&database) {
                tracing::warn!("the database was not copied; it is tried again after the next change: {error}");
            }
            busy.store(false, Relaxed);
        });
    }
}
