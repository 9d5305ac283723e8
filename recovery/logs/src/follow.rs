//! Reads a log that is being written and rotated: `name`, and older parts `name.1` (newest), `name.2`, ….
//!
//! Both ways of rotating are followed: by renaming (a new file appears under the name), and by copying
//! and truncating (the same file starts anew).
//!
//! Invariants:
//! * Bytes come out in the order they were written, none twice.
//! * Bytes are missed only when they were rotated away before they could be read; that is told
//!   ([`Follower::lost_some`]).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Parts looked for beside the log: more than any of our writers keeps.
const PARTS_MAX: usize = 32;
/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// The last bytes shown, by which our place in a copied part is found: long enough to be unique in a
/// log with times in it.
const RECENT_BYTES: usize = 256;
/// Largest copied part that is searched for our place.
const COPY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A place in a log.
#[derive(Debug)]
pub struct Follower {
    log: PathBuf,
    tail: Option<u64>,
    open: Option<Open>,
    lost_some: bool,
}

#[derive(Debug)]
struct Open {
    part: Part,
    at: u64,
    recent: Vec<u8>,
}

#[derive(Debug)]
struct Part {
    file: File,
    inode: (u64, u64),
}

impl Follower {
    /// Begins with the oldest part, or with the last `tail` lines.
    pub fn new(log: PathBuf, tail: Option<u64>) -> Self {
        Self { log, tail, open: None, lost_some: false }
    }

    /// Whether anything of the log has been found yet.
    pub fn has_begun(&self) -> bool {
        self.open.is_some()
    }

    /// Whether some of the log was gone before it could be read; asking clears it.
    pub fn lost_some(&mut self) -> bool {
        std::mem::take(&mut self.lost_some)
    }

    /// Writes all that has been added since the last call.
    pub fn read_on(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.open.is_none() && !self.begin(out)? {
            return Ok(());
        }
        while let Some(open) = &mut self.open {
            open.copy(out)?;
            if open.part.file.metadata()?.len() < open.at {
                self.lost_some |= !open.copy_from_truncated(&part_path(&self.log, 1), out)?;
                continue;
            }
            if open.part.is_at(&self.log)? {
                break;
            }
            // Renamed. Its writer may have added to it until just before.
            open.copy(out)?;
            let inode = open.part.inode;
            let newer = self.newer_than(inode)?;
            match newer {
                Some(part) => self.open = Some(Open::at(part, 0)),
                None => break,
            }
        }
        out.flush()
    }

    /// Finds the first place to read from, and reads all parts but the newest. `false`: there is no log.
    fn begin(&mut self, out: &mut dyn Write) -> io::Result<bool> {
        let mut parts = parts(&self.log)?;
        let (oldest, mut start) = match self.tail {
            Some(lines) => tail_start(&parts, lines)?,
            None => (parts.len().saturating_sub(1), 0),
        };
        parts.truncate(oldest + 1);
        for part in parts.into_iter().rev() {
            let mut open = Open::at(part, std::mem::take(&mut start));
            open.copy(out)?;
            self.open = Some(open);
        }
        Ok(self.open.is_some())
    }

    /// The part written after the one with this inode.
    fn newer_than(&mut self, inode: (u64, u64)) -> io::Result<Option<Part>> {
        let mut newer = None;
        for part in parts(&self.log)? {
            if part.inode == inode {
                return Ok(newer);
            }
            newer = Some(part);
        }
        // Ours is gone: what is oldest now may not be what came next.
        self.lost_some |= newer.is_some();
        Ok(newer)
    }
}

impl Open {
    fn at(part: Part, at: u64) -> Self {
        Self { part, at, recent: Vec::new() }
    }

    fn copy(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = self.part.file.read_at(&mut chunk, self.at)?;
            if read == 0 {
                return Ok(());
            }
            out.write_all(&chunk[..read])?;
            self.at += read as u64;
            self.remember(&chunk[..read]);
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        self.recent.extend_from_slice(&bytes[bytes.len().saturating_sub(RECENT_BYTES)..]);
        let surplus = self.recent.len().saturating_sub(RECENT_BYTES);
        self.recent.drain(..surplus);
    }

    /// The file was copied to `copy`, then emptied: writes what was added to it between our last look
    /// and the copy, and goes to its new beginning. `false` if our place in the copy was not found.
    fn copy_from_truncated(&mut self, copy: &Path, out: &mut dyn Write) -> io::Result<bool> {
        let mut bytes = Vec::new();
        match File::open(copy) {
            Ok(file) => file.take(COPY_BYTES_MAX).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let recent = std::mem::take(&mut self.recent);
        self.at = 0;
        let place = bytes.windows(recent.len().max(1)).rposition(|window| window == recent);
        match place {
            Some(place) => out.write_all(&bytes[place + recent.len()..]).map(|()| true),
            None => Ok(false),
        }
    }
}

impl Part {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => {
                let metadata = file.metadata()?;
                Ok(Some(Self { inode: (metadata.dev(), metadata.ino()), file }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the file of this name is this one. A name without a file is no newer one either.
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok((metadata.dev(), metadata.ino()) == self.inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}

fn part_path(log: &Path, number: usize) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    if number > 0 {
        path.push(format!(".{number}"));
    }
    PathBuf::from(path)
}

/// All parts, newest first. In this order a part that is renamed meanwhile is seen twice rather than
/// never, and the second sight is dropped.
fn parts(log: &Path) -> io::Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    for number in 0..PARTS_MAX {
        match Part::open(&part_path(log, number))? {
            Some(part) if parts.iter().any(|seen| seen.inode == part.inode) => {}
            Some(part) => parts.push(part),
            // While a log is renamed its own name is free for a moment.
            None if number == 0 => {}
            None => break,
        }
    }
    Ok(parts)
}

/// Where the last `lines` lines begin: the part's index and the byte in it.
fn tail_start(parts: &[Part], lines: u64) -> io::Result<(usize, u64)> {
    let mut line_ends_wanted = lines;
    let mut is_last_byte = true;
    let mut chunk = vec![0; CHUNK_BYTES];
    for (index, part) in parts.iter().enumerate() {
        let mut end = part.file.metadata()?.len();
        if lines == 0 {
            return Ok((index, end));
        }
        while end > 0 {
            let start = end.saturating_sub(CHUNK_BYTES as u64);
            let wanted = usize::try_from(end - start).unwrap_or(CHUNK_BYTES);
            part.file.read_exact_at(&mut chunk[..wanted], start)?;
            for (offset, byte) in chunk[..wanted].iter().enumerate().rev() {
                // The last line's own end does not begin another line.
                if *byte == b'\n' && !is_last_byte {
                    line_ends_wanted -= 1;
                    if line_ends_wanted == 0 {
                        return Ok((index, start + offset as u64 + 1));
                    }
                }
                is_last_byte = false;
            }
            end = start;
        }
    }
    Ok((parts.len().saturating_sub(1), 0))
}

#[cfg(test)]
mod tests;
