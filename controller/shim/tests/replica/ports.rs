//! Replicas that listen on the same port, with and without an address of their own.

use crate::support::{Home, eventually, free_port, get, running};
use std::net::{SocketAddr, TcpListener};

fn serve_8080(flags: &str) -> String {
    format!("exec python3 -m http.server 8080 {flags}")
}

fn two_replicas_share_a_port(home: &Home, names: [&str; 2]) {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let outside = elsewhere.local_addr().unwrap();
    let connect = format!("(exec 3<>/dev/tcp/127.0.0.1/{}) && echo reached\n", outside.port());
    let first = home.replica(running(names[0], &(connect + &serve_8080("--bind 0.0.0.0"))));
    let second = home.replica(running(names[1], &serve_8080("--bind ::")));
    first.start();
    second.start();
    let (one, two) = (first.running(), second.running());
    assert_ne!(one.ip(), two.ip());
    assert_eq!((one.port(), two.port()), (8080, 8080));
    assert!(get(one).contains("200"), "{}", first.output());
    assert!(get(two).contains("200"), "{}", second.output());
    eventually("the network outside works", || first.output().contains("reached").then_some(()));
    first.terminate(1_000);
    assert!(get(two).contains("200"), "the other goes on");
    second.terminate(1_000);
}

#[test]
fn two_replicas_listen_on_port_8080_of_one_machine() {
    two_replicas_share_a_port(&Home::new(), ["same-1-1", "same-1-2"]);
}

#[test]
fn two_replicas_of_an_unprivileged_user_listen_on_port_8080_too() {
    two_replicas_share_a_port(&Home::unprivileged(), ["plain-1-1", "plain-1-2"]);
}

#[test]
fn a_bind_from_a_second_thread_and_one_to_a_port_not_declared_work() {
    let home = Home::new();
    let other = free_port();
    let run = format!(
        r#"exec python3 -c '
import socket, threading
def serve():
    s = socket.create_server(("0.0.0.0", 8080))
    o = socket.create_server(("127.0.0.1", {other}))
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", 0))
    print(o.getsockname()[0], u.getsockname()[0], flush=True)
    while True:
        c, _ = s.accept(); c.recv(100); c.sendall(b"HTTP/1.0 204 x\r\n\r\n"); c.close()
t = threading.Thread(target=serve); t.start(); t.join()
'"#
    );
    let replica = home.replica(running("thread-1-1", &run));
    replica.start();
    assert!(get(replica.running()).contains("204"), "{}", replica.output());
    eventually("the other binds were not moved", || replica.output().contains("127.0.0.1 127.0.0.1").then_some(()));
    replica.terminate(500);
}

#[test]
fn a_port_in_use_within_the_replica_is_reported_to_it_as_ever() {
    let home = Home::new();
    let run = r#"python3 -c '
import socket, errno
a = socket.create_server(("0.0.0.0", 8080))
try: socket.create_server(("0.0.0.0", 8080))
except OSError as e: print("second:", errno.errorcode[e.errno])
'"#;
    let replica = home.replica(running("twice-1-1", run));
    replica.start().ended();
    assert!(replica.output().contains("second: EADDRINUSE"), "{}", replica.output());
}

#[test]
fn a_daemon_of_setup_can_still_bind_while_run_runs() {
    let home = Home::new();
    let mut launch = running("later-1-1", "touch go; sleep 1000");
    let wait = "(while [ ! -e go ]; do sleep 0.02; done; exec python3 -m http.server 8080) > /dev/null 2>&1 &";
    launch.setup = Some(wait.into());
    let replica = home.replica(launch);
    replica.start();
    assert!(get(replica.running()).contains("200"), "{}", replica.output());
    replica.terminate(500);
}

#[test]
fn without_isolation_port_names_a_free_port_and_a_service_that_ignores_it_is_told() {
    let home = Home::new();
    let good = home.replica(running("port-1-1", "exec python3 -m http.server $PORT"));
    assert!(good.start_with(&["--no-port-isolation"]).success());
    let address = good.running();
    assert_eq!(address.ip(), SocketAddr::from(([127, 0, 0, 1], 0)).ip());
    assert_ne!(address.port(), 8080);
    assert!(get(address).contains("200"), "{}", good.output());
    good.terminate(1_000);

    let bad = home.replica(running("port-1-2", "echo $SKYPILOT_SERVE_REPLICA_PORT; exit 1"));
    assert!(bad.start_with(&["--no-port-isolation"]).success());
    let exit = bad.ended();
    assert!(exit.ended.reason.contains("PORT (or SKYPILOT_SERVE_REPLICA_PORT)"), "{exit:?}");
    assert!(bad.state().notes[0].contains("SKYPILOT_SERVE_REPLICA_PORT"));
    eventually("the log says so", || bad.output().contains("SKYPILOT_SERVE_REPLICA_PORT").then_some(()));
}
