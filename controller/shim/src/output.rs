//! The replica's output on disk: `output.log` and older parts `output.log.1` (newest) and on.
//!
//! * It never takes more than [`OUTPUT_BYTES_MAX`], however much is printed.
//! * Writing never fails and never waits for space: what cannot be written is dropped and counted, and
//!   the count is written once writing works again.
//! * Parts begin at the beginning of a line, unless a line is longer than [`LINE_BYTES_MAX`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Size at which a part is full: an hour of a chatty server, and quick to read through.
pub(crate) const OUTPUT_PART_BYTES_MAX: u64 = 8 << 20;
/// Parts kept, the one being written included.
pub const OUTPUT_PARTS_MAX: usize = 4;
/// How far a part may grow beyond its size to finish a line.
pub(crate) const LINE_BYTES_MAX: u64 = 64 << 10;
/// Most that one replica's output takes on disk.
pub const OUTPUT_BYTES_MAX: u64 = OUTPUT_PARTS_MAX as u64 * (OUTPUT_PART_BYTES_MAX + LINE_BYTES_MAX);

/// Where part `number` of a log is: 0 is the one being written.
pub fn part(log: &Path, number: usize) -> PathBuf {
    if number == 0 {
        return log.to_path_buf();
    }
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[derive(Debug)]
pub(crate) struct OutputLog {
    path: PathBuf,
    /// `None` while it could not be opened.
    file: Option<File>,
    bytes: u64,
    at_line_start: bool,
    lost_bytes: u64,
}

impl OutputLog {
    /// Goes on where an earlier shim of the replica left off.
    pub(crate) fn open(path: PathBuf) -> Self {
        let mut log = Self { path, file: None, bytes: 0, at_line_start: true, lost_bytes: 0 };
        // What fails here is tried again with the first output.
        let _ = log.reopen();
        log
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(self.until_rotation(bytes));
            if now.is_empty() {
                self.rotate();
                continue;
            }
            self.append(now);
            bytes = rest;
        }
    }

    /// A line of the shim's own, beginning on a line of its own.
    pub(crate) fn note(&mut self, text: &str) {
        let start = if self.at_line_start { "" } else { "\n" };
        self.write(format!("{start}[skyserve] {text}\n").as_bytes());
    }

    /// How many of `bytes` still belong into this part; 0 if it is full.
    fn until_rotation(&self, bytes: &[u8]) -> usize {
        let room = OUTPUT_PART_BYTES_MAX.saturating_sub(self.bytes) as usize;
        if bytes.len() <= room {
            return bytes.len();
        }
        let hard_room = (OUTPUT_PART_BYTES_MAX + LINE_BYTES_MAX).saturating_sub(self.bytes) as usize;
        if room == 0 && self.at_line_start {
            return 0;
        }
        let line_end = bytes[room..].iter().position(|byte| *byte == b'\n').map(|index| room + index + 1);
        line_end.unwrap_or(bytes.len()).min(hard_room)
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.lost_bytes > 0 || self.file.is_none() {
            self.recover();
        }
        let Some(file) = &mut self.file else {
            self.lost_bytes += bytes.len() as u64;
            return;
        };
        // A full disk may take a part of it; `write_all` would not say how much.
        let mut written = 0;
        while written < bytes.len() {
            match file.write(&bytes[written..]) {
                Ok(count) if count > 0 => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        self.bytes += written as u64;
        self.lost_bytes += (bytes.len() - written) as u64;
        if written > 0 {
            self.at_line_start = bytes[written - 1] == b'\n';
        }
    }

    /// Tries to say what was lost; if that works, writing works again.
    fn recover(&mut self) {
        if self.file.is_none() && self.reopen().is_err() {
            return;
        }
        if self.lost_bytes == 0 {
            return;
        }
        let start = if self.at_line_start { "" } else { "\n" };
        let text =
            format!("{start}[skyserve] {} bytes of output were lost: the log could not be written\n", self.lost_bytes);
        let Some(file) = &mut self.file else { return };
        match file.write_all(text.as_bytes()) {
            Ok(()) => {
                self.lost_bytes = 0;
                self.bytes += text.len() as u64;
                self.at_line_start = true;
            }
            // Torn, perhaps; where the file ends is read again before the next attempt.
            Err(_) => self.file = None,
        }
    }

    fn rotate(&mut self) {
        self.file = None;
        for number in (0..OUTPUT_PARTS_MAX - 1).rev() {
            // A part that cannot be moved is overwritten or lost; the bound holds either way.
            let _ = fs::rename(part(&self.path, number), part(&self.path, number + 1));
        }
        if self.path.exists() {
            let _ = File::create(&self.path);
        }
        self.bytes = 0;
        let _ = self.reopen();
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        self.bytes = file.metadata()?.len();
        self.at_line_start = self.bytes == 0;
        self.file = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(path: &Path) -> u64 {
        (0..OUTPUT_PARTS_MAX + 2)
            .filter_map(|number| fs::metadata(part(path, number)).ok())
            .map(|file| file.len())
            .sum()
    }

    #[test]
    fn endless_output_stays_within_the_bound_and_parts_begin_with_a_line() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("output.log");
        let mut log = OutputLog::open(path.clone());
        let chunk = "a line of output that is repeated\n".repeat(20_011);
        for _ in 0..90 {
            log.write(chunk.as_bytes());
        }
        assert!(size(&path) <= OUTPUT_BYTES_MAX);
        assert!(size(&path) > OUTPUT_PART_BYTES_MAX * 3);
        for number in 0..OUTPUT_PARTS_MAX {
            assert!(fs::read_to_string(part(&path, number)).unwrap().starts_with("a line"), "part {number}");
        }
        assert!(!part(&path, OUTPUT_PARTS_MAX).exists());
    }

    #[test]
    fn a_line_without_end_is_broken_rather_than_kept() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("output.log");
        let mut log = OutputLog::open(path.clone());
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..60 {
            log.write(&chunk);
        }
        assert!(size(&path) <= OUTPUT_BYTES_MAX);
    }

    #[test]
    fn a_log_that_cannot_be_written_drops_output_and_says_so_later() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("gone/output.log");
        let mut log = OutputLog::open(path.clone());
        log.write(b"lost\n");
        fs::create_dir(temp.path().join("gone")).unwrap();
        log.write(b"kept\n");
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "[skyserve] 5 bytes of output were lost: the log could not be written\nkept\n");
    }
}
