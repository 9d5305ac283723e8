//! `logs`: prints what a replica, the controller or the load balancer printed, and goes on.

use super::down::replica_ids;
use super::{CommandError, Context, existing, log_stream};
use crate::client::{Client, ClientError};
use crate::controller;
use crate::invocation::{LogOf, Logs};
use crate::output::{Screen, message, warning};
use crate::placement::Placement;
use crate::progress::Progress;
use crate::runtime;
use skyserve_api::ServiceView;
use skyserve_logs::Follower;
use skyserve_provider::newest_kept_log;
use skyserve_provider::process::replica_log_path;
use skyserve_shim::folder::Folder;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Pause between looks at a followed log: a person sees no delay, and nothing else is used for it.
const POLL: Duration = Duration::from_millis(200);
/// How often the controller is asked whether a replica that has no log yet still exists.
const ASK: Duration = Duration::from_secs(1);

pub(super) async fn logs(context: &Context, command: &Logs, screen: &mut Screen<'_>) -> Result<(), CommandError> {
    let mut progress = Progress::start();
    let Some(found) = controller::find(context, &mut progress).await? else {
        return Err(no_service(&command.service, &[]));
    };
    let services = match found.client.services().await {
        Ok(services) => services,
        Err(error) => without_controller(context, command, error)?,
    };
    drop(progress);
    let service = services.iter().find(|service| service.name == command.service);
    let Some(service) = service else { return Err(no_service(&command.service, &services)) };
    if context.placement != Placement::Local {
        return log_stream::show(command, service, &found.client, screen).await;
    }
    let log = match command.of {
        LogOf::Controller => context.home.controller_log(),
        LogOf::LoadBalancer => context.home.load_balancer_log(),
        LogOf::Replica(id) => return replica(context, command, service, id, &found.client, screen).await,
        LogOf::Unsaid => return Err(unsaid(service)),
    };
    follow_for_ever(&mut Follower::new(log, command.tail), command.follow, screen).await
}

/// The services as last known: a controller that fails is when its log is wanted.
fn without_controller(context: &Context, command: &Logs, error: ClientError) -> Result<Vec<ServiceView>, CommandError> {
    match runtime::last_known_services(&context.home, &error) {
        Some(services) if error.is_absence() && context.placement == Placement::Local => {
            warning(&format!("{error}; showing the log of {} nevertheless", command.service));
            Ok(services)
        }
        _ => Err(error.into()),
    }
}

pub(super) fn unsaid(service: &ServiceView) -> CommandError {
    CommandError::Refused(format!(
        "say which log of {} to show: the ID of a replica ({}), --controller or --load-balancer",
        service.name,
        replica_ids(service)
    ))
}

pub(super) fn no_replica(service: &ServiceView, id: u64) -> CommandError {
    CommandError::Refused(format!(
        "service {} has no replica {id}, and no log of one; {}",
        service.name,
        replica_ids(service)
    ))
}

fn no_service(name: &str, services: &[ServiceView]) -> CommandError {
    CommandError::Refused(format!("service {name} does not exist; {}", existing(services)))
}

async fn follow_for_ever(follower: &mut Follower, follow: bool, screen: &mut Screen<'_>) -> Result<(), CommandError> {
    loop {
        read_on(follower, screen)?;
        if !follow {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

fn read_on(follower: &mut Follower, screen: &mut Screen<'_>) -> Result<(), CommandError> {
    follower.read_on(&mut *screen.out)?;
    if follower.lost_some() {
        warning("some of the log is missing here: it was rotated away before it could be read");
    }
    Ok(())
}

async fn replica(
    context: &Context,
    command: &Logs,
    service: &ServiceView,
    id: u64,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), CommandError> {
    let Some(replica) = service.replicas.iter().find(|replica| replica.id == id) else {
        let Some(kept) = newest_kept_log(&context.home, &service.name, id) else {
            return Err(no_replica(service, id));
        };
        read_on(&mut Follower::new(kept, command.tail), screen)?;
        message(&format!("Replica {id} of {} has ended; this was its log.", service.name));
        return Ok(());
    };
    let log = ReplicaLog::new(context, &replica.uid);
    let mut live = Follower::new(log.folder.output_log(), command.tail);
    let mut asked = Instant::now();
    loop {
        // Looked at first: what is read afterwards is then all there is.
        let has_ended = log.has_ended(live.has_begun());
        read_on(&mut live, screen)?;
        if has_ended {
            break;
        }
        if !command.follow {
            return Ok(());
        }
        if !live.has_begun() && asked.elapsed() >= ASK {
            if is_gone(client, &service.name, id).await {
                break;
            }
            asked = Instant::now();
        }
        tokio::time::sleep(POLL).await;
    }
    if !live.has_begun() {
        read_on(&mut Follower::new(log.kept, command.tail), screen)?;
    }
    message(&format!("Replica {id} of {} has ended; this was its log.", service.name));
    Ok(())
}

/// Where a replica's log is, and whether more may come.
struct ReplicaLog {
    folder: Folder,
    /// Where it is kept once the replica's folder is gone.
    kept: PathBuf,
}

impl ReplicaLog {
    fn new(context: &Context, uid: &str) -> Self {
        Self { folder: Folder::at(context.home.replica_dir(uid)), kept: replica_log_path(&context.home, uid) }
    }

    fn has_ended(&self, has_begun: bool) -> bool {
        // The exit file is written once nothing of the replica runs any more.
        self.folder.exit_file().exists() || (!self.folder.dir().exists() && (has_begun || self.kept.exists()))
    }
}

/// Whether the controller knows that there is no such replica (any more).
async fn is_gone(client: &Client, service: &str, id: u64) -> bool {
    match client.retrying_for(Duration::ZERO).service(service).await {
        Ok(Some(view)) => !view.replicas.iter().any(|replica| replica.id == id),
        Ok(None) => true,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests;
