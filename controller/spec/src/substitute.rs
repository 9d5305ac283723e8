//! `$VAR` and `${VAR}` in the service, workdir, file mounts and volumes, as SkyPilot fills them in.
//!
//! SkyPilot replaces them in the section's JSON text. So a value is JSON text as well: in it `\n` is
//! a line break, and a bare quote would end the string it stands in. What would break out of its
//! string is refused here. A variable that is not set stays as it is.

use crate::field::{Field, Result};
use skyserve_yaml::{Entry, Node, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Most text that all variables together may put in: a long value may stand in many places.
const FILLED_BYTES_MAX: usize = 8 << 20;

/// Fills variables in, and remembers which were not set.
#[derive(Debug)]
pub(crate) struct Substitution {
    variables: BTreeMap<String, String>,
    /// How much text may still be put in.
    bytes_left: usize,
    /// Path and name of each variable that is not set.
    pub(crate) unset: BTreeSet<(String, String)>,
    /// Paths where a closing brace without an opening one was swallowed, as SkyPilot does.
    pub(crate) stray_braces: BTreeSet<String>,
}

impl Substitution {
    pub(crate) fn new(variables: BTreeMap<String, String>) -> Self {
        Self { variables, bytes_left: FILLED_BYTES_MAX, unset: BTreeSet::new(), stray_braces: BTreeSet::new() }
    }

    /// The node with every string in it filled in, keys included. As in SkyPilot the result has what
    /// JSON has: keys are strings, and dates, binary data and sets are refused.
    pub(crate) fn fill(&mut self, field: &Field<'_>) -> Result<Node> {
        let value = match &field.node.value {
            Value::String(text) => Value::String(self.text(field, text)?),
            Value::Sequence(_) => {
                Value::Sequence(field.items()?.iter().map(|item| self.fill(item)).collect::<Result<_>>()?)
            }
            Value::Mapping(entries) => Value::Mapping(self.mapping(field, entries)?),
            Value::Timestamp(_) | Value::Binary(_) | Value::Set(_) => return Err(field.not_json()),
            plain => plain.clone(),
        };
        Ok(Node { value, ..*field.node })
    }

    fn mapping(&mut self, field: &Field<'_>, entries: &[Entry]) -> Result<Vec<Entry>> {
        let mut filled: Vec<Entry> = Vec::with_capacity(entries.len());
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for entry in entries {
            let key = Field::new(field.path.clone(), &entry.key);
            let name = json_key(&key)?;
            let name = self.text(&key, &name)?;
            let value = Field::new(format!("{}.{name}", field.path), &entry.value);
            let value = self.fill(&value)?;
            // Two keys may become the same: the last wins, as in JSON.
            if let Some(&place) = places.get(&name) {
                filled[place].value = value;
                continue;
            }
            places.insert(name.clone(), filled.len());
            filled.push(Entry { key: Node { value: Value::String(name), ..entry.key }, value });
        }
        Ok(filled)
    }

    /// One string filled in.
    fn text(&mut self, field: &Field<'_>, text: &str) -> Result<String> {
        if !text.contains('$') {
            return Ok(text.to_owned());
        }
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            filled.push_str(&rest[..at]);
            let reference = Reference::parse(&rest[at..]);
            match reference.as_ref().map(|reference| (reference, self.variables.get(reference.name))) {
                Some((reference, Some(value))) => {
                    if reference.has_default {
                        let name = reference.name;
                        return Err(
                            field.error(format!("${{{name}:-…}}: defaults are not supported; write ${{{name}}}"))
                        );
                    }
                    if reference.stray_brace {
                        self.stray_braces.insert(field.path.clone());
                    }
                    self.bytes_left = self.bytes_left.checked_sub(value.len()).ok_or_else(|| {
                        field.error(format!("variables put in more than the {FILLED_BYTES_MAX} bytes allowed"))
                    })?;
                    filled.push_str(&unescape(value).ok_or_else(|| {
                        let name = reference.name;
                        field.error(format!(
                            "the value of ${name} cannot stand here: a quote, a lone backslash or a control character \
                             in it would break the JSON text that it is put into"
                        ))
                    })?);
                    rest = &rest[at + reference.length..];
                }
                Some((reference, None)) => {
                    self.unset.insert((field.path.clone(), reference.name.to_owned()));
                    filled.push_str(&rest[at..at + reference.length]);
                    rest = &rest[at + reference.length..];
                }
                None => {
                    filled.push('$');
                    rest = &rest[at + 1..];
                }
            }
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// `$NAME` or `${NAME}` at the head of a text. SkyPilot's pattern takes either brace without the other.
#[derive(Debug)]
struct Reference<'t> {
    name: &'t str,
    length: usize,
    stray_brace: bool,
    /// `${NAME:-default}`, which the pattern takes apart.
    has_default: bool,
}

impl<'t> Reference<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let after_dollar = text.strip_prefix('$')?;
        let braced = after_dollar.strip_prefix('{');
        let body = braced.unwrap_or(after_dollar);
        let letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
        if !body.as_bytes().first().is_some_and(letter) {
            return None;
        }
        let end = body.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let (name, rest) = body.split_at(end);
        let closed = rest.starts_with('}');
        Some(Self {
            name,
            length: text.len() - rest.len() + usize::from(closed),
            stray_brace: closed && braced.is_none(),
            has_default: braced.is_some() && rest.starts_with([':', '-', '=', '?', '+']),
        })
    }
}

