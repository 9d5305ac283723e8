//! `down`: takes services down and waits until they are gone; the last one takes the runtime with it.

use super::{CommandError, Context, existing, plural, unless_interrupted};
use crate::client::Client;
use crate::controller;
use crate::invocation::{Down, DownTarget, StopRuntime};
use crate::output::{Screen, printable};
use crate::progress::{Progress, State};
use crate::prompt::confirm;
use crate::runtime;
use crate::watch::Watch;
use globset::GlobBuilder;
use skyserve_api::ServiceView;
use std::time::{Duration, Instant};

/// Longest wait for services to be gone. A replica may drain for 120 s and take 10 s to end; several
/// are ended at once.
const GONE_WITHIN: Duration = Duration::from_secs(600);

pub(super) async fn down(context: &Context, command: &Down, screen: &mut Screen<'_>) -> Result<(), CommandError> {
    let mut progress = Progress::start();
    let found = controller::find(context, &mut progress).await?;
    let services = match &found {
        Some(found) => found.client.services().await?,
        None => Vec::new(),
    };
    drop(progress);
    if let DownTarget::Replica { service, id } = &command.target {
        let client = found.map(|found| found.client);
        return down_replica(client.as_ref(), &services, service, *id, command, screen).await;
    }
    let names = match &command.target {
        DownTarget::Services(patterns) => matching(patterns, &services)?,
        DownTarget::All | DownTarget::Replica { .. } => services.iter().map(|service| service.name.clone()).collect(),
    };
    let Some(found) = found.filter(|_| !names.is_empty()) else {
        // A runtime without services has nothing to do either.
        controller::stop_unneeded(context, &mut Progress::start()).await?;
        return Ok(screen.line("No existing services.")?);
    };
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    confirm(&format!("Terminating {} {}. Proceed?", noun(names.len()), quoted.join(", ")), command.assume_yes)?;
    take_down(context, &found.client, &names, command.purge, Runtime::IfOurs).await?;
    for name in &names {
        screen.line(&format!("Service {name} is down."))?;
    }
    Ok(())
}

/// `sky down sky-serve-controller`.
pub(super) async fn stop_runtime(
    context: &Context,
    command: &StopRuntime,
    screen: &mut Screen<'_>,
) -> Result<(), CommandError> {
    let mut progress = Progress::start();
    let Some(found) = runtime::find(&context.home, &mut progress).await? else {
        return Ok(screen.line("The controller is not running, and there are no services.")?);
    };
    let services = found.client.services().await?;
    drop(progress);
    agree(context, "the controller", &services, command)?;
    let names: Vec<String> = services.into_iter().map(|service| service.name).collect();
    take_down(context, &found.client, &names, command.purge, Runtime::Always).await?;
    Ok(screen.line("The controller is down, and all services with it.")?)
}

/// Has the person agree to take a controller down that has these services.
pub(super) fn agree(
    context: &Context,
    controller: &str,
    services: &[ServiceView],
    command: &StopRuntime,
) -> Result<(), CommandError> {
    if !services.is_empty() && !command.purge {
        return Err(CommandError::Refused(format!(
            "the controller cannot be taken down while it has services to look after ({}): take them down first with \
             `{}`, or add --purge to take them down with it",
            existing(services),
            context.called_as.command("down --all")
        )));
    }
    let question = match services.len() {
        0 => format!("Terminating {controller}. Proceed?"),
        count => {
            format!("Terminating {} and {controller} ({}). Proceed?", plural(count, "service"), existing(services))
        }
    };
    Ok(confirm(&question, command.assume_yes)?)
}

