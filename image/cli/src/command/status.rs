//! `status`: shows services, from the controller or, while it does not answer, from the route table.

use super::{CommandError, Context, existing, now_ms};
use crate::client::{Client, ClientError};
use crate::controller;
use crate::invocation::{Status, StatusForm};
use crate::output::{Screen, warning};
use crate::placement::Placement;
use crate::progress::Progress;
use crate::runtime;
use crate::table::{self, Look};
use crate::watch::Watch;
use serde_json::json;
use skyserve_api::ServiceView;
use std::time::Duration;

/// How long a controller that is restarting is waited for before the last known state is shown.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clears a terminal and goes to its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) async fn status(context: &Context, command: &Status, screen: &mut Screen<'_>) -> Result<(), CommandError> {
    let mut progress = Progress::start();
    let found = controller::find(context, &mut progress).await?;
    let Some(found) = found else {
        drop(progress);
        return show(command, &[], screen);
    };
    let client = match &context.placement {
        Placement::Local | Placement::InPod => found.client.retrying_for(PATIENCE),
        // From here nothing is known without the controller.
        Placement::Cluster(_) => found.client,
    };
    if !command.watch {
        let services = services(context, &client).await?;
        let controller = client.retrying_for(Duration::ZERO).controller().await.ok();
        drop(progress);
        if let Some(trouble) = controller.as_ref().and_then(|view| view.trouble.as_deref()) {
            warning(&format!("the controller is in trouble: {trouble}"));
        }
        show(command, &services, screen)?;
        let metrics = controller.and_then(|view| view.metrics_address);
        if let (StatusForm::Table { verbose: true }, Some(address)) = (command.form, metrics) {
            screen.line(&format!("\nMetrics and health: http://{address}/metrics, /healthz, /readyz"))?;
        }
        return Ok(());
    }
    drop(progress);
    let watching = watch(context, command, &client, screen);
    tokio::select! {
        ended = watching => ended,
        // The end that was asked for.
        interrupt = tokio::signal::ctrl_c() => Ok(interrupt?),
    }
}

async fn watch(
    context: &Context,
    command: &Status,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), CommandError> {
    let mut watch = Watch::new(client.clone());
    let mut shown: Option<Vec<ServiceView>> = None;
    loop {
        let services = match watch.next().await {
            Ok(services) => services,
            Err(error) => known_without_controller(context, error)?,
        };
        if screen.is_terminal && command.form != StatusForm::Json {
            // Times go on even when nothing else does.
            screen.text(CLEAR)?;
        } else if shown.as_ref() == Some(&services) {
            continue;
        } else if shown.is_some() && command.form != StatusForm::Json {
            screen.line("")?;
        }
        show(command, &services, screen)?;
        shown = Some(services);
    }
}

async fn services(context: &Context, client: &Client) -> Result<Vec<ServiceView>, CommandError> {
    match client.services().await {
        Ok(services) => Ok(services),
        Err(error) => known_without_controller(context, error),
    }
}

/// What is known when the controller does not answer; its refusals are errors as ever.
fn known_without_controller(context: &Context, error: ClientError) -> Result<Vec<ServiceView>, CommandError> {
    if matches!(context.placement, Placement::Cluster(_)) {
        return Err(error.into());
    }
    match runtime::last_known_services(&context.home, &error) {
        Some(services) if error.is_absence() && !services.is_empty() => Ok(services),
        _ => Err(error.into()),
    }
}

/// Shows the services that the command asks for.
fn show(command: &Status, services: &[ServiceView], screen: &mut Screen<'_>) -> Result<(), CommandError> {
    let unknown = |name: &&String| !services.iter().any(|service| service.name == **name);
    let missing: Vec<&str> = command.names.iter().filter(unknown).map(String::as_str).collect();
    if !missing.is_empty() {
        let noun = if missing.len() == 1 { "service" } else { "services" };
        let verb = if missing.len() == 1 { "does" } else { "do" };
        let refusal = format!("{noun} {} {verb} not exist; {}", missing.join(", "), existing(services));
        return Err(CommandError::Refused(refusal));
    }
    let asked_for = |service: &&ServiceView| command.names.is_empty() || command.names.contains(&service.name);
    let services: Vec<ServiceView> = services.iter().filter(asked_for).cloned().collect();
    match command.form {
        StatusForm::Endpoint => screen.line(endpoint(&services)?)?,
        StatusForm::Json if command.watch => screen.line(&json!({ "services": services }).to_string())?,
        StatusForm::Json => screen.line(&format!("{:#}", json!({ "services": services })))?,
        StatusForm::Table { verbose } => {
            let look = Look { verbose, style: screen.style, now_ms: now_ms() };
            screen.text(&table::services(&services, look))?;
        }
    }
    Ok(())
}

fn endpoint(services: &[ServiceView]) -> Result<&str, CommandError> {
    match services {
        [service] => Ok(&service.endpoint),
        several => Err(CommandError::Refused(format!(
            "--endpoint prints the endpoint of one service: name it; {}",
            existing(several)
        ))),
    }
}

#[cfg(test)]
mod tests;
