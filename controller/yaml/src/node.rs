//! What a document consists of.

/// A value and where it stands. A value that came through an alias stands where its anchor does.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    pub value: Value,
}

/// A value as PyYAML's safe loader constructs it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i128),
    /// A decimal integer that no `i128` holds: sign and digits.
    BigInt(String),
    Float(f64),
    String(String),
    /// A date, or a date and time, as Python shows it (`2024-01-02`, `2024-01-02 03:04:05+00:00`).
    Timestamp(String),
    Binary(Vec<u8>),
    Sequence(Vec<Node>),
    /// In order, merge keys resolved, no two keys equal.
    Mapping(Vec<Entry>),
    Set(Vec<Node>),
}

/// One key of a mapping with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: Node,
    pub value: Node,
}

impl Node {
    /// The value of the string key `name`, if this is a mapping that has it.
    pub fn get(&self, name: &str) -> Option<&Node> {
        let entries = self.entries()?;
        entries.iter().find(|entry| entry.key.as_str() == Some(name)).map(|entry| &entry.value)
    }

    /// The entries, if this is a mapping.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items, if this is a sequence.
    pub fn items(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// An empty mapping that stands nowhere: what an absent section is read as.
    pub fn empty_mapping() -> Self {
        Self { line: 1, column: 1, value: Value::Mapping(Vec::new()) }
    }
}

impl Value {
    /// What kind of value it is, for a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::BigInt(_) => "an integer",
            Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::Timestamp(_) => "a date",
            Self::Binary(_) => "binary data",
            Self::Sequence(_) => "a list",
            Self::Mapping(_) => "a mapping",
            Self::Set(_) => "a set",
        }
    }
}
