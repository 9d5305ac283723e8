//! Label and field selectors: `a=b`, `a==b`, `a!=b`, `a`, `!a`, joined by commas.

use serde_json::Value;

/// Whether the object is among those that are asked for.
pub(crate) fn matches(object: &Value, labels: &str, fields: &str) -> bool {
    let label = |key: &str| object["metadata"]["labels"][key].as_str().map(str::to_owned);
    let field = |path: &str| {
        let value = path.split('.').fold(object, |value, part| &value[part]);
        Some(value.as_str().unwrap_or_default().to_owned())
    };
    terms(labels).all(|term| holds(term, label)) && terms(fields).all(|term| holds(term, field))
}

fn terms(selector: &str) -> impl Iterator<Item = &str> {
    selector.split(',').map(str::trim).filter(|term| !term.is_empty())
}

fn holds(term: &str, value: impl Fn(&str) -> Option<String>) -> bool {
    if let Some((key, unwanted)) = term.split_once("!=") {
        value(key).as_deref() != Some(unwanted)
    } else if let Some((key, wanted)) = term.split_once("==").or_else(|| term.split_once('=')) {
        value(key).as_deref() == Some(wanted)
    } else if let Some(key) = term.strip_prefix('!') {
        value(key).is_none()
    } else {
        value(term).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_choose_by_labels_and_fields() {
        let pod = json!({"metadata": {"name": "a", "labels": {"app": "x"}}, "status": {"phase": "Running"}});
        for (labels, fields, expected) in [
            ("", "", true),
            ("app=x", "metadata.name=a", true),
            ("app==x,other!=y,!none", "status.phase=Running", true),
            ("app=y", "", false),
            ("none", "", false),
            ("app", "metadata.name=b", false),
        ] {
            assert_eq!(matches(&pod, labels, fields), expected, "{labels} {fields}");
        }
    }
}
