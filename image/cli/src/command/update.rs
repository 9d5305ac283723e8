//! `update`: shows what another YAML changes about a service that runs, and has it changed.
//!
//! Invariants:
//! * Nothing is uploaded or changed before the YAML has been judged and the person has agreed to what it changes.
//! * What is changed is the version that the person was shown: another one's update in between is a refusal.

use super::up::{Plan, next_view, plan, states, upload, vanished};
use super::{CommandError, Context, existing, plural, unless_interrupted};
use crate::client::Client;
use crate::controller;
use crate::invocation::Update;
use crate::output::{Colour, Screen, Style, message, printable};
use crate::progress::Progress;
use crate::prompt::confirm;
use crate::watch::Watch;
use skyserve_api::{ServiceView, UpdatePlan, UpdateRequest};

pub(super) async fn update(context: &Context, command: &Update, screen: &mut Screen<'_>) -> Result<(), CommandError> {
    let judged = plan(context, command.name.clone(), &command.yaml, &command.overrides)?;
    let mut progress = Progress::start();
    let Some(found) = controller::find(context, &mut progress).await? else {
        return Err(unknown(context, &command.name, &[]));
    };
    let client = found.client;
    let up = judged.request(&command.yaml);
    let mut request = UpdateRequest { up, mode: command.mode, expected_version: None };
    let Some(plan) = client.plan_update(&request).await? else {
        return Err(unknown(context, &command.name, &client.services().await?));
    };
    request.expected_version = Some(plan.version);
    drop(progress);
    if plan.nothing_to_do {
        let (name, version) = (&command.name, plan.version);
        return Ok(
            screen.line(&format!("Service {name} is what the YAML asks for (version {version}); nothing changes."))?
        );
    }
    message(&changes(&command.name, &plan, Style::of_messages()));
    confirm(&format!("Updating service {:?}. Proceed?", command.name), command.assume_yes)?;
    let view = carry_out(&client, &judged, &request).await?;
    if !command.wait {
        return Ok(screen.text(&begun(context, &view, &plan))?);
    }
    let left = || {
        let status = context.called_as.command(&format!("status {}", view.name));
        format!("the update of service {} goes on; see `{status}`", view.name)
    };
    let mut progress = Progress::start();
    let view = unless_interrupted(until_done(&client, &view, &mut progress, context), left).await?;
    drop(progress);
    screen.line(&format!("Service {} is at version {}, and {} READY.", view.name, view.version, ready(&view)))?;
    Ok(())
}

async fn carry_out(client: &Client, judged: &Plan, request: &UpdateRequest) -> Result<ServiceView, CommandError> {
    let mut progress = Progress::start();
    if let Some(bundle) = &judged.bundle {
        upload(client, bundle, &mut progress).await?;
    }
    progress.now(&format!("updating service {}", judged.name));
    Ok(client.update(request).await?)
}

fn unknown(context: &Context, name: &str, services: &[ServiceView]) -> CommandError {
    let up = context.called_as.command(&format!("up YAML -n {name}"));
    CommandError::Refused(format!("service {name} does not exist, so `{up}` starts it; {}", existing(services)))
}

/// What a person agrees to.
fn changes(name: &str, plan: &UpdatePlan, style: Style) -> String {
    let (version, next) = (plan.version, plan.version + 1);
    let title = style.paint(Colour::Cyan, &format!("What changes in service {name} (version {version} to {next}):"));
    let lines: String = plan.changes.iter().map(|change| format!("  {}\n", printable(&change.what))).collect();
    let nothing = "  Nothing; what was given up is launched again.\n".to_owned();
    let lines = if plan.changes.is_empty() { nothing } else { lines };
    format!("{title}\n{lines}{}\n", replacement(plan))
}

fn replacement(plan: &UpdatePlan) -> String {
    match plan.replicas_replaced {
        0 => "No replica that runs is restarted.".to_owned(),
        count => format!(
            "{} replaced, one at a time; an old one goes once a new one is READY.",
            if count == 1 { "1 replica is".to_owned() } else { format!("{} are", plural(count, "replica")) }
        ),
    }
}

fn begun(context: &Context, view: &ServiceView, plan: &UpdatePlan) -> String {
    format!(
        "Service {} is being updated to version {}. {}\n\n  Status:     {}\n",
        view.name,
        view.version,
        replacement(plan),
        context.called_as.command(&format!("status {}", view.name))
    )
}

fn ready(view: &ServiceView) -> String {
    match view.replicas_ready {
        1 => "1 replica is".to_owned(),
        count => format!("{} are", plural(count, "replica")),
    }
}

/// Waits until every replica is as the new version wants it; a version that failed is an error with the reason.
async fn until_done(
    client: &Client,
    updated: &ServiceView,
    progress: &mut Progress,
    context: &Context,
) -> Result<ServiceView, CommandError> {
    let (name, version) = (&updated.name, updated.version);
    let mut watch = Watch::new(client.clone());
    loop {
        let view = next_view(&mut watch, name).await?;
        if view.version > version {
            let news =
                format!("service {name} was updated to version {} before version {version} was done", view.version);
            return Err(CommandError::Refused(news));
        }
        match (view.status.as_str(), view.rollout.as_str()) {
            ("SHUTTING_DOWN" | "FAILED_CLEANUP", _) => return Err(vanished(name)),
            (_, "failed") => return Err(failed(context, &view)),
            (_, "done") if view.replicas_ready >= view.replicas_wanted => return Ok(view),
            _ => progress.states(&states(&view)),
        }
    }
}

fn failed(context: &Context, view: &ServiceView) -> CommandError {
    let reason = view.status_reason.as_deref().unwrap_or("no reason was given");
    let last = view.replicas.iter().rfind(|replica| replica.version == view.version);
    let log = last.map_or_else(String::new, |replica| {
        format!("\n  Its log:    {}", context.called_as.command(&format!("logs {} {}", view.name, replica.id)))
    });
    CommandError::Refused(format!(
        "version {} of service {} failed: {}{log}",
        view.version,
        view.name,
        printable(reason)
    ))
}

#[cfg(test)]
mod tests;
