//! The project's own cases: a rule each, with the verdict and what must be said or come out.
//!
//! A file of `tests/cases/` holds several. `=== TITLE` begins a case; lines beginning with `> ` say
//! what is expected; the rest is the YAML:
//!
//! * `> rejected: TEXT`: the error must contain TEXT (lines are counted from the first of the YAML);
//! * `> accepted: JSON`: the normalised spec must contain all of JSON;
//! * `> warning: TEXT`, `> refusal: TEXT`: one of them must contain TEXT; `> no refusal`, `> no warning`: none
//!   may be;
//! * `> env: NAME=VALUE`, `> secret: NAME=VALUE`, `> pool`, `> kubernetes`: what it is judged for.
#![expect(clippy::disallowed_methods, reason = "the cases are files; what is tested reads none")]

use serde_json::Value;
use skyserve_spec::{Command, LoadOptions, Loaded, SpecError, Target, load};
use std::path::Path;

#[derive(Debug, Default)]
struct Case {
    title: String,
    yaml: String,
    options: LoadOptions,
    rejected: Option<String>,
    accepted: Option<Value>,
    warnings: Vec<String>,
    refusals: Vec<String>,
    no_refusal: bool,
    no_warning: bool,
}

impl Case {
    fn direct(&mut self, directive: &str) {
        let (name, text) = directive.split_once(": ").unwrap_or((directive, ""));
        let pair = || {
            let (name, value) = text.split_once('=').expect("NAME=VALUE");
            (name.to_owned(), value.to_owned())
        };
        match name {
            "rejected" => self.rejected = Some(text.to_owned()),
            "accepted" => self.accepted = Some(serde_json::from_str(text).expect("JSON after 'accepted:'")),
            "warning" => self.warnings.push(text.to_owned()),
            "refusal" => self.refusals.push(text.to_owned()),
            "no refusal" => self.no_refusal = true,
            "no warning" => self.no_warning = true,
            "env" => self.options.envs.push(pair()),
            "secret" => self.options.secrets.push(pair()),
            "pool" => self.options.command = Command::PoolApply,
            "kubernetes" => self.options.target = Target::Kubernetes,
            _ => panic!("{}: unknown directive {directive:?}", self.title),
        }
    }

    fn check(&self) -> Result<(), String> {
        match (&self.rejected, load(self.yaml.as_bytes(), "case.yaml", &self.options)) {
            (Some(expected), Err(error)) => contains(&error, expected),
            (Some(expected), Ok(_)) => Err(format!("accepted, expected: {expected}")),
            (None, Err(error)) => Err(format!("rejected: {error}")),
            (None, Ok(loaded)) => self.check_loaded(&loaded),
        }
    }

    fn check_loaded(&self, loaded: &Loaded) -> Result<(), String> {
        let spec = loaded.task.normalised();
        if let Some(missing) = self.accepted.as_ref().and_then(|expected| missing("spec", expected, &spec)) {
            return Err(missing);
        }
        for (expected, said) in [(&self.warnings, &loaded.warnings), (&self.refusals, &loaded.refusals)] {
            if let Some(unsaid) = expected.iter().find(|text| !said.iter().any(|said| said.contains(*text))) {
                return Err(format!("{unsaid:?} is not said in {said:?}"));
            }
        }
        if self.no_refusal && !loaded.refusals.is_empty() {
            return Err(format!("refused: {:?}", loaded.refusals));
        }
        if self.no_warning && !loaded.warnings.is_empty() {
            return Err(format!("warned: {:?}", loaded.warnings));
        }
        Ok(())
    }
}

fn contains(error: &SpecError, expected: &str) -> Result<(), String> {
    let text = error.to_string();
    if text.starts_with("case.yaml") && text.contains(expected) {
        Ok(())
    } else {
        Err(format!("{text}\n  lacks: {expected}"))
    }
}

/// The first part of `expected` that is not in `found`. Objects may hold more, lists may not.
fn missing(path: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => expected
            .iter()
            .find_map(|(key, value)| missing(&format!("{path}.{key}"), value, found.get(key).unwrap_or(&Value::Null))),
        _ if expected == found => None,
        _ => Some(format!("{path}: expected {expected}, found {found}")),
    }
}

fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("=== ") {
            cases.push(Case { title: title.to_owned(), ..Case::default() });
            continue;
        }
        let case = cases.last_mut().expect("a title before anything else");
        match line.strip_prefix("> ") {
            Some(directive) if case.yaml.is_empty() => case.direct(directive),
            _ => {
                case.yaml.push_str(line);
                case.yaml.push('\n');
            }
        }
    }
    cases
}

/// Runs the cases of one file, of which there must be at least `count_min`.
fn run(file: &str, count_min: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cases = cases(&text);
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| case.check().err().map(|failure| format!("{}: {failure}", case.title)))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(cases.len() >= count_min, "{file} holds only {} cases", cases.len());
}

#[test]
fn yaml_is_read_as_version_1_1() {
    run("yaml.cases", 12);
}

#[test]
fn a_file_holds_one_task() {
    run("document.cases", 14);
}

#[test]
fn probes_are_judged_and_get_their_defaults() {
    run("probe.cases", 22);
}

#[test]
fn replicas_and_their_policy_are_judged() {
    run("replicas.cases", 26);
}

#[test]
fn the_rest_of_the_service_section_is_judged() {
    run("service.cases", 14);
}

#[test]
fn ports_must_lead_to_one_port() {
    run("ports.cases", 18);
}

#[test]
fn resources_are_judged_and_normalised() {
    run("resources.cases", 34);
}

#[test]
fn environment_and_variables_are_filled_in() {
    run("environment.cases", 24);
}

#[test]
fn workdir_mounts_and_nodes_are_judged() {
    run("mounts.cases", 16);
}

#[test]
fn pools_are_judged() {
    run("pool.cases", 14);
}

#[test]
fn what_cannot_be_done_yet_is_said() {
    run("support.cases", 17);
}

#[test]
fn a_case_that_fails_is_noticed() {
    let case = |yaml: &str, directives: &[&str]| {
        let mut case = Case { yaml: yaml.to_owned(), ..Case::default() };
        directives.iter().for_each(|directive| case.direct(directive));
        case.check()
    };
    let good = "service: {}\nresources: {ports: 80}\nrun: x\n";
    assert!(case(good, &["no refusal"]).is_ok());
    assert!(case(&format!("{good}config: {{a: 1}}\n"), &["no warning"]).is_err());
    assert!(case(good, &["rejected: anything"]).is_err());
    assert!(case(good, &["accepted: {\"num_nodes\": 2}"]).is_err());
    assert!(case(good, &["warning: nothing says this"]).is_err());
    assert!(case("service: 3\n", &["rejected: another reason"]).is_err());
    assert!(case("service: 3\n", &[]).is_err());
}
