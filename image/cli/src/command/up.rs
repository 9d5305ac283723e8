//! `up`: judges a YAML, packs what it needs, and asks the controller for the service.
//!
//! Invariants:
//! * Nothing is started, written or uploaded before the YAML, the configuration and the local files have
//!   been judged and the person has agreed.
//! * A runtime that was started for a service which was then refused is stopped again.

use super::summary::{bytes as amount, summary};
use super::{CommandError, Context, unless_interrupted};
use crate::bundle::{self, Bundle};
use crate::client::{Client, Created};
use crate::controller::{self, Prepared};
use crate::invocation::{Overrides, Up};
use crate::judge::{self, Judged};
use crate::output::{Screen, Style, message, printable, warning};
use crate::progress::{Progress, State};
use crate::prompt::confirm;
use crate::runtime::{self, Found};
use crate::source::{self, Values};
use crate::watch::Watch;
use skyserve_api::{ReplicaView, ServiceView, UpRequest};
use skyserve_spec::{TaskSpec, make_service_name, validate_service_name};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long `up` without `--wait` waits for the endpoint to listen. It takes milliseconds; if it takes
/// longer something is in its way, and `status` shows what.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);
/// On a cluster a Kubernetes Service is made for it.
const LISTENS_ON_CLUSTER_WITHIN: Duration = Duration::from_secs(30);
/// How often the progress of an upload is shown.
const UPLOAD_SHOWN_EVERY: Duration = Duration::from_millis(200);

/// What has been read and judged.
pub(super) struct Plan {
    pub(super) name: String,
    source: String,
    values: Values,
    task: TaskSpec,
    pub(super) bundle: Option<Bundle>,
}

impl Plan {
    /// The request for it; `yaml` is where it was read.
    pub(super) fn request(&self, yaml: &Path) -> UpRequest {
        UpRequest {
            name: self.name.clone(),
            source: self.source.clone(),
            file_name: yaml.display().to_string(),
            envs: self.values.envs.clone(),
            secrets: self.values.secrets.clone(),
            bundle: self.bundle.as_ref().map(|bundle| bundle.sha256.clone()),
        }
    }
}

pub(super) async fn up(context: &Context, command: Up, screen: &mut Screen<'_>) -> Result<(), CommandError> {
    let name = command.name.clone().unwrap_or_else(made_up_name);
    let plan = plan(context, name, &command.yaml, &command.overrides)?;
    message(&summary(&plan.name, &plan.task, plan.bundle.as_ref(), Style::of_messages()));
    let prepared = controller::prepare(context).await?;
    confirm(&question(&plan.name, &prepared), command.assume_yes)?;

    let mut progress = Progress::start();
    let left = || "what was made of the controller stays, and goes on starting; `up` goes on from there".to_owned();
    let ensured = controller::ensure(context, &prepared, &mut progress);
    let Found { client, started } = match &prepared {
        Prepared::Here => ensured.await?,
        Prepared::Cluster { .. } => unless_interrupted(ensured, left).await?,
    };
    let created = create(context, &client, &command, &plan, &mut progress).await;
    // A name that is taken is another command's service, on its way.
    let taken = matches!(&created, Err(CommandError::NameTaken(_)));
    if created.is_err() && !taken && started && client.services().await.is_ok_and(|services| services.is_empty()) {
        controller::stop_unneeded(context, &mut progress).await?;
    }
    let view = created?;

    let name = view.name.clone();
    let left = || {
        let status = context.called_as.command(&format!("status {name}"));
        let down = context.called_as.command(&format!("down {name}"));
        format!("service {name} goes on starting; see `{status}`, or take it down with `{down}`")
    };
    if command.wait {
        let view = unless_interrupted(until_ready(&client, &name, &mut progress, context), left).await?;
        drop(progress);
        screen.text(&ready_text(context, &view, screen.style))?;
    } else {
        let within = match prepared {
            Prepared::Here => LISTENS_WITHIN,
            Prepared::Cluster { .. } => LISTENS_ON_CLUSTER_WITHIN,
        };
        let listening = tokio::time::timeout(within, until_listening(&client, view, &mut progress));
        let view = unless_interrupted(async { Ok(listening.await) }, left).await?;
        drop(progress);
        let view = match view {
            Ok(view) => view?,
            Err(_) => client.service(&name).await?.ok_or_else(|| vanished(&name))?,
        };
        screen.text(&started_text(context, &view, screen.style))?;
    }
    Ok(())
}

