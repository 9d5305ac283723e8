//! `~/.sky/config.yaml`: read once, judged before anything is done.
//!
//! SkyPilot's keys keep their names and meaning; `serve.load_balancer` and `serve.replicas` are ours.
//! A key nobody knows is a warning with a suggestion, so that a configuration written for a newer or
//! an extended SkyPilot still works; a known key with a wrong value is an error.

mod controller;
mod known;
mod kubernetes;
mod placement;

pub use kubernetes::{EndpointKind, KubernetesConfig};
pub use placement::Placement;

use crate::field::{Field, Result};
use crate::read;
use crate::suggest::nearest;
use crate::{Resource, SpecError};
use serde::{Deserialize, Serialize};
use skyserve_yaml::{Node, Value};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The configuration, with every default filled in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// `serve.controller.high_availability`
    pub high_availability: bool,
    /// `serve.controller.resources`: what the controller runs on. The first, if there are several; and of it only
    /// what is honoured.
    pub controller_resources: Resource,
    /// `kubernetes.high_availability.storage_class_name`: of the controller's volume.
    pub storage_class_name: Option<String>,
    /// `serve.load_balancer`
    pub load_balancer: LoadBalancerConfig,
    /// `serve.replicas.port_isolation`
    pub port_isolation: PortIsolation,
    /// `kubernetes`
    pub kubernetes: KubernetesConfig,
}

/// `serve.load_balancer`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadBalancerConfig {
    /// Where endpoints listen: loopback, unless the user says otherwise.
    pub listen_host: IpAddr,
    /// Where endpoints' ports are taken from.
    pub ports: PortRange,
    /// Where metrics and health are served; port 0 means any free one.
    pub metrics_address: SocketAddr,
    /// On a cluster: 1 is the one in the controller's pod; more are pods of load balancers alone.
    pub replicas: u32,
    /// Worker threads, each with a runtime of its own.
    pub threads: u32,
    /// How long connections may go on after their replica or the load balancer is to go.
    pub drain_seconds: u32,
    /// Requests of one service that may wait for a replica.
    pub queue_limit: u32,
    /// How long a request may wait for a replica.
    pub queue_timeout_seconds: u32,
}

/// Ports from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    pub from: u16,
    pub to: u16,
}

/// Whether replicas on one machine get a loopback address each, so that all can bind the same port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortIsolation {
    /// Where the kernel allows it.
    #[default]
    Auto,
    /// Never: each replica must bind the port in `SKYPILOT_SERVE_REPLICA_PORT`.
    Off,
}

const PORTS_FROM_DEFAULT: u16 = 30001;
const PORTS_TO_DEFAULT: u16 = 31000;
const DRAIN_SECONDS_DEFAULT: u32 = 30;
const QUEUE_LIMIT_DEFAULT: u32 = 1000;
const QUEUE_TIMEOUT_SECONDS_DEFAULT: u32 = 60;
/// More pods of load balancers than a service needs: each takes tens of thousands of requests a second.
const REPLICAS_MAX: u32 = 100;
/// More threads than any machine has cores.
const THREADS_MAX: u32 = 1024;
/// A waiting request holds a connection: more than these no machine has.
const QUEUE_LIMIT_MAX: u32 = 1_000_000;
/// A day: longer waits are slips of the finger.
const WAIT_SECONDS_MAX: u32 = 86_400;

impl Default for LoadBalancerConfig {
    fn default() -> Self {
        Self {
            listen_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports: PortRange { from: PORTS_FROM_DEFAULT, to: PORTS_TO_DEFAULT },
            metrics_address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            replicas: 1,
            threads: 1,
            drain_seconds: DRAIN_SECONDS_DEFAULT,
            queue_limit: QUEUE_LIMIT_DEFAULT,
            queue_timeout_seconds: QUEUE_TIMEOUT_SECONDS_DEFAULT,
        }
    }
}

impl LoadBalancerConfig {
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds.into())
    }

    pub fn queue_timeout(&self) -> Duration {
        Duration::from_secs(self.queue_timeout_seconds.into())
    }
}

impl PortRange {
    pub fn contains(self, port: u16) -> bool {
        (self.from..=self.to).contains(&port)
    }

    pub fn iter(self) -> std::ops::RangeInclusive<u16> {
        self.from..=self.to
    }
}

impl Config {
    /// Reads the file, and says in a sentence each what in it has no effect. Without a file there is
    /// [`Config::default`].
    ///
    /// # Errors
    /// [`SpecError`] when the file is not YAML, or a known key has a wrong value; it names the field,
    /// the value, the rule and the line.
    pub fn parse(bytes: &[u8], file_name: &str) -> std::result::Result<(Self, Vec<String>), SpecError> {
        read_file(bytes).map_err(|error| SpecError { file: file_name.to_owned(), ..error })
    }

    /// Whether a file that is wrong elsewhere says beyond doubt that services run on this machine.
    pub fn says_here(bytes: &[u8]) -> bool {
        read_placement(bytes).is_ok_and(|placement| placement == Placement::Local)
    }
}

fn read_file(bytes: &[u8]) -> Result<(Config, Vec<String>)> {
    let documents = skyserve_yaml::read(bytes)?;
    let mut config = Config::default();
    let mut warnings = Warnings::default();
    if let [_, second, ..] = documents.as_slice() {
        return Err(Field::new("", second).error("the configuration must be one YAML document, and this is a second"));
    }
    let Some(document) = documents.first().filter(|document| !document.is_null()) else {
        return Ok((config, Vec::new()));
    };
    for (name, field) in given(&Field::new("", document))? {
        match name {
            "serve" => read_serve(&field, &mut config, &mut warnings)?,
            "kubernetes" => kubernetes::read(&field, &mut config, &mut warnings)?,
            _ => warnings.about(&field, name, &known::SECTIONS),
        }
    }
    check_placement(&config, document)?;
    Ok((config, warnings.sentences))
}

