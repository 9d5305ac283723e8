//! A value with the path that leads to it: what every rule about a field is written against, so that
//! every refusal names field, value, rule and line.

use crate::SpecError;
use crate::suggest::nearest;
use skyserve_yaml::{Node, Value};

/// Longest piece of a value that a message shows.
const SHOWN_CHARS_MAX: usize = 60;

/// Most unknown fields that one message complains of.
const COMPLAINTS_MAX: usize = 8;

pub(crate) type Result<T> = std::result::Result<T, SpecError>;

/// A value and its path (`service.readiness_probe.path`).
#[derive(Debug, Clone)]
pub(crate) struct Field<'n> {
    pub(crate) path: String,
    pub(crate) node: &'n Node,
}

/// A mapping whose keys are all known.
#[derive(Debug, Clone)]
pub(crate) struct Section<'n> {
    pub(crate) field: Field<'n>,
    fields: Vec<(&'n str, Field<'n>)>,
}

impl<'n> Field<'n> {
    pub(crate) fn new(path: impl Into<String>, node: &'n Node) -> Self {
        Self { path: path.into(), node }
    }

    /// A refusal of this field. The file's name is filled in by whoever knows it.
    pub(crate) fn error(&self, problem: impl Into<String>) -> SpecError {
        SpecError { file: String::new(), line: Some(self.node.line), field: self.path.clone(), problem: problem.into() }
    }

    /// A refusal that shows the value: `2.5 is not an integer`.
    pub(crate) fn is_not(&self, expected: &str) -> SpecError {
        self.error(format!("{} is not {expected}", self.shown()))
    }

