//! The parser's events, with its errors in our own type, and what it must be kept from.

use crate::Error;
use libyaml_safer::{Event, EventData, Mark, Parser, ScalarStyle, Scanner, TokenData};

/// From libyaml's marks (from 0) to a line and a column (from 1).
pub(crate) fn position(mark: Mark) -> (usize, usize) {
    let from_one = |number: u64| usize::try_from(number).unwrap_or(usize::MAX - 1) + 1;
    (from_one(mark.line), from_one(mark.column))
}

/// The events of a text, as libyaml would give them.
///
/// `libyaml-safer` 0.3 panics at a block scalar that the text ends within. So a text that does not
/// end with a line break is given one, and the block scalar that it would lengthen loses it again.
pub(crate) struct Events<'t> {
    parser: Parser<&'t [u8]>,
    /// Where the text ends, if a line break was added.
    lengthened_to: Option<u64>,
}

/// The text to parse, and whether a line break was added to it.
pub(crate) fn terminated(text: &str) -> (std::borrow::Cow<'_, str>, bool) {
    const BREAKS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
    // Spaces alone on the last line mean nothing, and would count as a line of a block scalar.
    let unpadded = text.trim_end_matches(' ');
    let text = if unpadded.ends_with(BREAKS) { unpadded } else { text };
    if text.is_empty() || text.ends_with(BREAKS) { (text.into(), false) } else { (format!("{text}\n").into(), true) }
}

impl<'t> Events<'t> {
    /// Events of a text that [`terminated`] gave.
    pub(crate) fn new(text: &'t str, lengthened: bool) -> Self {
        let mut parser = Parser::new();
        parser.set_input(text.as_bytes());
        Self { parser, lengthened_to: lengthened.then_some(text.len() as u64) }
    }

    /// The next event; the last is `StreamEnd`.
    pub(crate) fn next(&mut self) -> Result<Event, Error> {
        let mut event = self.parser.parse().map_err(|cause| error(&cause))?;
        let reaches_end = Some(event.end_mark.index) == self.lengthened_to;
        if let EventData::Scalar { value, style: ScalarStyle::Literal | ScalarStyle::Folded, .. } = &mut event.data
            && reaches_end
            && value.ends_with('\n')
        {
            value.pop();
        }
        Ok(event)
    }
}

/// The parser's error, in words that say what to mend.
fn error(cause: &libyaml_safer::Error) -> Error {
    let (line, column) = cause.problem_mark().map_or((1, 1), position);
    let problem = match cause.context() {
        Some(context) => format!("not valid YAML: {} {context}", cause.problem()),
        None => format!("not valid YAML: {}", cause.problem()),
    };
    Error::at(line, column, problem)
}

/// Refuses a tag that is directly followed by a comma (`[!!str, a]`), at which `libyaml-safer` 0.3
/// panics.
///
/// Such places are found in a copy that has a space before every comma a tag could touch: the space
/// changes neither the structure nor where a tag begins, and with it the scanner does not panic.
pub(crate) fn refuse_tag_before_comma(text: &str) -> Result<(), Error> {
    let bytes = text.as_bytes();
    let mut spaced = Vec::with_capacity(bytes.len());
    // Where, in `spaced`, a word that holds a '!' before a ',' has its '!' characters.
    let mut suspects = Vec::new();
    let mut marks_of_word = Vec::new();
    for &byte in bytes {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => marks_of_word.clear(),
            b'!' => marks_of_word.push(spaced.len()),
            b',' if !marks_of_word.is_empty() => {
                suspects.append(&mut marks_of_word);
                spaced.push(b' ');
            }
            _ => {}
        }
        spaced.push(byte);
    }
    if suspects.is_empty() {
        return Ok(());
    }
    let mut scanner = Scanner::new();
    scanner.set_input(spaced.as_slice());
    for token in scanner.by_ref() {
        // The scanner looks ahead of the tokens it gives: its error may hide a tag before it.
        let token = token.map_err(|cause| error(&cause))?;
        let start = usize::try_from(token.start_mark.index).unwrap_or(usize::MAX);
        if matches!(token.data, TokenData::Tag { .. }) && suspects.binary_search(&start).is_ok() {
            let (line, column) = position(token.start_mark);
            return Err(Error::at(line, column, "a tag must be followed by a space or a line break"));
        }
    }
    Ok(())
}
