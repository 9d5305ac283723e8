//! What happened in a run, for a person and for comparing two runs byte for byte.

use std::fmt::Write;

/// Lines that a failure shows.
const SHOWN: usize = 80;

/// One line for each thing that happened.
#[derive(Debug, Default)]
pub struct History {
    text: String,
    pub(crate) now_ms: u64,
}

impl History {
    pub(crate) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let (seconds, milliseconds) = (self.now_ms / 1_000, self.now_ms % 1_000);
        writeln!(self.text, "{seconds:>6}.{milliseconds:03}  {what}").expect("a string takes any text");
    }

    /// All of it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        let first = lines.len().saturating_sub(SHOWN);
        let mut shown = if first > 0 { format!("  … {first} earlier lines\n") } else { String::new() };
        shown.push_str(&lines[first..].join("\n"));
        shown
    }
}
