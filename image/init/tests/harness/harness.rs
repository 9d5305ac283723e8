//! Stands in for the `skyserve` binary in the tests of init: `init`, `command`, and roles that behave in known ways.

use std::fs;
use std::io::{IoSlice, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use skyserve_home::Home;
use skyserve_init::{ForwardTo, Options, RestartBounds, Role, Timing};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|mode| mode.to_str()) {
        Some("init") => init(arguments.map(|argument| argument.into_string().expect("UTF-8")).collect()),
        Some("command") => skyserve_init::run_command(&arguments.collect::<Vec<_>>(), ForwardTo::Child),
        Some("command-group") => skyserve_init::run_command(&arguments.collect::<Vec<_>>(), ForwardTo::Group),
        Some("role") => role(&arguments.next().expect("a behaviour").into_string().expect("UTF-8")),
        other => panic!("unknown mode {other:?}"),
    }
}

/// `--role NAME=BEHAVIOUR`, `--last-role NAME=BEHAVIOUR`, `--setup FILE`, `--run ID=FILE`, `--grace-ms N`; the home comes from the environment.
fn init(arguments: Vec<String>) -> ExitCode {
    let home = Home::from_env().expect("a home");
    let exe = std::env::current_exe().expect("the path of this program");
    let mut options = Options::standard(home.clone(), &exe, Duration::from_secs(20));
    options.recovery_log = home.recovery_log();
    options.roles.clear();
    options.timing = Timing {
        role_restart: bounds(10, 100, 1000),
        ready_role_restart_max: Duration::from_millis(100),
        script_restart: bounds(50, 200, 60_000),
        script_stop_grace: Duration::from_secs(5),
    };
    let mut grace = Duration::from_secs(5);
    let mut arguments = arguments.into_iter();
    while let Some(name) = arguments.next() {
        let value = arguments.next().expect("a value");
        match name.as_str() {
            "--grace-ms" => {
                grace = Duration::from_millis(value.parse().expect("a number"));
                options.timing.script_stop_grace = grace;
            }
            "--role" | "--last-role" => {
                let stops_last = name == "--last-role";
                let (name, behaviour) = value.split_once('=').expect("NAME=BEHAVIOUR");
                options.roles.push(Role {
                    name: name.to_owned(),
                    argv: vec![exe.clone().into_os_string(), "role".into(), behaviour.into()],
                    log_file: home.log_dir().join(format!("{name}.log")),
                    stop_grace: grace,
                    stops_last,
                });
            }
            "--setup" => options.setup = Some(PathBuf::from(value)),
            "--run" => {
                let (id, file) = value.split_once('=').expect("ID=FILE");
                options.runs.push((id.parse().expect("an id"), PathBuf::from(file)));
            }
            other => panic!("unknown option {other}"),
        }
    }
    skyserve_init::run(options)
}

fn bounds(first_ms: u64, max_ms: u64, healthy_after_ms: u64) -> RestartBounds {
    RestartBounds {
        first: Duration::from_millis(first_ms),
        max: Duration::from_millis(max_ms),
        healthy_after: Duration::from_millis(healthy_after_ms),
    }
}

fn role(behaviour: &str) -> ExitCode {
    // Before any thread exists, so that SIGTERM is only ever waited for.
    terminate_signal().thread_block().expect("SIGTERM blocked");
    trace(&format!("role {behaviour}"));
    match behaviour {
        "ready" => {
            notify("READY=1", &[]);
            wait_for_sigterm();
            ExitCode::SUCCESS
        }
        "stubborn" => {
            // Blocked and never read: only SIGKILL ends this.
            SigSet::all().thread_block().expect("signals blocked");
            notify("READY=1", &[]);
            loop {
                std::thread::park();
            }
        }
        "failing" => ExitCode::from(3),
        "listener" => listen(),
        other => panic!("unknown behaviour {other}"),
    }
}

/// Answers every connection with its process id, over the listener kept for it, or a new one that it has kept.
fn listen() -> ExitCode {
    let kept = std::env::var("LISTEN_FDS").ok();
    let listener = match &kept {
        Some(count) => {
            assert_eq!(count, "1");
            assert_eq!(std::env::var("LISTEN_PID").as_deref(), Ok(std::process::id().to_string().as_str()));
            assert_eq!(std::env::var("LISTEN_FDNAMES").as_deref(), Ok("http"));
            listener_from_fd_3()
        }
        None => {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            notify("FDSTORE=1\nFDNAME=http", &[listener.as_raw_fd()]);
            listener
        }
    };
    let port = listener.local_addr().expect("an address").port();
    fs::write(home_file("port.new"), port.to_string()).expect("the port is written");
    fs::rename(home_file("port.new"), home_file("port")).expect("the port is published");
    notify("READY=1", &[]);
    let answering = listener.try_clone().expect("a second handle");
    std::thread::spawn(move || {
        for mut connection in answering.incoming().flatten() {
            let _ = write!(connection, "{}", std::process::id());
        }
    });
    wait_for_sigterm();
    notify("FDSTOREREMOVE=1\nFDNAME=http", &[]);
    ExitCode::SUCCESS
}

fn listener_from_fd_3() -> TcpListener {
    // SAFETY: init passed this descriptor to this process, and nothing else here has taken it.
    unsafe { TcpListener::from_raw_fd(3) }
}

fn wait_for_sigterm() {
    terminate_signal().wait().expect("SIGTERM");
}

fn terminate_signal() -> SigSet {
    let mut terminate = SigSet::empty();
    terminate.add(Signal::SIGTERM);
    terminate
}

fn notify(text: &str, fds: &[RawFd]) {
    let socket = UnixDatagram::unbound().expect("a socket");
    let path = std::env::var_os("NOTIFY_SOCKET").expect("NOTIFY_SOCKET");
    let address = UnixAddr::new(&PathBuf::from(path)).expect("an address");
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { [].as_slice() } else { rights.as_slice() };
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(text.as_bytes())], control, MsgFlags::empty(), Some(&address))
        .expect("init is told");
}

fn home_file(name: &str) -> PathBuf {
    Home::from_env().expect("a home").path().join(name)
}

/// Notes the order in which things start.
fn trace(line: &str) {
    let file = fs::File::options().append(true).create(true).open(home_file("trace"));
    // In one write: other processes append to it at the same time.
    file.expect("the trace").write_all(format!("{line}\n").as_bytes()).expect("traced");
}
