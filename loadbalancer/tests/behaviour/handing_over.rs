//! Listeners that outlive the process, and ends in good order. The tests play the supervisor.

use crate::support::{Balancer, Client, PATIENCE, Replica, eventually, free_address, get, service, try_get};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use skyserve_routes::ServiceRoutes;
use std::io::IoSliceMut;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The supervisor's end of the notify protocol.
struct Supervisor {
    socket: UnixDatagram,
}

/// One message, and the descriptor that came with it.
struct Notice {
    text: String,
    descriptor: Option<OwnedFd>,
}

impl Supervisor {
    fn new(balancer: &Balancer) -> Self {
        let socket = UnixDatagram::bind(balancer.notify_socket()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    fn next(&self) -> Notice {
        let mut bytes = [0; 512];
        let mut control = nix::cmsg_space!([i32; 1]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<()>(self.socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)
                .unwrap();
        let descriptor = message.cmsgs().unwrap().find_map(|control| match control {
            // SAFETY: the kernel has just made this descriptor for this process; nobody else has it.
            ControlMessageOwned::ScmRights(rights) => Some(unsafe { OwnedFd::from_raw_fd(rights[0]) }),
            _ => None,
        });
        let length = message.bytes;
        Notice { text: String::from_utf8(bytes[..length].to_vec()).unwrap(), descriptor }
    }

    /// Expects that these sockets are given, in this order.
    fn receive(&self, names: &[&str]) -> Vec<OwnedFd> {
        let receive = |name: &&str| {
            let notice = self.next();
            assert_eq!(notice.text, format!("FDSTORE=1\nFDNAME={name}"));
            notice.descriptor.expect("a descriptor")
        };
        names.iter().map(receive).collect()
    }

    fn expect(&self, text: &str) {
        assert_eq!(self.next().text, text);
    }
}

fn listener_name(service: &ServiceRoutes) -> String {
    format!("tcp-{}-{}", service.listen.ip(), service.listen.port())
}

fn spawn_under(balancer: &mut Balancer) {
    let notify_socket = balancer.notify_socket();
    balancer.spawn(|command| {
        command.env("NOTIFY_SOCKET", notify_socket);
    });
}

/// Starts the balancer with descriptors as 3 and 4. A shell moves them there from its own streams.
fn spawn_with(balancer: &mut Balancer, names: &str, first: &OwnedFd, second: Option<&OwnedFd>) {
    let count = 1 + usize::from(second.is_some());
    let moves = if second.is_some() { "exec 3<&0 4<&1 0</dev/null 1>/dev/null" } else { "exec 3<&0 0</dev/null" };
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{moves}; LISTEN_PID=$$ exec \"$@\"")).arg("sh").args(balancer.arguments());
    command.env("LISTEN_FDS", count.to_string()).env("LISTEN_FDNAMES", names);
    command.env("NOTIFY_SOCKET", balancer.notify_socket());
    command.stdin(Stdio::from(first.try_clone().unwrap()));
    if let Some(second) = second {
        command.stdout(Stdio::from(second.try_clone().unwrap()));
    }
    balancer.spawn_command(command);
}

#[test]
fn a_killed_load_balancer_is_followed_by_one_that_answers_what_waited() {
    let replica = Replica::saying("ok");
    let service = service("survives", &[&replica]);
    let mut balancer = Balancer::prepare(&[]);
    let supervisor = Supervisor::new(&balancer);
    balancer.publish(&[&service]);
    spawn_under(&mut balancer);
    let name = listener_name(&service);
    let kept = supervisor.receive(&[&name, "metrics"]);
    supervisor.expect("READY=1");
    assert_eq!(get(service.listen, "/").text(), "ok");
    let metrics_address = balancer.metrics_address();
    for _ in 0..3 {
        balancer.signal(Signal::SIGKILL);
        balancer.ended();
        let waiting: Vec<_> = (0..20)
            .map(|_| {
                let mut client = Client::connect(service.listen);
                client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
                client
            })
            .collect();
        spawn_with(&mut balancer, &format!("{name}:metrics"), &kept[0], Some(&kept[1]));
        supervisor.expect("READY=1");
        for mut client in waiting {
            assert_eq!(client.answer("POST").text(), "ok");
        }
        assert_eq!(balancer.metrics_address(), metrics_address);
    }
    assert_eq!(replica.requests().len(), 61);
}

#[test]
fn a_kept_listener_that_a_readable_table_does_not_name_is_let_go() {
    let mut balancer = Balancer::prepare(&[]);
    let supervisor = Supervisor::new(&balancer);
    let listener = TcpListener::bind(free_address()).unwrap();
    let address = listener.local_addr().unwrap();
    let name = format!("tcp-{}-{}", address.ip(), address.port());
    balancer.publish(&[]);
    spawn_with(&mut balancer, &name, &OwnedFd::from(listener), None);
    supervisor.expect(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    eventually("a refused connect", || TcpStream::connect(address).is_err().then_some(()));
}

#[test]
fn kept_listeners_stay_while_no_table_can_be_read() {
    let replica = Replica::saying("late");
    let service = service("late", &[&replica]);
    let mut balancer = Balancer::prepare(&["table_check_ms=100"]);
    let supervisor = Supervisor::new(&balancer);
    let listener = TcpListener::bind(service.listen).unwrap();
    std::fs::write(balancer.routes_file(), b"torn").unwrap();
    spawn_with(&mut balancer, &listener_name(&service), &OwnedFd::from(listener), None);
    supervisor.receive(&["metrics"]);
    supervisor.expect("READY=1");
    let mut client = Client::connect(service.listen);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(balancer.await_report().table_error.is_some());
    balancer.publish(&[&service]);
    assert_eq!(client.answer("GET").text(), "late");
}

#[test]
fn a_descriptor_that_is_not_what_its_name_says_is_let_go() {
    let service = service("liar", &[]);
    let mut balancer = Balancer::prepare(&[]);
    let supervisor = Supervisor::new(&balancer);
    let other = TcpListener::bind(free_address()).unwrap();
    balancer.publish(&[&service]);
    spawn_with(&mut balancer, &listener_name(&service), &OwnedFd::from(other), None);
    supervisor.expect(&format!("FDSTOREREMOVE=1\nFDNAME={}", listener_name(&service)));
    supervisor.receive(&[&listener_name(&service), "metrics"]);
    supervisor.expect("READY=1");
}

#[test]
fn a_service_that_comes_and_goes_has_its_listener_kept_and_forgotten() {
    let service = service("guest", &[]);
    let mut balancer = Balancer::prepare(&[]);
    let supervisor = Supervisor::new(&balancer);
    balancer.publish(&[]);
    spawn_under(&mut balancer);
    supervisor.receive(&["metrics"]);
    supervisor.expect("READY=1");
    balancer.publish(&[&service]);
    let kept = supervisor.receive(&[&listener_name(&service)]);
    balancer.publish(&[]);
    supervisor.expect(&format!("FDSTOREREMOVE=1\nFDNAME={}", listener_name(&service)));
    // Closed, not shut down: the supervisor's copy still listens.
    TcpStream::connect(service.listen).unwrap();
    drop(kept);
    eventually("a refused connect", || TcpStream::connect(service.listen).is_err().then_some(()));
}

#[test]
fn a_drain_under_load_fails_no_request() {
    let replica = Replica::saying("ok");
    let service = service("drains", &[&replica]);
    let mut balancer = Balancer::prepare(&["drain_quiet_ms=500"]);
    let supervisor = Supervisor::new(&balancer);
    balancer.publish(&[&service]);
    spawn_under(&mut balancer);
    supervisor.receive(&[&listener_name(&service), "metrics"]);
    supervisor.expect("READY=1");
    let (stop, failed, served) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, failed, served) = (Arc::clone(&stop), Arc::clone(&failed), Arc::clone(&served));
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let answer = try_get(service.listen, "/");
                    let counter = if answer.is_some_and(|answer| answer.status == 200) { &served } else { &failed };
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut keeping = Client::connect(service.listen);
    assert_eq!(keeping.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").field("connection"), None);
    let metrics_address = balancer.metrics_address();
    balancer.signal(Signal::SIGTERM);
    supervisor.expect("STOPPING=1");
    let answer = keeping.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    assert_eq!(get(metrics_address, "/readyz").status, 503);
    let before = served.load(Ordering::SeqCst);
    eventually("more served while draining", || (served.load(Ordering::SeqCst) > before + 100).then_some(()));
    assert!(balancer.has_ended().is_none(), "it serves as long as requests come");
    stop.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(balancer.ended().success());
    assert_eq!(failed.load(Ordering::SeqCst), 0);
}

#[test]
fn a_drain_goes_on_as_long_as_requests_come() {
    let replica = Replica::saying("ok");
    let service = service("trickle", &[&replica]);
    let mut balancer = Balancer::start(&[&service], &["drain_quiet_ms=400"]);
    balancer.signal(Signal::SIGTERM);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1_500) {
        assert_eq!(get(service.listen, "/").text(), "ok", "after {:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(balancer.ended().success());
}

/// A replica that answers when told.
fn held() -> (Replica, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let replica = Replica::start(move |peer| {
        peer.read_request();
        let _ = released.lock().unwrap().recv();
        peer.reply("held");
    });
    (replica, release)
}

fn with_a_request_in_flight(settings: &[&str]) -> (Balancer, Client, Replica, mpsc::Sender<()>) {
    let (replica, release) = held();
    let service = service("held", &[&replica]);
    let balancer = Balancer::start(&[&service], settings);
    let mut client = Client::connect(service.listen);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request in flight", || (balancer.report().services["held"].in_flight == 1).then_some(()));
    (balancer, client, replica, release)
}

#[test]
fn a_drain_waits_for_requests_in_flight() {
    let (mut balancer, mut client, _replica, release) = with_a_request_in_flight(&["drain_quiet_ms=50"]);
    balancer.signal(Signal::SIGTERM);
    let unready = get(balancer.metrics_address(), "/readyz");
    assert!(unready.text().contains("draining"), "{}", unready.text());
    std::thread::sleep(Duration::from_millis(200));
    assert!(balancer.has_ended().is_none(), "the quiet time is over, the request is not");
    release.send(()).unwrap();
    assert_eq!(client.answer("GET").text(), "held");
    assert!(balancer.ended().success());
}

#[test]
fn a_drain_ends_at_its_bound_and_at_once_when_told_again() {
    let (mut balancer, _client, _replica, _release) = with_a_request_in_flight(&["drain_ms_max=200"]);
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.ended().success());
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut balancer, _client, _replica, _release) = with_a_request_in_flight(&["drain_ms_max=3600000"]);
        balancer.signal(Signal::SIGTERM);
        let metrics_address = balancer.metrics_address();
        eventually("the drain", || (get(metrics_address, "/readyz").status == 503).then_some(()));
        balancer.signal(second);
        assert!(balancer.ended().success());
    }
}

