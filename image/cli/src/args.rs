//! The command line as it was typed. What it means is decided in [`crate::invocation`].
//!
//! Names and flags are SkyServe 0.14's; the same words work as `skyserve up …` and, through a link
//! named `sky`, as `sky serve up …`.

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use skyserve_scripts::RunId;
use std::ffi::OsString;
use std::path::PathBuf;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.";

/// Called as `skyserve`.
#[derive(Debug, Parser)]
#[command(name = "skyserve", version, subcommand_required = true, arg_required_else_help = true)]
#[command(about = "Keep N replicas of an HTTP service alive behind one endpoint", after_help = EXIT_CODES)]
pub(crate) struct Skyserve {
    #[command(subcommand)]
    pub(crate) command: SkyserveCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SkyserveCommand {
    #[command(flatten)]
    Serve(ServeCommand),
    #[command(flatten)]
    Role(RoleCommand),
}

/// Called as `sky`.
#[derive(Debug, Parser)]
#[command(name = "sky", version, subcommand_required = true, arg_required_else_help = true)]
#[command(
    about = "The part of SkyPilot's command line that skyserve offers: services and their controller",
    after_help = EXIT_CODES
)]
pub(crate) struct Sky {
    #[command(subcommand)]
    pub(crate) command: SkyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SkyCommand {
    /// Run and look after services
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Serve {
        #[command(subcommand)]
        command: ServeCommand,
    },
    /// Stop the runtime that all services share, or remove their controller from the cluster (`sky down
    /// sky-serve-controller`)
    Down(ControllerDownArgs),
    #[command(flatten)]
    Role(RoleCommand),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServeCommand {
    /// Start a service from a YAML file
    #[command(after_help = "\
Examples:
  # Start a service; its name is made up
  skyserve up service.yaml
  # Give it a name, ask nothing, and wait until it is ready
  skyserve up service.yaml -n my-service -y --wait
  # Set what the YAML leaves open
  skyserve up service.yaml --env MODEL=small --secret HF_TOKEN

On a cluster (`serve.controller.resources.cloud: kubernetes` in ~/.sky/config.yaml) the first `up` makes the
controller and waits for it, 600 s at most, or SKYSERVE_CONTROLLER_WITHIN seconds.

A workdir and file mounts are packed as they are now. Files that `.skyignore` names stay out (without
one, those that `.gitignore` names, if the folder is in a git repository).")]
    Up(UpArgs),
    /// Show services and their replicas
    #[command(after_help = "\
Examples:
  # Every service
  skyserve status
  # One service, with every column
  skyserve status my-service -v
  # Send it a request
  curl $(skyserve status my-service --endpoint)

If services exist but their runtime is not running (say after a reboot), it is started again.

`-o json` prints {\"services\": [...]}. A service has: name, version, status, status_reason, rollout,
ready_since_ms, created_at_ms, endpoint, endpoint_listens, replicas_ready, replicas_wanted,
load_balancing_policy, requested_resources, replicas. A replica has: id, uid, version, endpoint,
launched_at_ms, first_ready_at_ms, infra, resources, status, status_reason. Unknown values are null
(an unknown version is 0); fields may be added, never renamed. With --watch it prints one such object a line.

Service statuses: CONTROLLER_INIT, REPLICA_INIT, READY, NO_REPLICA, SHUTTING_DOWN, FAILED,
FAILED_CLEANUP, CONTROLLER_FAILED. Replica statuses: PENDING, PROVISIONING, STARTING, READY,
NOT_READY, SHUTTING_DOWN, FAILED, FAILED_INITIAL_DELAY, FAILED_PROBING, FAILED_PROVISION,
FAILED_CLEANUP, PREEMPTED, UNKNOWN.")]
    Status(StatusArgs),
    /// Show what a replica, the controller or the load balancer printed
    #[command(after_help = "\
Examples:
  # What replica 1 prints, from its beginning, live
  skyserve logs my-service 1
  # The last 100 lines of the controller so far
  skyserve logs my-service --controller --tail 100 --no-follow

Following goes on across log rotation and restarts, and ends by itself once the replica has ended.
All services of a home share one controller and one load balancer, and so these logs.")]
    Logs(LogsArgs),
    /// Take services down
    #[command(after_help = "\
Examples:
  # Two services
  skyserve down my-service other-service
  # Every service whose name begins with test-
  skyserve down 'test-*'
  # All of them, without being asked
  skyserve down -a -y
  # One replica, which is then replaced
  skyserve down my-service --replica-id 2

The last service takes the runtime with it: nothing is left running. A controller on a cluster stays until
`sky down sky-serve-controller` (or `skyserve down sky-serve-controller`) removes it and all that is left of it.")]
    Down(DownArgs),
    /// Judge a YAML file as SkyServe's `up` would, say what `up` here refuses, and change nothing
    #[command(after_help = "\
Examples:
  skyserve check service.yaml
  skyserve check service.yaml --env MODEL=small -o json

`-o json` prints {\"verdict\": \"accepted\", \"spec\": {...}, \"warnings\": [...], \"up_refuses\": [...]}, or
{\"verdict\": \"rejected\", \"error\": \"...\"} with exit code 1.

The verdict is SkyServe's. A valid YAML that asks for what cannot be done here yet is accepted (exit code 0), with a
warning for each thing that `up` would refuse; \"up_refuses\" lists these.")]
    Check(CheckArgs),
    /// Print everything that `up` would make of a controller on a cluster
    #[command(after_help = "\
Examples:
  # What the API server thinks of it
  skyserve manifests | kubectl apply --server-side --dry-run=server -f -

It follows from ~/.sky/config.yaml alone, and nothing is made. `up` adds to each object that the controller owns it.")]
    Manifests(ManifestsArgs),
    /// Change a running service, without a failed request
    #[command(after_help = "\
Examples:
  # Another YAML: see what it changes, and agree to it
  skyserve update my-service service.yaml
  # Ask nothing, and wait until every replica is of the new version
  skyserve update my-service service.yaml -y --wait

Only what the YAML changes is done. Another number of replicas, another readiness probe, policy or timeout restarts
no replica. Anything else replaces them one after the other: a new one is launched, and an old one goes, after its
requests, once a new one is READY. A version whose replicas fail takes nothing from the one that serves; `status`
says why it failed. Any later `update`, also back to the earlier YAML, takes its place.")]
    Update(UpdateArgs),
}

/// The parts of the runtime, started by each other and by container images.
#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// Run as PID 1 or as the background runtime: start and restart everything else
    Init(InitArgs),
    /// The controller
    #[command(hide = true)]
    Controller,
    /// The load balancer
    #[command(hide = true, name = "loadbalancer")]
    LoadBalancer,
    /// What brings a controller's routes to a load balancer in another pod
    #[command(hide = true)]
    Follower,
    /// One local replica's guardian; it reads its arguments itself
    #[command(hide = true)]
    Shim(AnyArgs),
    /// What runs of ours in a replica's pod; it reads its arguments itself
    #[command(hide = true)]
    Replica(AnyArgs),
    /// Print the name of the image that this binary belongs in
    #[command(hide = true)]
    Image,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Setup script of the first start; kept, and run again from what was kept at every restart
    #[arg(long, value_name = "FILE")]
    pub(crate) setup: Option<PathBuf>,
    /// Run script of the first start, likewise; may be given several times
    #[arg(long = "run", value_name = "ID=FILE", value_parser = run_script, action = ArgAction::Append)]
    pub(crate) runs: Vec<(RunId, PathBuf)>,
    /// Run a load balancer alone, for a controller in another pod
    #[arg(long, hide = true, conflicts_with_all = ["setup", "runs", "command"])]
    pub(crate) load_balancer_only: bool,
    /// Run this command instead of the runtime, reaping and forwarding signals for it
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["setup", "runs"])]
    pub(crate) command: Vec<OsString>,
}

