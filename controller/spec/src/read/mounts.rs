//! `workdir`, `file_mounts` and `volumes`, whose variables are filled in.

use super::storage::{self, Bucket};
use crate::field::{Field, Result};
use crate::task::Workdir;
use skyserve_yaml::Value;

/// Where a workdir is put, so that nothing else may be.
const WORKDIR_DESTINATION: &str = "~/sky_workdir";

/// What `file_mounts` asks for, in order.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// Destination and source.
    pub(crate) files: Vec<(String, String)>,
    pub(crate) buckets: Vec<(String, Bucket)>,
}

pub(crate) fn read_workdir(field: &Field<'_>) -> Result<Workdir> {
    match &field.node.value {
        Value::String(path) if path.is_empty() => Err(field.is_not("the path of a folder")),
        Value::String(path) => Ok(Workdir::Local(path.clone())),
        Value::Mapping(_) => {
            let section = field.section("workdir", &["url", "ref"])?;
            let url = section.required("url")?.string()?.to_owned();
            let reference = section.given("ref").map(Field::string).transpose()?.map(str::to_owned);
            Ok(Workdir::Git { url, reference })
        }
        _ => Err(field.is_not("a path, nor a mapping with a `url`")),
    }
}

pub(crate) fn read_file_mounts(field: &Field<'_>, has_workdir: bool) -> Result<Mounts> {
    let mut mounts = Mounts::default();
    for (destination, source) in field.entries()? {
        judge_destination(&source, destination, has_workdir)?;
        match &source.node.value {
            Value::String(path) => {
                judge_path(&source, path)?;
                mounts.files.push((destination.to_owned(), path.clone()));
            }
            Value::Mapping(_) => mounts.buckets.push((destination.to_owned(), storage::read(&source)?)),
            _ => {
                let shown = source.shown();
                return Err(source.error(format!("Unable to parse file_mount {destination}:{shown}")));
            }
        }
    }
    Ok(mounts)
}

/// Destination and description of each volume.
pub(crate) fn read_volumes(field: &Field<'_>) -> Result<Vec<(String, serde_json::Value)>> {
    let described = |(destination, volume): (&str, Field<'_>)| match volume.node.value {
        Value::String(_) | Value::Mapping(_) => Ok((destination.to_owned(), volume.json()?)),
        _ => Err(volume.is_not("a volume's name, nor a mapping that describes one")),
    };
    field.entries()?.into_iter().map(described).collect()
}

/// Whether SkyPilot takes it for a bucket or other URL rather than a path.
pub(crate) fn is_url(path: &str) -> bool {
    let Some((scheme, rest)) = path.split_once("://") else { return path.starts_with("//") && path.len() > 2 };
    let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme && !rest.is_empty() && !rest.starts_with('/')
}

fn judge_destination(field: &Field<'_>, destination: &str, has_workdir: bool) -> Result<()> {
    judge_path(field, destination)?;
    if is_url(destination) {
        return Err(field.error("File mount destination paths cannot be cloud storage"));
    }
    if has_workdir && destination == WORKDIR_DESTINATION {
        return Err(field.error(format!(
            "Cannot use '{WORKDIR_DESTINATION}' as a destination path of a file mount, as it will be used by the workdir. \
             If uploading a file/folder to the workdir is needed, please specify the full path to the file/folder."
        )));
    }
    Ok(())
}

fn judge_path(field: &Field<'_>, path: &str) -> Result<()> {
    if path.is_empty() {
        return Err(field.error("a mount's path is empty"));
    }
    if path.contains('\0') {
        return Err(field.error("a mount's path has a NUL character"));
    }
    if path.ends_with('/') {
        return Err(field.error(format!("Mount paths cannot end with a slash. Found: {path}")));
    }
    Ok(())
}
