//! One choice of resources.

use super::ports;
use crate::field::{Field, Result, Section};
use crate::resources::{CLOUDS, Infra};
use crate::{Amount, Resource};
use serde_json::{Value as Json, json};
use skyserve_yaml::Value;
use std::collections::BTreeMap;

/// Every field of one choice.
pub(crate) const FIELDS: [&str; 25] = [
    "accelerators",
    "gpus",
    "accelerator_args",
    "autostop",
    "cloud",
    "cpus",
    "disk_size",
    "disk_tier",
    "ephemeral_storage",
    "image_id",
    "infra",
    "instance_type",
    "job_recovery",
    "labels",
    "local_disk",
    "max_hourly_cost",
    "memory",
    "network_tier",
    "ports",
    "priority",
    "priority_class",
    "region",
    "use_spot",
    "volumes",
    "zone",
];

/// SkyPilot's default disk, which is the same as none given.
pub(crate) const DISK_GB_DEFAULT: u64 = 256;
/// Largest disk: an exabyte.
const DISK_GB_MAX: u64 = 1 << 30;
const PRIORITY_MAX: i64 = 1000;
/// Most cores or GB of memory that one replica may ask for.
const AMOUNT_MAX: f64 = 1e9;

/// The fields of one choice, laid over those that all choices share.
#[derive(Debug, Clone)]
pub(crate) struct Config<'n> {
    fields: BTreeMap<&'n str, Field<'n>>,
    /// Labels add up, where other fields replace each other.
    labels: Vec<Field<'n>>,
}

impl<'n> Config<'n> {
    /// The fields of a section. A null says nothing; within a list of choices it takes back what is
    /// said outside (`override_null`).
    pub(crate) fn new(section: &Section<'n>, override_null: bool) -> Self {
        let mut fields: BTreeMap<&str, Field<'_>> = BTreeMap::new();
        for (name, field) in section.fields() {
            if override_null || !field.node.is_null() {
                let name = if *name == "gpus" { "accelerators" } else { name };
                fields.insert(name, field.clone());
            }
        }
        let labels = fields.remove("labels").into_iter().collect();
        Self { fields, labels }
    }

    pub(crate) fn overridden_by(&self, other: &Self) -> Self {
        let mut merged = self.clone();
        merged.fields.extend(other.fields.iter().map(|(name, field)| (*name, field.clone())));
        merged.labels.extend(other.labels.iter().cloned());
        merged
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Field<'n>> {
        self.fields.get(name).filter(|field| !field.node.is_null())
    }
}

/// Reads one choice; `accelerator` is the one of several that this choice is for.
pub(crate) fn read(config: &Config<'_>, accelerator: Option<&str>) -> Result<Resource> {
    let text = |name: &str| config.get(name).map(|field| field.string().map(str::to_owned)).transpose();
    if let Some(recovery) = config.get("job_recovery") {
        refuse_job_recovery(recovery)?;
    }
    let infra = read_infra(config)?;
    let labels = read_labels(&config.labels)?;
    let accelerators = match (accelerator, config.get("accelerators")) {
        (Some(accelerator), Some(field)) => Some(read_accelerator(field, accelerator)?),
        _ => None,
    };
    let image_id = config.get("image_id").map(|field| read_image(field, &infra)).transpose()?.flatten();
    let resource = Resource {
        instance_type: text("instance_type")?,
        cpus: config.get("cpus").map(read_cpus).transpose()?,
        memory: config.get("memory").map(read_memory).transpose()?,
        accelerators,
        accelerator_args: config.get("accelerator_args").map(read_accelerator_args).transpose()?,
        use_spot: config.get("use_spot").map(Field::boolean).transpose()?,
        disk_size: config.get("disk_size").map(read_disk_size).transpose()?.filter(|size| *size != DISK_GB_DEFAULT),
        image_id,
        disk_tier: read_word(config.get("disk_tier"), &["low", "medium", "high", "ultra", "best"])?,
        network_tier: read_word(config.get("network_tier"), &["standard", "best"])?,
        local_disk: config.get("local_disk").map(read_local_disk).transpose()?,
        max_hourly_cost: config.get("max_hourly_cost").map(|field| field.positive_number(AMOUNT_MAX)).transpose()?,
        ports: config.get("ports").map(ports::resource_ports).transpose()?.flatten(),
        labels,
        volumes: config.get("volumes").map(|field| read_volumes(field, &infra)).transpose()?,
        autostop: config.get("autostop").map(read_autostop).transpose()?,
        priority: config.get("priority").map(|field| field.integer(-PRIORITY_MAX, PRIORITY_MAX)).transpose()?,
        priority_class: text("priority_class")?.map(|class| class.trim().to_owned()).filter(|class| !class.is_empty()),
        config_overrides: None,
        requires_fuse: false,
        infra,
    };
    Ok(resource)
}

