//! Names of services and pools, by SkyServe's rule:
//! `[a-zA-Z]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?`.

/// Longest name. SkyServe has no limit; this one keeps names usable in tables and rows.
const NAME_BYTES_MAX: usize = 1024;

/// Why a name cannot be a service's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "Service name {0:?} is invalid: it must begin with a letter, end with a letter or digit, and hold only \
         ASCII letters, digits, '-', '_' and '.' ([a-zA-Z]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?)"
    )]
    Form(String),
    #[error("Service name of {0} bytes is too long: at most {NAME_BYTES_MAX} are allowed")]
    Length(usize),
}

/// Accepts exactly the names that SkyServe accepts, up to a length limit.
///
/// # Errors
/// [`NameError`], whose message names the rule.
pub fn validate_service_name(name: &str) -> Result<(), NameError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::Length(name.len()));
    }
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let valid = name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && name.bytes().last().is_some_and(|last| last.is_ascii_alphanumeric())
        && name.bytes().all(inner);
    if valid { Ok(()) } else { Err(NameError::Form(name.to_owned())) }
}

/// A name for a service that was given none, as SkyServe makes them: `sky-service-` and four
/// hexadecimal digits, the low 16 bits of `seed` (the caller's randomness).
pub fn make_service_name(seed: u32) -> String {
    format!("sky-service-{:04x}", seed & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_begins_with_a_letter_and_ends_with_a_letter_or_digit() {
        for good in ["a", "Z9", "a-b_c.d", "my-http-service", "a--1"] {
            assert_eq!(validate_service_name(good), Ok(()), "{good}");
        }
        for bad in ["", "9a", "-a", "a-", "a.", "a b", "a\nb", "é", "a/b", ".."] {
            assert!(matches!(validate_service_name(bad), Err(NameError::Form(_))), "{bad}");
        }
        assert_eq!(validate_service_name(&"a".repeat(1025)), Err(NameError::Length(1025)));
    }

    #[test]
    fn every_made_name_is_valid_and_has_four_digits() {
        assert_eq!(make_service_name(0xdead_001a), "sky-service-001a");
        assert_eq!(validate_service_name(&make_service_name(u32::MAX)), Ok(()));
    }
}
