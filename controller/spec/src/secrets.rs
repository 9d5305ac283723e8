//! Values that must never be shown.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Names and values of inline secrets. Its `Debug` shows the names alone; it is serialised with its
/// values, because the replicas need them: what it is written to must be private to its owner.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Names with their values: for a replica's environment, never for a log.
    pub fn expose(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl From<BTreeMap<String, String>> for Secrets {
    fn from(values: BTreeMap<String, String>) -> Self {
        Self(values)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A secret whose value a secrets store would supply (`secrets: [secrets:NAME]`, or a secret
/// without a value). There is no such store yet, so a task with one is refused by `up`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedSecret {
    pub name: String,
    /// `personal`, `workspace` or `global`, when the reference says so.
    pub scope: Option<String>,
    /// Where to mount it as a file, instead of setting it in the environment.
    pub mount_path: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_the_names_and_hides_the_values() {
        let secrets = Secrets::from(BTreeMap::from([("TOKEN".to_owned(), "hunter2".to_owned())]));
        let shown = format!("{secrets:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
    }
}
