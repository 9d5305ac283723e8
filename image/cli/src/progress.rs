//! What a command is waiting for: one line that changes on a terminal, a line for each change
//! elsewhere. All of it goes to stderr, so results on stdout stay clean.

use crate::output::{Colour, Style, printable};
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Fast enough to look alive, slow enough to cost nothing.
const FRAME: Duration = Duration::from_millis(120);
const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
/// Longer texts are cut on a terminal: a line that wraps cannot be replaced. Fits the narrowest usual one.
const LINE_CHARS_MAX: usize = 76;

/// The line that says what is going on; it goes away when this is dropped.
pub(crate) struct Progress {
    shown: Option<String>,
    states: Vec<(String, String)>,
    spinner: Option<Spinner>,
}

impl Progress {
    pub(crate) fn start() -> Self {
        let spinner = io::stderr().is_terminal().then(Spinner::start).flatten();
        Self { shown: None, states: Vec::new(), spinner }
    }

    /// Says what is going on now. Saying the same again shows nothing new.
    pub(crate) fn now(&mut self, text: &str) {
        if self.shown.as_deref() == Some(text) {
            return;
        }
        self.shown = Some(text.to_owned());
        match &self.spinner {
            Some(spinner) => spinner.set(text),
            None => crate::output::message(text),
        }
    }

    /// Says how several things are now. A terminal has room for the first and the last of them. Elsewhere
    /// each gets a line when its `status` has changed; what is said about it beside changes too often.
    pub(crate) fn states(&mut self, states: &[State]) {
        if let Some(spinner) = &self.spinner {
            spinner.set(&match states {
                [first, .., last] => format!("{}; {}", first.text, last.text),
                [only] => only.text.clone(),
                [] => String::new(),
            });
            return;
        }
        for state in states.iter().filter(|state| !self.states.contains(&state.key())) {
            crate::output::message(&state.text);
        }
        self.states = states.iter().map(State::key).collect();
    }

    /// Prints a line that stays.
    pub(crate) fn keep(&mut self, text: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.above(text);
        } else {
            crate::output::message(text);
        }
    }
}

/// How one thing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) of: String,
    pub(crate) status: String,
    /// The two and whatever else there is to say.
    pub(crate) text: String,
}

impl State {
    /// `of: status`, and the reason if there is one.
    pub(crate) fn new(of: impl Into<String>, status: &str, reason: Option<&str>) -> Self {
        let of = of.into();
        let reason = reason.map_or_else(String::new, |reason| format!(" ({})", printable(reason)));
        Self { text: format!("{of}: {status}{reason}"), of, status: status.to_owned() }
    }

    fn key(&self) -> (String, String) {
        (self.of.clone(), self.status.clone())
    }
}

struct Spinner {
    line: Arc<Line>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Line {
    drawn: Mutex<Drawn>,
    changed: Condvar,
}

#[derive(Default)]
struct Drawn {
    text: String,
    above: Vec<String>,
    ended: bool,
}

impl Spinner {
    /// `None` if no thread can be had: progress is then not worth failing for.
    fn start() -> Option<Self> {
        let line = Arc::new(Line::default());
        let shared = Arc::clone(&line);
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || shared.draw()).ok()?;
        Some(Self { line, thread: Some(thread) })
    }

    fn set(&self, text: &str) {
        self.line.change(|state| text.clone_into(&mut state.text));
    }

    fn above(&self, text: &str) {
        self.line.change(|state| state.above.push(text.to_owned()));
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.line.change(|state| state.ended = true);
        if let Some(thread) = self.thread.take() {
            // It ends at once, and has nothing to report.
            drop(thread.join());
        }
    }
}

impl Line {
    fn change(&self, edit: impl FnOnce(&mut Drawn)) {
        edit(&mut self.drawn.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    fn draw(&self) {
        let style = Style::of_messages();
        let mut state = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        for frame in FRAMES.iter().cycle() {
            let mut drawn = String::from("\r\x1b[2K");
            for text in state.above.drain(..) {
                drawn.push_str(&text);
                drawn.push('\n');
            }
            if !state.ended && !state.text.is_empty() {
                let text: String = state.text.chars().take(LINE_CHARS_MAX).collect();
                drawn.push_str(&format!("{} {text}", style.paint(Colour::Cyan, &frame.to_string())));
            }
            // A terminal that has gone needs no progress.
            drop(io::stderr().write_all(drawn.as_bytes()));
            if state.ended {
                return;
            }
            state = self.changed.wait_timeout(state, FRAME).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_says_what_it_is_of_and_why() {
        assert_eq!(State::new("replica 1", "STARTING", None).text, "replica 1: STARTING");
        let failed = State::new("replica 1", "FAILED", Some("run exited\nwith code 3"));
        assert_eq!(failed.text, "replica 1: FAILED (run exited with code 3)");
        assert_eq!(failed.key(), State::new("replica 1", "FAILED", None).key());
    }
}
