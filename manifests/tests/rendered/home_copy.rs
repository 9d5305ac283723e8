//! The init container's script, run by a real shell in folders of its own.

use crate::samples::controller;
use serde_json::Value;
use skyserve_manifests::render;
use std::path::Path;
use std::process::Command;

/// The script as it is rendered, with other folders for the image's home and the volume.
fn run(image_home: &Path, volume: &Path) {
    let objects = render(&controller("models", "serve: {controller: {high_availability: true}}")).unwrap();
    let container = objects.last().unwrap().value().pointer("/spec/template/spec/initContainers/0/command").unwrap();
    let [shell, option, script] = &container.as_array().unwrap()[..] else { panic!("{container}") };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let script =
        text(script).replace("/home/sky", image_home.to_str().unwrap()).replace("/volume", volume.to_str().unwrap());
    let output = Command::new(text(shell)).arg(text(option)).arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[test]
fn a_new_volume_gets_the_images_home_and_a_used_one_keeps_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (home, volume) = (folder.path().join("home"), folder.path().join("volume"));
    std::fs::create_dir_all(home.join(".config/deep")).unwrap();
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(home.join(".config/deep/file"), "image").unwrap();
    std::fs::write(home.join("a b"), "image").unwrap();
    std::fs::write(volume.join("kept"), "backup").unwrap();
    std::fs::write(home.join("kept"), "image").unwrap();
    std::fs::create_dir_all(volume.join(".skyserve-copy/half")).unwrap();
    run(&home, &volume);
    assert_eq!(read(&volume.join(".config/deep/file")).as_deref(), Some("image"));
    assert_eq!(read(&volume.join("a b")).as_deref(), Some("image"));
    assert_eq!(read(&volume.join("kept")).as_deref(), Some("backup"), "a backup that was put back was overwritten");
    assert!(!volume.join(".skyserve-copy").exists(), "what a start that was cut off left is still there");
    std::fs::remove_file(volume.join("a b")).unwrap();
    run(&home, &volume);
    assert_eq!(read(&volume.join("a b")), None, "what was removed came back");
}

#[test]
fn an_image_without_a_home_fills_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (home, volume) = (folder.path().join("home"), folder.path().join("volume"));
    std::fs::create_dir(&home).unwrap();
    std::fs::create_dir(&volume).unwrap();
    run(&home, &volume);
    let left: Vec<_> = std::fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".skyserve-home"]);
}
