//! Buckets among the file mounts (SkyPilot's storage objects).

use crate::field::{Field, Result};
use skyserve_yaml::Value;

const FIELDS: [&str; 10] = [
    "name",
    "source",
    "store",
    "persistent",
    "mode",
    "type",
    "config",
    "_is_sky_managed",
    "_bucket_sub_path",
    "_force_delete",
];
const STORES: [&str; 11] =
    ["s3", "gcs", "azure", "r2", "ibm", "oci", "nebius", "coreweave", "vastdata", "hf", "volume"];
const MODES: [&str; 3] = ["mount", "copy", "mount_cached"];

/// A bucket, judged as far as it can be without an account.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) description: serde_json::Value,
    /// Mounted, rather than copied.
    pub(crate) mounted: bool,
}

pub(crate) fn read(field: &Field<'_>) -> Result<Bucket> {
    let section = field.section("storage", &FIELDS)?;
    for name in ["name", "type", "_bucket_sub_path"] {
        section.get(name).map(Field::string).transpose()?;
    }
    for name in ["persistent", "_is_sky_managed", "_force_delete"] {
        section.get(name).map(Field::boolean).transpose()?;
    }
    if let Some(source) = section.get("source") {
        match &source.node.value {
            Value::String(_) => {}
            Value::Sequence(items) if !items.is_empty() => {
                for item in source.items()? {
                    item.string()?;
                }
            }
            _ => return Err(source.is_not("a path or URL, nor a list of them")),
        }
    }
    let word = |name: &str, allowed: &[&str]| match section.get(name) {
        None => Ok(None),
        Some(field) => {
            let word = field.string()?.to_lowercase();
            if allowed.contains(&word.as_str()) {
                return Ok(Some(word));
            }
            Err(field.error(format!("'{word}' is not one of {}", allowed.join(", "))))
        }
    };
    word("store", &STORES)?;
    let mode = word("mode", &MODES)?;
    if let Some(config) = section.get("config") {
        config.entries()?;
    }
    if section.get("name").is_none() && section.get("source").is_none() {
        return Err(field.error("Storage source or storage name must be specified."));
    }
    Ok(Bucket { description: field.json()?, mounted: mode.as_deref() != Some("copy") })
}
