//! Asking before something is done.

use std::io::{self, BufRead, Write};

/// Why nothing may be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotConfirmed {
    #[error("nothing was done: you answered no")]
    Refused,
    #[error("nothing was done: this needs a confirmation, and nobody answers on standard input; add -y to confirm")]
    NobodyToAsk,
    #[error("nothing was done: none of {UNCLEAR_ANSWERS_MAX} answers was yes or no; add -y to confirm")]
    Unclear,
    #[error("nothing was done: cannot ask for a confirmation: {0}")]
    Terminal(#[from] io::Error),
}

/// Questions asked again before the answers are taken for something else than answers.
const UNCLEAR_ANSWERS_MAX: usize = 5;

/// Asks on standard input, unless `assume_yes`. An empty answer is yes, as in SkyPilot. Answers may come
/// from a pipe (`yes | …`); without any, nothing is done.
pub(crate) fn confirm(question: &str, assume_yes: bool) -> Result<(), NotConfirmed> {
    if assume_yes {
        return Ok(());
    }
    ask(question, &mut io::stdin().lock(), &mut io::stderr())
}

fn ask(question: &str, answers: &mut dyn BufRead, terminal: &mut dyn Write) -> Result<(), NotConfirmed> {
    for _ in 0..UNCLEAR_ANSWERS_MAX {
        write!(terminal, "{question} [Y/n]: ")?;
        terminal.flush()?;
        let mut answer = String::new();
        if answers.read_line(&mut answer)? == 0 {
            writeln!(terminal)?;
            return Err(NotConfirmed::NobodyToAsk);
        }
        match answer.trim().to_ascii_lowercase().as_str() {
            "" | "y" | "yes" => return Ok(()),
            "n" | "no" => return Err(NotConfirmed::Refused),
            _ => writeln!(terminal, "Please answer y or n.")?,
        }
    }
    Err(NotConfirmed::Unclear)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(text: &str) -> (Result<(), NotConfirmed>, String) {
        let mut terminal = Vec::new();
        let outcome = ask("Proceed?", &mut text.as_bytes(), &mut terminal);
        (outcome, String::from_utf8(terminal).unwrap())
    }

    #[test]
    fn enter_and_yes_confirm_and_no_or_the_end_of_input_refuse() {
        for yes in ["\n", "y\n", "YES\n"] {
            assert!(answered(yes).0.is_ok(), "{yes:?}");
        }
        for no in ["n\n", "No\n"] {
            assert!(matches!(answered(no).0, Err(NotConfirmed::Refused)), "{no:?}");
        }
        assert!(matches!(answered("").0, Err(NotConfirmed::NobodyToAsk)));
    }

    #[test]
    fn an_unclear_answer_is_asked_again() {
        let (outcome, shown) = answered("maybe\ny\n");
        assert!(outcome.is_ok());
        assert_eq!(shown, "Proceed? [Y/n]: Please answer y or n.\nProceed? [Y/n]: ");
        assert!(matches!(answered(&"what\n".repeat(1000)).0, Err(NotConfirmed::Unclear)), "it ends some time");
    }
}
