//! The background runtime (init, controller, load balancer) as the command line sees it: whether it
//! runs, how to start it, how to stop it.
//!
//! Invariants:
//! * A command that has nothing to do starts nothing.
//! * Services never stay down because the machine restarted: whichever command finds signs of them
//!   without a runtime starts it again.

use crate::client::{Client, ClientError};
use crate::judge;
use crate::output::{printable, warning};
use crate::progress::Progress;
use skyserve_api::{ReplicaView, ServiceView};
use skyserve_home::Home;
use skyserve_init::BackgroundError;
use skyserve_routes::{ReplicaRoute, ReplicaRouteState, RouteTable, ServiceRoutes};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// From the start of init to the controller's first answer: it opens a database and recovers, which on
/// a slow volume takes seconds.
const START_WITHIN: Duration = Duration::from_secs(30);
/// Pause between looks at whether the controller answers yet.
const START_POLL: Duration = Duration::from_millis(20);
/// Init gives the load balancer 25 s to finish requests, and the controller 10 s.
const STOP_WITHIN: Duration = Duration::from_secs(45);
/// Of a log, when it is shown to explain a failure: its last lines, and at most so many bytes.
const LOG_LINES_SHOWN: usize = 12;
const LOG_BYTES_SHOWN: u64 = 4096;

/// Why the runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    #[error("cannot tell which program to start the runtime with: {0}")]
    NoProgram(std::io::Error),
    #[error(transparent)]
    Background(#[from] BackgroundError),
    #[error("cannot wait for the runtime to stop: {0}")]
    Wait(#[from] tokio::task::JoinError),
    #[error("the runtime was started, but {problem}. {explanation}")]
    NotAnswering { problem: String, explanation: String },
}

/// A controller to talk to.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) client: Client,
    /// Whether it was started for this command.
    pub(crate) started: bool,
}

/// The controller of this home; starts the runtime if none runs.
pub(crate) async fn ensure(home: &Home, progress: &mut Progress) -> Result<Found, RuntimeError> {
    let client = Client::new(home.control_socket());
    if skyserve_init::running(home).is_some() {
        if let Some(news) = judge::config_news(home) {
            warning(&news);
        }
        return Ok(Found { client, started: false });
    }
    if runs_without_init(home, &client).await {
        return Ok(Found { client, started: false });
    }
    progress.now("starting the runtime");
    let program = std::env::current_exe().map_err(RuntimeError::NoProgram)?;
    let started = skyserve_init::spawn_background(&program, home, &["init"])?.here;
    let answers = wait_until_it_answers(home, &client).await;
    let serves = || skyserve_routes::read(&home.routes_file()).is_ok_and(|table| !table.services.is_empty());
    if answers.is_err() && started && !serves() {
        // It looks after nothing, and cannot be asked to.
        stop_ours(home, progress).await?;
    }
    answers?;
    if let Some(news) = judge::config_news(home) {
        warning(&news);
    }
    Ok(Found { client, started })
}

/// Whether a controller runs under another supervisor. One whose init was killed (its lock file is still there) does
/// not count: nobody would restart it, so init is started again and takes over.
async fn runs_without_init(home: &Home, client: &Client) -> bool {
    !home.init_lock().exists() && client.retrying_for(Duration::ZERO).controller().await.is_ok()
}

/// The controller of this home, if there is anything for it to look after. A runtime that should be
/// running and is not is started, with a word about it.
pub(crate) async fn find(home: &Home, progress: &mut Progress) -> Result<Option<Found>, RuntimeError> {
    let client = Client::new(home.control_socket());
    let runs = skyserve_init::running(home).is_some() || runs_without_init(home, &client).await;
    if !runs && !may_have_services(home) {
        return Ok(None);
    }
    let found = ensure(home, progress).await?;
    if !found.started {
        return Ok(Some(found));
    }
    if found.client.services().await.is_ok_and(|services| services.is_empty()) {
        // The signs were old: leave things as they were found.
        stop_ours(home, progress).await?;
        return Ok(None);
    }
    progress.keep("The runtime of your services was not running, or without its init; it was started again.");
    Ok(Some(found))
}

/// Stops the runtime if a command started it. One that a service manager runs, or PID 1 of a container, stays: it
/// is not ours to end.
pub(crate) async fn stop_ours(home: &Home, progress: &mut Progress) -> Result<(), RuntimeError> {
    if skyserve_init::read_status(home).is_some_and(|status| !status.background) {
        return Ok(());
    }
    stop(home, progress).await
}

/// Stops the runtime, whoever started it. PID 1 of a container stays: the container is it.
pub(crate) async fn stop(home: &Home, progress: &mut Progress) -> Result<(), RuntimeError> {
    if skyserve_init::running(home).is_none_or(|init| init.pid == 1) {
        return Ok(());
    }
    progress.now("stopping the runtime");
    let home = home.clone();
    // It waits for a process: on a thread of its own, so that an interrupt is heard meanwhile.
    tokio::task::spawn_blocking(move || skyserve_init::stop(&home, STOP_WITHIN)).await??;
    Ok(())
}

/// Whether a runtime of this home runs, or should.
pub(crate) fn may_run(home: &Home) -> bool {
    skyserve_init::running(home).is_some() || may_have_services(home)
}

/// Whether the home shows signs of services. They are looked for without the database, which belongs to
/// the controller alone: routes, folders of replicas, a database without a route table, or the lock file of
/// an init that was killed (one that stopped in order has removed it).
fn may_have_services(home: &Home) -> bool {
    if !home.database().exists() {
        return false;
    }
    if home.init_lock().exists() {
        return true;
    }
    let routed = skyserve_routes::read(&home.routes_file()).map_or(true, |table| !table.services.is_empty());
    routed || has_replicas(home)
}

