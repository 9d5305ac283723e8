//! From the bytes of a service YAML to a task: which of its documents is the task, and what is worth
//! saying about it.

use crate::field::{Field, Result};
use crate::{SpecError, TaskSpec, read, support};
use skyserve_yaml::{Node, Value};

/// Which command the YAML is judged for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Command {
    /// `sky serve up`: the YAML needs a `service:` section.
    #[default]
    ServeUp,
    /// `sky jobs pool apply`: the YAML needs a `pool:` section.
    PoolApply,
}

/// What is to run the replicas; it decides which fields can be honoured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Target {
    /// Processes on this machine.
    #[default]
    LocalProcesses,
    /// Pods.
    Kubernetes,
}

/// What to judge a YAML for, and what the command line adds to it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    pub command: Command,
    /// `--env-file` and `--env`, in that order: the last of a name counts.
    pub envs: Vec<(String, String)>,
    /// `--secret-file` and `--secret`, likewise.
    pub secrets: Vec<(String, String)>,
    pub target: Target,
}

impl std::fmt::Debug for LoadOptions {
    /// Leaves out values: this is what logs show.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = |pairs: &[(String, String)]| pairs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        f.debug_struct("LoadOptions")
            .field("command", &self.command)
            .field("envs", &names(&self.envs))
            .field("secrets", &names(&self.secrets))
            .field("target", &self.target)
            .finish()
    }
}

/// A valid task, and what stands between it and being run.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub task: TaskSpec,
    /// What is not honoured, or probably not meant: for a person, a sentence each.
    pub warnings: Vec<String>,
    /// Why `up` must refuse the task although it is valid, a sentence each; empty if it can be run.
    pub refusals: Vec<String>,
}

/// Reads and judges a service YAML as SkyServe 0.14 does. `file_name` is what messages call it.
///
/// # Errors
/// [`SpecError`] when the YAML is not a valid task; it names the field, the value, the rule and the
/// line.
pub fn load(source: &[u8], file_name: &str, options: &LoadOptions) -> std::result::Result<Loaded, SpecError> {
    judge(source, file_name, options).map_err(|error| SpecError { file: file_name.to_owned(), ..error })
}

fn judge(source: &[u8], file_name: &str, options: &LoadOptions) -> Result<Loaded> {
    let documents = skyserve_yaml::read(source).map_err(SpecError::from)?;
    let document = task_document(&documents, file_name, options.command)?;
    let read::task::Read { task, mut warnings, left_out } = read::task::read(document, options)?;
    let support = support::judge(&task, &left_out, options.target);
    warnings.extend(support.warnings);
    Ok(Loaded { task, warnings, refusals: support.refusals })
}

/// The one document that is a task. One with a name alone may come before it.
fn task_document<'d>(documents: &'d [Node], file_name: &str, command: Command) -> Result<&'d Node> {
    if documents.iter().all(is_nothing) {
        let problem = format!(
            "'{file_name}' is empty or contains no task definition. Add at least a `run:` (or `setup:`) field."
        );
        return Err(SpecError { file: String::new(), line: None, field: String::new(), problem });
    }
    let is_other = |document: &&Node| !document.is_null() && document.entries().is_none();
    if let Some(other) = documents.iter().find(is_other) {
        let problem = format!("a task must be a mapping of names to values, not {}", other.value.kind());
        return Err(Field::new("", other).error(problem));
    }
    let tasks = match documents {
        [header, rest @ ..] if !rest.is_empty() && is_header(header) => {
            if let Some(execution) = header.get("execution").filter(|node| !node.is_null())
                && execution.as_str() != Some("serial")
            {
                return Err(Field::new("execution", execution).error(several_tasks(command)));
            }
            rest
        }
        all => all,
    };
    let mut tasks = tasks.iter().filter(|document| !document.is_null());
    match (tasks.next(), tasks.next()) {
        (Some(task), None) => Ok(task),
        (Some(_), Some(second)) => Err(Field::new("", second).error(several_tasks(command))),
        (None, _) => Ok(&documents[0]),
    }
}

fn is_nothing(document: &Node) -> bool {
    match &document.value {
        Value::Null | Value::Bool(false) | Value::Int(0) => true,
        Value::Float(value) => *value == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Sequence(items) => items.is_empty(),
        Value::Mapping(entries) => entries.is_empty(),
        _ => false,
    }
}

/// Nothing but a name, and how several tasks would be run.
fn is_header(document: &Node) -> bool {
    document.get("name").is_some()
        && document
            .entries()
            .is_some_and(|entries| entries.iter().all(|entry| matches!(entry.key.as_str(), Some("name" | "execution"))))
}

fn several_tasks(command: Command) -> String {
    let command = match command {
        Command::ServeUp => "sky serve up",
        Command::PoolApply => "sky jobs pool apply",
    };
    format!(
        "YAML specifies a DAG which is only supported by `sky jobs launch`. `{command}` supports a single task only."
    )
}
