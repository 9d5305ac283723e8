//! What init says: on its standard error, and about a replay also in the recovery log.
//!
//! Invariant: saying something never blocks and never fails. Standard error may be a pipe that nobody reads; a line is
//! written only when the pipe takes all of it at once.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::log_file::RotatingLog;
use crate::sys;

/// A replay takes a few lines; failing scripts add one for each attempt.
const RECOVERY_LOG_BYTES_MAX: u64 = 1024 * 1024;

/// Init's voice.
#[derive(Debug)]
pub(crate) struct Journal {
    recovery: RotatingLog,
}

impl Journal {
    pub(crate) fn new(recovery_log: PathBuf) -> Self {
        Self { recovery: RotatingLog::new(recovery_log, RECOVERY_LOG_BYTES_MAX) }
    }

    /// Says a line about a replay, in the recovery log too.
    pub(crate) fn recovery(&mut self, line: fmt::Arguments<'_>) {
        say(line);
        self.recovery.write(format!("{} {line}\n", utc(now())).as_bytes());
    }
}

/// Says a line on standard error.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let mut text = format!("{} skyserve init: {line}\n", utc(now())).into_bytes();
    if text.len() > sys::TAKEN_BYTES_MAX {
        text.truncate(sys::TAKEN_BYTES_MAX - 1);
        text.push(b'\n');
    }
    if sys::takes_a_write(libc::STDERR_FILENO) {
        // Nobody is left to be told of a failure.
        let _ = io::stderr().write_all(&text);
    }
}

/// Time since 1970; a clock set before that counts as 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `2025-01-31T12:00:00.000Z`. The date is by Howard Hinnant's algorithm for the proleptic Gregorian calendar.
fn utc(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since_1970.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_827_696, "2000-02-29T12:34:56.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(Duration::from_secs(seconds)), expected);
        }
    }
}
