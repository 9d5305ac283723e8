//! The types of scalars, by the YAML 1.1 rules that PyYAML's resolver follows.

use crate::node::Value;
use crate::timestamp;

/// Longest decimal integer; Python's own limit.
const INTEGER_DIGITS_MAX: usize = 4300;

/// The value of a plain scalar.
pub(crate) fn plain(text: &str) -> Result<Value, String> {
    // Most scalars are words: what none of the patterns can begin with is a string.
    let Some(&first) = text.as_bytes().first() else { return Ok(Value::Null) };
    match first {
        b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' => {
            Ok(boolean(text).map(Value::Bool).or_else(|| null(text)).unwrap_or_else(|| string(text)))
        }
        b'~' => Ok(null(text).unwrap_or_else(|| string(text))),
        b'+' | b'-' | b'.' | b'0'..=b'9' => number(text),
        _ => Ok(string(text)),
    }
}

/// The value of a scalar with the standard tag `name`; `None` for a tag that is not a scalar's.
pub(crate) fn tagged(name: &str, text: &str) -> Option<Result<Value, String>> {
    let wrong = |kind: &str| format!("'{text}' is not {kind}");
    Some(match name {
        "str" => Ok(string(text)),
        "null" => Ok(Value::Null),
        "bool" => {
            let folded = text.to_lowercase();
            boolean(&folded).map(Value::Bool).ok_or_else(|| wrong("a boolean"))
        }
        "int" => match number(text) {
            Ok(value @ (Value::Int(_) | Value::BigInt(_))) => Ok(value),
            Ok(_) => Err(wrong("an integer")),
            Err(problem) => Err(problem),
        },
        "float" => match number(text) {
            Ok(Value::Float(value)) => Ok(Value::Float(value)),
            Ok(Value::Int(_) | Value::BigInt(_) | Value::String(_)) => {
                text.replace('_', "").parse().map(Value::Float).map_err(|_| wrong("a number"))
            }
            Ok(_) => Err(wrong("a number")),
            Err(problem) => Err(problem),
        },
        "timestamp" => timestamp::parse(text).unwrap_or_else(|| Err(wrong("a date"))).map(Value::Timestamp),
        "binary" => decode_base64(text).map(Value::Binary).ok_or_else(|| "not valid base64".to_owned()),
        _ => return None,
    })
}

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn null(text: &str) -> Option<Value> {
    matches!(text, "" | "~" | "null" | "Null" | "NULL").then_some(Value::Null)
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// An integer, float or date, else a string.
fn number(text: &str) -> Result<Value, String> {
    if let Some(value) = float(text) {
        return Ok(Value::Float(value));
    }
    if let Some(value) = integer(text) {
        return value;
    }
    match timestamp::parse(text) {
        Some(date) => date.map(Value::Timestamp),
        None => Ok(string(text)),
    }
}

fn signed(text: &str) -> (bool, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

fn all(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b'_' || allowed(byte))
}

/// `[0-9][0-9_]*`
fn decimal(text: &str) -> bool {
    text.as_bytes().first().is_some_and(u8::is_ascii_digit) && all(text, |byte| byte.is_ascii_digit())
}

/// `[0-5]?[0-9]`
fn sixtieths(text: &str) -> bool {
    match text.as_bytes() {
        [ones] => ones.is_ascii_digit(),
        [tens, ones] => (b'0'..=b'5').contains(tens) && ones.is_ascii_digit(),
        _ => false,
    }
}

fn integer(text: &str) -> Option<Result<Value, String>> {
    let (negative, digits) = signed(text);
    let radix = |rest: &str, radix| radix_integer(negative, rest, radix);
    if let Some(rest) = digits.strip_prefix("0b").filter(|rest| all(rest, |byte| matches!(byte, b'0' | b'1'))) {
        return Some(radix(rest, 2));
    }
    if let Some(rest) = digits.strip_prefix("0x").filter(|rest| all(rest, |byte| byte.is_ascii_hexdigit())) {
        return Some(radix(rest, 16));
    }
    if digits == "0" {
        return Some(Ok(Value::Int(0)));
    }
    if let Some(rest) = digits.strip_prefix('0') {
        let octal = all(rest, |byte| (b'0'..=b'7').contains(&byte));
        return octal.then(|| radix(&format!("0{rest}"), 8));
    }
    let (first, rest) = digits.split_once(':').map_or((digits, None), |(first, rest)| (first, Some(rest)));
    if !decimal(first) {
        return None;
    }
    match rest {
        None => Some(decimal_integer(negative, first)),
        Some(rest) => rest.split(':').all(sixtieths).then(|| sexagesimal(negative, first, rest)),
    }
}

fn radix_integer(negative: bool, digits: &str, radix: u32) -> Result<Value, String> {
    let digits = digits.replace('_', "");
    let value = i128::from_str_radix(&digits, radix).map_err(|_| {
        if digits.is_empty() {
            "an integer needs digits".to_owned()
        } else {
            "an integer of more than 127 bits".to_owned()
        }
    })?;
    Ok(Value::Int(if negative { -value } else { value }))
}

fn decimal_integer(negative: bool, digits: &str) -> Result<Value, String> {
    let digits = digits.replace('_', "");
    if digits.len() > INTEGER_DIGITS_MAX {
        return Err(format!("an integer of more than {INTEGER_DIGITS_MAX} digits"));
    }
    Ok(match digits.parse::<i128>() {
        Ok(value) => Value::Int(if negative { -value } else { value }),
        Err(_) => Value::BigInt(if negative { format!("-{digits}") } else { digits }),
    })
}

fn sexagesimal(negative: bool, first: &str, rest: &str) -> Result<Value, String> {
    let too_large = || "an integer of more than 127 bits".to_owned();
    let first: i128 = first.replace('_', "").parse().map_err(|_| too_large())?;
    let value = rest.split(':').try_fold(first, |sum, part| {
        let part: i128 = part.parse().ok()?;
        sum.checked_mul(60)?.checked_add(part)
    });
    let value = value.ok_or_else(too_large)?;
    Ok(Value::Int(if negative { -value } else { value }))
}

fn float(text: &str) -> Option<f64> {
    let (negative, body) = signed(text);
    let sign = if negative { -1.0 } else { 1.0 };
    match body {
        ".inf" | ".Inf" | ".INF" => return Some(sign * f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" if body.len() == text.len() => return Some(f64::NAN),
        _ => {}
    }
    let (mantissa, exponent) = body.find(['e', 'E']).map_or((body, None), |at| (&body[..at], Some(&body[at + 1..])));
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['+', '-'])?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
    }
    let (whole, fraction) = mantissa.split_once('.')?;
    if !fraction.is_empty() && !all(fraction, |byte| byte.is_ascii_digit()) {
        return None;
    }
    let parse = |text: &str| text.replace('_', "").parse::<f64>().ok();
    if whole.is_empty() {
        // `.5`, but neither `-.5` nor `._5`.
        return (body.len() == text.len() && decimal(fraction)).then(|| parse(body)).flatten();
    }
    if let Some((first, rest)) = whole.split_once(':') {
        // Base 60, without an exponent: `190:20:30.15`.
        if exponent.is_some() || !decimal(first) || !rest.split(':').all(sixtieths) {
            return None;
        }
        let (leading, seconds) = mantissa.rsplit_once(':')?;
        let minutes = leading.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + parse(part)?))?;
        return Some(sign * (minutes * 60.0 + parse(seconds)?));
    }
    decimal(whole).then(|| parse(body).map(|value| sign * value)).flatten()
}

/// As Python's `base64.decodebytes`: other characters are skipped, padding is required.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() {
        return None;
    }
    let sextet = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held, mut padding) = (0u32, 0u32, 0);
    for byte in text.bytes() {
        if byte == b'=' {
            padding += 1;
            if held >= 2 && held + padding >= 4 {
                break;
            }
            continue;
        }
        let Some(value) = sextet(byte) else { continue };
        padding = 0;
        bits = bits << 6 | u32::from(value);
        held += 1;
        if held > 1 {
            let shift = (4 - held) * 2;
            decoded.push((bits >> shift & 0xff) as u8);
        }
        if held == 4 {
            held = 0;
            bits = 0;
        }
    }
    (held == 0 || (held >= 2 && held + padding >= 4)).then_some(decoded)
}
