//! Objects, as etcd and the API server's own logic keep them.
//!
//! * Every change has a version of its own; what was at any version can be told.
//! * A UID is never used twice.

use crate::status::Refusal;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Namespace, resource, name.
type Key = (String, String, String);

/// One change of one object.
#[derive(Debug, Clone)]
pub struct Change {
    pub version: u64,
    pub kind: ChangeKind,
    /// `pods`.
    pub resource: String,
    pub namespace: String,
    /// As it is afterwards; as it last was if it was removed.
    pub object: Value,
    /// As it was before.
    pub before: Option<Value>,
}

/// What happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Value>,
    history: Vec<Change>,
    version: u64,
    /// Nothing before this version can be gone on from.
    compacted: u64,
    made: u64,
}

/// How an object is to be deleted.
#[derive(Debug, Default, Clone)]
pub(crate) struct Deletion {
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) uid: Option<String>,
}

impl Store {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(crate) fn compact(&mut self) {
        self.compacted = self.version + 1;
    }

    pub(crate) fn history(&self) -> &[Change] {
        &self.history
    }

    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.objects.get(&key(namespace, resource, name)).cloned()
    }

    pub(crate) fn list(&self, resource: &str, namespace: &str) -> Vec<Value> {
        let of = |(at, kind, _): &&Key| at == namespace && kind == resource;
        self.objects.iter().filter(|(key, _)| of(key)).map(|(_, object)| object.clone()).collect()
    }

    /// As [`Store::list`] was at `version`.
    pub(crate) fn list_at(&self, version: u64, resource: &str, namespace: &str) -> Vec<Value> {
        if version >= self.version {
            return self.list(resource, namespace);
        }
        let mut objects = BTreeMap::new();
        let past = self.history.iter().take_while(|change| change.version <= version);
        for change in past.filter(|change| change.resource == resource && change.namespace == namespace) {
            let name = text(&change.object["metadata"]["name"]);
            match change.kind {
                ChangeKind::Deleted => objects.remove(&name),
                ChangeKind::Added | ChangeKind::Modified => objects.insert(name, change.object.clone()),
            };
        }
        objects.into_values().collect()
    }

    pub(crate) fn create(&mut self, resource: &str, namespace: &str, mut object: Value) -> Result<Value, Refusal> {
        self.made += 1;
        let metadata = &mut object["metadata"];
        if metadata["name"].as_str().is_none_or(str::is_empty) {
            metadata["name"] = json!(format!("{}{:05}", text(&metadata["generateName"]), self.made));
        }
        let name = text(&metadata["name"]);
        metadata["namespace"] = json!(namespace);
        metadata["uid"] = json!(format!("00000000-0000-4000-8000-{:012}", self.made));
        metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        if self.objects.contains_key(&key(namespace, resource, &name)) {
            let message = format!("{resource} \"{name}\" already exists");
            return Err(Refusal::new(409, "AlreadyExists", message));
        }
        if resource == "pods" && object["status"].is_null() {
            object["status"] = json!({"phase": "Pending"});
        }
        Ok(self.put(resource, namespace, object))
    }

    /// Stores an object as it is to be from now on.
    pub(crate) fn put(&mut self, resource: &str, namespace: &str, mut object: Value) -> Value {
        let key = key(namespace, resource, &text(&object["metadata"]["name"]));
        let before = self.objects.get(&key).cloned();
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(key, object.clone());
        let kind = if before.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        self.record(kind, resource, namespace, object.clone(), before);
        object
    }

    /// Removes an object for good.
    pub(crate) fn remove(&mut self, resource: &str, namespace: &str, name: &str) {
        let Some(before) = self.objects.remove(&key(namespace, resource, name)) else { return };
        self.version += 1;
        let mut object = before.clone();
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.record(ChangeKind::Deleted, resource, namespace, object, Some(before));
    }

    /// Deletes as the API server does: a pod that a node has is only marked, unless its grace is none.
    pub(crate) fn delete(
        &mut self,
        resource: &str,
        namespace: &str,
        name: &str,
        deletion: &Deletion,
    ) -> Result<Value, Refusal> {
        let found = self.get(resource, namespace, name);
        let mut object = found.ok_or_else(|| Refusal::not_found(resource, name))?;
        let uid = text(&object["metadata"]["uid"]);
        if deletion.uid.as_ref().is_some_and(|wanted| *wanted != uid) {
            let message = format!("the UID in the precondition is not the UID in record: {uid}");
            return Err(Refusal::new(409, "Conflict", message));
        }
        let graceful = resource == "pods"
            && object["spec"]["nodeName"].is_string()
            && deletion.grace_seconds != Some(0)
            && !matches!(object["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
        let held = object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
        if graceful || held {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            object["metadata"]["deletionGracePeriodSeconds"] = json!(deletion.grace_seconds.unwrap_or(30));
            return Ok(self.put(resource, namespace, object));
        }
        self.remove(resource, namespace, name);
        Ok(object)
    }

    fn record(&mut self, kind: ChangeKind, resource: &str, namespace: &str, object: Value, before: Option<Value>) {
        let (resource, namespace) = (resource.to_owned(), namespace.to_owned());
        self.history.push(Change { version: self.version, kind, resource, namespace, object, before });
    }
}

fn key(namespace: &str, resource: &str, name: &str) -> Key {
    (namespace.to_owned(), resource.to_owned(), name.to_owned())
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