/// Whether there is a folder of a replica; names with a dot before them are the provider's own records.
fn has_replicas(home: &Home) -> bool {
    let is_replica = |entry: std::fs::DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".");
    std::fs::read_dir(home.replicas_dir()).is_ok_and(|entries| entries.flatten().any(is_replica))
}

async fn wait_until_it_answers(home: &Home, client: &Client) -> Result<(), RuntimeError> {
    let client = client.retrying_for(Duration::ZERO);
    let deadline = Instant::now() + START_WITHIN;
    loop {
        let error = match client.controller().await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let problem = if skyserve_init::running(home).is_none() {
            "it ended at once".to_owned()
        } else if Instant::now() >= deadline {
            format!("its controller did not answer within {} s ({error})", START_WITHIN.as_secs())
        } else {
            tokio::time::sleep(START_POLL).await;
            continue;
        };
        return Err(RuntimeError::NotAnswering { problem, explanation: explain(home) });
    }
}

/// What is known about a controller that does not answer: what it ended of, and the end of its log.
pub(crate) fn explain(home: &Home) -> String {
    let logs = [home.controller_log(), home.init_log()];
    let end = logs.iter().find_map(|path| log_end(path).map(|end| (path, end)));
    let log = match end {
        Some((path, end)) => format!("\nThe end of {}:\n{end}", path.display()),
        None => format!(" Its logs in {} are empty.", home.log_dir().display()),
    };
    format!("{}{log}", circumstances(home))
}

/// Its restarts, or that its home cannot be written: then neither can they, nor its log.
fn circumstances(home: &Home) -> String {
    // It has no name, so nothing is left of it. After errors, a disk that takes nothing any more may yet say it is writable.
    match tempfile::tempfile_in(home.serve_dir()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => format!(
            "{} cannot be written ({error}), so the controller can store nothing, and its log may lack why: make it writable \
             for this user, or look at its disk (`dmesg`).",
            home.serve_dir().display()
        ),
        _ => restarts(home),
    }
}

/// Such as `The controller was restarted 3 times; last it exited with code 1.`
fn restarts(home: &Home) -> String {
    let status = skyserve_init::read_status(home).filter(|_| skyserve_init::running(home).is_some());
    let role = status.and_then(|status| status.roles.into_iter().find(|role| role.name == skyserve_init::CONTROLLER));
    match role {
        Some(role) if role.restarts > 0 => {
            let end = role.last_end.map_or_else(String::new, |end| format!("; last, it {}", printable(&end)));
            format!("The controller was restarted {} times{end}.", role.restarts)
        }
        Some(_) => "The controller was started and has not ended.".to_owned(),
        None => "No runtime is running.".to_owned(),
    }
}

fn log_end(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let bytes = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(LOG_BYTES_SHOWN))).ok()?;
    let mut end = Vec::new();
    file.take(LOG_BYTES_SHOWN).read_to_end(&mut end).ok()?;
    let end = String::from_utf8_lossy(&end);
    let mut lines: Vec<&str> = end.lines().collect();
    // A controller that fails again and again says the same again and again.
    lines.dedup();
    let shown: Vec<String> = lines
        .iter()
        .skip(lines.len().saturating_sub(LOG_LINES_SHOWN))
        .map(|line| format!("  {}", printable(line)))
        .collect();
    Some(shown.join("\n")).filter(|text| !text.trim().is_empty())
}

/// Services as the load balancer's route table knows them, for when the controller does not answer
/// because of `error`. `None` if there is no table either.
pub(crate) fn last_known_services(home: &Home, error: &ClientError) -> Option<Vec<ServiceView>> {
    let RouteTable { services, .. } = skyserve_routes::read(&home.routes_file()).ok()?;
    let reason = format!(
        "{error}. {} Requests still go to the replicas that were ready last. Its log: {}",
        circumstances(home),
        home.controller_log().display()
    );
    Some(services.into_iter().map(|routes| last_known(routes, &reason)).collect())
}

fn last_known(routes: ServiceRoutes, reason: &str) -> ServiceView {
    let scheme = if routes.tls.is_some() { "https" } else { "http" };
    let is_ready = |replica: &&ReplicaRoute| replica.state == ReplicaRouteState::Ready;
    let ready = routes.replicas.iter().filter(is_ready).count();
    ServiceView {
        status: "CONTROLLER_FAILED".to_owned(),
        status_reason: Some(reason.to_owned()),
        version: 0,
        rollout: String::new(),
        ready_since_ms: None,
        created_at_ms: 0,
        endpoint: format!("{scheme}://{}", routes.listen),
        endpoint_listens: false,
        replicas_ready: ready,
        replicas_wanted: routes.replicas.len(),
        load_balancing_policy: String::new(),
        requested_resources: String::new(),
        replicas: routes.replicas.into_iter().map(last_known_replica).collect(),
        name: routes.name,
    }
}

fn last_known_replica(replica: ReplicaRoute) -> ReplicaView {
    let was = match replica.state {
        ReplicaRouteState::Ready => "it was ready when the controller last looked",
        ReplicaRouteState::Draining => "it was being shut down when the controller last looked",
    };
    ReplicaView {
        id: replica.id,
        uid: replica.uid,
        version: 0,
        endpoint: Some(format!("http://{}", replica.address)),
        launched_at_ms: 0,
        first_ready_at_ms: None,
        infra: String::new(),
        resources: String::new(),
        status: "UNKNOWN".to_owned(),
        status_reason: Some(was.to_owned()),
    }
}

/// Where large temporary files go: the home's own disk, which will hold what is uploaded anyway.
pub(crate) fn temporary_folder(home: &Home) -> PathBuf {
    home.bundles_dir()
}

#[cfg(test)]
mod tests;
