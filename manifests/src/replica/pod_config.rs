//! `kubernetes.pod_config`, merged into a replica's pod as SkyPilot does (`merge_k8s_configs` in its
//! `sky/utils/config_utils.py`):
//! * A mapping is merged key by key, whatever else replaces.
//! * `containers` and `imagePullSecrets` hold one entry, which is merged into the first.
//! * Lists that Kubernetes merges by a key are merged by it; any other list is appended.
//!
//! It may add whatever a pod can have. What the controller finds a replica by, or what makes it run the user's commands,
//! it may not change: that is an error, for a replica that is not what it seems is worse than none.

use crate::error::ManifestError;
use crate::names::{
    COMPONENT_LABEL, CONTROLLER_LABEL, ENDPOINT_LABEL, HEAD_LABEL, REPLICA_LABEL, SERVICE_ANNOTATION, SERVICE_LABEL,
    UID_ANNOTATION,
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value};

use Step::{Index, Key};

/// What the field is called in messages.
const FIELD: &str = "kubernetes.pod_config";

/// Lists that Kubernetes merges, by SkyPilot's table of them.
const MERGE_KEYS: [(&str, &str); 10] = [
    ("initContainers", "name"),
    ("ephemeralContainers", "name"),
    ("volumes", "name"),
    ("volumeMounts", "name"),
    ("resourceClaims", "name"),
    ("env", "name"),
    ("hostAliases", "ip"),
    ("topologySpreadConstraints", "topologyKey"),
    ("ports", "containerPort"),
    ("volumeDevices", "devicePath"),
];

/// Lists of one entry, which is merged into the first.
const SINGLE: [&str; 2] = ["containers", "imagePullSecrets"];

