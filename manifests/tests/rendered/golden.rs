//! Golden files: `UPDATE_GOLDEN=1` writes them anew, to be looked at before they are committed.

use crate::samples;
use skyserve_manifests::to_yaml;
use std::collections::BTreeSet;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[test]
fn what_is_rendered_is_what_the_golden_files_say() {
    for sample in samples::all("models") {
        let file = folder().join(format!("{}.yaml", sample.name));
        let yaml = to_yaml(&sample.objects).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &yaml).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        let first = yaml.lines().zip(golden.lines()).position(|(is, was)| is != was);
        let line = first.unwrap_or_else(|| yaml.lines().count().min(golden.lines().count()));
        assert!(
            yaml == golden,
            "{} differs from line {} on:\n  is  {:?}\n  was {:?}\nUPDATE_GOLDEN=1 writes it anew",
            file.display(),
            line + 1,
            yaml.lines().nth(line),
            golden.lines().nth(line)
        );
    }
    // And there is no golden file of nothing.
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let samples = samples::all("models").into_iter().map(|sample| format!("{}.yaml", sample.name));
    assert_eq!(files.collect::<BTreeSet<_>>(), samples.collect::<BTreeSet<_>>());
}
