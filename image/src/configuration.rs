//! The configuration: the user's `~/.sky/config.yaml` is read when the runtime starts, and what it says is kept
//! for every role that starts after that. So the file can be edited, well or badly, while services run. In a pod the file
//! is the one that `SKYSERVE_CONFIG` names, from a ConfigMap.

use skyserve_home::Home;
use skyserve_manifests::names::CONFIG_VARIABLE;
use skyserve_spec::config::Config;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Reads the user's file at the start of the runtime and puts it in force. A file that is wrong is an error at the
/// first start; later the configuration that was in force stays, because services depend on it. Gives what there is
/// to warn of.
pub(crate) fn take(home: &Home) -> Result<Vec<String>, String> {
    let (config, warnings) = match read(home) {
        Ok(read) => read,
        Err(error) => {
            let stays =
                "the configuration of the last start stays in force; mend the file, then start the runtime again";
            return if kept(home).is_some() { Ok(vec![format!("{error}; {stays}")]) } else { Err(error) };
        }
    };
    let path = home.config_in_force();
    let next = path.with_extension("json.next");
    let json = serde_json::to_vec(&config).map_err(|error| error.to_string())?;
    let written = std::fs::write(&next, json).and_then(|()| std::fs::rename(&next, &path));
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(warnings)
}

/// The configuration in force; the user's file for a role that runs without init.
pub(crate) fn in_force(home: &Home) -> Result<Config, String> {
    match kept(home) {
        Some(config) => Ok(config),
        None => read(home).map(|(config, _)| config),
    }
}

fn kept(home: &Home) -> Option<Config> {
    serde_json::from_slice(&std::fs::read(home.config_in_force()).ok()?).ok()
}

fn read(home: &Home) -> Result<(Config, Vec<String>), String> {
    let path = match std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => home.config_file(),
    };
    match std::fs::read(&path) {
        Ok(bytes) => Config::parse(&bytes, &path.display().to_string()).map_err(|error| error.to_string()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok((Config::default(), Vec::new())),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}
