//! The YAML that `up` and `check` are given, and the values that complete it, read from disk with
//! limits.

use crate::invocation::Overrides;
use skyserve_api::JSON_BYTES_MAX;
use skyserve_spec::{SpecError, parse_env_file};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Largest YAML: it travels in a JSON request, whose escapes may double it, beside the envs.
const YAML_BYTES_MAX: usize = JSON_BYTES_MAX / 4;

/// Why the input could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is a folder: give the YAML file in it")]
    Folder { path: PathBuf },
    #[error("{path} is empty: a service YAML needs at least a `service` section and `run` commands")]
    Empty { path: PathBuf },
    #[error("{path} is larger than the {YAML_BYTES_MAX} bytes allowed: is it the right file?")]
    TooLarge { path: PathBuf },
    #[error("{path} is not UTF-8 text (byte {at} is wrong): is it the right file?")]
    NotText { path: PathBuf, at: usize },
    #[error(transparent)]
    EnvFile(#[from] SpecError),
    #[error("{flag} {text:?}: expected NAME=VALUE, or the NAME of a variable that is set here")]
    NotAnAssignment { flag: &'static str, text: String },
    #[error("{flag} {name}: {name} is not set in this environment; write {flag} {name}=VALUE")]
    NotSet { flag: &'static str, name: String },
}

/// Reads the text of a YAML file.
pub(crate) fn read_yaml(path: &Path) -> Result<String, SourceError> {
    let unreadable = |source| SourceError::Read { path: path.to_path_buf(), source };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(SourceError::Folder { path: path.to_path_buf() });
    }
    if metadata.file_type().is_socket() || metadata.file_type().is_block_device() {
        return Err(unreadable(std::io::Error::other("it is not a file")));
    }
    let mut bytes = Vec::new();
    // Pipes (`up <(render)`) have no length: read up to the limit instead of asking for it.
    let file = File::open(path).map_err(unreadable)?;
    file.take(YAML_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > YAML_BYTES_MAX {
        return Err(SourceError::TooLarge { path: path.to_path_buf() });
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(SourceError::Empty { path: path.to_path_buf() });
    }
    String::from_utf8(bytes)
        .map_err(|error| SourceError::NotText { path: path.to_path_buf(), at: error.utf8_error().valid_up_to() })
}

/// Values for `envs` and `secrets`, the stronger after the weaker.
#[derive(Default)]
pub(crate) struct Values {
    pub(crate) envs: Vec<(String, String)>,
    pub(crate) secrets: Vec<(String, String)>,
}

/// Reads the files and variables that the overrides name. `--env` beats `--env-file`; `--secret` beats
/// `--secret-file`, which beats `--env-file`, whose variables fill in secrets too (as in SkyPilot).
/// A variable that `--env` sets is taken from there alone.
pub(crate) fn read_values(
    overrides: &Overrides,
    environment: &BTreeMap<String, String>,
) -> Result<Values, SourceError> {
    let assignments = |flag: &'static str, texts: &[String]| {
        texts.iter().map(|text| assignment(flag, text, environment)).collect::<Result<Vec<_>, _>>()
    };
    let file = |path: &Option<PathBuf>| match path {
        Some(path) => read_env_file(path, environment),
        None => Ok(Vec::new()),
    };
    let env = assignments("--env", &overrides.env)?;
    let from_file = file(&overrides.env_file)?;
    let fills_secret = |(name, _): &&(String, String)| !env.iter().any(|(set, _)| set == name);
    let weakest = from_file.iter().filter(fills_secret).cloned().collect();
    let secrets = [weakest, file(&overrides.secret_file)?, assignments("--secret", &overrides.secret)?].concat();
    Ok(Values { envs: [from_file, env].concat(), secrets })
}

fn read_env_file(path: &Path, environment: &BTreeMap<String, String>) -> Result<Vec<(String, String)>, SourceError> {
    let unreadable = |source| SourceError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(YAML_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > YAML_BYTES_MAX {
        return Err(SourceError::TooLarge { path: path.to_path_buf() });
    }
    Ok(parse_env_file(&bytes, &path.to_string_lossy(), |name| environment.get(name).cloned())?)
}

fn assignment(
    flag: &'static str,
    text: &str,
    environment: &BTreeMap<String, String>,
) -> Result<(String, String), SourceError> {
    match text.split_once('=') {
        Some(("", _)) => Err(SourceError::NotAnAssignment { flag, text: text.to_owned() }),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None if text.is_empty() => Err(SourceError::NotAnAssignment { flag, text: text.to_owned() }),
        None => match environment.get(text) {
            Some(value) => Ok((text.to_owned(), value.clone())),
            None => Err(SourceError::NotSet { flag, name: text.to_owned() }),
        },
    }
}

/// This process's environment; variables that are not UTF-8 cannot be passed on and are left out.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_unusable_file_has_its_own_error() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s.yaml");
        assert!(matches!(read_yaml(&path), Err(SourceError::Read { .. })));
        assert!(matches!(read_yaml(temp.path()), Err(SourceError::Folder { .. })));
        std::fs::write(&path, " \n").unwrap();
        assert!(matches!(read_yaml(&path), Err(SourceError::Empty { .. })));
        std::fs::write(&path, b"run: \xff").unwrap();
        assert!(matches!(read_yaml(&path), Err(SourceError::NotText { at: 5, .. })));
        std::fs::write(&path, vec![b'a'; YAML_BYTES_MAX + 1]).unwrap();
        assert!(matches!(read_yaml(&path), Err(SourceError::TooLarge { .. })));
        std::fs::write(&path, vec![b'a'; YAML_BYTES_MAX]).unwrap();
        assert_eq!(read_yaml(&path).unwrap().len(), YAML_BYTES_MAX);
    }

    #[test]
    fn flags_beat_files_and_a_name_alone_takes_its_value_from_here() {
        let temp = tempfile::tempdir().unwrap();
        let env_file = temp.path().join("env");
        std::fs::write(&env_file, "A=file\nTOKEN=file\n").unwrap();
        let overrides = Overrides {
            env: vec!["A=flag".into(), "HERE".into(), "E=a=b".into()],
            env_file: Some(env_file),
            secret: vec!["TOKEN=flag".into()],
            secret_file: None,
        };
        let environment = BTreeMap::from([("HERE".to_owned(), "yes".to_owned())]);
        let values = read_values(&overrides, &environment).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            values.envs,
            [pair("A", "file"), pair("TOKEN", "file"), pair("A", "flag"), pair("HERE", "yes"), pair("E", "a=b")]
        );
        assert_eq!(values.secrets, [pair("TOKEN", "file"), pair("TOKEN", "flag")]);
    }

    #[test]
    fn a_name_that_is_not_set_here_is_an_error_that_says_how_to_give_a_value() {
        let overrides = Overrides { secret: vec!["HF_TOKEN".into()], ..Overrides::default() };
        let error = read_values(&overrides, &BTreeMap::new()).err().unwrap().to_string();
        assert!(error.contains("--secret HF_TOKEN=VALUE"), "{error}");
    }
}
