//! The id of a run script: the number in `sky_job_<id>`.

use std::fmt;
use std::str::FromStr;

use crate::ScriptError;

/// Every run script's file name begins with this (given by the seed document).
const FILE_PREFIX: &str = "sky_job_";

/// Id of a run script. Scripts are listed in the order of these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u64);

impl RunId {
    /// Ids come from an SQLite row id, which has 63 bits.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The id with this number, unless it is beyond [`RunId::MAX`].
    pub fn new(number: u64) -> Result<Self, ScriptError> {
        if number <= Self::MAX.0 { Ok(Self(number)) } else { Err(ScriptError::BadId(number.to_string())) }
    }

    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// `sky_job_<id>`.
    pub fn file_name(self) -> String {
        format!("{FILE_PREFIX}{self}")
    }

    /// The id in a file name of exactly this form; `sky_job_007` is somebody else's file.
    pub(crate) fn from_file_name(name: &str) -> Option<Self> {
        name.strip_prefix(FILE_PREFIX)?.parse().ok()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for RunId {
    type Err = ScriptError;

    /// Decimal digits without sign or leading zero, so that one id has one file name.
    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let number: u64 = text.parse().map_err(|_| ScriptError::BadId(text.to_owned()))?;
        if number.to_string() != text {
            return Err(ScriptError::BadId(text.to_owned()));
        }
        Self::new(number)
    }
}