/// SkyServe replaces lost replicas itself: any strategy but `none` is refused.
fn refuse_job_recovery(field: &Field<'_>) -> Result<()> {
    let strategy = match &field.node.value {
        Value::String(_) => Some(field),
        Value::Mapping(_) => None,
        _ => return Err(field.is_not("a strategy's name, nor a mapping")),
    };
    let name = strategy.map(|field| field.node).or_else(|| field.node.get("strategy")).and_then(|node| node.as_str());
    if name == Some("none") {
        return Ok(());
    }
    Err(field
        .error("job_recovery is disabled for SkyServe. SkyServe will replenish preempted spot with spot instances."))
}

fn read_infra(config: &Config<'_>) -> Result<Infra> {
    let part = |name: &str| config.get(name).map(|field| field.string().map(str::to_owned)).transpose();
    let (region, zone) = (part("region")?, part("zone")?);
    let cloud = config.get("cloud");
    if let Some(field) = config.get("infra") {
        if cloud.is_some() || region.is_some() || zone.is_some() {
            return Err(field.error("Cannot specify both `infra` and `cloud`, `region`, or `zone` parameters."));
        }
        let text = field.string()?;
        return Infra::checked(text).ok_or_else(|| {
            field.error(format!(
                "'{text}' is not cloud[/region[/zone]] or kubernetes[/context], with a cloud of {}, or *",
                CLOUDS.join(", ")
            ))
        });
    }
    let cloud = cloud.map(|field| read_word(Some(field), &CLOUDS)).transpose()?.flatten();
    Ok(Infra { cloud, region, zone })
}

/// One of a few words, in any case.
fn read_word(field: Option<&Field<'_>>, allowed: &[&str]) -> Result<Option<String>> {
    let Some(field) = field else { return Ok(None) };
    let word = field.string()?.to_lowercase();
    if allowed.contains(&word.as_str()) {
        return Ok(Some(word));
    }
    Err(field.error(format!("'{word}' is not one of {}", allowed.join(", "))))
}

/// A number, or a string with one, as Python shows it.
fn amount_text(field: &Field<'_>) -> Result<String> {
    match field.node.value {
        Value::String(_) | Value::Int(_) | Value::Float(_) => Ok(field.node.value.to_python_string()),
        _ => Err(field.is_not("a number, nor a string like \"2\" or \"2+\"")),
    }
}

fn read_cpus(field: &Field<'_>) -> Result<String> {
    let text = amount_text(field)?;
    let amount = Amount::parse(&text).ok_or_else(|| {
        field.error(format!(
            "The \"cpus\" field should be either a number or a string \"<number>+\". Found: {}",
            field.shown()
        ))
    })?;
    judge_amount(field, "cpus", amount)?;
    Ok(text)
}

fn read_memory(field: &Field<'_>) -> Result<String> {
    let text = amount_text(field)?;
    let (number, plus) = text.strip_suffix('+').map_or((text.as_str(), ""), |number| (number, "+"));
    let gigabytes = if Amount::parse(number).is_some() { Some(number.to_owned()) } else { in_gigabytes(number) };
    let wrong = || {
        field.error(format!(
            "\"memory\" field should be a number (e.g. \"16\") or \"<number><unit>\" where unit is one of KB/MB/GB/TB/PB \
             (e.g. \"16GB\") or \"<number>+\" for \"at least\". Got: {}",
            field.shown()
        ))
    };
    let text = format!("{}{plus}", gigabytes.ok_or_else(wrong)?);
    judge_amount(field, "memory", Amount::parse(&text).ok_or_else(wrong)?)?;
    Ok(text)
}

fn judge_amount(field: &Field<'_>, name: &str, amount: Amount) -> Result<()> {
    if amount.value <= 0.0 {
        return Err(field.error(format!("The \"{name}\" field should be positive. Found: {}", field.shown())));
    }
    if amount.value > AMOUNT_MAX {
        return Err(field.error(format!("{} is more than the maximum of {AMOUNT_MAX}", field.shown())));
    }
    Ok(())
}

