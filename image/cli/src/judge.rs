//! Has the YAML and `~/.sky/config.yaml` judged, before anything is done.

use crate::source::Values;
use skyserve_home::Home;
use skyserve_manifests::names::CONFIG_VARIABLE;
use skyserve_spec::config::Config;
use skyserve_spec::{Command, LoadOptions, Loaded, SpecError, Target, TaskSpec};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest configuration file.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Why a YAML is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JudgeError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("{file} is a valid service, but asks for what cannot be done here yet:\n  {}", .refusals.join("\n  "))]
    Refused { file: String, refusals: Vec<String> },
    #[error("cannot read the configuration {path}: {problem}")]
    ConfigFile { path: PathBuf, problem: String },
}

/// What was read, and what is to be known about it.
pub(crate) struct Judged {
    pub(crate) task: TaskSpec,
    pub(crate) warnings: Vec<String>,
}

/// Judges a YAML, as a pool if `pool`, by SkyServe's rules: what could not be carried out here yet is listed.
pub(crate) fn check(
    source: &str,
    file: &Path,
    values: &Values,
    pool: bool,
    target: Target,
) -> Result<Loaded, JudgeError> {
    let command = if pool { Command::PoolApply } else { Command::ServeUp };
    Ok(load(source, file, values, command, target)?)
}

/// Judges a YAML that is to be started: what cannot be carried out is an error.
pub(crate) fn for_up(source: &str, file: &Path, values: &Values, target: Target) -> Result<Judged, JudgeError> {
    let Loaded { task, warnings, refusals } = load(source, file, values, Command::ServeUp, target)?;
    if refusals.is_empty() {
        return Ok(Judged { task, warnings });
    }
    Err(JudgeError::Refused { file: file.display().to_string(), refusals })
}

fn load(source: &str, file: &Path, values: &Values, command: Command, target: Target) -> Result<Loaded, SpecError> {
    let options = LoadOptions { command, envs: values.envs.clone(), secrets: values.secrets.clone(), target };
    skyserve_spec::load(source.as_bytes(), &file.to_string_lossy(), &options)
}

/// Reads the configuration, and says in a sentence each what in it has no effect.
pub(crate) fn config(home: &Home) -> Result<(Config, Vec<String>), JudgeError> {
    let path = config_file(home);
    let (config, warnings) = Config::parse(&read_config(&path)?, &path.to_string_lossy())?;
    Ok((config, warnings.into_iter().map(|warning| format!("{}: {warning}", path.display())).collect()))
}

/// Whether the configuration, wrong as it is, says for certain that services run on this machine.
pub(crate) fn config_says_here(home: &Home) -> bool {
    read_config(&config_file(home)).is_ok_and(|bytes| Config::says_here(&bytes))
}

/// `~/.sky/config.yaml`, or what a pod is given instead.
fn config_file(home: &Home) -> PathBuf {
    let given = std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty());
    given.map_or_else(|| home.config_file(), PathBuf::from)
}

/// What is new in `~/.sky/config.yaml` since the runtime started, which goes on with what it read then.
pub(crate) fn config_news(home: &Home) -> Option<String> {
    let in_force: Config = serde_json::from_slice(&std::fs::read(home.config_in_force()).ok()?).ok()?;
    let path = config_file(home);
    let read = read_config(&path).and_then(|bytes| Ok(Config::parse(&bytes, &path.to_string_lossy())?));
    let goes_on = "the runtime goes on with the configuration it started with";
    match read {
        Ok((now, _)) if now == in_force => None,
        Ok(_) => {
            let pid = skyserve_init::running(home)?.pid;
            Some(format!(
                "{} has changed, {goes_on}. To apply the change, restart the runtime; replicas go on meanwhile: \
                 `kill {pid}`, then `status`",
                path.display()
            ))
        }
        Err(error) => Some(format!("{error}; {goes_on}")),
    }
}

/// The user's configuration, as bytes; empty if there is none.
fn read_config(path: &Path) -> Result<Vec<u8>, JudgeError> {
    let unreadable = |problem: String| JudgeError::ConfigFile { path: path.to_path_buf(), problem };
    let mut bytes = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => {
            file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(error.to_string()))?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(bytes),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(unreadable(format!("it is larger than the {CONFIG_BYTES_MAX} bytes allowed")));
    }
    Ok(bytes)
}