/// Reads the part of the file that says where services run, and no other.
fn read_placement(bytes: &[u8]) -> Result<Placement> {
    let documents = skyserve_yaml::read(bytes)?;
    let mut config = Config::default();
    for document in &documents {
        let root = Field::new("", document);
        for (_, serve) in given(&root)?.iter().filter(|(name, _)| *name == "serve") {
            for (_, controller) in given(serve)?.iter().filter(|(name, _)| *name == "controller") {
                controller::read(controller, &mut config, &mut Warnings::default())?;
            }
        }
    }
    config.placement()
}

/// Refuses a place where no controller can be, with the key that asks for it and its line.
fn check_placement(config: &Config, document: &Node) -> Result<()> {
    let Err(mut error) = config.placement() else { return Ok(()) };
    let mut node = error.field.split('.').try_fold(document, |node, name| node.get(name));
    for name in ["cloud", "infra"] {
        if let Some(named) = node.and_then(|node| node.get(name)) {
            error.field = format!("{}.{name}", error.field);
            node = Some(named);
        }
    }
    Err(SpecError { line: node.map(|node| node.line), ..error })
}

/// The fields of a mapping that are not null.
fn given<'n>(field: &Field<'n>) -> Result<Vec<(&'n str, Field<'n>)>> {
    let mut entries = field.entries()?;
    entries.retain(|(_, value)| !value.node.is_null());
    Ok(entries)
}

/// Most keys that a file is told off for.
const WARNINGS_MAX: usize = 20;

#[derive(Debug, Default)]
struct Warnings {
    sentences: Vec<String>,
}

impl Warnings {
    /// A key that is not honoured: known, so that it has no effect, or unknown.
    fn about(&mut self, field: &Field<'_>, name: &str, known: &[&str]) {
        let (path, line) = (&field.path, field.node.line);
        let sentence = if known.contains(&name) {
            format!("line {line}: {path} has no effect.")
        } else {
            let hint = nearest(name, known).map(|near| format!(": did you mean '{near}'?"));
            format!("line {line}: {path} is not a known key{}", hint.as_deref().unwrap_or(", and has no effect."))
        };
        self.say(sentence);
    }

    fn say(&mut self, sentence: String) {
        if self.sentences.len() < WARNINGS_MAX {
            self.sentences.push(sentence);
        }
    }
}

fn read_serve(field: &Field<'_>, config: &mut Config, warnings: &mut Warnings) -> Result<()> {
    for (name, field) in given(field)? {
        match name {
            "controller" => controller::read(&field, config, warnings)?,
            "load_balancer" => read_load_balancer(&field, &mut config.load_balancer, warnings)?,
            "replicas" => {
                for (name, field) in given(&field)? {
                    match name {
                        "port_isolation" => config.port_isolation = read_port_isolation(&field)?,
                        _ => warnings.about(&field, name, &["port_isolation"]),
                    }
                }
            }
            _ => warnings.about(&field, name, &known::SERVE),
        }
    }
    Ok(())
}

fn read_load_balancer(field: &Field<'_>, config: &mut LoadBalancerConfig, warnings: &mut Warnings) -> Result<()> {
    for (name, field) in given(field)? {
        match name {
            "listen_host" => {
                config.listen_host = field
                    .string()?
                    .parse()
                    .map_err(|_| field.is_not("an IP address, like 127.0.0.1, or 0.0.0.0 for every interface"))?;
            }
            "ports" => config.ports = read_port_range(&field)?,
            "metrics_address" => {
                config.metrics_address = field
                    .string()?
                    .parse()
                    .map_err(|_| field.is_not("an IP address and a port, like 127.0.0.1:9090"))?;
            }
            "replicas" => config.replicas = field.count(1, REPLICAS_MAX)?,
            "threads" => config.threads = field.count(1, THREADS_MAX)?,
            "drain_seconds" => config.drain_seconds = field.count(0, WAIT_SECONDS_MAX)?,
            "queue_limit" => config.queue_limit = field.count(0, QUEUE_LIMIT_MAX)?,
            "queue_timeout_seconds" => config.queue_timeout_seconds = field.count(0, WAIT_SECONDS_MAX)?,
            _ => warnings.about(&field, name, &known::LOAD_BALANCER),
        }
    }
    Ok(())
}

/// `"30001-31000"` or `[30001, 31000]`
fn read_port_range(field: &Field<'_>) -> Result<PortRange> {
    let wrong = || field.is_not("a range of ports, like \"30001-31000\" or [30001, 31000]");
    let (from, to) = match &field.node.value {
        Value::String(text) => {
            let (from, to) = text.split_once('-').ok_or_else(wrong)?;
            let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
            (port(from)?, port(to)?)
        }
        Value::Sequence(_) => {
            let [from, to] = &field.items()?[..] else { return Err(wrong()) };
            (read::ports::service_port(from)?, read::ports::service_port(to)?)
        }
        _ => return Err(wrong()),
    };
    if from == 0 || from > to {
        return Err(field.error(format!("{from}-{to}: the first port must be at least 1 and at most the last")));
    }
    Ok(PortRange { from, to })
}

/// `auto` or `off`; YAML 1.1 reads the latter as a boolean.
fn read_port_isolation(field: &Field<'_>) -> Result<PortIsolation> {
    match &field.node.value {
        Value::Bool(false) => Ok(PortIsolation::Off),
        Value::String(text) if text == "off" => Ok(PortIsolation::Off),
        Value::String(text) if text == "auto" => Ok(PortIsolation::Auto),
        _ => Err(field.is_not("auto or off")),
    }
}

#[cfg(test)]
mod tests;
