//! One object to apply, of whatever kind.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// An object as the API server takes it. Never one of the whole cluster: [`Object::of`] takes none, so
/// whoever may write to one namespace can run services.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    value: Value,
    plural: &'static str,
}

impl Object {
    /// The object of a type that Kubernetes itself has.
    pub fn of<T>(typed: &T) -> Self
    where
        T: Resource<Scope = NamespaceResourceScope> + Metadata<Ty = ObjectMeta> + Serialize,
    {
        // The types are plain data with string keys: there is nothing in them that JSON cannot hold.
        let value = serde_json::to_value(typed).unwrap_or_default();
        Self { value, plural: T::URL_PATH_SEGMENT }
    }

    /// The object of a type that somebody added to the cluster; `value` has its `apiVersion` and `kind`.
    pub(crate) fn of_extension(value: Value, plural: &'static str) -> Self {
        Self { value, plural }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// The kind as paths of the API have it: `deployments`.
    pub fn plural(&self) -> &'static str {
        self.plural
    }

    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// The whole of it.
    pub fn value(&self) -> &Value {
        &self.value
    }

    pub(crate) fn metadata_mut(&mut self) -> Option<&mut Map<String, Value>> {
        self.value.get_mut("metadata").and_then(Value::as_object_mut)
    }

    fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

/// The objects as YAML documents, for `kubectl apply -f -`.
///
/// # Errors
/// Never, for what this crate makes: it holds nothing that YAML cannot.
pub fn to_yaml(objects: &[Object]) -> Result<String, serde_saphyr::ser::Error> {
    let documents: Vec<&Value> = objects.iter().map(Object::value).collect();
    serde_saphyr::to_string_multiple(&documents)
}

/// The objects as one `List` in JSON.
pub fn to_json(objects: &[Object]) -> Value {
    let items: Vec<&Value> = objects.iter().map(Object::value).collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}