/// The services that the names and patterns mean. A name means the service of exactly that name.
fn matching(patterns: &[String], services: &[ServiceView]) -> Result<Vec<String>, CommandError> {
    let mut names = Vec::new();
    let mut unknown = Vec::new();
    for pattern in patterns {
        let matched = services_matching(pattern, services)?;
        if matched.is_empty() {
            unknown.push(pattern.as_str());
        }
        for name in matched {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    if unknown.is_empty() {
        return Ok(names);
    }
    let nothing_done = if names.is_empty() { "" } else { " (nothing was taken down)" };
    Err(CommandError::Refused(format!("no service {}{nothing_done}; {}", unknown.join(", "), existing(services))))
}

fn services_matching(pattern: &str, services: &[ServiceView]) -> Result<Vec<String>, CommandError> {
    let names = services.iter().map(|service| service.name.clone());
    if !pattern.contains(['*', '?', '[']) {
        return Ok(names.filter(|name| name == pattern).collect());
    }
    let glob = GlobBuilder::new(pattern).build().map_err(|error| CommandError::Refused(error.to_string()))?;
    let matcher = glob.compile_matcher();
    Ok(names.filter(|name| matcher.is_match(name)).collect())
}

/// Whether the runtime stops with its last service.
#[derive(Debug, Clone, Copy)]
pub(super) enum Runtime {
    /// If a command like this one started it.
    IfOurs,
    /// It was what the user asked for.
    Always,
}

/// Takes the services down and waits; then stops the runtime if none is left.
pub(super) async fn take_down(
    context: &Context,
    client: &Client,
    names: &[String],
    purge: bool,
    stops: Runtime,
) -> Result<(), CommandError> {
    let mut progress = Progress::start();
    for name in names {
        // One that is gone already has been taken down by somebody else.
        client.down(name, purge).await?;
    }
    let gone_and_stopped = async {
        if until_gone(context, client, names, purge, &mut progress).await?.is_empty() {
            match stops {
                Runtime::IfOurs => controller::stop_unneeded(context, &mut progress).await?,
                Runtime::Always => runtime::stop(&context.home, &mut progress).await?,
            }
        }
        Ok(())
    };
    let left = || match names {
        [] => "the runtime goes on stopping".to_owned(),
        names => format!("{} {} being taken down without this command", names.join(", "), goes_on(names.len())),
    };
    unless_interrupted(gone_and_stopped, left).await
}

/// Waits until none of these services is left; returns the others.
async fn until_gone(
    context: &Context,
    client: &Client,
    names: &[String],
    purge: bool,
    progress: &mut Progress,
) -> Result<Vec<ServiceView>, CommandError> {
    let deadline = Instant::now() + GONE_WITHIN;
    let mut watch = Watch::new(client.clone());
    loop {
        let services = watch.next().await?;
        let left: Vec<&ServiceView> = services.iter().filter(|service| names.contains(&service.name)).collect();
        if left.is_empty() {
            return Ok(services);
        }
        if let Some(stuck) = left.iter().find(|service| service.status == "FAILED_CLEANUP" && !purge) {
            return Err(cannot_clean_up(context, stuck));
        }
        if Instant::now() >= deadline {
            let names: Vec<&str> = left.iter().map(|service| service.name.as_str()).collect();
            return Err(CommandError::Refused(format!(
                "{} still shutting down after {} s; it goes on; see `{}`",
                names.join(", "),
                GONE_WITHIN.as_secs(),
                context.called_as.command("status")
            )));
        }
        let states = left.iter().map(|service| {
            let left = plural(service.replicas.len(), "replica") + " left";
            State::new(&service.name, &service.status, Some(&left))
        });
        progress.states(&states.collect::<Vec<_>>());
    }
}

fn cannot_clean_up(context: &Context, service: &ServiceView) -> CommandError {
    let reason = service.status_reason.as_deref().unwrap_or("no reason was given");
    CommandError::Refused(format!(
        "service {} is FAILED_CLEANUP: {}. It goes on being tried; to forget what cannot be removed, run `{}`",
        service.name,
        printable(reason),
        context.called_as.command(&format!("down {} --purge", service.name))
    ))
}

async fn down_replica(
    client: Option<&Client>,
    services: &[ServiceView],
    name: &str,
    id: u64,
    command: &Down,
    screen: &mut Screen<'_>,
) -> Result<(), CommandError> {
    let service = services.iter().find(|service| service.name == name);
    let (Some(client), Some(service)) = (client, service) else {
        return Err(CommandError::Refused(format!("no service {name}; {}", existing(services))));
    };
    let no_replica = || CommandError::Refused(format!("service {name} has no replica {id}; {}", replica_ids(service)));
    if !service.replicas.iter().any(|replica| replica.id == id) {
        return Err(no_replica());
    }
    confirm(&format!("Terminating replica ID {id} in '{name}'. Proceed?"), command.assume_yes)?;
    if !client.down_replica(name, id, command.purge).await? {
        return Err(no_replica());
    }
    let mut progress = Progress::start();
    let left = || format!("replica {id} of {name} goes on being taken down without this command");
    unless_interrupted(until_replica_gone(client, name, id, command.purge, &mut progress), left).await?;
    drop(progress);
    Ok(screen.line(&format!("Replica {id} of service {name} is down."))?)
}

async fn until_replica_gone(
    client: &Client,
    name: &str,
    id: u64,
    purge: bool,
    progress: &mut Progress,
) -> Result<(), CommandError> {
    let deadline = Instant::now() + GONE_WITHIN;
    let mut watch = Watch::new(client.clone());
    loop {
        let services = watch.next().await?;
        let service = services.iter().find(|service| service.name == name);
        let replica = service.and_then(|service| service.replicas.iter().find(|replica| replica.id == id));
        let Some(replica) = replica else { return Ok(()) };
        let reason = replica.status_reason.as_deref().unwrap_or("no reason was given");
        match replica.status.as_str() {
            "FAILED_CLEANUP" if !purge => {
                return Err(CommandError::Refused(format!(
                    "replica {id} of {name} is FAILED_CLEANUP: {}; add --purge to forget it",
                    printable(reason)
                )));
            }
            status if Instant::now() >= deadline => {
                return Err(CommandError::Refused(format!(
                    "replica {id} of {name} is still {status}: {}",
                    printable(reason)
                )));
            }
            status => progress.states(&[State::new(format!("replica {id}"), status, None)]),
        }
    }
}

pub(super) fn replica_ids(service: &ServiceView) -> String {
    let ids: Vec<String> = service.replicas.iter().map(|replica| replica.id.to_string()).collect();
    if ids.is_empty() { "it has no replicas now".to_owned() } else { format!("its replicas: {}", ids.join(", ")) }
}

fn noun(count: usize) -> &'static str {
    if count == 1 { "service" } else { "services" }
}

fn goes_on(count: usize) -> &'static str {
    if count == 1 { "goes on" } else { "go on" }
}

#[cfg(test)]
mod tests;
