//! The lease: one holder at a time, until it lets go or dies.
#![allow(clippy::unwrap_used, reason = "in a test, an error is a failure")]

mod samples;

use samples::{PATH_VARIABLE, child, path_from_parent};
use skyserve_recovery::{Lease, LeaseError};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Longer than any machine needs to kill a process or start one.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
#[ignore = "run by another test as a child process, which kills it"]
fn holds_the_lease_until_killed() {
    let _lease = Lease::acquire(&path_from_parent()).unwrap();
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "\nheld").unwrap();
    stdout.flush().unwrap();
    // Ends when the parent does, at the latest.
    std::io::stdin().lines().for_each(drop);
}

/// A child that holds the lease, and its output, which it must be able to write.
fn holder(path: &Path) -> (Child, impl Iterator<Item = std::io::Result<String>>) {
    let mut holder = child("holds_the_lease_until_killed")
        .env(PATH_VARIABLE, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"), "the child did not get the lease");
    (holder, lines)
}

/// Takes a lease that has just been let go. A process that another test is starting at this moment
/// may still have a copy of its descriptor, until it runs its own program.
fn acquire_free(path: &Path) -> Lease {
    Lease::acquire_before(path, Instant::now() + PATIENCE).unwrap()
}

#[test]
fn another_process_is_kept_out_and_told_who_holds_the_lease() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("controller.lock");
    let (mut holder, output) = holder(&path);
    let error = Lease::acquire(&path).unwrap_err();
    assert!(error.is_held());
    assert!(error.to_string().contains(&format!("process {} on ", holder.id())), "{error}");
    drop(holder.stdin.take());
    output.for_each(drop);
    assert!(holder.wait().unwrap().success());
    drop(acquire_free(&path));
}

#[test]
fn a_holder_that_is_killed_lets_go_and_who_waits_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("controller.lock");
    let (mut holder, _output) = holder(&path);
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || Lease::acquire_before(&path, Instant::now() + PATIENCE)
    });
    holder.kill().unwrap();
    let lease = waiting.join().unwrap().unwrap();
    holder.wait().unwrap();
    assert!(lease.is_in_place());
}

#[test]
fn a_second_lease_in_the_same_process_is_refused_and_the_first_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("controller.lock");
    let first = Lease::acquire(&path).unwrap();
    for _ in 0..2 {
        assert!(Lease::acquire(&path).unwrap_err().is_held());
    }
    let started = Instant::now();
    assert!(Lease::acquire_before(&path, started + Duration::from_millis(50)).unwrap_err().is_held());
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(first);
    drop(acquire_free(&path));
}

#[test]
fn a_lock_file_that_was_replaced_excludes_nobody_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("controller.lock");
    let first = Lease::acquire(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(!first.is_in_place());
    let second = Lease::acquire(&path).unwrap();
    assert!(second.is_in_place() && !first.is_in_place());
}

#[test]
fn a_lock_file_without_a_folder_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let error = Lease::acquire(&folder.path().join("missing").join("controller.lock")).unwrap_err();
    assert!(matches!(error, LeaseError::Open { .. }));
    assert!(error.to_string().contains("missing/controller.lock"), "{error}");
}

#[test]
fn a_lease_that_is_released_leaves_no_file_and_the_next_holder_finds_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("controller.lock");
    Lease::acquire(&path).unwrap().release();
    assert!(!path.exists());
    let next = acquire_free(&path);
    assert!(next.is_in_place() && path.exists());
    // Another's file in its place is not removed.
    fs::remove_file(&path).unwrap();
    let other = acquire_free(&path);
    next.release();
    assert!(other.is_in_place());
}
