//! The commands, and what can go wrong in any of them.

mod check;
mod down;
mod log_stream;
mod logs;
mod manifests;
mod status;
mod summary;
mod tear_down;
mod up;
mod update;

use crate::bundle::BundleError;
use crate::client::ClientError;
use crate::cluster::ClusterError;
use crate::invocation::{Action, CalledAs};
use crate::judge::JudgeError;
use crate::output::Screen;
use crate::placement::Placement;
use crate::prompt::NotConfirmed;
use crate::runtime::{self, RuntimeError};
use crate::source::SourceError;
use skyserve_api::ServiceView;
use skyserve_home::{Home, HomeError};
use skyserve_spec::NameError;
use std::future::Future;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) home: Home,
    pub(crate) called_as: CalledAs,
    pub(crate) placement: Placement,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Judge(#[from] JudgeError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    NotConfirmed(#[from] NotConfirmed),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The controller stayed away; the text says what is known about it.
    #[error("{error}. {explanation}")]
    ControllerAway { error: ClientError, explanation: String },
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("{0}")]
    Refused(String),
    /// The service's name belongs to another service; the text says so.
    #[error("{0}")]
    NameTaken(String),
    /// All has been said already.
    #[error("")]
    Said,
    #[error("interrupted: {0}")]
    Interrupted(String),
}

impl CommandError {
    /// What to print; `None` if it has been said.
    pub(crate) fn message(&self) -> Option<String> {
        (!matches!(self, Self::Said)).then(|| self.to_string())
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            // As shells report the end by SIGINT.
            Self::Interrupted(_) => 130,
            _ => 1,
        }
    }
}

pub(crate) async fn carry_out(context: &Context, action: Action, screen: &mut Screen<'_>) -> Result<(), CommandError> {
    let outcome = match action {
        Action::Up(command) => up::up(context, command, screen).await,
        Action::Update(command) => update::update(context, &command, screen).await,
        Action::Status(command) => status::status(context, &command, screen).await,
        Action::Logs(command) => logs::logs(context, &command, screen).await,
        Action::Down(command) => down::down(context, &command, screen).await,
        Action::StopRuntime(command) => match &context.placement {
            Placement::Local => down::stop_runtime(context, &command, screen).await,
            Placement::InPod => Err(CommandError::Refused(
                "this is the controller's own pod, and it cannot take itself down: run the command where your kubeconfig \
                 is"
                .to_owned(),
            )),
            Placement::Cluster(on) => tear_down::tear_down(context, on, &command, screen).await,
        },
        Action::Check(command) => check::check(&command, context.placement.target(), screen),
        Action::Manifests { json } => manifests::manifests(context, json, screen).await,
        Action::Refuse(reason) => Err(CommandError::Refused(reason)),
    };
    outcome.map_err(|error| match error {
        // On a cluster the error itself says how its pod is.
        CommandError::Client(error @ (ClientError::Unreachable { .. } | ClientError::NoAnswer { .. }))
            if !matches!(context.placement, Placement::Cluster(_)) =>
        {
            CommandError::ControllerAway { error, explanation: runtime::explain(&context.home) }
        }
        error => error,
    })
}

/// Waits for `work` until the person interrupts; `left` then says what goes on without this program.
async fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, CommandError>>,
    left: impl FnOnce() -> String,
) -> Result<T, CommandError> {
    tokio::select! {
        outcome = work => outcome,
        interrupt = tokio::signal::ctrl_c() => {
            interrupt?;
            Err(CommandError::Interrupted(left()))
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `there are no services` or `existing services: a, b`.
fn existing(services: &[ServiceView]) -> String {
    if services.is_empty() {
        return "there are no services".to_owned();
    }
    let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
    format!("existing services: {}", names.join(", "))
}

fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
