//! What is known of the database beside the database: its last controller's epoch, and how many transactions were
//! acknowledged.
//!
//! SQLite takes a log up to its first damaged frame and drops the rest without a word, as after a power cut. Whether
//! something was dropped that had been acknowledged, this file tells.
//!
//! Invariant: what stands here is at most what is stored. It is written after each transaction and not synced: a power
//! cut may leave an older number, never one that is too high. A file that is damaged itself says nothing.

use crate::filesystem::beside;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks {
    pub(crate) epoch: u64,
    pub(crate) transactions: u64,
}

/// The file, open for writing.
#[derive(Debug)]
pub(crate) struct MarksFile(File);

/// The marks are beside their database, with this behind its name.
pub(crate) const SUFFIX: &str = "-marks";

impl Marks {
    /// The marks of the database at `path`, if they can be read.
    pub(crate) fn read(database: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(beside(database, SUFFIX)).ok()?;
        let (body, sum) = text.trim_end().rsplit_once(' ')?;
        if sum != checksum(body) {
            return None;
        }
        let mut words = body.split(' ');
        let (name, epoch, transactions) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        (name == NAME && words.next().is_none()).then_some(Self { epoch, transactions })
    }
}

impl MarksFile {
    pub(crate) fn open(database: &Path) -> io::Result<Self> {
        let path = beside(database, SUFFIX);
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(Self)
    }

    /// Writes the marks: always as many bytes, at once.
    pub(crate) fn write(&self, marks: Marks) -> io::Result<()> {
        let body = format!("{NAME} {:020} {:020}", marks.epoch, marks.transactions);
        self.0.write_all_at(format!("{body} {}\n", checksum(&body)).as_bytes(), 0)
    }
}

const NAME: &str = "skyserve-marks-1";

fn checksum(body: &str) -> String {
    format!("{:08x}", crc32fast::hash(body.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_read_back_and_no_flipped_bit_makes_them_say_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("skyserve.db");
        assert_eq!(Marks::read(&database), None);
        let marks = Marks { epoch: 12, transactions: 3_456 };
        MarksFile::open(&database).unwrap().write(Marks { epoch: 99, ..marks }).unwrap();
        MarksFile::open(&database).unwrap().write(marks).unwrap();
        assert_eq!(Marks::read(&database), Some(marks));
        let path = beside(&database, SUFFIX);
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(Marks::read(&database), None | Some(Marks { epoch: 12, transactions: 3_456 })), "{bit}");
        }
    }
}
