//! A task's document: the sections put together, and what they must agree on.

use super::{environment, mounts, ports, resources, service};
use crate::field::{Field, Result, Section};
use crate::substitute::Substitution;
use crate::{Command, LoadOptions, Resource, ResourcesKind, ServiceSpec, TaskSpec};
use serde_json::Value as Json;
use skyserve_yaml::{Node, Value};

const TASK_FIELDS: [&str; 20] = [
    "name",
    "workdir",
    "event_callback",
    "num_nodes",
    "resources",
    "file_mounts",
    "service",
    "pool",
    "setup",
    "run",
    "envs",
    "secrets",
    "managed_secrets",
    "inputs",
    "outputs",
    "config",
    "volumes",
    "volume_mounts",
    "api_server_access",
    "_metadata",
];

/// Most nodes a replica may ask for.
const NODES_MAX: u32 = 1000;

/// A task, and what is worth saying about how it was read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) task: TaskSpec,
    pub(crate) warnings: Vec<String>,
    /// Fields that were accepted and are represented nowhere in the task.
    pub(crate) left_out: Vec<&'static str>,
}

/// Reads the document of a task.
pub(crate) fn read(document: &Node, options: &LoadOptions) -> Result<Read> {
    let field = Field::new("", document);
    let section = field.section("task", &TASK_FIELDS)?;
    let text = |name: &str| section.get(name).map(|field| field.string().map(str::to_owned)).transpose();
    let environment = environment::read(&section, &options.envs, &options.secrets)?;

    let mut variables = environment.envs.clone();
    variables.extend(environment.secrets.expose().clone());
    let mut substitution = Substitution::new(variables);
    let workdir = filled(&section, "workdir", &mut substitution)?;
    let workdir = workdir.as_ref().map(|node| mounts::read_workdir(&Field::new("workdir", node))).transpose()?;
    let file_mounts = filled(&section, "file_mounts", &mut substitution)?;
    let file_mounts = file_mounts
        .as_ref()
        .map(|node| mounts::read_file_mounts(&Field::new("file_mounts", node), workdir.is_some()))
        .transpose()?
        .unwrap_or_default();
    let volumes = filled(&section, "volumes", &mut substitution)?;
    let volumes = volumes.as_ref().map(|node| mounts::read_volumes(&Field::new("volumes", node))).transpose()?;

    let nothing = Node::empty_mapping();
    let resources_field = section.get("resources").cloned().unwrap_or_else(|| Field::new("resources", &nothing));
    let mut resources = resources::read(&resources_field, read_config(&section)?)?;
    let fuse = file_mounts.buckets.iter().any(|(_, bucket)| bucket.mounted);
    for choice in &mut resources.list {
        choice.requires_fuse = fuse;
    }
    let mut service = read_service(&section, &mut substitution, options.command)?;
    judge_resources(&service, &resources.list, resources.kind, &resources_field)?;
    if !service.pool {
        service.ports = Some(ports::ingress_port(service.ports, &resources.list, &resources_field)?);
    }
    judge_experimental(&section)?;
    let num_nodes = match section.get("num_nodes") {
        Some(field) if matches!(field.node.value, Value::Int(_)) => field.count(1, NODES_MAX)?,
        Some(field) => return Err(field.is_not("a positive integer")),
        None => 1,
    };
    let task = TaskSpec {
        name: text("name")?,
        service,
        resources,
        num_nodes,
        envs: environment.envs,
        secrets: environment.secrets,
        managed_secrets: environment.managed_secrets,
        setup: text("setup")?,
        run: text("run")?,
        workdir,
        file_mounts: file_mounts.files,
        storage_mounts: file_mounts.buckets.into_iter().map(|(to, bucket)| (to, bucket.description)).collect(),
        volumes: volumes.unwrap_or_default(),
    };
    Ok(Read { task, warnings: substitution_warnings(&substitution), left_out: left_out(&section) })
}

/// The section with its variables filled in.
fn filled(section: &Section<'_>, name: &str, substitution: &mut Substitution) -> Result<Option<Node>> {
    section.get(name).map(|field| substitution.fill(field)).transpose()
}

fn read_service(section: &Section<'_>, substitution: &mut Substitution, command: Command) -> Result<ServiceSpec> {
    let pool = section.get("pool");
    if let (Some(service), Some(_)) = (section.get("service"), pool) {
        return Err(service.error("Cannot set both service and pool in the same task."));
    }
    let service = match (filled(section, "service", substitution)?, pool) {
        (Some(node), _) => service::read_service(&Field::new("service", &node))?,
        (None, Some(pool)) => service::read_pool(pool)?,
        (None, None) => {
            let (name, lower) = match command {
                Command::ServeUp => ("Service", "service"),
                Command::PoolApply => ("Pool", "pool"),
            };
            return Err(section
                .field
                .error(format!("{name} section not found in the YAML file. To fix, add a valid `{lower}` field.")));
        }
    };
    match (command, service.pool) {
        (Command::ServeUp, true) => Err(section.field.error(
            "Service section in the YAML file does not match the pool argument. To fix, add a valid `service` field.",
        )),
        (Command::PoolApply, false) => Err(section.field.error("The YAML file needs a `pool` section.")),
        _ => Ok(service),
    }
}

