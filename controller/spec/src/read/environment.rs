//! `envs:` and `secrets:`, with what the command line says on top.

use crate::field::{Field, Result, Section};
use crate::{ManagedSecret, Secrets, SpecError};
use skyserve_yaml::Value;
use std::collections::BTreeMap;

/// What a task finds in its environment.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) envs: BTreeMap<String, String>,
    pub(crate) secrets: Secrets,
    pub(crate) managed_secrets: Vec<ManagedSecret>,
}

/// Names that must be given together, all as envs or all as secrets.
const DOCKER_LOGIN: [&str; 3] = ["SKYPILOT_DOCKER_PASSWORD", "SKYPILOT_DOCKER_SERVER", "SKYPILOT_DOCKER_USERNAME"];

/// Reads both sections; `envs` and `secrets` are the command line's `--env` and `--secret`, of which
/// the last of a name counts.
pub(crate) fn read(task: &Section<'_>, envs: &[(String, String)], secrets: &[(String, String)]) -> Result<Environment> {
    let mut environment = Environment { envs: read_envs(task, envs)?, ..Environment::default() };
    let overrides: BTreeMap<String, String> = secrets.iter().cloned().collect();
    if let Some(name) = overrides.keys().find(|name| !is_variable(name)) {
        return Err(on_command_line(format!("--secret: '{name}' is not a name for a variable: {VARIABLE_RULE}")));
    }
    let mut inline = BTreeMap::new();
    if let Some(field) = task.get("secrets") {
        match &field.node.value {
            Value::Sequence(_) => read_references(field, &mut environment.managed_secrets)?,
            Value::Mapping(_) => read_inline(field, &overrides, &mut inline, &mut environment.managed_secrets)?,
            // The value may be a secret: it is not shown.
            _ => return Err(field.error("must be a mapping of names to values, or a list of `secrets:NAME`")),
        }
    }
    if let Some(field) = task.get("managed_secrets") {
        read_managed(field, &mut environment.managed_secrets)?;
    }
    // A value on the command line is what a reference would have been resolved to.
    environment.managed_secrets.retain(|secret| !overrides.contains_key(&secret.name));
    inline.extend(overrides);
    environment.secrets = Secrets::from(inline);
    judge_docker_login(&task.field, &environment)?;
    Ok(environment)
}

const VARIABLE_RULE: &str = "letters, digits and '_' alone, and no digit first";

