//! Fault campaign 4: a home that can no longer be written, under the whole product.

use crate::home::{TestHome, http_service};
use crate::load::Load;
use crate::wait;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files that nobody may write, and folders in which nobody may make or remove one, root included (`chattr +i`).
struct Immutable(Vec<PathBuf>);

impl Immutable {
    /// All of the controller's in its folder. `None`, with the reason on the terminal, where that cannot be.
    fn serve_folder(home: &TestHome) -> Option<Self> {
        let serve = home.serve();
        let entries = fs::read_dir(&serve).unwrap().map(|entry| entry.unwrap().path());
        let is_written = |path: &PathBuf| path.is_file() && path.extension().is_none_or(|end| end != "lock");
        let mut paths: Vec<PathBuf> = entries.filter(is_written).collect();
        paths.push(serve);
        let mut immutable = Self(Vec::new());
        for path in paths {
            match chattr("+i", &path) {
                Ok(()) => immutable.0.push(path),
                Err(why) => {
                    println!("not tested: {why}");
                    return None;
                }
            }
        }
        Some(immutable)
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| drop(chattr("-i", path)));
    }
}

fn chattr(how: &str, path: &Path) -> Result<(), String> {
    let output = Command::new("chattr").arg(how).arg(path).output().map_err(|error| format!("chattr: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
#[ignore = "campaign: benches/faults/run 4"]
fn campaign_4_with_a_home_that_may_not_be_written_traffic_goes_on_and_control_does_when_it_may_again() {
    let home = TestHome::new();
    let service = http_service();
    let endpoint = home.up("kept", &service);
    let before = home.wait_for_ready_replicas("kept", 1).remove(0);
    let service = service.to_str().unwrap();
    let load = Load::start(&endpoint, 2);
    let Some(immutable) = Immutable::serve_folder(&home) else { return };
    // The controller ends when it cannot store a decision, and none that starts now can begin.
    let why = "cannot be written: the file, its folder or its disk is read-only; make it writable for this user";
    let said = home.refused(&["up", "-y", "-n", "web", service]);
    assert!(said.contains(why), "{said}");
    let log = || fs::read_to_string(home.serve().join("logs/controller.log")).unwrap_or_default();
    wait::until_true("a second start that failed", || log().matches(why).count() > 2);
    let said = home.ok(&["status"]);
    assert!(said.contains("CONTROLLER_FAILED") && said.contains("Requests still go"), "{said}");
    drop(immutable);
    home.wait_for_status("kept", "READY");
    assert!(home.service("web").is_none(), "what was refused was not stored");
    home.ok(&["up", "-y", "-n", "web", service]);
    let after = home.wait_for_ready_replicas("kept", 1).remove(0);
    assert_eq!((&before["id"], &before["address"]), (&after["id"], &after["address"]));
    let outcomes = load.finish();
    println!("a home that may not be written: {} requests, {} of them failed", outcomes.ok, outcomes.failed());
    assert!(outcomes.ok > 0 && outcomes.failed() == 0, "{outcomes:?}");
    home.ok(&["down", "-y", "-a"]);
    home.assert_nothing_left();
}
