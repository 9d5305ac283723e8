//! Fault campaign 4: a home that can no longer be written, under the whole product.

use crate::home::{TestHome, http_service, stop};
use crate::load::Load;
use crate::wait;
use nix::sys::signal::Signal;
use std::fs;
use std::path::PathBuf;
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
            match tool(&["chattr", "+i", path.to_str().unwrap()]) {
                Ok(_) => immutable.0.push(path),
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
        self.0.iter().for_each(|path| drop(tool(&["chattr", "-i", path.to_str().unwrap()])));
    }
}

/// A file system of its own (ext4 in a file) at a home's path. After an error in it the kernel mounts it read-only, as
/// it does with a failing disk.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// `None`, with the reason on the terminal, where none can be made.
    fn under(home: &TestHome) -> Option<Self> {
        let disk = Self { image: home.yaml("disk.img", ""), at: home.path() };
        fs::File::options().write(true).open(&disk.image).unwrap().set_len(64 << 20).unwrap();
        let made = tool(&["mkfs.ext4", "-q", disk.image.to_str().unwrap()]).and_then(|_| disk.mount());
        match made {
            Ok(()) => Some(disk),
            Err(why) => {
                println!("not tested: {why}");
                None
            }
        }
    }

    fn mount(&self) -> Result<(), String> {
        let (image, at) = (self.image.to_str().unwrap(), self.at.to_str().unwrap());
        tool(&["mount", "-o", "loop,errors=remount-ro", image, at]).map(drop)
    }

    fn fail(&self) {
        let device = tool(&["findmnt", "-no", "SOURCE", self.at.to_str().unwrap()]).unwrap();
        let name = device.trim().trim_start_matches("/dev/");
        fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1").unwrap();
        let error = fs::write(self.at.join("probe"), "").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }

    /// What a person does: unmounts it, has it checked and mended, and mounts it again.
    fn mend(&self) {
        wait::until("the disk to be free", || tool(&["umount", self.at.to_str().unwrap()]));
        // Its exit code says that it has mended something.
        let _ = tool(&["e2fsck", "-p", self.image.to_str().unwrap()]);
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = tool(&["umount", "--lazy", self.at.to_str().unwrap()]);
    }
}

/// What a program prints, or why it failed.
fn tool(words: &[&str]) -> Result<String, String> {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.map_err(|error| format!("{}: {error}", words[0]))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
#[ignore = "campaign: benches/faults/run 4"]
fn campaign_4_on_a_disk_that_went_read_only_traffic_goes_on_and_once_it_is_mended_all_is_there() {
    let home = TestHome::new();
    let Some(disk) = Disk::under(&home) else { return };
    fs::create_dir(home.path().join(".sky")).unwrap();
    home.configure("");
    let service = http_service();
    let endpoint = home.up("kept", &service);
    let before = home.wait_for_ready_replicas("kept", 1).remove(0);
    let service = service.to_str().unwrap();
    let load = Load::start(&endpoint, 2);
    disk.fail();
    let said = home.refused(&["up", "-y", "-n", "web", service]);
    let why = "cannot be written (Read-only file system";
    assert!(said.contains(why), "{said}");
    let said = home.ok(&["status"]);
    assert!(said.contains("CONTROLLER_FAILED") && said.contains("Requests still go") && said.contains(why), "{said}");
    let outcomes = load.finish();
    println!("a disk that went read-only: {} requests, {} of them failed", outcomes.ok, outcomes.failed());
    assert!(outcomes.ok > 0 && outcomes.failed() == 0, "{outcomes:?}");

    // The machine is taken down for it.
    home.kill_runtime();
    home.processes().iter().for_each(|process| process.kill(Signal::SIGKILL));
    wait::until_true("everything to be gone", || home.processes().is_empty());
    disk.mend();
    let init = home.init();
    wait::until_true("a replica in the place of the one that was killed", || {
        home.replicas("kept", "READY").iter().any(|replica| replica["id"] != before["id"])
    });
    assert!(home.service("web").is_none(), "what was refused was not stored");
    home.ok(&["down", "-y", "kept"]);
    stop(init);
    home.assert_nothing_left();
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