fn question(name: &str, prepared: &Prepared) -> String {
    match prepared {
        Prepared::Cluster { remote, prepared } if prepared.makes_a_controller() => {
            format!("Launching a new service {name:?}, and the controller {remote} for it. Proceed?")
        }
        _ => format!("Launching a new service {name:?}. Proceed?"),
    }
}

/// Reads and judges everything that can be judged from here.
pub(super) fn plan(context: &Context, name: String, yaml: &Path, overrides: &Overrides) -> Result<Plan, CommandError> {
    let source = source::read_yaml(yaml)?;
    let values = source::read_values(overrides, &source::environment())?;
    let Judged { task, warnings } = judge::for_up(&source, yaml, &values, context.placement.target())?;
    validate_service_name(&name)?;
    let (_, config_warnings) = judge::config(&context.home)?;
    warnings.iter().chain(&config_warnings).for_each(|text| warning(text));
    let bundle = pack(context, &task)?;
    Ok(Plan { name, source, values, task, bundle })
}

/// Packs the local files. Its folder need not exist yet, and packing must change nothing: without it, the
/// files wait in the system's temporary folder.
fn pack(context: &Context, task: &TaskSpec) -> Result<Option<Bundle>, CommandError> {
    let current_folder = std::env::current_dir()?;
    let own = runtime::temporary_folder(&context.home);
    let temporary = if own.is_dir() { own } else { std::env::temp_dir() };
    let bundle = bundle::pack(task, &current_folder, context.home.path(), &temporary)?;
    bundle.iter().flat_map(|bundle| &bundle.warnings).for_each(|text| warning(text));
    Ok(bundle)
}

fn made_up_name() -> String {
    // The standard library seeds its hashers at random.
    let random = RandomState::new().build_hasher().finish();
    make_service_name(random as u32)
}

async fn create(
    context: &Context,
    client: &Client,
    command: &Up,
    plan: &Plan,
    progress: &mut Progress,
) -> Result<ServiceView, CommandError> {
    progress.now(&format!("starting service {}", plan.name));
    let asked_at_ms = client.now_ms().await?;
    // Asked before the upload, which may take a while.
    if client.service(&plan.name).await?.is_some() {
        return Err(name_taken(context, &plan.name));
    }
    if let Some(bundle) = &plan.bundle {
        upload(client, bundle, progress).await?;
    }
    match client.create(&plan.request(&command.yaml), asked_at_ms).await? {
        Created::New(view) => Ok(*view),
        Created::NameTaken => Err(name_taken(context, &plan.name)),
    }
}

pub(super) async fn upload(client: &Client, bundle: &Bundle, progress: &mut Progress) -> Result<(), CommandError> {
    let sent = Arc::new(AtomicU64::new(0));
    let mut uploading = std::pin::pin!(client.put_bundle(&bundle.sha256, &bundle.file, bundle.bytes, &sent));
    loop {
        let (sent, all) = (amount(sent.load(Ordering::Relaxed)), amount(bundle.bytes));
        progress.states(&[State::new("files", "uploading", Some(&format!("{sent} of {all}")))]);
        if let Ok(uploaded) = tokio::time::timeout(UPLOAD_SHOWN_EVERY, &mut uploading).await {
            return Ok(uploaded?);
        }
    }
}

fn name_taken(context: &Context, name: &str) -> CommandError {
    CommandError::NameTaken(format!(
        "service {name} already exists. To change it, run `{}`; to start another service, give it another name with -n",
        context.called_as.command(&format!("update {name} YAML"))
    ))
}

