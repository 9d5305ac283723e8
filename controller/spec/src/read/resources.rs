//! `resources:`, from one mapping to one choice or several: `any_of`, `ordered`, and several
//! accelerators in one field.

use super::resource::{self, Config};
use crate::field::{Field, Result, Section};
use crate::{Resource, Resources, ResourcesKind};
use skyserve_yaml::Value;

/// Most choices a task may give; each is written out in full.
const CHOICES_MAX: usize = 256;

/// Choices, and whether their order was meant.
#[derive(Debug)]
struct Choices {
    list: Vec<Resource>,
    ordered: bool,
}

/// Reads the section; `overrides` is the task's `config:`.
pub(crate) fn read(field: &Field<'_>, overrides: Option<serde_json::Value>) -> Result<Resources> {
    let known: Vec<&str> = resource::FIELDS.into_iter().chain(["any_of", "ordered"]).collect();
    let section = field.section("resources", &known)?;
    let base = Config::new(&section, false);
    let mut choices = match (section.get("any_of"), section.get("ordered")) {
        (Some(_), Some(ordered)) => {
            return Err(ordered.error("Cannot specify both \"any_of\" and \"ordered\" in resources."));
        }
        (Some(any_of), None) => alternatives(&base, any_of, false)?,
        (None, Some(ordered)) => alternatives(&base, ordered, true)?,
        (None, None) => by_accelerator(&base)?,
    };
    judge_priorities(field, &choices.list)?;
    for choice in &mut choices.list {
        choice.config_overrides.clone_from(&overrides);
    }
    let kind = match (choices.ordered, choices.list.len()) {
        (true, _) => ResourcesKind::Ordered,
        (false, 1) => ResourcesKind::Single,
        (false, _) => ResourcesKind::AnyOf,
    };
    Ok(Resources { kind, list: choices.list })
}

fn alternatives(base: &Config<'_>, field: &Field<'_>, ordered: bool) -> Result<Choices> {
    let items = field.items()?;
    if items.is_empty() {
        return Err(field.error("names no choice: leave it out, or list at least one"));
    }
    let several = accelerators(base)?
        .is_some_and(|accelerators| accelerators.names.len() > 1 && (ordered || accelerators.ordered));
    if several {
        return Err(field.error("Cannot specify multiple \"accelerators\" beside a list of choices in resources."));
    }
    let mut list = Vec::new();
    for item in items {
        let section: Section<'_> = item.section("resources", &resource::FIELDS)?;
        list.extend(by_accelerator(&base.overridden_by(&Config::new(&section, true)))?.list);
        if list.len() > CHOICES_MAX {
            return Err(item.error(format!("more than {CHOICES_MAX} choices of resources")));
        }
    }
    Ok(Choices { list, ordered })
}

/// One choice for each accelerator named.
fn by_accelerator(config: &Config<'_>) -> Result<Choices> {
    let Some(Accelerators { names, ordered }) = accelerators(config)? else {
        return Ok(Choices { list: vec![resource::read(config, None)?], ordered: false });
    };
    let list = names.iter().map(|name| resource::read(config, Some(name))).collect::<Result<_>>()?;
    Ok(Choices { list, ordered })
}

#[derive(Debug)]
struct Accelerators {
    /// `A100` or `A100:8`, none twice.
    names: Vec<String>,
    ordered: bool,
}

fn accelerators(config: &Config<'_>) -> Result<Option<Accelerators>> {
    let Some(field) = config.get("accelerators") else { return Ok(None) };
    let mut names: Vec<String> = Vec::new();
    match &field.node.value {
        Value::String(text) => names.push(text.clone()),
        Value::Sequence(_) => {
            for item in field.items()? {
                names.push(item.string()?.to_owned());
            }
        }
        Value::Mapping(_) => {
            for (name, count) in field.entries()? {
                match count.node.value {
                    Value::Null => names.push(name.to_owned()),
                    Value::Int(_) | Value::Float(_) => {
                        names.push(format!("{name}:{}", count.node.value.to_python_string()));
                    }
                    _ => return Err(count.is_not("a number")),
                }
            }
        }
        _ => return Err(field.is_not("an accelerator, a list of them, or a mapping of them to counts")),
    }
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    if names.is_empty() || names.iter().any(|name| name.trim().is_empty()) {
        return Err(field.error("names no accelerator: leave it out if none is needed"));
    }
    if names.len() > CHOICES_MAX {
        return Err(field.error(format!("more than {CHOICES_MAX} choices of resources")));
    }
    Ok(Some(Accelerators { names, ordered: matches!(field.node.value, Value::Sequence(_)) }))
}

fn judge_priorities(field: &Field<'_>, list: &[Resource]) -> Result<()> {
    let mut given = list.iter().filter_map(|choice| choice.priority);
    match given.next() {
        Some(first) if given.any(|priority| priority != first) => {
            Err(field.error("Priority is not consistent across resources"))
        }
        _ => Ok(()),
    }
}