fn is_variable(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn on_command_line(problem: String) -> SpecError {
    SpecError { file: String::new(), line: None, field: String::new(), problem }
}

fn read_envs(task: &Section<'_>, overrides: &[(String, String)]) -> Result<BTreeMap<String, String>> {
    let mut envs = BTreeMap::new();
    let mut without_value = Vec::new();
    if let Some(field) = task.given("envs") {
        let entries = field.node.entries().ok_or_else(|| field.is_not("a mapping of names to values"))?;
        for entry in entries {
            let name = entry.key.value.to_python_string();
            let value = Field::new(format!("{}.{name}", field.path), &entry.value);
            if !is_variable(&name) {
                return Err(value.error(format!(
                    "The `envs` field contains invalid keys: '{name}' does not match any of the regexes: \
                     '^[a-zA-Z_][a-zA-Z0-9_]*$' ({VARIABLE_RULE})"
                )));
            }
            if value.node.is_null() {
                without_value.push((name, value));
            } else {
                refuse_nul(&value)?;
                envs.insert(name, value.node.value.to_python_string());
            }
        }
    }
    for (name, value) in overrides {
        if !is_variable(name) {
            return Err(on_command_line(format!("--env: '{name}' is not a name for a variable: {VARIABLE_RULE}")));
        }
        envs.insert(name.clone(), value.clone());
    }
    match without_value.into_iter().find(|(name, _)| !envs.contains_key(name)) {
        Some((name, value)) => Err(value.error(format!(
            "Environment variable '{name}' is None. Please set a value for it in task YAML or with --env flag. To set \
             it to be empty, use an empty string ({name}: \"\" in task YAML or --env {name}=\"\" in CLI)."
        ))),
        None => Ok(envs),
    }
}

/// No environment can hold a NUL.
fn refuse_nul(value: &Field<'_>) -> Result<()> {
    match value.node.as_str() {
        Some(text) if text.contains('\0') => Err(value.error("the value has a NUL character")),
        _ => Ok(()),
    }
}

/// `secrets: {NAME: value, OTHER: , secrets:THIRD: }`
fn read_inline(
    field: &Field<'_>,
    overrides: &BTreeMap<String, String>,
    inline: &mut BTreeMap<String, String>,
    managed: &mut Vec<ManagedSecret>,
) -> Result<()> {
    for entry in field.node.entries().unwrap_or_default() {
        let name = entry.key.value.to_python_string();
        let value = Field::new(format!("{}.{name}", field.path), &entry.value);
        let is_reference = name.starts_with(REFERENCE_PREFIX);
        if value.node.is_null() {
            if is_reference || !overrides.contains_key(&name) {
                managed.push(reference(&name));
            }
        } else if is_reference {
            return Err(value.error(format!(
                "Invalid secret '{name}': secret references (secrets: prefix) must have a null value in dict form. To \
                 provide an inline secret value, remove the 'secrets:' prefix."
            )));
        } else if is_variable(&name) {
            refuse_nul(&value)?;
            inline.insert(name, value.node.value.to_python_string());
        } else {
            return Err(value.error(format!("'{name}' is not a name for a variable: {VARIABLE_RULE}")));
        }
    }
    Ok(())
}

const REFERENCE_PREFIX: &str = "secrets:";

/// `secrets: [secrets:NAME, …]`
fn read_references(field: &Field<'_>, managed: &mut Vec<ManagedSecret>) -> Result<()> {
    for item in field.items()? {
        let text = item.node.value.to_python_string();
        if !text.starts_with(REFERENCE_PREFIX) {
            return Err(item.error(format!(
                "Invalid secret in array form: {}. Array items must use the secrets: prefix (e.g., secrets:HF_TOKEN). \
                 For inline secrets with values, use dict form: secrets: {{MY_SECRET: \"value\"}}",
                item.shown()
            )));
        }
        managed.push(reference(&text));
    }
    Ok(())
}

/// `managed_secrets: [NAME, {OTHER: {mount_path: /path}}]`
fn read_managed(field: &Field<'_>, managed: &mut Vec<ManagedSecret>) -> Result<()> {
    for item in field.items()? {
        if let Some(name) = item.node.as_str() {
            managed.push(reference(name));
            continue;
        }
        let entries = item.entries()?;
        if entries.len() > 1 {
            return Err(item.error("names more than one secret: make each an item of its own"));
        }
        for (name, options) in entries {
            let options = options.section("managed_secrets", &["mount_path"])?;
            let mount_path = options.given("mount_path").map(Field::string).transpose()?.map(str::to_owned);
            managed.push(ManagedSecret { mount_path, ..reference(name) });
        }
    }
    Ok(())
}

fn reference(text: &str) -> ManagedSecret {
    let text = text.strip_prefix(REFERENCE_PREFIX).unwrap_or(text);
    let scoped = ["personal", "workspace", "global"]
        .iter()
        .find_map(|scope| Some((*scope, text.strip_prefix(scope)?.strip_prefix('.')?)));
    let (scope, name) = scoped.map_or((None, text), |(scope, name)| (Some(scope.to_owned()), name));
    ManagedSecret { name: name.to_owned(), scope, mount_path: None }
}

fn judge_docker_login(task: &Field<'_>, environment: &Environment) -> Result<()> {
    let in_envs = DOCKER_LOGIN.iter().filter(|name| environment.envs.contains_key(**name)).count();
    let in_secrets = DOCKER_LOGIN.iter().filter(|name| environment.secrets.get(name).is_some()).count();
    if in_envs > 0 && in_secrets > 0 {
        return Err(task.error(
            "Docker login variables must be specified together either in envs OR secrets, not split across both.",
        ));
    }
    let given = in_envs + in_secrets;
    if given > 0 && given < DOCKER_LOGIN.len() {
        let all = DOCKER_LOGIN.join(", ");
        return Err(task.error(format!("Docker login variables must be specified together: {all}")));
    }
    Ok(())
}