/// `512MB` as GB, written as Python writes a float.
fn in_gigabytes(text: &str) -> Option<String> {
    let (number, power) = split_unit(text)?;
    let value: f64 = number.trim().parse().ok()?;
    let gigabytes = value * 2f64.powi(power - 30);
    value.is_finite().then(|| Value::Float(gigabytes).to_python_string())
}

/// The number before a unit, and the power of two that the unit stands for.
fn split_unit(text: &str) -> Option<(String, i32)> {
    const UNITS: [(&str, i32); 10] = [
        ("kb", 10),
        ("ki", 10),
        ("mb", 20),
        ("mi", 20),
        ("gb", 30),
        ("gi", 30),
        ("tb", 40),
        ("ti", 40),
        ("pb", 50),
        ("pi", 50),
    ];
    let text = text.to_lowercase();
    UNITS.iter().find_map(|(unit, power)| text.strip_suffix(unit).map(|number| (number.to_owned(), *power)))
}

/// A whole number of GB, or of another unit that is one.
fn read_disk_size(field: &Field<'_>) -> Result<u64> {
    let wrong = || {
        field.error(format!(
            "\"disk_size\" must be a positive integer (in GB), or one with a unit (\"1TB\"). Got: {}.",
            field.shown()
        ))
    };
    let size = match &field.node.value {
        Value::Int(size) => u64::try_from(*size).map_err(|_| wrong())?,
        Value::String(text) => {
            let (number, power) = split_unit(text).unwrap_or_else(|| (text.clone(), 30));
            if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong());
            }
            let number: u128 = number.parse().map_err(|_| wrong())?;
            let bytes = number.checked_mul(1 << power).ok_or_else(wrong)?;
            if bytes % (1 << 30) != 0 {
                return Err(field.error(format!("{} is not a whole number of GB", field.shown())));
            }
            u64::try_from(bytes >> 30).map_err(|_| wrong())?
        }
        _ => return Err(wrong()),
    };
    if size == 0 {
        return Err(wrong());
    }
    if size > DISK_GB_MAX {
        return Err(field.error(format!("{} is more than the maximum of {DISK_GB_MAX} GB", field.shown())));
    }
    Ok(size)
}

fn read_local_disk(field: &Field<'_>) -> Result<String> {
    let text = amount_text(field)?.trim().to_lowercase();
    let (mode, size) = match text.split_once(':') {
        Some((mode, size)) => (mode, size),
        None if text == "nvme" || text == "ssd" => (text.as_str(), "100+"),
        None => ("nvme", text.as_str()),
    };
    if !matches!(mode, "nvme" | "ssd") || Amount::parse(size).is_none_or(|size| size.value <= 0.0) {
        return Err(field.error(format!(
            "Invalid local_disk: {}. Expected \"mode:size[+]\", \"mode\", or \"size[+]\". Mode must be \"nvme\" or \
             \"ssd\", size must be positive (GB), optionally with \"+\".",
            field.shown()
        )));
    }
    Ok(format!("{mode}:{size}"))
}

fn read_accelerator(field: &Field<'_>, text: &str) -> Result<BTreeMap<String, f64>> {
    let wrong = || {
        field.error(format!("The \"accelerators\" field as a str should be <name> or <name>:<cnt>. Found: '{text}'"))
    };
    let (name, count) = text.split_once(':').map_or((text, "1"), |(name, count)| (name, count));
    let count: f64 = count.trim().parse().map_err(|_| wrong())?;
    if !(count > 0.0 && count <= AMOUNT_MAX) {
        return Err(field.error(format!("Accelerator count must be a positive number. Got: '{name}': {count}.")));
    }
    if name.is_empty() { Err(wrong()) } else { Ok(BTreeMap::from([(name.to_owned(), count)])) }
}

fn read_accelerator_args(field: &Field<'_>) -> Result<BTreeMap<String, Json>> {
    let known = ["runtime_version", "tpu_name", "tpu_vm", "gcp_queued_resource"];
    let section = field.section("resources", &known)?;
    for (name, argument) in section.fields() {
        match *name {
            "tpu_vm" | "gcp_queued_resource" => argument.boolean().map(|_| ())?,
            _ => argument.string().map(|_| ())?,
        }
    }
    section.fields().iter().map(|(name, field)| Ok(((*name).to_owned(), field.json()?))).collect()
}

