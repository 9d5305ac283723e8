//! Why a YAML was refused, in the words a person needs to mend it.

use std::fmt;

/// A refusal: where it is, which field, which value, and the rule it breaks.
///
/// Displayed as `examples/x.yaml line 3: service.replicas: 2.5 is not an integer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError {
    /// The name of the file, as the caller gave it.
    pub file: String,
    /// The line the refused value stands on, from 1; absent when no line is to blame.
    pub line: Option<usize>,
    /// Path of the field (`service.replica_policy.min_replicas`); empty for the whole file.
    pub field: String,
    /// The value and the rule, as one sentence.
    pub problem: String,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, " line {line}")?;
        }
        f.write_str(": ")?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for SpecError {}

impl From<skyserve_yaml::Error> for SpecError {
    fn from(error: skyserve_yaml::Error) -> Self {
        Self { file: String::new(), line: error.line, field: String::new(), problem: error.problem }
    }
}
