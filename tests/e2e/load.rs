//! Constant load on an endpoint, with every outcome counted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest wait for one answer: beyond the load balancer's own queue deadline.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// What became of the requests.
#[derive(Debug, Default, Clone)]
pub struct Outcomes {
    pub ok: u64,
    /// Connections that nobody took.
    pub refused: u64,
    /// Requests that were cut off under way.
    pub cut: u64,
    /// Answers other than 200.
    pub statuses: BTreeMap<u16, u64>,
    /// How each failure was described.
    pub problems: BTreeMap<String, u64>,
    /// Longest time to an answer, where it was measured.
    pub slowest: Duration,
}

impl Outcomes {
    pub fn failed(&self) -> u64 {
        self.refused + self.cut + self.statuses.values().sum::<u64>()
    }

    pub fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.refused += other.refused;
        self.cut += other.cut;
        other.statuses.iter().for_each(|(status, count)| *self.statuses.entry(*status).or_default() += count);
        other.problems.iter().for_each(|(problem, count)| *self.problems.entry(problem.clone()).or_default() += count);
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// Keep-alive clients that ask without pause.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Outcomes>>,
}

impl Load {
    /// Starts `clients` of them on `endpoint` (`http://ADDRESS`).
    pub fn start(endpoint: &str, clients: usize) -> Self {
        let address: SocketAddr = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || ask_until(address, &stop))
        };
        Self { clients: (0..clients).map(client).collect(), stop }
    }

    /// Ends the load, after the requests under way.
    pub fn finish(self) -> Outcomes {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcomes::default();
        self.clients.into_iter().for_each(|client| all.add(&client.join().unwrap()));
        all
    }
}

fn ask_until(address: SocketAddr, stop: &AtomicBool) -> Outcomes {
    let mut outcomes = Outcomes::default();
    let mut connection: Option<BufReader<TcpStream>> = None;
    while !stop.load(Ordering::Relaxed) {
        let stream = match connection.take() {
            Some(stream) => stream,
            None => match TcpStream::connect(address) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
                    BufReader::new(stream)
                }
                Err(error) => {
                    *outcomes.problems.entry(error.to_string()).or_default() += 1;
                    if error.kind() == ErrorKind::ConnectionRefused {
                        outcomes.refused += 1
                    } else {
                        outcomes.cut += 1
                    }
                    continue;
                }
            },
        };
        match get(stream) {
            Ok((200, keep)) => {
                outcomes.ok += 1;
                connection = keep;
            }
            Ok((status, keep)) => {
                *outcomes.statuses.entry(status).or_default() += 1;
                connection = keep;
            }
            Err(error) => {
                *outcomes.problems.entry(error.to_string()).or_default() += 1;
                outcomes.cut += 1;
            }
        }
    }
    outcomes
}

/// One GET on a connection of its own; gives the status.
pub fn get_once(address: SocketAddr) -> std::io::Result<u16> {
    get_within(address, ANSWER_TIMEOUT)
}

/// The same, with another patience for connecting and for each read.
pub fn get_within(address: SocketAddr, patience: Duration) -> std::io::Result<u16> {
    let stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    get(BufReader::new(stream)).map(|(status, _)| status)
}

type Kept = Option<BufReader<TcpStream>>;

/// One GET; gives the status, and the connection if it may be used again.
fn get(mut stream: BufReader<TcpStream>) -> std::io::Result<(u16, Kept)> {
    stream.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: service\r\n\r\n")?;
    let (status, headers) = read_head(&mut stream)?;
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let close = headers.get("connection").is_some_and(|value| value.contains("close"))
        || !headers.contains_key("content-length");
    Ok((status, if close { None } else { Some(stream) }))
}

/// Reads an answer's status and headers (names in lower case).
pub fn read_head(stream: &mut impl BufRead) -> std::io::Result<(u16, BTreeMap<String, String>)> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "closed before the answer"));
    }
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no status line: {line:?}")))?;
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "closed within the headers"));
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None if line.trim_end().is_empty() => return Ok((status, headers)),
            None => return Err(std::io::Error::other(format!("no header: {line:?}"))),
        };
    }
}

/// It is ended by the test, which reads what it has counted.
const LONGER_THAN_ANY_TEST: &str = "600s";

/// `oha` on the same endpoint, where it is installed.
pub struct Oha {
    /// `None` once it has been waited for.
    child: Option<Child>,
}

impl Drop for Oha {
    fn drop(&mut self) {
        // A test that fails leaves none behind.
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Oha {
    /// Whether `oha` is installed.
    pub fn installed() -> bool {
        Command::new("oha").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    }

    /// Starts `clients` keep-alive connections.
    pub fn start(endpoint: &str, clients: usize) -> Self {
        Self::start_with(endpoint, clients, &[])
    }

    /// Starts `clients` connections with more of oha's options.
    pub fn start_with(endpoint: &str, clients: usize, more: &[&str]) -> Self {
        let child = Command::new("oha")
            .args([
                "--no-tui",
                "--output-format",
                "json",
                "-z",
                LONGER_THAN_ANY_TEST,
                "-t",
                "90s",
                "-c",
                &clients.to_string(),
            ])
            .args(more)
            .arg(endpoint)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { child: Some(child) }
    }

    /// Ends it, and reads its report.
    pub fn finish(mut self) -> Outcomes {
        let child = self.child.take().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGINT)
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("oha prints JSON");
        let slowest = report["summary"]["slowest"].as_f64().unwrap_or(0.0);
        let mut outcomes = Outcomes { slowest: Duration::from_secs_f64(slowest.max(0.0)), ..Outcomes::default() };
        for (status, count) in report["statusCodeDistribution"].as_object().into_iter().flatten() {
            let count = count.as_u64().unwrap();
            match status.as_str() {
                "200" => outcomes.ok += count,
                other => *outcomes.statuses.entry(other.parse().unwrap()).or_default() += count,
            }
        }
        for (problem, count) in report["errorDistribution"].as_object().into_iter().flatten() {
            let count = count.as_u64().unwrap();
            if problem.contains("deadline") {
                // The end of its time cut these off: oha ended them, nobody failed them.
                continue;
            }
            *outcomes.problems.entry(problem.clone()).or_default() += count;
            if problem.to_lowercase().contains("refused") { outcomes.refused += count } else { outcomes.cut += count }
        }
        outcomes
    }
}
