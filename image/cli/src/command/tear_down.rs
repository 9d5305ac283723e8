//! `sky down sky-serve-controller` on a cluster: removes the controller and everything of it, also when it is broken.

use super::down::{Runtime, agree, take_down};
use super::{CommandError, Context};
use crate::cluster::{Leftovers, Patience, Remote, is_hash};
use crate::controller;
use crate::invocation::{CONTROLLER_NAME, StopRuntime};
use crate::output::{Screen, warning};
use crate::placement::OnCluster;
use crate::progress::Progress;
use globset::GlobBuilder;
use skyserve_api::ServiceView;
use std::time::Duration;

pub(super) async fn tear_down(
    context: &Context,
    on: &OnCluster,
    command: &StopRuntime,
    screen: &mut Screen<'_>,
) -> Result<(), CommandError> {
    let own = controller::remote(context, on).await?;
    for name in &command.names {
        let remote = meant(&own, name)?;
        tear_down_one(context, &remote, command, screen).await?;
    }
    Ok(())
}

/// The controller that a name means: one's own, unless another's is named in full.
fn meant(own: &Remote, name: &str) -> Result<Remote, CommandError> {
    let is_others = |hash: &str| is_hash(hash) && name != own.names.controller;
    if name.strip_prefix(CONTROLLER_NAME).and_then(|rest| rest.strip_prefix('-')).is_some_and(is_others) {
        return Ok(own.named(name));
    }
    let glob = GlobBuilder::new(name).build().map_err(|error| CommandError::Refused(error.to_string()))?;
    if name == CONTROLLER_NAME || glob.compile_matcher().is_match(&own.names.controller) {
        return Ok(own.clone());
    }
    Err(CommandError::Refused(format!(
        "{name} is not your controller, which is {}; another's is named in full, with its 8 hexadecimal digits",
        own.names.controller
    )))
}

async fn tear_down_one(
    context: &Context,
    remote: &Remote,
    command: &StopRuntime,
    screen: &mut Screen<'_>,
) -> Result<(), CommandError> {
    let mut progress = Progress::start();
    if !remote.has_anything().await? {
        drop(progress);
        return Ok(screen.line(&format!("There is no controller {remote}, and nothing of it is left."))?);
    }
    let services = services(remote, &mut progress).await;
    drop(progress);
    let services = match services {
        Ok(services) => services,
        Err(error) if command.purge => {
            warning(&format!("the services cannot be taken down one by one first: {error}"));
            Vec::new()
        }
        Err(error) => {
            return Err(CommandError::Refused(format!(
                "it is not known whether there are services that would go down with it: {error}. To remove it with all \
                 that it has, add --purge"
            )));
        }
    };
    agree(context, &format!("the controller {remote}"), &services, command)?;
    if !services.is_empty() {
        let names: Vec<String> = services.into_iter().map(|service| service.name).collect();
        let client = remote.client();
        if let Err(error) = take_down(context, &client, &names, command.purge, Runtime::IfOurs).await {
            if matches!(error, CommandError::Interrupted(_)) {
                return Err(error);
            }
            warning(&format!("{error}; the controller is removed nevertheless, with all that it has"));
        }
    }
    let leftovers = if command.purge { Leftovers::Forgotten } else { Leftovers::Kept };
    let mut progress = Progress::start();
    let left = || format!("{remote} is partly removed; run the command again to remove the rest");
    let removing = async { Ok(remote.remove(leftovers, &mut progress).await?) };
    super::unless_interrupted(removing, left).await?;
    drop(progress);
    Ok(screen.line(&format!("The controller {remote} is down, and nothing of it is left."))?)
}

/// The services of a controller that may be broken. One that is gone but for what it left has none.
async fn services(remote: &Remote, progress: &mut Progress) -> Result<Vec<ServiceView>, CommandError> {
    if remote.existing().await?.is_none_or(|existing| existing.is_leaving) {
        return Ok(Vec::new());
    }
    remote.until_ready(Patience::BRIEF, progress).await?;
    Ok(remote.client().retrying_for(Duration::ZERO).services().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::testing::{FakeApi, run, status};

    #[test]
    fn a_name_means_ones_own_controller_unless_anothers_is_named_in_full() {
        run(async {
            let own = FakeApi::answering(|_| status(500, "unused")).remote();
            let meant = |name: &str| meant(&own, name).map(|remote| remote.names.controller);
            for name in ["sky-serve-controller", "sky-serve-controller-0123abcd", "sky-serve-controller*"] {
                assert_eq!(meant(name).unwrap(), "sky-serve-controller-0123abcd");
            }
            assert_eq!(meant("sky-serve-controller-ffffffff").unwrap(), "sky-serve-controller-ffffffff");
            let error = meant("sky-serve-controller-other").unwrap_err().to_string();
            assert!(error.contains("which is sky-serve-controller-0123abcd"), "{error}");
        });
    }
}