/// What is left of `config:` besides the hooks, which are no configuration.
fn read_config(section: &Section<'_>) -> Result<Option<Json>> {
    let Some(field) = section.get("config") else { return Ok(None) };
    let mut config = serde_json::Map::new();
    for (name, value) in field.entries()? {
        if name == "hooks" {
            judge_hooks(&value)?;
        } else {
            config.insert(name.to_owned(), value.json()?);
        }
    }
    Ok((!config.is_empty()).then_some(Json::Object(config)))
}

fn judge_hooks(field: &Field<'_>) -> Result<()> {
    const EVENTS: [&str; 3] = ["stop", "preemption", "down"];
    for hook in field.items()? {
        let hook = hook.section("config.hooks", &["run", "events", "timeout"])?;
        let run = hook.required("run")?;
        if run.string()?.is_empty() {
            return Err(run.error("is empty"));
        }
        if let Some(events) = hook.given("events") {
            for event in events.items()? {
                event.one_of(&EVENTS)?;
            }
        }
        hook.given("timeout").map(|timeout| timeout.integer(1, i64::from(i32::MAX))).transpose()?;
    }
    Ok(())
}

/// Fields that SkyServe does nothing with must still have the right form.
fn judge_experimental(section: &Section<'_>) -> Result<()> {
    section.get("event_callback").map(Field::string).transpose()?;
    section.get("api_server_access").map(Field::boolean).transpose()?;
    section.get("_metadata").map(Field::entries).transpose()?;
    section.get("volume_mounts").map(Field::items).transpose()?;
    for name in ["inputs", "outputs"] {
        let Some(field) = section.get(name) else { continue };
        let entries = field.entries()?;
        if entries.len() != 1 {
            return Err(field.error(format!("Only one of {name} is allowed.")));
        }
        for (_, size) in entries {
            size.number(f64::MIN, f64::MAX)?;
        }
    }
    Ok(())
}

/// Rules between the service and its resources (SkyServe's `validate_service_task`).
fn judge_resources(service: &ServiceSpec, choices: &[Resource], kind: ResourcesKind, field: &Field<'_>) -> Result<()> {
    let spot = choices.iter().filter(|choice| choice.use_spot == Some(true)).count();
    if spot != 0 && spot != choices.len() {
        return Err(field.error(
            "Resources must either all use spot or none use spot. To use on-demand and spot instances together, use \
             `dynamic_ondemand_fallback` or set base_ondemand_fallback_replicas.",
        ));
    }
    if service.pool && kind == ResourcesKind::Ordered {
        return Err(field.error(
            "Ordered resources are not supported for pools. Use `any_of` instead, or specify a single resource.",
        ));
    }
    if service.pool && choices.iter().any(|choice| choice.ports.is_some()) {
        return Err(field.error("Cannot specify ports in a pool."));
    }
    if service.use_ondemand_fallback() && spot == 0 {
        return Err(field.error(
            "`use_ondemand_fallback` is only supported for spot resources. Please explicitly specify `use_spot: true` in \
             resources for on-demand fallback.",
        ));
    }
    if service.spot_placer.is_some() {
        let anywhere = |choice: &Resource| Resource { infra: Default::default(), ..choice.clone() };
        if choices.windows(2).any(|pair| anywhere(&pair[0]) != anywhere(&pair[1])) {
            return Err(field.error(
                "Different resource configurations are not supported for spot placement. All resources must have the same \
                 configuration except for cloud/region/zone.",
            ));
        }
        if spot == 0 {
            return Err(field.error(
                "`spot_placer` is only supported for spot resources. Please explicitly specify `use_spot: true` in \
                 resources.",
            ));
        }
    }
    Ok(())
}

fn substitution_warnings(substitution: &Substitution) -> Vec<String> {
    let unset = substitution
        .unset
        .iter()
        .map(|(path, name)| format!("{path}: ${name} is not set in `envs` or `secrets`, so it is left as it stands."));
    let braces = substitution.stray_braces.iter().map(|path| {
        format!("{path}: a '}}' directly after a variable is swallowed; write ${{NAME}} with both braces.")
    });
    unset.chain(braces).collect()
}

/// Accepted fields that no [`TaskSpec`] represents.
fn left_out(section: &Section<'_>) -> Vec<&'static str> {
    let resources = section.get("resources");
    let mut left_out: Vec<&'static str> = ["event_callback", "inputs", "outputs", "volume_mounts", "api_server_access"]
        .into_iter()
        .filter(|name| section.get(name).is_some())
        .collect();
    if section.get("config").is_some_and(|config| config.node.get("hooks").is_some()) {
        left_out.push("config.hooks");
    }
    if resources.is_some_and(|resources| resources.node.get("ephemeral_storage").is_some()) {
        left_out.push("resources.ephemeral_storage");
    }
    left_out
}
