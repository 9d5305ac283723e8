//! What a command line means: which role or command, with every choice made and impossible
//! combinations gone.

use crate::args::{
    self, CheckArgs, CheckOutput, ControllerDownArgs, DownArgs, LogsArgs, ManifestsOutput, OverrideArgs, RoleCommand,
    ServeCommand, Sky, SkyCommand, Skyserve, SkyserveCommand, StatusArgs, StatusOutput, UpArgs, UpdateArgs,
};
use clap::{CommandFactory, FromArgMatches};
use skyserve_api::UpdateMode;
use skyserve_scripts::RunId;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The runtime's name under `sky down`; SkyPilot appends a user's hash to it.
pub(crate) const CONTROLLER_NAME: &str = "sky-serve-controller";

/// What this process is to be.
#[derive(Debug)]
pub enum Invocation {
    /// A command for a person; [`crate::run`] carries it out.
    User(UserCommand),
    Init(InitArgs),
    Controller,
    LoadBalancer,
    Follower,
    /// A local replica's guardian, with its arguments.
    Shim {
        arguments: Vec<OsString>,
    },
    /// Ours in a replica's pod, with its arguments.
    Replica {
        arguments: Vec<OsString>,
    },
    /// Say which image a controller of this version is run from.
    Image,
}

/// Options of `skyserve init`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct InitArgs {
    /// Setup script of the first start.
    pub setup: Option<PathBuf>,
    /// Run scripts of the first start.
    pub runs: Vec<(RunId, PathBuf)>,
    /// Run a load balancer that follows a controller in another pod, and no controller.
    pub load_balancer_only: bool,
    /// `init -- COMMAND`: run this alone, without a runtime.
    pub command: Option<Vec<OsString>>,
}

/// A command for a person.
#[derive(Debug)]
pub struct UserCommand {
    pub(crate) called_as: CalledAs,
    pub(crate) action: Action,
}

#[derive(Debug)]
pub(crate) enum Action {
    Up(Up),
    Update(Update),
    Status(Status),
    Logs(Logs),
    Down(Down),
    StopRuntime(StopRuntime),
    Check(Check),
    Manifests {
        json: bool,
    },
    /// Something this program does not do; the text says what it does.
    Refuse(String),
}

#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) yaml: PathBuf,
    pub(crate) name: Option<String>,
    pub(crate) overrides: Overrides,
    pub(crate) assume_yes: bool,
    pub(crate) wait: bool,
}

#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) name: String,
    pub(crate) yaml: PathBuf,
    pub(crate) overrides: Overrides,
    pub(crate) mode: UpdateMode,
    pub(crate) assume_yes: bool,
    pub(crate) wait: bool,
}

/// Where `envs` and `secrets` come from besides the YAML; not read yet.
#[derive(Default)]
pub(crate) struct Overrides {
    pub(crate) env: Vec<String>,
    pub(crate) env_file: Option<PathBuf>,
    pub(crate) secret: Vec<String>,
    pub(crate) secret_file: Option<PathBuf>,
}

impl std::fmt::Debug for Overrides {
    /// Leaves out the values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overrides").field("env_file", &self.env_file).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Status {
    /// Every service if empty.
    pub(crate) names: Vec<String>,
    pub(crate) form: StatusForm,
    pub(crate) watch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusForm {
    Table { verbose: bool },
    Json,
    Endpoint,
}

#[derive(Debug)]
pub(crate) struct Logs {
    pub(crate) service: String,
    pub(crate) of: LogOf,
    pub(crate) tail: Option<u64>,
    pub(crate) follow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogOf {
    Replica(u64),
    Controller,
    LoadBalancer,
    /// Nothing was chosen: the answer is a list of what could be.
    Unsaid,
}

#[derive(Debug)]
pub(crate) struct Down {
    pub(crate) target: DownTarget,
    pub(crate) purge: bool,
    pub(crate) assume_yes: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DownTarget {
    All,
    /// Names or glob patterns.
    Services(Vec<String>),
    Replica {
        service: String,
        id: u64,
    },
}

/// `sky down sky-serve-controller`.
#[derive(Debug)]
pub(crate) struct StopRuntime {
    /// As typed: the name, with a user's hash or without, or a pattern.
    pub(crate) names: Vec<String>,
    pub(crate) purge: bool,
    pub(crate) assume_yes: bool,
}

#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) yaml: PathBuf,
    pub(crate) overrides: Overrides,
    pub(crate) pool: bool,
    pub(crate) json: bool,
}

/// How the person typed our name, so that the commands we suggest can be typed the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CalledAs {
    program: String,
    is_sky: bool,
}

impl CalledAs {
    pub(crate) fn from_program(program: &Path) -> Self {
        let is_sky = program.file_name().is_some_and(|name| name == "sky");
        Self { program: program.to_string_lossy().into_owned(), is_sky }
    }

