//! What a replica finds at `localhost`: itself on the ports that its service declares, everybody else on
//! the others.

use crate::support::{Home, Replica, eventually, running};
use skyserve_model::launch::LaunchSpec;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

/// Python that answers every connection to `PORT_DECLARED` with the replica's name.
const SERVER: &str = r#"
import os, socket
server = socket.create_server(("0.0.0.0", int(os.environ["PORT_DECLARED"])))
name = os.environ["NAME"].encode()
while True:
    connection, _ = server.accept()
    connection.sendall(name)
    connection.close()
"#;

/// What every client begins with: `see` prints who answers.
const CLIENT: &str = r#"
import asyncio, ctypes, mmap, os, socket, struct
port = int(os.environ["PORT_DECLARED"])
def see(what, connect):
    try:
        with connect() as connection: answer = connection.makefile().read()
    except OSError as error:
        answer = os.strerror(error.errno)
    print(f"{what}: {answer}.")
def connected(family, address, prepare = lambda s: None, kind = socket.SOCK_STREAM):
    connection = socket.socket(family, kind)
    prepare(connection)
    connection.connect(address)
    return connection
"#;

/// A replica that declares `port`, whose commands know the two programs as `$SERVER` and `$CLIENT`.
fn spec(uid: &str, port: u16, run: &str) -> LaunchSpec {
    let mut spec = running(uid, run);
    (spec.port, spec.ports) = (port, vec![port]);
    for (name, value) in [
        ("PORT_DECLARED", port.to_string()),
        ("NAME", uid.into()),
        ("SERVER", SERVER.into()),
        ("CLIENT", CLIENT.into()),
    ] {
        spec.envs.insert(name.into(), value);
    }
    spec
}

/// Waits until the replica has printed all that it saw.
fn seen(replica: &Replica<'_>) -> String {
    eventually("the replica has looked", || {
        let output = replica.output();
        if replica.folder.read_exit().unwrap().is_some() {
            panic!("it ended: {output}");
        }
        output.contains("all seen").then_some(output)
    })
}

/// Answers connections to a listener with `stranger` as long as the test program runs.
fn stranger(listener: &TcpListener) {
    let listener = listener.try_clone().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(b"stranger");
        }
    });
}

fn answer_at(address: SocketAddr) -> String {
    let mut answer = String::new();
    TcpStream::connect(address).unwrap().read_to_string(&mut answer).unwrap();
    answer
}

/// As a run script does that wants its server to be up before it goes on.
const WAITS_FOR_ITSELF: &str = r#"
python3 -c "$SERVER" &
until (exec 3<>/dev/tcp/127.0.0.1/$PORT_DECLARED) 2>/dev/null; do sleep 0.02; done
touch up
until [ -e go ]; do sleep 0.02; done
python3 -c "$CLIENT"'
for host in ("127.0.0.1", "localhost", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"):
    see(host, lambda: socket.create_connection((host, port)))
print("all seen")
'
wait
"#;

fn two_replicas_reach_themselves(home: &Home, names: [&str; 2]) {
    let replicas = names.map(|name| home.replica(spec(name, 8080, WAITS_FOR_ITSELF)));
    for replica in &replicas {
        replica.start();
    }
    for replica in &replicas {
        eventually("its script goes on", || replica.folder.work_dir().join("up").exists().then_some(()));
    }
    for replica in &replicas {
        fs::write(replica.folder.work_dir().join("go"), "").unwrap();
    }
    for (replica, name) in replicas.iter().zip(names) {
        let output = seen(replica);
        for host in ["127.0.0.1", "localhost", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"] {
            assert!(output.contains(&format!("{host}: {name}.\n")), "{host}\n{output}");
        }
        assert_eq!(answer_at(replica.running()), name);
        replica.terminate(500);
    }
}

#[test]
fn two_replicas_find_themselves_and_not_each_other_at_localhost() {
    two_replicas_reach_themselves(&Home::new(), ["self-1-1", "self-1-2"]);
}

#[test]
fn two_replicas_of_an_unprivileged_user_find_themselves_too() {
    two_replicas_reach_themselves(&Home::unprivileged(), ["own-1-1", "own-1-2"]);
}

#[test]
fn a_declared_port_is_never_a_strangers_and_every_other_port_and_host_is_still_theirs() {
    let home = Home::new();
    let same = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, port) = (same.local_addr().unwrap(), same.local_addr().unwrap().port());
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = TcpListener::bind(("127.0.0.2", port)).unwrap();
    for listener in [&same, &other, &elsewhere] {
        stranger(listener);
    }
    let datagrams = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let run = r#"python3 -c "$CLIENT"'see("too early", lambda: socket.create_connection(("127.0.0.1", port)))'
python3 -c "$SERVER" &
until (exec 3<>/dev/tcp/localhost/$PORT_DECLARED) 2>/dev/null; do sleep 0.02; done
python3 -c "$CLIENT"'
see("same", lambda: socket.create_connection(("127.0.0.1", port)))
see("other port", lambda: socket.create_connection(("localhost", int(os.environ["OTHER"]))))
see("other host", lambda: socket.create_connection(("127.0.0.2", port)))
see("nobody", lambda: socket.create_connection(("127.0.0.2", 1)))
see("no such file", lambda: connected(socket.AF_UNIX, "nothing.sock"))
connected(socket.AF_INET, ("127.0.0.1", port), kind = socket.SOCK_DGRAM).send(b"datagram")
print("all seen")
'
wait
"#;
    let mut launch = spec("stranger-1-1", port, run);
    launch.envs.insert("OTHER".into(), other.local_addr().unwrap().port().to_string());
    let replica = home.replica(launch);
    let output = seen(replica.start());
    for expected in [
        "too early: Connection refused.",
        "same: stranger-1-1.",
        "other port: stranger.",
        "other host: stranger.",
        "nobody: Connection refused.",
        "no such file: No such file or directory.",
    ] {
        assert!(output.contains(expected), "{expected}\n{output}");
    }
    let mut buffer = [0; 16];
    let length = datagrams.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"datagram");
    // Whoever is not the replica finds the stranger there: it is the replica's calls that are redirected.
    assert_eq!(answer_at(address), "stranger");
    replica.terminate(500);
}

