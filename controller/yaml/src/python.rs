//! How Python shows a value: what SkyPilot makes of an environment variable that is not a string.

use crate::node::{Node, Value};
use std::fmt::Write;

impl Value {
    /// `str(value)`: `True`, `None`, `1.0`, `[1, 'a']`.
    pub fn to_python_string(&self) -> String {
        match self {
            Self::String(text) | Self::Timestamp(text) => text.clone(),
            _ => self.to_python_literal(),
        }
    }

    /// `repr(value)`: as [`Self::to_python_string`], with strings quoted.
    pub fn to_python_literal(&self) -> String {
        match self {
            Self::Null => "None".to_owned(),
            Self::Bool(true) => "True".to_owned(),
            Self::Bool(false) => "False".to_owned(),
            Self::Int(value) => value.to_string(),
            Self::BigInt(digits) => digits.clone(),
            Self::Float(value) => float(*value),
            Self::String(text) => quote(text),
            Self::Timestamp(text) => timestamp(text),
            Self::Binary(bytes) => binary(bytes),
            Self::Sequence(items) => format!("[{}]", list(items)),
            Self::Set(items) if items.is_empty() => "set()".to_owned(),
            Self::Set(items) => format!("{{{}}}", list(items)),
            Self::Mapping(entries) => {
                let shown: Vec<String> = entries
                    .iter()
                    .map(|entry| {
                        let (key, value) = (&entry.key.value, &entry.value.value);
                        format!("{}: {}", key.to_python_literal(), value.to_python_literal())
                    })
                    .collect();
                format!("{{{}}}", shown.join(", "))
            }
        }
    }
}

fn list(items: &[Node]) -> String {
    let shown: Vec<String> = items.iter().map(|item| item.value.to_python_literal()).collect();
    shown.join(", ")
}

/// The shortest digits that read back as the same number, with an exponent below 1e-4 and from 1e16.
fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.unsigned_abs());
    }
    let plain = value.to_string();
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

fn quote(text: &str) -> String {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(mark);
    for character in text.chars() {
        match character {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            _ if character == mark => {
                quoted.push('\\');
                quoted.push(mark);
            }
            ' '..='~' => quoted.push(character),
            '\0'..='\u{a0}' | '\u{ad}' => push_escape(&mut quoted, u32::from(character)),
            '\u{2028}' | '\u{2029}' | '\u{feff}' => push_escape(&mut quoted, u32::from(character)),
            _ => quoted.push(character),
        }
    }
    quoted.push(mark);
    quoted
}

fn push_escape(quoted: &mut String, code: u32) {
    let written = if code < 0x100 { write!(quoted, "\\x{code:02x}") } else { write!(quoted, "\\u{code:04x}") };
    written.expect("writing to a string cannot fail");
}

fn binary(bytes: &[u8]) -> String {
    let mark = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut shown = format!("b{mark}");
    for &byte in bytes {
        match byte {
            b'\\' => shown.push_str("\\\\"),
            b'\n' => shown.push_str("\\n"),
            b'\r' => shown.push_str("\\r"),
            b'\t' => shown.push_str("\\t"),
            _ if char::from(byte) == mark => {
                shown.push('\\');
                shown.push(mark);
            }
            b' '..=b'~' => shown.push(char::from(byte)),
            _ => push_escape(&mut shown, u32::from(byte)),
        }
    }
    shown.push(mark);
    shown
}

/// `datetime.date(2024, 1, 2)`; a time's zone is left as text, since nobody writes one in a list.
fn timestamp(text: &str) -> String {
    let numbers: Vec<String> = text
        .split(['-', ' ', ':'])
        .map(|part| part.trim_start_matches('0'))
        .map(|part| if part.is_empty() { "0" } else { part }.to_owned())
        .collect();
    if numbers.len() == 3 { format!("datetime.date({})", numbers.join(", ")) } else { quote(text) }
}
