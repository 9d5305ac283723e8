//! From bytes to text: what SkyPilot reads as a UTF-8 file and PyYAML accepts as printable.

use crate::Error;

/// The file's text without its byte order mark.
pub(crate) fn decode(source: &[u8]) -> Result<&str, Error> {
    let text = std::str::from_utf8(source).map_err(|broken| {
        let good = &source[..broken.valid_up_to()];
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let byte = source.get(broken.valid_up_to()).copied().unwrap_or_default();
        let utf16 = source.starts_with(&[0xff, 0xfe]) || source.starts_with(&[0xfe, 0xff]);
        let hint = if utf16 { "it looks like UTF-16; " } else { "" };
        Error::at(line, 1, format!("the file is not UTF-8 (byte 0x{byte:02x}): {hint}save it as UTF-8"))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.split('\n').enumerate() {
        if let Some((column, character)) = line.chars().enumerate().find(|&(_, character)| !printable(character)) {
            let problem = format!("the character U+{:04X} is not allowed in YAML", u32::from(character));
            return Err(Error::at(index + 1, column + 1, problem));
        }
    }
    Ok(text)
}

/// PyYAML's set of characters that may stand in a stream. A byte order mark within the text counts
/// as printable there, and so here.
fn printable(character: char) -> bool {
    matches!(character,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}
