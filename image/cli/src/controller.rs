//! The controller, wherever it is: found, made, and stopped with its last service.

use crate::client::Client;
use crate::cluster::{ClusterError, Preparation, Remote, UserHash};
use crate::command::{CommandError, Context};
use crate::output::warning;
use crate::placement::{OnCluster, Placement};
use crate::progress::Progress;
use crate::runtime::{self, Found};
use skyserve_manifests::names::DEFAULT_CONTROLLER_IMAGE;
use skyserve_spec::config::Config;

/// The controller, if there is anything for it to look after.
pub(crate) async fn find(context: &Context, progress: &mut Progress) -> Result<Option<Found>, CommandError> {
    let client = match &context.placement {
        Placement::Local => return Ok(runtime::find(&context.home, progress).await?),
        Placement::InPod => Some(Client::new(context.home.control_socket())),
        Placement::Cluster(on) => remote(context, on).await?.find(progress).await?,
    };
    Ok(client.map(|client| Found { client, started: false }))
}

/// What is known before anything is made.
pub(crate) enum Prepared {
    Here,
    Cluster { remote: Box<Remote>, prepared: Box<Preparation> },
}

/// Finds out what would keep a controller from being made or used, and says what a person may want to know.
pub(crate) async fn prepare(context: &Context) -> Result<Prepared, CommandError> {
    let Placement::Cluster(on) = &context.placement else { return Ok(Prepared::Here) };
    let remote = remote(context, on).await?;
    let prepared = remote.prepare(&on.config, image(&on.config)).await?;
    prepared.notes.iter().for_each(|note| warning(note));
    Ok(Prepared::Cluster { remote: Box::new(remote), prepared: Box::new(prepared) })
}

/// The image of a controller that is to be made.
pub(crate) fn image(config: &Config) -> &str {
    config.controller_image().unwrap_or(DEFAULT_CONTROLLER_IMAGE)
}

/// The controller; made or started if there is none.
pub(crate) async fn ensure(
    context: &Context,
    prepared: &Prepared,
    progress: &mut Progress,
) -> Result<Found, CommandError> {
    match prepared {
        Prepared::Here if context.placement == Placement::Local => {
            context.home.make_dirs()?;
            Ok(runtime::ensure(&context.home, progress).await?)
        }
        Prepared::Here => Ok(Found { client: Client::new(context.home.control_socket()), started: false }),
        Prepared::Cluster { remote, prepared } => {
            UserHash::of(&context.home).store().map_err(ClusterError::StoreUserHash)?;
            remote.ensure(prepared, progress).await?;
            // It stays, whatever becomes of the service: another command may be about to use it.
            Ok(Found { client: remote.client(), started: false })
        }
    }
}

/// Stops what runs for nothing once the last service is gone; a controller on a cluster stays, as SkyServe's does.
pub(crate) async fn stop_unneeded(context: &Context, progress: &mut Progress) -> Result<(), CommandError> {
    if context.placement == Placement::Local {
        runtime::stop_ours(&context.home, progress).await?;
    }
    Ok(())
}

/// The controller on a cluster that the configuration means.
pub(crate) async fn remote(context: &Context, on: &OnCluster) -> Result<Remote, CommandError> {
    if skyserve_init::running(&context.home).is_some() {
        warning(
            "your configuration says that services run on Kubernetes; those on this machine go on, and are not shown: \
             to see them, take serve.controller.resources and high_availability out of it for a while",
        );
    }
    Ok(Remote::of_user(&context.home, &on.options).await?)
}
