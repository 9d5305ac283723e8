//! What the commands write for a person: text, colour where a terminal shows it, and a quiet end when
//! the reader has gone.
//!
//! Invariants:
//! * Nothing here panics on a closed pipe: every write returns its error ([`is_reader_gone`]).
//! * Colour appears only on a terminal, and never when `NO_COLOR` is set.

use std::io::{self, IsTerminal, Write};

/// Where a command's result goes.
pub(crate) struct Screen<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) style: Style,
    /// Whether a person watches the result arrive.
    pub(crate) is_terminal: bool,
}

impl Screen<'_> {
    /// Writes one line.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

/// Whether text may carry colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Coloured,
}

/// The colours SkyServe uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Red,
    Green,
    Yellow,
    Blue,
    Magenta,
    Cyan,
}

impl Style {
    /// The style for a stream that is a terminal or not.
    pub(crate) fn of(is_terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if is_terminal && !refused { Self::Coloured } else { Self::Plain }
    }

    /// The style for messages, which go to stderr.
    pub(crate) fn of_messages() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        self.escape(colour.code(), text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.escape("1", text)
    }

    /// A table's title.
    pub(crate) fn title(self, text: &str) -> String {
        self.escape("36;1", text)
    }

    /// A service's or a replica's status, in SkyServe's colour for it.
    pub(crate) fn status(self, status: &str) -> String {
        status_colour(status).map_or_else(|| status.to_owned(), |colour| self.paint(colour, status))
    }

    /// A service's status; its colours differ from a replica's for the same word.
    pub(crate) fn service_status(self, status: &str) -> String {
        match status {
            "SHUTTING_DOWN" => self.paint(Colour::Yellow, status),
            _ => self.status(status),
        }
    }

    fn escape(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Blue => "34",
            Self::Magenta => "35",
            Self::Cyan => "36",
        }
    }
}

fn status_colour(status: &str) -> Option<Colour> {
    Some(match status {
        "READY" => Colour::Green,
        "PENDING" | "NOT_READY" => Colour::Yellow,
        "PROVISIONING" | "CONTROLLER_INIT" | "REPLICA_INIT" => Colour::Blue,
        "STARTING" => Colour::Cyan,
        "SHUTTING_DOWN" | "PREEMPTED" | "NO_REPLICA" => Colour::Magenta,
        "UNKNOWN" => Colour::Red,
        other if other.contains("FAILED") => Colour::Red,
        _ => return None,
    })
}

/// Whether a write failed because whoever read the output has ended (`skyserve status | head -1`),
/// which is their right and no failure of ours.
pub(crate) fn is_reader_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Writes a message to stderr. A message that nobody can read is lost on purpose: there is nowhere
/// left to say so.
pub(crate) fn message(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// Writes a warning to stderr.
pub(crate) fn warning(text: &str) {
    message(&format!("{} {text}", Style::of_messages().paint(Colour::Yellow, "warning:")));
}

/// Text from elsewhere (reasons, names, log lines in errors), without the control characters that
/// could move a terminal's cursor or change its title.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_carries_no_escape_codes_and_coloured_text_ends_its_colour() {
        assert_eq!(Style::Plain.service_status("READY"), "READY");
        assert_eq!(Style::Coloured.service_status("READY"), "\x1b[32mREADY\x1b[0m");
        assert_eq!(Style::of(false), Style::Plain);
    }

    #[test]
    fn shutting_down_is_yellow_for_a_service_and_magenta_for_a_replica_as_in_skyserve() {
        assert!(Style::Coloured.service_status("SHUTTING_DOWN").starts_with("\x1b[33m"));
        assert!(Style::Coloured.status("SHUTTING_DOWN").starts_with("\x1b[35m"));
    }

    #[test]
    fn a_reason_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a [2Jb c");
    }
}