    /// The value as a message shows it, never very long.
    pub(crate) fn shown(&self) -> String {
        let literal = match &self.node.value {
            Value::Null => "null (no value)".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Timestamp(text) => text.clone(),
            other => other.to_python_literal(),
        };
        match literal.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &literal[..end]),
            None => literal,
        }
    }

    fn child(&self, name: &str, node: &'n Node) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { path, node }
    }

    /// The entries of a mapping, in order. Every key must be a string.
    pub(crate) fn entries(&self) -> Result<Vec<(&'n str, Field<'n>)>> {
        let entries = self.node.entries().ok_or_else(|| self.is_not("a mapping of names to values"))?;
        entries
            .iter()
            .map(|entry| {
                let name = entry.key.as_str().ok_or_else(|| {
                    let key = Field { path: self.path.clone(), node: &entry.key };
                    key.error(format!("the name {} is not a string: quote it", key.shown()))
                })?;
                Ok((name, self.child(name, &entry.value)))
            })
            .collect()
    }

    /// A mapping whose keys must all be among `known`; `what` names it in a message.
    pub(crate) fn section(&self, what: &str, known: &[&str]) -> Result<Section<'n>> {
        let fields = self.entries()?;
        let unknown: Vec<_> = fields.iter().filter(|(name, _)| !known.contains(name)).collect();
        if let Some((_, first)) = unknown.first() {
            let shown = unknown.iter().take(COMPLAINTS_MAX);
            let complaints: Vec<String> = shown.map(|(name, _)| complaint(name, known)).collect();
            let more = unknown.len() - complaints.len();
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            let mut error = first.error(format!("Invalid {what} YAML: {}{more}", complaints.join(" ")));
            error.field.clone_from(&self.path);
            return Err(error);
        }
        Ok(Section { field: self.clone(), fields })
    }

    /// The items of a list.
    pub(crate) fn items(&self) -> Result<Vec<Field<'n>>> {
        let items = self.node.items().ok_or_else(|| self.is_not("a list"))?;
        let named = |(index, node)| Field { path: format!("{}[{index}]", self.path), node };
        Ok(items.iter().enumerate().map(named).collect())
    }

    pub(crate) fn string(&self) -> Result<&'n str> {
        self.node.as_str().ok_or_else(|| self.is_not("a string"))
    }

    pub(crate) fn boolean(&self) -> Result<bool> {
        match self.node.value {
            Value::Bool(value) => Ok(value),
            _ => Err(self.is_not("a boolean (true or false)")),
        }
    }

    /// A number that is at least `min` and at most `max`, and finite.
    pub(crate) fn number(&self, min: f64, max: f64) -> Result<f64> {
        let value = match self.node.value {
            Value::Int(value) => value as f64,
            Value::Float(value) => value,
            _ => return Err(self.is_not("a number")),
        };
        if !value.is_finite() {
            return Err(self.is_not("a finite number"));
        }
        if value < min {
            return Err(self.error(format!("{} is less than the minimum of {min}", self.shown())));
        }
        if value > max {
            return Err(self.error(format!("{} is more than the maximum of {max}", self.shown())));
        }
        Ok(value)
    }

    /// As [`Self::number`], and above 0.
    pub(crate) fn positive_number(&self, max: f64) -> Result<f64> {
        match self.number(f64::MIN, max)? {
            value if value > 0.0 => Ok(value),
            _ => Err(self.error(format!("{} is not more than 0", self.shown()))),
        }
    }

    /// An integer (`2.0` counts as one) within bounds.
    pub(crate) fn integer(&self, min: i64, max: i64) -> Result<i64> {
        let value = match self.node.value {
            Value::Int(value) => value,
            Value::Float(value) if value.fract() == 0.0 => value as i128,
            _ => return Err(self.is_not("an integer")),
        };
        if value < i128::from(min) {
            return Err(self.error(format!("{value} is less than the minimum of {min}")));
        }
        match i64::try_from(value) {
            Ok(value) if value <= max => Ok(value),
            _ => Err(self.error(format!("{value} is more than the maximum of {max}"))),
        }
    }

    /// A count: an integer from `min` to `max`.
    pub(crate) fn count(&self, min: u32, max: u32) -> Result<u32> {
        let value = self.integer(i64::from(min), i64::from(max))?;
        u32::try_from(value).map_err(|_| self.is_not("a count"))
    }

    /// One of a few words.
    pub(crate) fn one_of(&self, allowed: &[&str]) -> Result<&'n str> {
        let value = self.string()?;
        if allowed.contains(&value) {
            return Ok(value);
        }
        let hint = nearest(value, allowed).map(|word| format!(" Did you mean '{word}'?")).unwrap_or_default();
        Err(self.error(format!("'{value}' is not one of {}.{hint}", allowed.join(", "))))
    }

    /// The value as JSON.
    pub(crate) fn json(&self) -> Result<serde_json::Value> {
        use serde_json::Value as Json;
        Ok(match &self.node.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => i64::try_from(*value)
                .map(Json::from)
                .or_else(|_| u64::try_from(*value).map(Json::from))
                .map_err(|_| self.error(format!("{value} does not fit in 64 bits")))?,
            Value::Float(value) => {
                serde_json::Number::from_f64(*value).map(Json::Number).ok_or_else(|| self.is_not("a finite number"))?
            }
            Value::String(text) => Json::String(text.clone()),
            Value::Sequence(_) => Json::Array(self.items()?.iter().map(Field::json).collect::<Result<_>>()?),
            Value::Mapping(_) => {
                let entries = self.entries()?;
                let entries = entries.iter().map(|(name, field)| Ok(((*name).to_owned(), field.json()?)));
                Json::Object(entries.collect::<Result<_>>()?)
            }
            Value::BigInt(_) => return Err(self.error(format!("{} does not fit in 64 bits", self.shown()))),
            Value::Timestamp(_) | Value::Binary(_) | Value::Set(_) => return Err(self.not_json()),
        })
    }

    /// The value as JSON text: keys in the order they are written, integers of any size.
    pub(crate) fn json_text(&self) -> Result<String> {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match &self.node.value {
            Value::Int(_) | Value::BigInt(_) => Ok(self.node.value.to_python_string()),
            Value::Sequence(_) => {
                let items: Vec<String> = self.items()?.iter().map(Field::json_text).collect::<Result<_>>()?;
                Ok(format!("[{}]", items.join(", ")))
            }
            Value::Mapping(_) => {
                let entries = self.entries()?;
                let entries =
                    entries.iter().map(|(name, field)| Ok(format!("{}: {}", quoted(name), field.json_text()?)));
                Ok(format!("{{{}}}", entries.collect::<Result<Vec<String>>>()?.join(", ")))
            }
            _ => Ok(self.json()?.to_string()),
        }
    }

    /// The refusal of a type that JSON does not have.
    pub(crate) fn not_json(&self) -> SpecError {
        self.error(format!("{} is {}, which JSON cannot hold: quote it", self.shown(), self.node.value.kind()))
    }
}

/// What SkyPilot says about an unknown field.
pub(crate) fn complaint(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("Instead of '{name}', did you mean '{near}'?"),
        None => format!("Found unsupported field '{name}'."),
    }
}

impl<'n> Section<'n> {
    /// The field, if it is given and not null.
    pub(crate) fn get(&self, name: &str) -> Option<&Field<'n>> {
        self.given(name).filter(|field| !field.node.is_null())
    }

    /// The field, if it is given, even with null.
    pub(crate) fn given(&self, name: &str) -> Option<&Field<'n>> {
        self.fields.iter().find(|(present, _)| *present == name).map(|(_, field)| field)
    }

    /// The field, or the refusal that it is missing.
    pub(crate) fn required(&self, name: &str) -> Result<&Field<'n>> {
        self.given(name).ok_or_else(|| self.field.error(format!("'{name}' is a required property")))
    }

    /// The fields, in order.
    pub(crate) fn fields(&self) -> &[(&'n str, Field<'n>)] {
        &self.fields
    }
}