#[test]
fn with_a_successor_a_drain_serves_and_is_ready_until_a_later_controller_has_published() {
    let replica = Replica::saying("ok");
    let service = service("replaced", &[&replica]);
    let settings = [
        "has_successor=true",
        "ready_while_draining=true",
        "drain_quiet_ms=50",
        "successor_settle_ms=300",
        "drain_ms_max=3600000",
    ];
    let mut balancer = Balancer::start(&[&service], &settings);
    let metrics_address = balancer.metrics_address();
    balancer.signal(Signal::SIGTERM);
    eventually("the drain", || {
        let answer = Client::connect(service.listen).ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        (answer.field("connection") == Some("close")).then_some(())
    });
    // The same controller's next table is no sign of a successor, and neither is quiet.
    balancer.publish_version(1, 2, &[&service]);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(600) {
        assert!(balancer.has_ended().is_none(), "nobody has taken over");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(get(metrics_address, "/readyz").status, 200);
    assert_eq!(get(service.listen, "/").text(), "ok");
    balancer.publish_version(2, 1, &[&service]);
    assert!(balancer.ended().success());
}

#[test]
fn a_successor_that_never_comes_is_waited_for_until_the_bound() {
    let replica = Replica::saying("ok");
    let service = service("alone", &[&replica]);
    let settings = ["has_successor=true", "drain_quiet_ms=0", "successor_settle_ms=0", "drain_ms_max=700"];
    let mut balancer = Balancer::start(&[&service], &settings);
    let began = Instant::now();
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.ended().success());
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
}

