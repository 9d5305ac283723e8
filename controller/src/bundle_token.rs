//! The secret by which a replica's pod gets its files. It is made once and kept: pods that were launched before a
//! restart of the controller still hold it.

use skyserve_home::Home;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

/// 256 bits: nobody guesses it.
const TOKEN_BYTES: usize = 32;

/// The token of this home, in hexadecimal; made if there is none that can be used. Once this returns it survives a
/// power cut.
pub fn bundle_token(home: &Home) -> io::Result<String> {
    let path = home.bundle_token();
    match fs::read_to_string(&path) {
        Ok(token) if is_token(token.trim()) => return Ok(token.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut random = [0; TOKEN_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let token = hex::encode(random);
    let next = path.with_extension("next");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    fs::rename(&next, &path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
    Ok(token)
}

fn is_token(text: &str) -> bool {
    text.len() == 2 * TOKEN_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether two secrets are the same, in a time that does not tell how much of them is.
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |differences, (a, b)| differences | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_token_stays_the_same_is_for_its_owner_alone_and_a_torn_one_is_made_anew() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::at(temp.path(), temp.path().join("run"));
        home.make_dirs().unwrap();
        let token = bundle_token(&home).unwrap();
        assert!(is_token(&token), "{token}");
        assert_eq!(bundle_token(&home).unwrap(), token);
        assert_eq!(fs::metadata(home.bundle_token()).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(home.bundle_token(), "").unwrap();
        assert_ne!(bundle_token(&home).unwrap(), token);
    }

    #[test]
    fn secrets_are_the_same_only_as_a_whole() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}