/// An image for every region (`None` where none was given), and `docker` for a container's.
fn read_image(field: &Field<'_>, infra: &Infra) -> Result<Option<BTreeMap<String, String>>> {
    let anywhere = infra.region.clone().unwrap_or_else(|| "None".to_owned());
    let mut images = BTreeMap::new();
    match &field.node.value {
        Value::String(image) => {
            images.insert(anywhere, image.trim().to_owned());
        }
        Value::Mapping(entries) => {
            for entry in entries {
                let image = Field::new(field.path.clone(), &entry.value).string()?.trim().to_owned();
                let region = match &entry.key.value {
                    Value::Null => anywhere.clone(),
                    Value::String(region) => region.trim().to_owned(),
                    _ => return Err(field.is_not("a mapping of regions to images")),
                };
                images.insert(region, image);
            }
        }
        _ => return Err(field.is_not("an image, nor a mapping of regions to images")),
    }
    if let Some(image) = images.get_mut("docker") {
        *image = image.strip_prefix("docker:").unwrap_or(image).to_owned();
        if images.iter().any(|(region, image)| region != "docker" && image.starts_with("docker:")) {
            return Err(field.error(
                "image_id has both a 'docker' key and docker:-prefixed region values. Please use only one mechanism to \
                 specify the Docker image.",
            ));
        }
    }
    if infra.is_kubernetes() {
        for (region, image) in &mut images {
            if region != "docker" && !image.starts_with("docker:") {
                *image = format!("docker:{image}");
            }
        }
    }
    Ok((!images.is_empty()).then_some(images))
}

fn read_labels(fields: &[Field<'_>]) -> Result<Option<BTreeMap<String, String>>> {
    let mut labels = BTreeMap::new();
    let mut given = false;
    for field in fields.iter().filter(|field| !field.node.is_null()) {
        given = true;
        for (name, value) in field.entries()? {
            labels.insert(name.to_owned(), value.string()?.to_owned());
        }
    }
    Ok(given.then_some(labels))
}

fn read_volumes(field: &Field<'_>, infra: &Infra) -> Result<Vec<Json>> {
    let volumes = field.items()?;
    if !volumes.is_empty() && infra.cloud.as_deref() != Some("gcp") {
        return Err(field.error("resources.volumes are only supported for GCP: set `infra: gcp`"));
    }
    for volume in &volumes {
        volume.entries()?;
    }
    volumes.iter().map(Field::json).collect()
}

fn read_autostop(field: &Field<'_>) -> Result<Json> {
    let idle = |minutes: i64| json!({"idle_minutes": minutes, "down": false});
    match &field.node.value {
        Value::Bool(false) => Ok(Json::Bool(false)),
        Value::Bool(true) => Ok(idle(0)),
        Value::Int(_) => field.integer(i64::MIN, i64::from(i32::MAX)).map(idle),
        Value::String(text) => {
            let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
            let minutes = match &text[digits.len()..] {
                "" | "m" | "M" => Some(1),
                "h" | "H" => Some(60),
                "d" | "D" => Some(24 * 60),
                "w" | "W" => Some(7 * 24 * 60),
                _ => None,
            };
            let amount: Option<i64> = digits.parse::<u32>().ok().map(i64::from);
            let total = amount.zip(minutes).map(|(amount, minutes)| amount * minutes);
            total.map(idle).ok_or_else(|| field.is_not("a time like 10, \"30m\" or \"2h\""))
        }
        Value::Mapping(_) => {
            let section = field.section("resources", &["idle_minutes", "down", "wait_for", "hook", "hook_timeout"])?;
            let minutes =
                section.given("idle_minutes").map(|field| field.integer(0, i64::from(i32::MAX))).transpose()?;
            let down = section.given("down").map(Field::boolean).transpose()?;
            let mut autostop = json!({"idle_minutes": minutes.unwrap_or(0), "down": down.unwrap_or(false)});
            if let Some(wait_for) = read_word(section.given("wait_for"), &["jobs_and_ssh", "jobs", "none"])? {
                autostop["wait_for"] = Json::String(wait_for);
            }
            section.given("hook").map(Field::string).transpose()?;
            section.given("hook_timeout").map(|field| field.integer(1, i64::from(i32::MAX))).transpose()?;
            Ok(autostop)
        }
        _ => Err(field.is_not("a boolean, a time, nor a mapping")),
    }
}