#[test]
fn a_connection_that_rests_is_told_of_the_end_before_the_end() {
    let replica = Replica::saying("ok");
    let service = service("resting", &[&replica]);
    let mut balancer = Balancer::start(&[&service], &["drain_quiet_ms=300"]);
    let mut resting = Client::connect(service.listen);
    assert_eq!(resting.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    balancer.signal(Signal::SIGTERM);
    assert!(resting.has_ended_in_order(), "a reset would say that something went wrong");
    drop(resting);
    assert!(balancer.ended().success());
}

#[test]
fn without_services_a_drain_ends_at_once() {
    let mut balancer = Balancer::start(&[], &["drain_quiet_ms=3600000", "drain_ms_max=3600000"]);
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.ended().success());
}

#[test]
fn the_first_answer_comes_soon_after_the_start() {
    let replica = Replica::saying("ok");
    let service = service("soon", &[&replica]);
    let mut balancer = Balancer::prepare(&[]);
    let listener = TcpListener::bind(service.listen).unwrap();
    balancer.publish(&[&service]);
    let mut client = Client::connect(service.listen);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let began = Instant::now();
    spawn_with(&mut balancer, &listener_name(&service), &OwnedFd::from(listener), None);
    assert_eq!(client.answer("GET").text(), "ok");
    // 10 ms on a quiet machine, a shell's start included; the bound is for a busy one and a debug build.
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
