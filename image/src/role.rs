//! From the configuration to the options of each role.

use crate::configuration;
use skyserve_cli::InitArgs;
use skyserve_controller::core::CoreOptions;
use skyserve_controller::exposure::WhereTheyListen;
use skyserve_controller::{ControllerError, LoadBalancers, Surroundings};
use skyserve_home::Home;
use skyserve_init::Options;
use skyserve_manifests::names;
use skyserve_provider::process::{ProcessOptions, ProcessProvider};
use skyserve_spec::Target;
use skyserve_spec::config::{Config, PortIsolation};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// What is logged, in `tracing-subscriber`'s form (`info`, `skyserve_controller=debug`); default `info`.
const LOG_VARIABLE: &str = "SKYSERVE_LOG";
/// The INFRA column of local replicas.
const INFRA: &str = "local process";

/// A pod that is to end serves on until no request has come for this long: every node's kube-proxy must have heard that
/// others are ready, and a client that asks once a second must have moved.
const POD_QUIET_MS: u64 = 3_000;

/// PID 1 of a container, or the background runtime of this home.
pub(crate) fn init(arguments: InitArgs) -> ExitCode {
    if let Some(command) = arguments.command {
        return skyserve_init::run_command(&command, skyserve_init::ForwardTo::Group);
    }
    let (home, program) = match home_and_program() {
        Ok(prepared) => prepared,
        Err(message) => return failed("init", &message),
    };
    let taken = home.make_dirs().map_err(|error| error.to_string()).and_then(|()| configuration::take(&home));
    match taken {
        Ok(warnings) => warnings.iter().for_each(|warning| eprintln!("skyserve init: warning: {warning}")),
        Err(message) => return failed("init", &message),
    }
    let drain = match configuration::in_force(&home) {
        Ok(config) => config.load_balancer.drain(),
        Err(message) => return failed("init", &message),
    };
    let roles = if arguments.load_balancer_only { Options::load_balancer_only } else { Options::standard };
    let mut options = roles(home, &program, drain);
    options.setup = arguments.setup;
    options.runs = arguments.runs;
    skyserve_init::run(options)
}

/// The controller of this home: in its pod with pods as replicas, elsewhere with local processes.
pub(crate) fn controller() -> ExitCode {
    begin("controller");
    let run = || -> Result<(), String> {
        let (home, program) = home_and_program()?;
        let config = configuration::in_force(&home)?;
        match skyserve_controller::Pod::from_env()? {
            Some(pod) => skyserve_controller::run_in_pod(home, &config, pod),
            None => local_controller(home, program, &config),
        }
        .map_err(|error| error.to_string())
    };
    ended("controller", run())
}

fn local_controller(home: Home, program: PathBuf, config: &Config) -> Result<(), ControllerError> {
    let core = CoreOptions {
        listen_host: config.load_balancer.listen_host,
        listen_ports: config.load_balancer.ports.iter(),
        infra: INFRA.to_owned(),
        exposed: false,
    };
    let shim: Vec<OsString> = vec![program.into_os_string(), "shim".into()];
    let process = ProcessOptions { port_isolation: config.port_isolation == PortIsolation::Auto };
    let listeners = skyserve_controller::Listeners::default();
    let options = skyserve_controller::Options { home, core, target: Target::LocalProcesses, listeners };
    skyserve_controller::run(options, async |home: &Home| {
        let provider = ProcessProvider::new(home.clone(), shim, process)?;
        Ok(Surroundings { provider, exposure: WhereTheyListen, load_balancers: LoadBalancers::Beside })
    })
}

/// Brings a controller's routes to the load balancer of this pod.
pub(crate) fn follower() -> ExitCode {
    begin("follower");
    let run = || -> Result<(), String> {
        let (home, _) = home_and_program()?;
        let variable = |name: &str| {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            value.ok_or_else(|| format!("{name} is not set: a follower runs in a pod of load balancers alone"))
        };
        let names = names::Names { controller: variable(names::CONTROLLER_VARIABLE)? };
        let options = skyserve_follower::Options {
            routes_file: home.routes_file(),
            namespace: variable(names::NAMESPACE_VARIABLE)?,
            config_map: names.routes(),
            key: names::ROUTES_KEY.to_owned(),
            notify_socket: notify_socket(),
            look_interval: skyserve_follower::LOOK_INTERVAL,
        };
        skyserve_follower::run(options).map_err(|error| error.to_string())
    };
    ended("follower", run())
}

fn notify_socket() -> Option<PathBuf> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The load balancer of this home.
pub(crate) fn load_balancer() -> ExitCode {
    // Before any thread: what a supervisor passed on is read from the environment once.
    let inherited = skyserve_loadbalancer::inherited_listeners();
    begin("load balancer");
    let run = || -> Result<(), String> {
        let home = Home::from_env().map_err(|error| error.to_string())?;
        home.make_dirs().map_err(|error| error.to_string())?;
        let config = configuration::in_force(&home)?.load_balancer;
        let mut options = skyserve_loadbalancer::Options {
            routes_file: home.routes_file(),
            report_socket: home.load_balancer_socket(),
            notify_socket: notify_socket(),
            inherited,
            metrics_address: config.metrics_address,
            threads: config.threads as usize,
            ..skyserve_loadbalancer::Options::default()
        };
        // Of several load balancers the others go on; a controller that is a plain pod has no successor.
        let is_replaced = std::env::var(names::HIGH_AVAILABILITY_VARIABLE).is_ok_and(|value| value == "true");
        options.has_successor = is_replaced && config.replicas == 1;
        if home.is_shared() {
            options.ready_while_draining = true;
            options.limits.drain_quiet_ms = POD_QUIET_MS;
        }
        options.limits.drain_ms_max = u64::from(config.drain_seconds) * 1000;
        options.limits.queue_requests_max = config.queue_limit as usize;
        options.limits.queue_wait_ms_max = u64::from(config.queue_timeout_seconds) * 1000;
        skyserve_loadbalancer::run(options).map_err(|error| error.to_string())
    };
    ended("loadbalancer", run())
}

fn ended(role: &str, result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => failed(role, &message),
    }
}

fn failed(role: &str, message: &str) -> ExitCode {
    eprintln!("skyserve {role}: {message}");
    ExitCode::FAILURE
}

fn home_and_program() -> Result<(Home, PathBuf), String> {
    let home = Home::from_env().map_err(|error| error.to_string())?;
    let program = std::env::current_exe().map_err(|error| format!("cannot tell where this program is: {error}"))?;
    Ok((home, program))
}

/// What every role but init begins with: its log, and what a panic means to it.
fn begin(role: &'static str) {
    log_to_standard_error();
    skyserve_panics::end_the_process(role);
}

fn log_to_standard_error() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}
