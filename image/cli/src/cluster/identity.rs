//! Whose controller it is: SkyPilot's user hash, eight hexadecimal digits that are part of the controller's name.
//!
//! In SkyPilot's order: the variable `SKYPILOT_USER_ID`, the file `~/.sky/user_hash`, else made from the user's and
//! the machine's name. What is made is always the same here, so a command whose home was emptied still finds the
//! controller; and it is stored by the first `up`, so that it stays when the machine gets another name.

use sha2::{Digest, Sha256};
use skyserve_home::Home;
use std::path::PathBuf;

/// SkyPilot's variable.
const USER_HASH_VARIABLE: &str = "SKYPILOT_USER_ID";
/// SkyPilot's length.
const HASH_DIGITS: usize = 8;

/// A user hash, and whether anything has to be done to keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserHash {
    pub(crate) digits: String,
    /// Where it is to be stored, if it is known from nowhere yet.
    unstored: Option<PathBuf>,
}

impl UserHash {
    /// Of this process's user.
    pub(crate) fn of(home: &Home) -> Self {
        let given = std::env::var(USER_HASH_VARIABLE).ok();
        Self::choose(home, given.as_deref(), &user_and_host())
    }

    fn choose(home: &Home, given: Option<&str>, user_and_host: &str) -> Self {
        let file = home.sky_dir().join("user_hash");
        if let Some(digits) = given.map(str::trim).filter(|text| is_hash(text)) {
            return Self { digits: digits.to_owned(), unstored: None };
        }
        let stored = std::fs::read_to_string(&file).ok();
        if let Some(digits) = stored.as_deref().map(str::trim).filter(|text| is_hash(text)) {
            return Self { digits: digits.to_owned(), unstored: None };
        }
        let digits = hex::encode(Sha256::digest(user_and_host))[..HASH_DIGITS].to_owned();
        Self { digits, unstored: Some(file) }
    }

    /// Writes down one that was made here.
    pub(crate) fn store(&self) -> std::io::Result<()> {
        let Some(file) = &self.unstored else { return Ok(()) };
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(file, &self.digits)
    }
}

/// Whether this is what SkyPilot takes for a user hash. Lower case, because it becomes part of a Kubernetes name.
pub(crate) fn is_hash(text: &str) -> bool {
    text.len() == HASH_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn user_and_host() -> String {
    let user =
        ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let user = user.unwrap_or_else(|| format!("uid {}", nix::unistd::getuid()));
    let host = nix::unistd::gethostname().unwrap_or_default();
    format!("{user}@{}", host.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::at(temp.path().join("home"), temp.path().join("run"));
        (temp, home)
    }

    #[test]
    fn the_variable_comes_before_the_file_and_the_file_before_what_is_made() {
        let (_temp, home) = home();
        let made = UserHash::choose(&home, None, "ann@laptop");
        assert!(is_hash(&made.digits));
        assert_eq!(made, UserHash::choose(&home, None, "ann@laptop"), "it is always the same");
        assert_ne!(made.digits, UserHash::choose(&home, None, "bob@laptop").digits);
        std::fs::create_dir_all(home.sky_dir()).unwrap();
        std::fs::write(home.sky_dir().join("user_hash"), "0123abcd\n").unwrap();
        assert_eq!(UserHash::choose(&home, None, "ann@laptop").digits, "0123abcd");
        assert_eq!(UserHash::choose(&home, Some("ffffffff"), "ann@laptop").digits, "ffffffff");
    }

    #[test]
    fn what_is_no_hash_is_passed_over() {
        let (_temp, home) = home();
        let made = UserHash::choose(&home, None, "ann@laptop");
        std::fs::create_dir_all(home.sky_dir()).unwrap();
        std::fs::write(home.sky_dir().join("user_hash"), "0123abcde").unwrap();
        for wrong in ["", "0123abc", "0123abcg", "0123ABCD", "../../etc"] {
            assert_eq!(UserHash::choose(&home, Some(wrong), "ann@laptop"), made);
        }
    }

    #[test]
    fn storing_makes_the_folder_and_changes_nothing_that_was_given() {
        let (_temp, home) = home();
        UserHash::choose(&home, Some("ffffffff"), "ann@laptop").store().unwrap();
        assert!(!home.sky_dir().exists());
        let made = UserHash::choose(&home, None, "ann@laptop");
        made.store().unwrap();
        assert_eq!(UserHash::choose(&home, None, "ann@desktop").digits, made.digits);
    }
}