/// The service's next state.
pub(super) async fn next_view(watch: &mut Watch, name: &str) -> Result<ServiceView, CommandError> {
    let services = watch.next().await?;
    services.into_iter().find(|service| service.name == name).ok_or_else(|| vanished(name))
}

pub(super) fn vanished(name: &str) -> CommandError {
    CommandError::Refused(format!("service {name} was taken down while it was being waited for"))
}

async fn until_listening(
    client: &Client,
    view: ServiceView,
    progress: &mut Progress,
) -> Result<ServiceView, CommandError> {
    let mut watch = Watch::new(client.clone());
    let mut view = view;
    while !view.endpoint_listens {
        // On a cluster it has no address yet.
        let which = if view.endpoint.is_empty() { format!("of {}", view.name) } else { view.endpoint.clone() };
        progress.now(&format!("waiting for the endpoint {which}"));
        view = next_view(&mut watch, &view.name).await?;
    }
    Ok(view)
}

/// Waits until the service is ready; a failed one is an error with the reason.
async fn until_ready(
    client: &Client,
    name: &str,
    progress: &mut Progress,
    context: &Context,
) -> Result<ServiceView, CommandError> {
    let mut watch = Watch::new(client.clone());
    loop {
        let view = next_view(&mut watch, name).await?;
        match view.status.as_str() {
            "READY" if view.endpoint_listens => return Ok(view),
            "NO_REPLICA" if view.replicas_wanted == 0 && view.endpoint_listens => return Ok(view),
            "FAILED" | "FAILED_CLEANUP" | "SHUTTING_DOWN" => return Err(failed(context, &view)),
            _ => progress.states(&states(&view)),
        }
    }
}

/// The service and its replicas.
pub(super) fn states(view: &ServiceView) -> Vec<State> {
    let replica = |replica: &ReplicaView| {
        State::new(format!("replica {}", replica.id), &replica.status, replica.status_reason.as_deref())
    };
    std::iter::once(State::new(&view.name, &view.status, None)).chain(view.replicas.iter().map(replica)).collect()
}

fn failed(context: &Context, view: &ServiceView) -> CommandError {
    let reason = view.status_reason.as_deref().map_or_else(String::new, |reason| format!(": {}", printable(reason)));
    let newest = view.replicas.iter().map(|replica| replica.id).max();
    let logs = newest.map_or_else(String::new, |id| {
        format!("\n  Its log:    {}", context.called_as.command(&format!("logs {} {id}", view.name)))
    });
    let down = context.called_as.command(&format!("down {}", view.name));
    CommandError::Refused(format!("service {} is {}{reason}{logs}\n  Take down:  {down}", view.name, view.status))
}

fn started_text(context: &Context, view: &ServiceView, style: Style) -> String {
    let note = match &view.status_reason {
        Some(reason) if !view.endpoint_listens => format!("{}: {}", view.status, printable(reason)),
        _ => "Its replicas are starting; requests wait until the first is ready.".to_owned(),
    };
    format!("{}\n{note}\n", next_commands(context, view, style))
}

fn ready_text(context: &Context, view: &ServiceView, style: Style) -> String {
    format!(
        "{}\nService {} is {}.\n",
        next_commands(context, view, style),
        view.name,
        style.service_status(&view.status)
    )
}

fn next_commands(context: &Context, view: &ServiceView, style: Style) -> String {
    let name = &view.name;
    let command = |rest: String| style.bold(&context.called_as.command(&rest));
    let replica = view.replicas.first().map_or(1, |replica| replica.id);
    format!(
        "Service name: {}\nEndpoint URL: {}\n\n  Status:     {}\n  Logs:       {}\n  Take down:  {}\n",
        style.bold(name),
        style.bold(&view.endpoint),
        command(format!("status {name}")),
        command(format!("logs {name} {replica}")),
        command(format!("down {name}"))
    )
}

#[cfg(test)]
mod tests;