    /// `sky serve status x` or `skyserve status x`.
    pub(crate) fn command(&self, rest: &str) -> String {
        let serve = if self.is_sky { " serve" } else { "" };
        format!("{}{serve} {rest}", self.program)
    }
}

/// Reads a command line, program name first. Help, version and usage errors are printed here; the
/// exit code to end with is then the error.
///
/// # Errors
/// The exit code: 0 after `--help` and `--version`, 2 for wrong usage.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    interpret(&args).map_err(|error| {
        // A reader that has gone does not want the help it asked for.
        drop(error.print());
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

fn interpret(args: &[OsString]) -> Result<Invocation, clap::Error> {
    let program = args.first().map_or(Path::new("skyserve"), Path::new);
    let called_as = CalledAs::from_program(program);
    let user = |action| Ok(Invocation::User(UserCommand { called_as: called_as.clone(), action }));
    if !called_as.is_sky {
        let matches = Skyserve::command().try_get_matches_from(args)?;
        return match Skyserve::from_arg_matches(&matches)?.command {
            SkyserveCommand::Serve(command) => user(serve_action(command)?),
            SkyserveCommand::Role(role) => Ok(role_invocation(role)),
        };
    }
    let matches = with_sky_examples(Sky::command()).try_get_matches_from(args)?;
    match Sky::from_arg_matches(&matches)?.command {
        SkyCommand::Serve { command } => user(serve_action(command)?),
        SkyCommand::Down(typed) => user(controller_down_action(&typed)),
        SkyCommand::Role(role) => Ok(role_invocation(role)),
        SkyCommand::Other(words) => user(refuse_foreign(&words)),
    }
}

/// The examples in the help, as they are typed under `sky`.
fn with_sky_examples(command: clap::Command) -> clap::Command {
    let rewritten = |subcommand: clap::Command| match subcommand.get_after_help().map(ToString::to_string) {
        Some(help) => subcommand.after_help(help.replace("skyserve ", "sky serve ")),
        None => subcommand,
    };
    command.mut_subcommand("serve", |serve| serve.mut_subcommands(rewritten))
}

fn role_invocation(role: RoleCommand) -> Invocation {
    match role {
        RoleCommand::Init(args::InitArgs { setup, runs, load_balancer_only, command }) => {
            let command = Some(command).filter(|words| !words.is_empty());
            Invocation::Init(InitArgs { setup, runs, load_balancer_only, command })
        }
        RoleCommand::Controller => Invocation::Controller,
        RoleCommand::LoadBalancer => Invocation::LoadBalancer,
        RoleCommand::Follower => Invocation::Follower,
        RoleCommand::Shim(typed) => Invocation::Shim { arguments: typed.rest },
        RoleCommand::Replica(typed) => Invocation::Replica { arguments: typed.rest },
        RoleCommand::Image => Invocation::Image,
    }
}

fn serve_action(command: ServeCommand) -> Result<Action, clap::Error> {
    Ok(match command {
        ServeCommand::Up(typed) => Action::Up(up(typed)),
        ServeCommand::Status(typed) => Action::Status(status(typed)),
        ServeCommand::Logs(typed) => Action::Logs(logs(typed)),
        // `skyserve` has no other command for it, and `sky serve` means what `skyserve` does.
        ServeCommand::Down(typed) if is_of_controllers(&typed) => {
            Action::StopRuntime(StopRuntime { names: typed.names, purge: typed.purge, assume_yes: typed.yes })
        }
        ServeCommand::Down(typed) => Action::Down(down(typed)?),
        ServeCommand::Check(typed) => Action::Check(check(typed)),
        ServeCommand::Manifests(typed) => Action::Manifests { json: typed.output == ManifestsOutput::Json },
        ServeCommand::Update(typed) => update(typed),
    })
}

fn up(typed: UpArgs) -> Up {
    let UpArgs { yaml, service_name, overrides: typed_overrides, yes, wait } = typed;
    Up { yaml, name: service_name, overrides: overrides(typed_overrides), assume_yes: yes, wait }
}

fn update(typed: UpdateArgs) -> Action {
    let UpdateArgs { name, yaml, overrides: typed_overrides, mode, yes, wait } = typed;
    let mode = match mode {
        args::Mode::Rolling => UpdateMode::Rolling,
        args::Mode::BlueGreen => UpdateMode::BlueGreen,
    };
    match mode.refusal() {
        Some(refusal) => Action::Refuse(refusal.to_owned()),
        None => {
            Action::Update(Update { name, yaml, overrides: overrides(typed_overrides), mode, assume_yes: yes, wait })
        }
    }
}

fn overrides(typed: OverrideArgs) -> Overrides {
    let OverrideArgs { env, env_file, secret, secret_file } = typed;
    Overrides { env, env_file, secret, secret_file }
}

fn status(typed: StatusArgs) -> Status {
    let StatusArgs { names, endpoint, verbose, output, watch } = typed;
    let form = match output {
        _ if endpoint => StatusForm::Endpoint,
        StatusOutput::Json => StatusForm::Json,
        StatusOutput::Table => StatusForm::Table { verbose },
    };
    Status { names, form, watch }
}

fn logs(typed: LogsArgs) -> Logs {
    let LogsArgs { name, replica_id, controller, load_balancer, tail, follow: _, no_follow } = typed;
    let of = match replica_id {
        Some(id) => LogOf::Replica(id),
        None if controller => LogOf::Controller,
        None if load_balancer => LogOf::LoadBalancer,
        None => LogOf::Unsaid,
    };
    Logs { service: name, of, tail, follow: !no_follow }
}

fn down(typed: DownArgs) -> Result<Down, clap::Error> {
    let DownArgs { mut names, all, replica_id, purge, yes } = typed;
    let target = match replica_id {
        Some(id) if names.len() == 1 => DownTarget::Replica { service: names.remove(0), id },
        Some(_) => {
            let problem = "--replica-id takes one replica of one service: name exactly one service\n";
            return Err(clap::Error::raw(clap::error::ErrorKind::WrongNumberOfValues, problem));
        }
        None if all => DownTarget::All,
        None => DownTarget::Services(names),
    };
    Ok(Down { target, purge, assume_yes: yes })
}

fn is_of_controllers(typed: &DownArgs) -> bool {
    typed.replica_id.is_none()
        && !typed.names.is_empty()
        && typed.names.iter().all(|name| name.starts_with(CONTROLLER_NAME))
}

fn check(typed: CheckArgs) -> Check {
    let CheckArgs { yaml, overrides: typed_overrides, pool, output } = typed;
    Check { yaml, overrides: overrides(typed_overrides), pool, json: output == CheckOutput::Json }
}

fn controller_down_action(typed: &ControllerDownArgs) -> Action {
    match typed.names.iter().find(|name| !name.starts_with(CONTROLLER_NAME)) {
        Some(other) => Action::Refuse(format!(
            "`sky down` takes {CONTROLLER_NAME} alone here, not {other:?}: clusters are SkyPilot's. To take a service \
             down: `sky serve down {other}`"
        )),
        None => {
            Action::StopRuntime(StopRuntime { names: typed.names.clone(), purge: typed.purge, assume_yes: typed.yes })
        }
    }
}

fn refuse_foreign(words: &[OsString]) -> Action {
    let typed = words.first().map_or_else(String::new, |word| word.to_string_lossy().into_owned());
    Action::Refuse(format!(
        "`sky {typed}` is not part of skyserve, which this `sky` is. It runs services: `sky serve \
         up|update|status|logs|down|check`, and `sky down {CONTROLLER_NAME}`. For everything else, call SkyPilot's own `sky`"
    ))
}

#[cfg(test)]
mod tests;
