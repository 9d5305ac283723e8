//! A disk of a few blocks, in a mount namespace of the test's own.

use crate::support::{Home, running};
use std::process::Command;

/// Runs a replica to its end on a disk of 128 KiB, and shows what is then on it. Needs no root.
const ON_A_SMALL_DISK: &str = r#"
set -e
mount -t tmpfs -o size=128k small "$1"
cp "$2" "$1/launch.json"
"$3" --foreground --dir "$1"
echo "exit: $(cat "$1/exit.json")"
echo "log: $(grep -v '^y$' "$1/output.log")"
"#;

#[test]
fn on_a_full_disk_a_replica_goes_on_and_how_it_ended_is_recorded() {
    let home = Home::new();
    // What it frees at the end is more than a pipe may still hold then, so that the loss can be told.
    let run = "head -c 90000 /dev/zero > fill; yes | head -c 4000000; rm fill; echo at the end; exit 3";
    let replica = home.replica(running("full-1-1", run));
    let mount = home.path().join(".sky/serve/replicas/disk-1-1");
    std::fs::create_dir(&mount).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "bash", "-c", ON_A_SMALL_DISK, "bash"]);
    command.arg(&mount).arg(replica.folder.launch_file()).arg(env!("CARGO_BIN_EXE_skyserve-shim"));
    let output = command.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("run exited with code 3"), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    let log = shown.split_once("log: ").map(|(_, log)| log).unwrap_or_default();
    assert!(log.contains("bytes of output were lost") && log.contains("at the end"), "{log}");
    assert!(log.contains("[skyserve] run exited with code 3"), "{log}");
}
