use super::*;
use std::fs::{self, OpenOptions};

struct Log {
    _temp: tempfile::TempDir,
    path: PathBuf,
}

impl Log {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self { path: temp.path().join("output.log"), _temp: temp }
    }

    fn append(&self, text: &str) {
        OpenOptions::new().append(true).create(true).open(&self.path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Rotates as the replicas' logs do.
    fn rename(&self, kept: usize) {
        for number in (0..kept).rev() {
            if part_path(&self.path, number).exists() {
                fs::rename(part_path(&self.path, number), part_path(&self.path, number + 1)).unwrap();
            }
        }
    }

    /// Rotates as the logs of controller and load balancer do.
    fn copy_and_truncate(&self) {
        fs::copy(&self.path, part_path(&self.path, 1)).unwrap();
        OpenOptions::new().write(true).truncate(true).open(&self.path).unwrap();
    }
}

fn read(follower: &mut Follower) -> String {
    let mut out = Vec::new();
    follower.read_on(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_log_that_does_not_exist_yet_is_read_once_it_does() {
    let log = Log::new();
    let mut follower = Follower::new(log.path.clone(), None);
    assert_eq!(read(&mut follower), "");
    assert!(!follower.has_begun());
    log.append("one\n");
    assert_eq!(read(&mut follower), "one\n");
    log.append("two\n");
    assert_eq!(read(&mut follower), "two\n");
    assert_eq!(read(&mut follower), "");
}

#[test]
fn rotated_parts_come_first_oldest_first() {
    let log = Log::new();
    for text in ["one\n", "two\n", "three\n"] {
        log.rename(3);
        log.append(text);
    }
    assert_eq!(read(&mut Follower::new(log.path.clone(), None)), "one\ntwo\nthree\n");
}

#[test]
fn nothing_is_lost_or_repeated_when_a_log_is_renamed_several_times_between_two_looks() {
    let log = Log::new();
    let mut follower = Follower::new(log.path.clone(), None);
    log.append("one\n");
    assert_eq!(read(&mut follower), "one\n");
    log.append("two\n");
    for text in ["three\n", "four\n"] {
        log.rename(4);
        log.append(text);
    }
    log.rename(4);
    assert_eq!(read(&mut follower), "two\n", "a log without a current part has no newer one yet");
    log.append("five\n");
    assert_eq!(read(&mut follower), "three\nfour\nfive\n");
    assert!(!follower.lost_some());
}

#[test]
fn parts_that_were_rotated_away_unseen_are_told() {
    let log = Log::new();
    let mut follower = Follower::new(log.path.clone(), None);
    log.append("one\n");
    read(&mut follower);
    for text in ["two\n", "three\n", "four\n"] {
        log.rename(1);
        log.append(text);
    }
    assert_eq!(read(&mut follower), "three\nfour\n");
    assert!(follower.lost_some());
    assert!(!follower.lost_some());
}

#[test]
fn nothing_is_lost_or_repeated_when_a_log_is_copied_and_truncated() {
    let log = Log::new();
    let mut follower = Follower::new(log.path.clone(), None);
    log.append("one\ntwo\n");
    assert_eq!(read(&mut follower), "one\ntwo\n");
    log.append("three\n");
    log.copy_and_truncate();
    log.append("4\n");
    assert_eq!(read(&mut follower), "three\n4\n");
    assert!(!follower.lost_some());
}

#[test]
fn the_tail_is_counted_over_all_parts() {
    let log = Log::new();
    log.append("one\ntwo\n");
    log.rename(1);
    log.append("three\nfour");
    for (lines, expected) in
        [(0, ""), (1, "four"), (2, "three\nfour"), (3, "two\nthree\nfour"), (9, "one\ntwo\nthree\nfour")]
    {
        assert_eq!(read(&mut Follower::new(log.path.clone(), Some(lines))), expected, "{lines} lines");
    }
    let mut follower = Follower::new(log.path.clone(), Some(0));
    read(&mut follower);
    log.append(" more\n");
    assert_eq!(read(&mut follower), " more\n");
}

#[test]
fn a_tail_longer_than_one_block_is_found() {
    let log = Log::new();
    let line = format!("{}\n", "x".repeat(99));
    log.append(&line.repeat(3000));
    assert_eq!(read(&mut Follower::new(log.path.clone(), Some(2000))).len(), 2000 * 100);
}
