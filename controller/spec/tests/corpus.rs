//! Every recorded verdict and normalised spec of SkyServe 0.14.1, where the recording is at hand.

#![expect(clippy::disallowed_methods, reason = "the recording is files; what is tested reads none")]

use serde_json::Value;
use skyserve_spec::{Command, LoadOptions, load, validate_service_name};
use std::path::{Path, PathBuf};

/// What the recording holds; fewer would mean that some were not read.
const CASES: usize = 505;
const NAMES: usize = 64;

/// The folder named by `COMPAT_DIR`, else `../shared/compat` beside the workspace; `None` if neither
/// is there.
fn compat_folder() -> Option<PathBuf> {
    let named = std::env::var_os("COMPAT_DIR").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/compat");
    if let Some(named) = &named {
        assert!(named.is_dir(), "COMPAT_DIR names {}, which is not a folder", named.display());
    }
    named.or(Some(beside)).filter(|folder| folder.is_dir())
}

fn records(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.map(|(name, value)| (name.clone(), value.as_str().expect("a string").to_owned())).collect()
}

/// The first difference, as a path with both values. Numbers compare as numbers.
fn difference(path: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Number(left), Value::Number(right)) if left.as_f64() == right.as_f64() => None,
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => left
            .iter()
            .zip(right)
            .enumerate()
            .find_map(|(index, (left, right))| difference(&format!("{path}[{index}]"), left, right)),
        (Value::Object(left), Value::Object(right)) => {
            let keys = left.keys().chain(right.keys());
            keys.into_iter().find_map(|key| match (left.get(key), right.get(key)) {
                (Some(left), Some(right)) => difference(&format!("{path}.{key}"), left, right),
                (left, right) => Some(format!("{path}.{key}: expected {left:?}, found {right:?}")),
            })
        }
        (left, right) if left == right => None,
        (left, right) => Some(format!("{path}: expected {left}, found {right}")),
    }
}

fn judge(folder: &Path, case: &Value) -> Result<(), String> {
    let file = case["file"].as_str().expect("a file name");
    let source = std::fs::read(folder.join(file)).map_err(|error| error.to_string())?;
    let command = if case["command"] == "pool_apply" { Command::PoolApply } else { Command::ServeUp };
    let options = LoadOptions {
        command,
        envs: pairs(&case["cli_env"]),
        secrets: pairs(&case["cli_secret"]),
        ..LoadOptions::default()
    };
    match (case["verdict"] == "accepted", load(&source, file, &options)) {
        (true, Err(error)) if case["dubious_accept"] == true => {
            if error.problem.is_empty() {
                Err("refused without a reason".to_owned())
            } else {
                Ok(())
            }
        }
        (true, Err(error)) => Err(format!("expected to be accepted: {error}")),
        (false, Ok(_)) => Err(format!("expected to be rejected: {}", case["error"])),
        (false, Err(error)) => {
            let named = error.to_string().starts_with(file) && !error.problem.is_empty();
            if named { Ok(()) } else { Err(format!("the refusal does not say what is wrong: {error}")) }
        }
        (true, Ok(loaded)) => {
            let json = serde_json::to_string(&loaded.task).map_err(|error| error.to_string())?;
            let stored: skyserve_spec::TaskSpec = serde_json::from_str(&json).map_err(|error| error.to_string())?;
            if stored != loaded.task {
                return Err("changes when it is stored as JSON and read back".to_owned());
            }
            difference("spec", &case["spec"], &loaded.task.normalised()).map_or(Ok(()), Err)
        }
    }
}

#[test]
fn every_recorded_service_yaml_has_the_recorded_verdict_and_spec() {
    let Some(folder) = compat_folder() else {
        println!("no recording at hand: 0 of {CASES} cases run");
        return;
    };
    let cases = records(&folder.join("cases.jsonl"));
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| judge(&folder, case).err().map(|failure| format!("{}: {failure}", case["name"])))
        .collect();
    println!("{} of {CASES} cases run, {} failed", cases.len(), failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(cases.len() >= CASES, "only {} cases were found", cases.len());
}

#[test]
fn every_recorded_name_has_the_recorded_verdict() {
    let Some(folder) = compat_folder() else {
        println!("no recording at hand: 0 of {NAMES} names run");
        return;
    };
    let names = records(&folder.join("names.jsonl"));
    for record in &names {
        let name = record["name"].as_str().unwrap();
        assert_eq!(validate_service_name(name).is_ok(), record["service"] == "valid", "{name:?}");
    }
    println!("{} of {NAMES} names run", names.len());
    assert!(names.len() >= NAMES, "only {} names were found", names.len());
}
