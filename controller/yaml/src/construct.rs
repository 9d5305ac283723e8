//! From composed nodes to values: tags, merge keys and keys that are written twice.

use crate::node::{Entry, Node, Value};
use crate::{Error, resolve};
use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};

const STANDARD_TAG: &str = "tag:yaml.org,2002:";

/// A node that may still be a merge key or a value key, and for a scalar its text as written (which
/// is what makes two keys the same).
#[derive(Debug, Clone)]
pub(crate) struct Composed {
    node: Node,
    text: Option<String>,
    special: Option<Special>,
}

/// Plain scalars that mean something as a key and nothing elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    /// `<<`
    Merge,
    /// `=`
    ValueKey,
}

impl From<Node> for Composed {
    fn from(node: Node) -> Self {
        Self { node, text: None, special: None }
    }
}

impl Composed {
    /// The node, where it is not a key.
    pub(crate) fn into_node(self) -> Result<Node, Error> {
        if self.special.is_some() {
            let text = self.text.unwrap_or_default();
            let problem = format!("{text} means something as a key alone: quote it to have it as a string");
            return Err(Error::at(self.node.line, self.node.column, problem));
        }
        Ok(self.node)
    }
}

/// A scalar with its tag, or the type that its plain text has.
pub(crate) fn scalar(
    text: String,
    plain: bool,
    tag: Option<&str>,
    (line, column): (usize, usize),
) -> Result<Composed, Error> {
    let at = |value| Node { line, column, value };
    let broken = |problem: String| Error::at(line, column, problem);
    let tag = tag.filter(|tag| *tag != "!");
    let value = match tag {
        None if !plain => Value::String(text.clone()),
        None => {
            let special = match text.as_str() {
                "<<" => Some(Special::Merge),
                "=" => Some(Special::ValueKey),
                _ => None,
            };
            if special.is_some() {
                return Ok(Composed { node: at(Value::String(text.clone())), text: Some(text), special });
            }
            resolve::plain(&text).map_err(broken)?
        }
        Some(tag) => {
            let name = tag.strip_prefix(STANDARD_TAG).ok_or_else(|| broken(unknown_tag(tag)))?;
            resolve::tagged(name, &text).ok_or_else(|| broken(unknown_tag(tag)))?.map_err(broken)?
        }
    };
    Ok(Composed { node: at(value), text: Some(text), special: None })
}

/// A sequence of complete items.
pub(crate) fn sequence(
    children: Vec<Composed>,
    tag: Option<&str>,
    (line, column): (usize, usize),
) -> Result<Node, Error> {
    if let Some(tag) = tag.filter(|tag| *tag != "!" && *tag != "tag:yaml.org,2002:seq") {
        return Err(Error::at(line, column, unknown_tag(tag)));
    }
    let items = children.into_iter().map(Composed::into_node).collect::<Result<Vec<_>, _>>()?;
    Ok(Node { line, column, value: Value::Sequence(items) })
}

/// A mapping (or `!!set`) from its keys and values in turn.
pub(crate) fn mapping(
    children: Vec<Composed>,
    tag: Option<&str>,
    (line, column): (usize, usize),
) -> Result<Node, Error> {
    let is_set = match tag {
        None | Some("!" | "tag:yaml.org,2002:map") => false,
        Some("tag:yaml.org,2002:set") => true,
        Some(tag) => return Err(Error::at(line, column, unknown_tag(tag))),
    };
    let mut merged: Vec<Entry> = Vec::new();
    let mut own: Vec<(Option<String>, Entry)> = Vec::new();
    let mut merge_line = None;
    let mut children = children.into_iter();
    while let (Some(key), Some(value)) = (children.next(), children.next()) {
        let value = value.into_node()?;
        if key.special == Some(Special::Merge) {
            if let Some(first) = merge_line.replace(key.node.line) {
                return Err(duplicate("<<", &key.node, first));
            }
            merged = merge_sources(value)?;
            continue;
        }
        refuse_unhashable(&key.node)?;
        own.push((key.text, Entry { key: key.node, value }));
    }
    refuse_duplicates(&own)?;
    let entries = overlay(merged, own.into_iter().map(|(_, entry)| entry));
    let value =
        if is_set { Value::Set(entries.into_iter().map(|entry| entry.key).collect()) } else { Value::Mapping(entries) };
    Ok(Node { line, column, value })
}

/// What `<<` brings in. Of several mappings the first that has a key wins.
fn merge_sources(value: Node) -> Result<Vec<Entry>, Error> {
    let not_mapping = |node: &Node| {
        let problem = format!("<< merges a mapping or a list of mappings, not {}", node.value.kind());
        Error::at(node.line, node.column, problem)
    };
    match value.value {
        Value::Mapping(entries) => Ok(entries),
        Value::Sequence(sources) => {
            let mut merged = Vec::new();
            for source in sources.into_iter().rev() {
                match source.value {
                    Value::Mapping(entries) => merged = overlay(merged, entries),
                    _ => return Err(not_mapping(&source)),
                }
            }
            Ok(merged)
        }
        _ => Err(not_mapping(&value)),
    }
}

/// `base` with `over` on top: a key keeps its first place and takes its last value.
fn overlay(base: Vec<Entry>, over: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::with_capacity(base.len());
    let mut places: HashMap<String, usize> = HashMap::with_capacity(base.len());
    for entry in base.into_iter().chain(over) {
        match places.entry(identity(&entry.key.value)) {
            Occupied(place) => entries[*place.get()].value = entry.value,
            Vacant(place) => {
                place.insert(entries.len());
                entries.push(entry);
            }
        }
    }
    entries
}

/// Equal for keys that are equal to Python, where `1`, `1.0` and `true` are one key.
fn identity(key: &Value) -> String {
    match key {
        Value::Bool(value) => u8::from(*value).to_string(),
        Value::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value:.0}"),
        Value::String(text) => format!("'{text}"),
        other => other.to_python_literal(),
    }
}

fn refuse_unhashable(key: &Node) -> Result<(), Error> {
    match key.value {
        Value::Sequence(_) | Value::Mapping(_) | Value::Set(_) => {
            let problem = format!("{} cannot be a key", key.value.kind());
            Err(Error::at(key.line, key.column, problem))
        }
        _ => Ok(()),
    }
}

/// Two keys are duplicates if they are written alike, as SkyPilot judges.
fn refuse_duplicates(entries: &[(Option<String>, Entry)]) -> Result<(), Error> {
    let mut seen = HashMap::with_capacity(entries.len());
    for (text, entry) in entries {
        let written = text.clone().unwrap_or_default();
        if let Some(first) = seen.insert(written, entry.key.line) {
            let shown = text.as_deref().unwrap_or_default();
            return Err(duplicate(shown, &entry.key, first));
        }
    }
    Ok(())
}

fn duplicate(key: &str, node: &Node, first: usize) -> Error {
    let problem = format!(
        "Duplicate key '{key}' in YAML at line {} (also defined at line {first}). Remove one of the entries so the \
         intended value is unambiguous.",
        node.line
    );
    Error::at(node.line, node.column, problem)
}

fn unknown_tag(tag: &str) -> String {
    let shown = tag.strip_prefix(STANDARD_TAG).map_or_else(|| tag.to_owned(), |name| format!("!!{name}"));
    format!("the tag {shown} is not supported: remove it, or quote the value if it is meant as text")
}