/// The value as the inside of a JSON string; `None` if it cannot be one.
fn unescape(value: &str) -> Option<String> {
    if !value.contains(['"', '\\']) && !value.chars().any(|character| character < ' ') {
        return Some(value.to_owned());
    }
    serde_json::from_str(&format!("\"{value}\"")).ok()
}

/// A key as `json.dumps` writes it.
fn json_key(key: &Field<'_>) -> Result<String> {
    Ok(match &key.node.value {
        Value::String(text) => text.clone(),
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(_) | Value::BigInt(_) | Value::Float(_) => key.node.value.to_python_string(),
        _ => return Err(key.not_json()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str, variables: &[(&str, &str)]) -> std::result::Result<String, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let node = Node { line: 1, column: 1, value: Value::String(text.to_owned()) };
        let mut substitution = Substitution::new(variables);
        let filled = substitution.fill(&Field::new("x", &node)).map_err(|error| error.problem)?;
        Ok(filled.as_str().unwrap().to_owned())
    }

    #[test]
    fn variables_are_filled_in_as_skypilot_does() {
        let set = [("V", "x"), ("LONG_1", "y")];
        for (text, expected) in [
            ("/$V", "/x"),
            ("/${V}/$LONG_1", "/x/y"),
            ("$$V", "$x"),
            ("\\$V", "\\x"),
            ("$1", "$1"),
            ("$Vé", "xé"),
            ("$VV ${V", "$VV x"),
            ("$V}", "x"),
            ("$UNSET ${UNSET}", "$UNSET ${UNSET}"),
            ("$", "$"),
        ] {
            assert_eq!(fill(text, &set).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_value_cannot_break_out_of_its_string() {
        assert!(fill("/$V", &[("V", "a\"b")]).unwrap_err().contains("$V"));
        assert!(fill("/$V", &[("V", "a\nb")]).is_err());
        assert!(fill("/$V", &[("V", "x\", \"replicas\": 7, \"zz\": \"")]).is_err());
        assert_eq!(fill("$V", &[("V", "a\\nb")]).as_deref(), Ok("a\nb"));
        assert_eq!(fill("$V", &[("V", "$V")]).as_deref(), Ok("$V"));
    }

    #[test]
    fn variables_cannot_blow_up_a_file() {
        let long = "x".repeat(100_000);
        assert!(fill(&"$V".repeat(1000), &[("V", &long)]).unwrap_err().contains("bytes allowed"));
    }

    #[test]
    fn a_default_for_an_unset_variable_is_refused_rather_than_torn() {
        assert!(fill("/${V:-def}", &[("V", "x")]).unwrap_err().contains("defaults are not supported"));
    }
}