#[test]
fn sockets_of_every_kind_follow_the_server_or_are_left_as_they_were() {
    let home = Home::new();
    let same = TcpListener::bind("127.0.0.1:0").unwrap();
    stranger(&same);
    let run = r#"python3 -c "$SERVER" &
until (exec 3<>/dev/tcp/localhost/$PORT_DECLARED) 2>/dev/null; do sleep 0.02; done
python3 -c "$CLIENT"'
import threading
six = socket.AF_INET6
v6_only = lambda s: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
see("v6 only", lambda: connected(six, ("::1", port), v6_only))
see("from ::1", lambda: connected(six, ("::1", port), lambda s: s.bind(("::1", 0))))
see("from 127.0.0.1", lambda: socket.create_connection(("127.0.0.1", port), source_address = ("127.0.0.1", 0)))
see("with timeout", lambda: socket.create_connection(("localhost", port), timeout = 20))
async def without_waiting():
    reader, writer = await asyncio.open_connection("localhost", port)
    print(f"asyncio: {(await reader.read()).decode()}.")
    writer.close()
asyncio.run(without_waiting())
thread = threading.Thread(target = lambda: see("thread", lambda: socket.create_connection(("127.0.0.1", port))))
thread.start(); thread.join()

# An address in memory that nobody can write to.
file = os.memfd_create("address")
os.write(file, struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + bytes([127, 0, 0, 1]) + bytes(8))
libc = ctypes.CDLL(None, use_errno = True)
libc.mmap.restype = ctypes.c_void_p
address = libc.mmap(None, ctypes.c_size_t(16), mmap.PROT_READ, mmap.MAP_SHARED, file, ctypes.c_long(0))
def from_fixed_memory():
    connection = socket.socket()
    if libc.connect(connection.fileno(), ctypes.c_void_p(address), 16): raise OSError(ctypes.get_errno(), "connect")
    return connection
see("fixed memory", from_fixed_memory)
print("all seen")
'
wait
"#;
    let replica = home.replica(spec("kinds-1-1", same.local_addr().unwrap().port(), run));
    let output = seen(replica.start());
    for expected in [
        "v6 only: kinds-1-1.",
        "from ::1: Connection refused.",
        "from 127.0.0.1: kinds-1-1.",
        "with timeout: kinds-1-1.",
        "asyncio: kinds-1-1.",
        "thread: kinds-1-1.",
        "fixed memory: stranger.",
    ] {
        assert!(output.contains(expected), "{expected}\n{output}");
    }
    replica.terminate(500);
}

#[test]
fn a_replica_whose_port_another_program_has_on_every_address_still_finds_itself() {
    let home = Home::new();
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    stranger(&everywhere);
    let port = everywhere.local_addr().unwrap().port();
    let replica = home.replica(spec("busy-1-1", port, WAITS_FOR_ITSELF));
    replica.start();
    eventually("its script goes on", || replica.folder.work_dir().join("up").exists().then_some(()));
    fs::write(replica.folder.work_dir().join("go"), "").unwrap();
    let output = seen(&replica);
    for host in ["127.0.0.1", "::1"] {
        assert!(output.contains(&format!("{host}: busy-1-1.\n")), "{host}\n{output}");
    }
    assert_ne!(replica.running().port(), port);
    replica.terminate(500);
}

#[test]
fn without_isolation_localhost_is_the_machines() {
    let home = Home::new();
    let same = TcpListener::bind("127.0.0.1:0").unwrap();
    stranger(&same);
    let run = r#"python3 -c "$CLIENT"'
see("declared", lambda: socket.create_connection(("127.0.0.1", port)))
see("port to use", lambda: socket.create_connection(("127.0.0.1", int(os.environ["PORT"]))))
print("all seen")
'
sleep 1000"#;
    let replica = home.replica(spec("shared-1-1", same.local_addr().unwrap().port(), run));
    assert!(replica.start_with(&["--no-port-isolation"]).success());
    let output = seen(&replica);
    assert!(output.contains("declared: stranger."), "{output}");
    assert!(output.contains("port to use: Connection refused."), "{output}");
    replica.terminate(500);
}
