//! `check`: judges a YAML and prints what it means, with every default filled in.

use super::CommandError;
use crate::invocation::Check;
use crate::judge;
use crate::output::{Screen, warning};
use crate::source;
use serde_json::{Value, json};
use skyserve_spec::{Loaded, Target};

pub(super) fn check(command: &Check, target: Target, screen: &mut Screen<'_>) -> Result<(), CommandError> {
    let outcome = judged(command, target);
    match (outcome, command.json) {
        (Ok(Loaded { task, mut warnings, refusals }), json) => {
            warnings.extend(refusals.iter().map(|refusal| format!("`up` would refuse this: {refusal}")));
            let spec = task.normalised();
            if json {
                // The verdict is SkyServe's; what is not possible here yet is no fault of the YAML.
                let verdict =
                    json!({ "verdict": "accepted", "spec": spec, "warnings": warnings, "up_refuses": refusals });
                screen.line(&pretty(&verdict))?;
            } else {
                screen.text(&as_yaml(&spec))?;
                // Last, where they are read: the spec is long.
                warnings.iter().for_each(|text| warning(text));
            }
        }
        (Err(error), true) => {
            screen.line(&pretty(&json!({ "verdict": "rejected", "error": error.to_string() })))?;
            return Err(CommandError::Said);
        }
        (Err(error), false) => return Err(error),
    }
    Ok(())
}

fn judged(command: &Check, target: Target) -> Result<Loaded, CommandError> {
    let yaml = source::read_yaml(&command.yaml)?;
    let values = source::read_values(&command.overrides, &source::environment())?;
    Ok(judge::check(&yaml, &command.yaml, &values, command.pool, target)?)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

/// A value as YAML in block style. Strings that could be read as anything else are quoted as in JSON,
/// which YAML reads too.
fn as_yaml(value: &Value) -> String {
    let mut text = String::new();
    write_block(value, 0, &mut text);
    text
}

fn write_block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                text.push_str(&format!(
                    "{indent}{}:{}",
                    plain_or_quoted(key),
                    if is_block(value) { '\n' } else { ' ' }
                ));
                write_block(value, depth + 1, text);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                let mut item = String::new();
                write_block(value, depth + 1, &mut item);
                text.push_str(&format!("{indent}- {}", item.trim_start_matches(' ')));
            }
        }
        _ => text.push_str(&format!("{}\n", scalar(value))),
    }
}

/// Whether it is written on lines of its own.
fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(string) => plain_or_quoted(string),
        _ => value.to_string(),
    }
}

/// Quotes all but words that begin with a letter, `/` or `~` and are no YAML 1.1 keyword.
fn plain_or_quoted(string: &str) -> String {
    const KEYWORDS: [&str; 10] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "~"];
    let begins_well = string.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '~' | '_'));
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '~' | '_' | '-' | '.' | '+');
    let is_plain = begins_well && string.chars().all(safe) && !KEYWORDS.contains(&string.to_ascii_lowercase().as_str());
    if is_plain { string.to_owned() } else { Value::from(string).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_printed_as_yaml_that_reads_back_as_the_same_values() {
        let value = json!({
            "service": { "readiness_path": "/", "tls": null, "ports": "8080", "headers": {} },
            "resources": { "list": [{ "cpus": "2+", "any": [] }, { "ports": ["1", "a b"] }] },
            "flag": "yes",
            "two lines": "a\nb"
        });
        let expected = "\
flag: \"yes\"
resources:
  list:
    - any: []
      cpus: \"2+\"
    - ports:
        - \"1\"
        - \"a b\"
service:
  headers: {}
  ports: \"8080\"
  readiness_path: /
  tls: null
\"two lines\": \"a\\nb\"
";
        assert_eq!(as_yaml(&value), expected);
    }
}
