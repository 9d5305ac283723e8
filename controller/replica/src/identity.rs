//! Who the container's user is: from `/etc/passwd` alone, since the C library's own look-up would load code from the
//! user's image into this static binary.

use nix::unistd::{Uid, geteuid};
use std::fs;
use std::path::PathBuf;

const PASSWD: &str = "/etc/passwd";
/// Root's home where nothing says otherwise.
const ROOT_HOME: &str = "/root";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) home: PathBuf,
}

/// The user that this process runs as, if the image knows it.
pub(crate) fn user() -> Option<User> {
    of(geteuid(), &fs::read_to_string(PASSWD).unwrap_or_default())
}

/// `$HOME`, or what `/etc/passwd` says, or root's.
pub(crate) fn home(user: Option<&User>) -> PathBuf {
    match std::env::var_os("HOME").filter(|home| !home.is_empty()) {
        Some(home) => home.into(),
        None => user.map_or_else(|| ROOT_HOME.into(), |user| user.home.clone()),
    }
}

fn of(uid: Uid, passwd: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        let home = fields.nth(2).filter(|home| home.starts_with('/'))?;
        (id.parse() == Ok(uid.as_raw())).then(|| User { name: name.to_owned(), home: home.into() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\napp:x:1001:1001::/srv/app:/bin/sh\nodd:x:7:7:::\n";
        let app = User { name: "app".into(), home: "/srv/app".into() };
        assert_eq!(of(Uid::from_raw(1001), passwd), Some(app));
        assert_eq!(of(Uid::from_raw(7), passwd), None);
        assert_eq!(of(Uid::from_raw(8), passwd), None);
    }
}