/// Paths in a pod whose values are ours. The first container is the user's, the first two volumes are ours.
const OURS: [&[Step<'static>]; 14] = [
    &[Key("metadata"), Key("name")],
    &[Key("metadata"), Key("namespace")],
    &[Key("metadata"), Key("ownerReferences")],
    &[Key("metadata"), Key("finalizers")],
    &[Key("metadata"), Key("generateName")],
    &[Key("spec"), Key("restartPolicy")],
    &[Key("spec"), Key("volumes"), Index(0)],
    &[Key("spec"), Key("volumes"), Index(1)],
    &[Key("spec"), Key("containers"), Index(0), Key("name")],
    &[Key("spec"), Key("containers"), Index(0), Key("command")],
    &[Key("spec"), Key("containers"), Index(0), Key("args")],
    &[Key("spec"), Key("containers"), Index(0), Key("startupProbe")],
    &[Key("spec"), Key("containers"), Index(0), Key("volumeMounts"), Index(0)],
    &[Key("spec"), Key("containers"), Index(0), Key("volumeMounts"), Index(1)],
];

/// Labels and annotations that are ours, given or not: a replica with the endpoint's label would get its requests.
const OUR_LABELS: [&str; 6] =
    [CONTROLLER_LABEL, COMPONENT_LABEL, SERVICE_LABEL, REPLICA_LABEL, ENDPOINT_LABEL, HEAD_LABEL];
const OUR_ANNOTATIONS: [&str; 2] = [UID_ANNOTATION, SERVICE_ANNOTATION];

/// From a value to one within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'v> {
    Key(&'v str),
    Index(usize),
}

/// The pod with `pod_config` merged into it.
pub(super) fn merged(pod: &Pod, pod_config: &Value) -> Result<Pod, ManifestError> {
    let broken = |error: serde_json::Error| refused(&[], error.to_string());
    let base = serde_json::to_value(pod).map_err(broken)?;
    let mut result = base.clone();
    merge(&mut result, pod_config, &[])?;
    judge(&base, &result)?;
    serde_json::from_value(result).map_err(broken)
}

fn merge(base: &mut Value, over: &Value, path: &[Step<'_>]) -> Result<(), ManifestError> {
    let (Value::Object(base), Value::Object(over)) = (base, over) else {
        return Err(refused(path, "must be a mapping"));
    };
    for (name, value) in over {
        let path = &[path, &[Key(name)]].concat();
        match (base.get_mut(name), value) {
            (Some(Value::Array(base)), Value::Array(over)) => merge_lists(base, over, name, path)?,
            (Some(base @ Value::Object(_)), Value::Object(_)) => merge(base, value, path)?,
            _ => drop(base.insert(name.clone(), value.clone())),
        }
    }
    Ok(())
}

fn merge_lists(base: &mut Vec<Value>, over: &[Value], name: &str, path: &[Step<'_>]) -> Result<(), ManifestError> {
    let within = |index| [path, &[Index(index)]].concat();
    if SINGLE.contains(&name) {
        let [over] = over else {
            return Err(refused(path, format!("has {} entries, and takes one: a replica's own", over.len())));
        };
        return match base.first_mut() {
            Some(first) => merge(first, over, &within(0)),
            None => {
                base.push(over.clone());
                Ok(())
            }
        };
    }
    let key = MERGE_KEYS.iter().find(|(list, _)| *list == name).map(|(_, key)| *key);
    for over in over {
        let value = key.and_then(|key| Some((key, over.get(key)?)));
        let same =
            value.and_then(|(key, value)| base.iter_mut().enumerate().find(|(_, base)| base.get(key) == Some(value)));
        match same {
            Some((index, base)) => merge(base, over, &within(index))?,
            None => base.push(over.clone()),
        }
    }
    Ok(())
}

/// Whether what is ours is as it was.
fn judge(base: &Value, result: &Value) -> Result<(), ManifestError> {
    let labels = OUR_LABELS.iter().map(|name| vec![Key("metadata"), Key("labels"), Key(name)]);
    let annotations = OUR_ANNOTATIONS.iter().map(|name| vec![Key("metadata"), Key("annotations"), Key(name)]);
    for path in OURS.iter().map(|path| path.to_vec()).chain(labels).chain(annotations) {
        if at(base, &path) != at(result, &path) {
            return Err(refused(&path, "is what makes the pod a replica: it cannot be changed"));
        }
    }
    // Its resources may be: a quota may ask for them.
    let path = [Key("spec"), Key("initContainers"), Index(0)];
    let prepare = |pod: &Value| {
        let mut container = at(pod, &path).cloned().unwrap_or_default();
        container.as_object_mut().map(|container| container.remove("resources"));
        container
    };
    if prepare(base) != prepare(result) {
        return Err(refused(&path, "prepares the replica: only its resources can be changed"));
    }
    Ok(())
}

fn at<'v>(value: &'v Value, path: &[Step<'_>]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, step| match step {
        Key(name) => value.get(name),
        Index(index) => value.get(index),
    })
}

/// Whether each field is one that a pod has, of the type that it has there. Each is tried alone, so that the message
/// names it.
pub(super) fn check_fields(pod_config: &Value) -> Result<(), ManifestError> {
    let mut leaves = Vec::new();
    collect_leaves(pod_config, Vec::new(), &mut leaves);
    for (path, leaf) in leaves {
        let alone = path.iter().rev().fold(leaf.clone(), |value, step| match step {
            Key(name) => Value::Object(Map::from_iter([((*name).to_owned(), value)])),
            Index(_) => Value::Array(vec![value]),
        });
        let pod: Pod =
            serde_json::from_value(alone).map_err(|error| refused(&path, format!("is wrong there: {error}")))?;
        // The types leave out what they do not know.
        let known = serde_json::to_value(pod).unwrap_or_default();
        let alone: Vec<Step<'_>> = path.iter().map(|step| if let Key(_) = step { *step } else { Index(0) }).collect();
        if !leaf.is_null() && at(&known, &alone).is_none() {
            return Err(refused(&path, "is no field of a pod"));
        }
    }
    Ok(())
}

/// Each value that is no mapping and no list, or an empty one, with the path to it.
fn collect_leaves<'v>(value: &'v Value, path: Vec<Step<'v>>, leaves: &mut Vec<(Vec<Step<'v>>, &'v Value)>) {
    let within = |step| [path.as_slice(), &[step]].concat();
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            entries.iter().for_each(|(name, value)| collect_leaves(value, within(Key(name)), leaves));
        }
        Value::Array(items) if !items.is_empty() => {
            let items = items.iter().enumerate();
            items.for_each(|(index, value)| collect_leaves(value, within(Index(index)), leaves));
        }
        _ => leaves.push((path, value)),
    }
}

fn refused(path: &[Step<'_>], problem: impl Into<String>) -> ManifestError {
    let mut field = FIELD.to_owned();
    for step in path {
        match step {
            Index(index) => field.push_str(&format!("[{index}]")),
            Key(name) => field.push_str(&format!(".{name}")),
        }
    }
    ManifestError::PodConfig { field, problem: problem.into() }
}

#[cfg(test)]
mod tests;
