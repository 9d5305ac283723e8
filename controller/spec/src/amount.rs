//! `2`, `2.5` or `2+`: how much of a resource is wanted.

use serde::{Deserialize, Serialize};

/// An amount of cores or of memory in GB; `or_more` when it was written with a plus.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Amount {
    pub value: f64,
    pub or_more: bool,
}

impl Amount {
    /// Reads `<number>` or `<number>+`; `None` when it is neither, or not a finite number.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, or_more) = text.strip_suffix('+').map_or((text, false), |number| (number, true));
        let value: f64 = number.trim().replace('_', "").parse().ok()?;
        value.is_finite().then_some(Self { value, or_more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_may_end_in_a_plus_and_nothing_else() {
        assert_eq!(Amount::parse("2"), Some(Amount { value: 2.0, or_more: false }));
        assert_eq!(Amount::parse("2.5+"), Some(Amount { value: 2.5, or_more: true }));
        for bad in ["", "+", "2x", "4-8", "nan", "inf+"] {
            assert_eq!(Amount::parse(bad), None, "{bad}");
        }
    }
}