fn run_script(text: &str) -> Result<(RunId, PathBuf), String> {
    let (id, file) = text.split_once('=').ok_or("write it as ID=FILE")?;
    let id: RunId = id.parse().map_err(|error: skyserve_scripts::ScriptError| error.to_string())?;
    Ok((id, PathBuf::from(file)))
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The service's YAML file
    #[arg(value_name = "YAML")]
    pub(crate) yaml: PathBuf,
    /// Name of the service; made up if not given
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) service_name: Option<String>,
    #[command(flatten)]
    pub(crate) overrides: OverrideArgs,
    /// Ask nothing
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Return once the service is ready, or with exit code 1 when it has failed
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// The service
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Its YAML file from now on
    #[arg(value_name = "YAML")]
    pub(crate) yaml: PathBuf,
    #[command(flatten)]
    pub(crate) overrides: OverrideArgs,
    /// How the new version takes the old one's place
    #[arg(long, value_enum, default_value = "rolling")]
    pub(crate) mode: Mode,
    /// Ask nothing
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Return once every replica is of the new version and READY, or with exit code 1 when it has failed
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Rolling,
    #[value(name = "blue_green")]
    BlueGreen,
}

/// What sets or replaces the YAML's `envs` and `secrets`.
#[derive(Args)]
pub(crate) struct OverrideArgs {
    /// Environment variable for the replicas; a name alone takes the value it has here
    #[arg(long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    pub(crate) env: Vec<String>,
    /// Dotenv file with environment variables, which also fill in secrets; --env and --secret come first
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,
    /// Like --env, for a value that is never shown
    #[arg(long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    pub(crate) secret: Vec<String>,
    /// Dotenv file with secrets
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
}

