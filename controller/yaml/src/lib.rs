//! A YAML 1.1 reader that understands a file as PyYAML's `CSafeLoader` does, because that is what
//! SkyPilot reads its files with: `017` is 15, `1:30` is 90, `yes` is true, `1e3` is a string.
//!
//! The syntax is libyaml's (through its port `libyaml-safer`); types, merge keys and what is refused
//! are PyYAML's. Every node keeps the line and column it stands on.
//!
//! Invariants:
//! * Any bytes give documents or an error, never a panic.
//! * What a file can make this crate allocate is bounded by [`INPUT_BYTES_MAX`], [`DEPTH_MAX`],
//!   [`NODES_MAX`] and [`EXPANDED_BYTES_MAX`], aliases included.
//! * A key that is written twice is an error that names both lines.
#![forbid(unsafe_code)]

mod compose;
mod construct;
mod node;
mod python;
mod resolve;
mod syntax;
mod text;
mod timestamp;

pub use node::{Entry, Node, Value};

/// Largest file. A service YAML is a few KiB, even with long scripts in it.
pub const INPUT_BYTES_MAX: usize = 1 << 20;

/// Deepest nesting. Bounds recursion over a document, here and in what reads the nodes.
pub const DEPTH_MAX: usize = 64;

/// Most nodes in a file, each alias counted as what it stands for ("billion laughs").
pub const NODES_MAX: usize = 100_000;

/// Most text in a file's scalars, each alias counted as what it stands for.
pub const EXPANDED_BYTES_MAX: usize = 8 << 20;

/// Why a file cannot be read, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Error {
    /// From 1; absent when no line is to blame (the file is too large).
    pub line: Option<usize>,
    /// From 1.
    pub column: Option<usize>,
    /// What is wrong, and for a mistake that is often made, what to write instead.
    pub problem: String,
}

/// Reads every document of a file, in order; a file without content has none.
///
/// # Errors
/// [`Error`] when the bytes are not YAML that PyYAML's safe loader accepts, when a key is written
/// twice, or when a limit is exceeded.
pub fn read(source: &[u8]) -> Result<Vec<Node>, Error> {
    if source.len() > INPUT_BYTES_MAX {
        let problem = format!("the file has {} bytes, more than the {INPUT_BYTES_MAX} allowed", source.len());
        return Err(Error { line: None, column: None, problem });
    }
    let (text, lengthened) = syntax::terminated(text::decode(source)?);
    syntax::refuse_tag_before_comma(&text)?;
    compose::documents(syntax::Events::new(&text, lengthened))
}

impl Error {
    pub(crate) fn at(line: usize, column: usize, problem: impl Into<String>) -> Self {
        Self { line: Some(line), column: Some(column), problem: problem.into() }
    }
}

#[cfg(test)]
mod tests;
