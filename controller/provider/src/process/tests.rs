//! What needs no process.

use super::*;
use crate::{kept_logs, tombstones};
use skyserve_shim::folder::Folder;
use std::fs;
use std::time::{Duration, SystemTime};

fn home() -> (tempfile::TempDir, Home) {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::at(temp.path(), temp.path().join("run"));
    home.make_dirs().unwrap();
    (temp, home)
}

fn uid(number: u64) -> ReplicaUid {
    ReplicaUid::new("svc", 1, skyserve_model::ReplicaId(number))
}

#[test]
fn a_log_is_found_before_and_after_its_replica_is_gone_and_only_the_newest_are_kept() {
    let (_temp, home) = home();
    let now = SystemTime::now();
    for number in 1..=30 {
        let folder = Folder::at(home.replica_dir(uid(number).as_str()));
        fs::create_dir(folder.dir()).unwrap();
        fs::write(folder.output_log(), "newer").unwrap();
        for part in 1..4 {
            fs::write(skyserve_shim::output_part(&folder.output_log(), part), "older").unwrap();
        }
        let log = fs::File::options().append(true).open(folder.output_log()).unwrap();
        log.set_modified(now - Duration::from_secs(1_000 - number)).unwrap();
        assert_eq!(replica_log_path(&home, uid(number).as_str()), folder.output_log());
        kept_logs::keep(&home, uid(number).as_str()).unwrap();
        kept_logs::keep(&home, uid(number).as_str()).unwrap();
        fs::remove_dir_all(folder.dir()).unwrap();
    }
    kept_logs::prune(&home);
    assert!(!replica_log_path(&home, uid(5).as_str()).exists());
    assert_eq!(fs::read_to_string(replica_log_path(&home, uid(6).as_str())).unwrap(), "newer");
    assert_eq!(fs::read_dir(home.log_dir().join("replicas")).unwrap().count(), 50, "two parts of 25 replicas");
}

#[test]
fn the_newest_tombstones_are_kept() {
    let (_temp, home) = home();
    let now = SystemTime::now();
    tombstones::add(&home, &uid(1)).unwrap();
    for number in 1..=4_100 {
        let path = home.replicas_dir().join(".terminated").join(uid(number).as_str());
        fs::File::create(path).unwrap().set_modified(now - Duration::from_secs(10_000 - number)).unwrap();
    }
    tombstones::prune(&home);
    assert!(!tombstones::is_terminated(&home, &uid(4)));
    assert!(tombstones::is_terminated(&home, &uid(5)));
    assert_eq!(phase::uids(&home.replicas_dir()).unwrap(), [], "a tombstone is no replica");
}