impl std::fmt::Debug for OverrideArgs {
    /// Leaves out the values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverrideArgs").field("env_file", &self.env_file).finish_non_exhaustive()
    }
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Services to show; all if none is given
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Print the endpoint's URL alone (of the one service named, or the only one)
    #[arg(long, conflicts_with_all = ["verbose", "output"])]
    pub(crate) endpoint: bool,
    /// Show every column and every replica
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: StatusOutput,
    /// Show it again at every change, until interrupted
    #[arg(short, long, conflicts_with = "endpoint")]
    pub(crate) watch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusOutput {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The service
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The replica's ID, as `status` shows it
    #[arg(value_name = "REPLICA_ID", conflicts_with_all = ["controller", "load_balancer"])]
    pub(crate) replica_id: Option<u64>,
    /// The controller's log
    #[arg(long, conflicts_with = "load_balancer")]
    pub(crate) controller: bool,
    /// The load balancer's log
    #[arg(long)]
    pub(crate) load_balancer: bool,
    /// Only the last N lines of what there is
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<u64>,
    /// Go on printing what is added (the default)
    #[arg(long, overrides_with = "no_follow")]
    pub(crate) follow: bool,
    /// Print what there is and end
    #[arg(long, overrides_with = "follow")]
    pub(crate) no_follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Services to take down; `*`, `?` and `[…]` match as in a shell
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) names: Vec<String>,
    /// Take every service down
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Take this replica down, and leave the service
    #[arg(long, value_name = "ID", conflicts_with = "all")]
    pub(crate) replica_id: Option<u64>,
    /// Also forget what cannot be cleaned up (it may then go on running, and cost)
    #[arg(short, long)]
    pub(crate) purge: bool,
    /// Ask nothing
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ControllerDownArgs {
    /// `sky-serve-controller`; on a cluster also with the 8 digits that follow, for another user's
    #[arg(value_name = "CONTROLLER", required = true)]
    pub(crate) names: Vec<String>,
    /// Take every service down first, and forget what cannot be cleaned up
    #[arg(short, long)]
    pub(crate) purge: bool,
    /// Ask nothing
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The YAML file
    #[arg(value_name = "YAML")]
    pub(crate) yaml: PathBuf,
    #[command(flatten)]
    pub(crate) overrides: OverrideArgs,
    /// Judge it as a pool of workers (`sky jobs pool apply`)
    #[arg(long)]
    pub(crate) pool: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: CheckOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckOutput {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ManifestsArgs {
    /// How to print it
    #[arg(short, long, value_enum, default_value = "yaml")]
    pub(crate) output: ManifestsOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ManifestsOutput {
    Yaml,
    Json,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct AnyArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    pub(crate) rest: Vec<OsString>,
}
