//! What a command is waiting for: one line that changes on a terminal, a line for each change
//! elsewhere. All of it goes to stderr, so results on stdout stay clean.

use crate::output::{Colour, Style};
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
    spinner: Option<Spinner>,
}

impl Progress {
    pub(crate) fn start() -> Self {
        let spinner = io::stderr().is_terminal().then(Spinner::start).flatten();
        Self { shown: None, spinner }
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

    /// Prints a line that stays.
    pub(crate) fn keep(&mut self, text: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.above(text);
        } else {
            crate::output::message(text);
        }
    }
}

struct Spinner {
    line: Arc<Line>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
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
    fn change(&self, edit: impl FnOnce(&mut State)) {
        edit(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    fn draw(&self) {
        let style = Style::of_messages();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
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
