use super::{Replica, eventually, free_address};
use skyserve_routes::report::Report;
use skyserve_routes::{FORMAT, Policy, ReplicaRoute, ReplicaRouteState, RouteTable, ServiceRoutes, publish};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A load balancer in a child process with a folder of its own. Killed when dropped.
pub(crate) struct Balancer {
    folder: tempfile::TempDir,
    child: Option<Child>,
    settings: Vec<String>,
    seq: u64,
}

/// A service at a free address, routed to these replicas.
pub(crate) fn service(name: &str, replicas: &[&Replica]) -> ServiceRoutes {
    let route = |(index, replica): (usize, &&Replica)| ReplicaRoute {
        uid: format!("{name}-{}", replica.address),
        id: index as u64 + 1,
        address: replica.address,
        weight: 1,
        state: ReplicaRouteState::Ready,
    };
    ServiceRoutes {
        name: name.into(),
        listen: free_address(),
        policy: Policy::LeastLoad,
        stream_timeout_ms: 60_000,
        tls: None,
        replicas: replicas.iter().enumerate().map(route).collect(),
        expects_replicas: true,
    }
}

impl Balancer {
    /// A folder and settings; nothing runs yet.
    pub(crate) fn prepare(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { folder, child: None, settings, seq: 0 }
    }

    /// Runs with these services, and waits until it is ready.
    pub(crate) fn start(services: &[&ServiceRoutes], settings: &[&str]) -> Self {
        let mut balancer = Self::prepare(settings);
        balancer.publish(services);
        balancer.spawn(|_| {});
        balancer.await_report();
        balancer
    }

    pub(crate) fn publish(&mut self, services: &[&ServiceRoutes]) {
        self.seq += 1;
        self.publish_version(1, self.seq, services);
    }

    /// Publishes and waits until the table is in force.
    pub(crate) fn apply(&mut self, services: &[&ServiceRoutes]) {
        self.publish(services);
        let seq = self.seq;
        eventually("the table in force", || (self.report().table?.seq == seq).then_some(()));
    }

    pub(crate) fn publish_version(&self, epoch: u64, seq: u64, services: &[&ServiceRoutes]) {
        let services = services.iter().map(|service| (*service).clone()).collect();
        publish(&self.routes_file(), &RouteTable { format: FORMAT, epoch, seq, services }).unwrap();
    }

    pub(crate) fn routes_file(&self) -> PathBuf {
        self.folder.path().join("routes.json")
    }

    pub(crate) fn report_socket(&self) -> PathBuf {
        self.folder.path().join("report.sock")
    }

    pub(crate) fn notify_socket(&self) -> PathBuf {
        self.folder.path().join("notify.sock")
    }

    /// The harness with this balancer's arguments.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![env!("CARGO_BIN_EXE_loadbalancer-harness").to_owned()];
        arguments.push(format!("routes_file={}", self.routes_file().display()));
        arguments.push(format!("report_socket={}", self.report_socket().display()));
        arguments.extend(self.settings.clone());
        arguments
    }

    pub(crate) fn spawn(&mut self, prepare: impl FnOnce(&mut Command)) {
        let arguments = self.arguments();
        let mut command = Command::new(&arguments[0]);
        command.args(&arguments[1..]).stdin(Stdio::null());
        prepare(&mut command);
        self.spawn_command(command);
    }

    pub(crate) fn spawn_command(&mut self, mut command: Command) {
        assert!(self.child.is_none());
        self.child = Some(command.spawn().unwrap());
    }

    pub(crate) fn await_report(&self) -> Report {
        eventually("a report", || self.try_report())
    }

    pub(crate) fn report(&self) -> Report {
        self.try_report().expect("a report")
    }

    pub(crate) fn try_report(&self) -> Option<Report> {
        let mut stream = self.request_report("/v1/report")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// The lines of the wake stream, without their chunks.
    pub(crate) fn wakes(&self) -> impl Iterator<Item = String> {
        let stream = self.request_report("/v1/wake").expect("a wake stream");
        stream.lines().map_while(Result::ok).filter(|line| line.starts_with('{'))
    }

    fn request_report(&self, path: &str) -> Option<BufReader<UnixStream>> {
        let mut stream = UnixStream::connect(self.report_socket()).ok()?;
        stream.set_read_timeout(Some(super::PATIENCE)).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
        Some(BufReader::new(stream))
    }

    pub(crate) fn metrics_address(&self) -> SocketAddr {
        self.report().metrics_address.expect("a metrics port")
    }

    /// The value of one series, named without the common prefix.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let metrics = super::get(self.metrics_address(), "/metrics");
        let prefix = format!("skyserve_loadbalancer_{series} ");
        let value = metrics.text().lines().find_map(|line| line.strip_prefix(&prefix));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{series} in {}", metrics.text()))
    }

    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.as_ref().expect("a running balancer").id().cast_signed())
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).unwrap();
    }

    /// Waits until the process has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let status = eventually("the end of the load balancer", || self.has_ended());
        self.child = None;
        status
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().expect("a running balancer").try_wait().unwrap()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
