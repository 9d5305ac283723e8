//! Uploaded files: from the controller to their places.

use crate::support::{Pod, TOKEN, answer, controller, read, until};
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};
use skyserve_model::launch::Stage;
use std::fs;
use std::io::{BufRead, BufReader};

/// A tar with these files.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        // Byte by byte: the crate's own setter refuses hostile ones.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_mode(0o640);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn with_bundle(mut pod: Pod, bundle: &[u8]) -> Pod {
    pod.spec.bundle = Some(hex::encode(Sha256::digest(bundle)));
    pod.spec.has_workdir = true;
    pod
}

#[test]
fn prepare_leaves_the_binary_and_the_files_and_run_puts_them_in_place() {
    let bundle = tar(&[
        ("workdir/server.py", "serve"),
        ("mounts/0/a", "relative"),
        ("mounts/1", "home"),
        ("mounts/2/b/c", "absolute"),
    ]);
    let mut pod = with_bundle(Pod::new(None, Some("true")), &bundle);
    let absolute = pod.path("elsewhere/data");
    pod.spec.file_mounts = vec!["data".into(), "~/config/x".into(), absolute.to_str().unwrap().into()];
    let (url, requests) = controller(vec![answer("200 OK", &bundle)]);
    let mut prepare = pod.command("prepare");
    assert!(prepare.args(["--bundle-url", &url]).status().unwrap().success());
    let head = requests.join().unwrap().remove(0).to_ascii_lowercase();
    assert!(head.starts_with(&format!("get /bundles/{} ", pod.spec.bundle.as_ref().unwrap())), "{head}");
    assert!(head.contains(&format!("authorization: bearer {TOKEN}")), "{head}");
    let copy = std::process::Command::new(pod.path("skyserve/bin/skyserve")).arg("is-running").status().unwrap();
    assert_eq!(copy.code(), Some(1), "the copy runs, and says that nothing does");
    assert_eq!(pod.start("run").end().0, Some(0));
    assert_eq!(read(&pod.home("sky_workdir/server.py")), "serve");
    assert_eq!(read(&pod.home("sky_workdir/data/a")), "relative");
    assert_eq!(read(&pod.home("config/x")), "home");
    assert_eq!(read(&absolute.join("b/c")), "absolute");
    assert!(!pod.path("skyserve/bundle.tar").exists() && !pod.path("skyserve/files").exists());
}

#[test]
fn prepare_without_files_asks_nobody() {
    let pod = Pod::new(None, Some("true"));
    assert_eq!(pod.start("prepare").end().0, Some(0));
    assert!(pod.path("skyserve/bin/skyserve").exists());
}

#[test]
fn a_controller_that_is_away_is_waited_for_in_the_open() {
    let bundle = tar(&[("workdir/a", "a")]);
    let pod = with_bundle(Pod::new(None, None), &bundle);
    let (url, _) =
        controller(vec![answer("503 Service Unavailable", b""), b"HTTP/1.1".to_vec(), answer("200 OK", &bundle)]);
    let mut prepare = pod.command("prepare");
    let output = prepare.args(["--bundle-url", &url]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("waiting for the uploaded files from the controller at 127.0.0.1:"), "{said}");
    assert!(said.contains("503"), "{said}");
}

#[test]
fn files_with_another_checksum_than_their_name_are_refused() {
    let pod = with_bundle(Pod::new(None, None), b"what was uploaded");
    let (url, _) = controller(vec![answer("200 OK", b"something else"); 3]);
    let mut prepare = pod.command("prepare");
    assert_eq!(prepare.args(["--bundle-url", &url]).status().unwrap().code(), Some(1));
    let ended = pod.ended();
    assert!(ended.stage == Stage::Provision && ended.reason.contains("damaged"), "{ended:?}");
    assert!(!pod.path("skyserve/bundle.tar").exists());
}

#[test]
fn files_that_are_gone_and_a_token_that_is_refused_end_the_waiting() {
    for (status, expected) in [("404 Not Found", "run `up` or `update` again"), ("401 Unauthorized", "token")] {
        let pod = with_bundle(Pod::new(None, None), b"x");
        let (url, _) = controller(vec![answer(status, b"")]);
        let mut prepare = pod.command("prepare");
        assert_eq!(prepare.args(["--bundle-url", &url]).status().unwrap().code(), Some(1));
        assert!(pod.ended().reason.contains(expected), "{:?}", pod.ended());
    }
}

#[test]
fn prepare_ends_when_the_pod_does() {
    let pod = with_bundle(Pod::new(None, None), b"x");
    // Accepts nothing after the first answer: the rest waits.
    let (url, _) = controller(vec![answer("503 Service Unavailable", b"")]);
    let mut prepare = pod.command("prepare");
    let mut child = prepare.args(["--bundle-url", &url]).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    until("it waits", || {
        line.clear();
        said.read_line(&mut line).unwrap();
        line.contains("waiting for")
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn files_that_lead_elsewhere_are_refused_and_nothing_runs() {
    for hostile in ["../out", "/tmp/skyserve-replica-hostile-out", "workdir/../../../out"] {
        let bundle = tar(&[(hostile, "x")]);
        let pod = with_bundle(Pod::new(None, Some("touch began")), &bundle);
        fs::write(pod.path("skyserve/bundle.tar"), &bundle).unwrap();
        assert_eq!(pod.start("run").end().0, Some(1), "{hostile}");
        let ended = pod.ended();
        assert!(ended.stage == Stage::Provision && ended.reason.contains("leads elsewhere"), "{ended:?}");
        assert!(!pod.home("sky_workdir/began").exists() && !pod.path("out").exists());
        assert!(!pod.path("skyserve/out").exists() && !fs::exists("/tmp/skyserve-replica-hostile-out").unwrap());
    }
}

#[test]
fn a_file_mount_over_the_system_itself_is_refused() {
    let bundle = tar(&[("mounts/0/x", "x")]);
    let mut pod = with_bundle(Pod::new(None, Some("true")), &bundle);
    pod.spec.file_mounts = vec!["/proc/x".into()];
    fs::write(pod.path("skyserve/bundle.tar"), &bundle).unwrap();
    assert_eq!(pod.start("run").end().0, Some(1));
    assert!(pod.ended().reason.contains("file mount /proc/x"), "{:?}", pod.ended());
}
