//! One pod is replaced by another behind what sends requests to either, as kube-proxy does: it learns late that the
//! new one is ready, and connections that are open stay where they are.

use crate::support::{Balancer, Client, PATIENCE, Replica, eventually, free_address, get, service};
use nix::sys::signal::Signal;
use skyserve_routes::ServiceRoutes;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long it takes until new connections go to a pod that has become ready.
const PROPAGATION: Duration = Duration::from_millis(400);
/// Requests on one connection before the client opens another.
const KEPT_FOR: usize = 200;

/// Passes each new connection on to one pod.
struct KubeProxy {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
}

impl KubeProxy {
    fn start(target: SocketAddr) -> Self {
        let (address, target) = (free_address(), Arc::new(Mutex::new(target)));
        let listener = TcpListener::bind(address).unwrap();
        let shared = Arc::clone(&target);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let target = *shared.lock().unwrap();
                // A pod that refuses: so is the client.
                let Ok(pod) = TcpStream::connect(target) else { continue };
                for stream in [&client, &pod] {
                    stream.set_nodelay(true).unwrap();
                }
                let (from, to) = (client.try_clone().unwrap(), pod.try_clone().unwrap());
                std::thread::spawn(move || pass(&from, &to));
                std::thread::spawn(move || pass(&pod, &client));
            }
        });
        Self { address, target }
    }

    fn turn_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// Clients that ask without pause: some on a connection each time, some on connections that they keep.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let mut load =
            Self { stop: Arc::default(), served: Arc::default(), failed: Arc::default(), clients: Vec::new() };
        for requests in [1, 1, KEPT_FOR, KEPT_FOR] {
            let (stop, served, failed) = (load.stop.clone(), load.served.clone(), load.failed.clone());
            load.clients.push(std::thread::spawn(move || {
                while !stop.load(SeqCst) {
                    match ask(address, requests, &stop) {
                        Ok(count) => drop(served.fetch_add(count, SeqCst)),
                        Err(()) => drop(failed.fetch_add(1, SeqCst)),
                    }
                }
            }));
        }
        load
    }

    fn await_more(&self) {
        let before = self.served.load(SeqCst);
        eventually("more requests served", || (self.served.load(SeqCst) >= before + 4 * KEPT_FOR).then_some(()));
    }

    /// The requests that failed.
    fn end(self) -> usize {
        self.stop.store(true, SeqCst);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        self.failed.load(SeqCst)
    }
}

/// So many requests on one connection, or fewer if the server wants it closed.
fn ask(address: SocketAddr, requests: usize, stop: &AtomicBool) -> Result<usize, ()> {
    let mut client = Client::try_connect(address).ok_or(())?;
    for count in 1..=requests {
        let answer = client.try_get("/").filter(|answer| answer.status == 200).ok_or(())?;
        if answer.field("connection") == Some("close") || stop.load(SeqCst) {
            return Ok(count);
        }
    }
    Ok(requests)
}

struct Replaced {
    failed: usize,
    /// Whether the old one was still there when new connections went to the new one.
    old_was_needed: bool,
}

/// Replaces a pod under load; `ends` is how the old one is told to.
fn replace(ends: Signal) -> Replaced {
    let replica = Replica::saying("ok");
    let old_routes = service("replaced", &[&replica]);
    let new_routes = ServiceRoutes { listen: free_address(), ..old_routes.clone() };
    let proxy = KubeProxy::start(old_routes.listen);
    let settings =
        ["has_successor=true", "ready_while_draining=true", "drain_quiet_ms=300", "successor_settle_ms=1000"];
    let mut old = Balancer::start(&[&old_routes], &settings);
    let load = Load::on(proxy.address);
    load.await_more();

    old.signal(ends);
    let mut new = Balancer::prepare(&[]);
    // What the new pod finds on the volume is the old controller's table.
    new.publish(&[&new_routes]);
    new.spawn(|_| {});
    let metrics_address = new.await_report().metrics_address.unwrap();
    eventually("the new pod is ready", || (get(metrics_address, "/readyz").status == 200).then_some(()));
    // Its controller, too, is there before requests are.
    for (pod, routes) in [(&old, &old_routes), (&new, &new_routes)] {
        pod.publish_version(2, 1, &[routes]);
    }
    std::thread::sleep(PROPAGATION);
    let old_was_needed = old.has_ended().is_none();
    proxy.turn_to(new_routes.listen);
    load.await_more();
    assert!(old.ended().success() || ends != Signal::SIGTERM);
    load.await_more();
    Replaced { failed: load.end(), old_was_needed }
}

#[test]
fn a_pod_is_replaced_under_load_and_no_request_fails() {
    let replaced = replace(Signal::SIGTERM);
    assert!(replaced.old_was_needed);
    assert_eq!(replaced.failed, 0);
}

/// That the test above can fail.
#[test]
fn a_pod_that_leaves_at_once_fails_requests() {
    let replaced = replace(Signal::SIGKILL);
    assert!(!replaced.old_was_needed);
    assert!(replaced.failed > 0);
}

#[test]
fn requests_that_come_seldom_do_not_let_the_old_pod_go_before_the_new_one_is_known() {
    let replica = Replica::saying("ok");
    let routes = service("seldom", &[&replica]);
    let settings = ["has_successor=true", "drain_quiet_ms=100", "successor_settle_ms=1000"];
    let mut old = Balancer::start(&[&routes], &settings);
    let mut bare = TcpStream::connect(routes.listen).unwrap();
    bare.set_read_timeout(Some(PATIENCE)).unwrap();
    old.signal(Signal::SIGTERM);
    old.publish_version(2, 1, &[&routes]);
    eventually("the later table", || (old.report().table?.epoch == 2).then_some(()));
    // Quiet for longer than its quiet time, and then somebody asks.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(get(routes.listen, "/").text(), "ok");
    // A connection on which nothing ever came is closed in order, too.
    assert_eq!(io::Read::read(&mut bare, &mut [0]).unwrap(), 0);
    drop(bare);
    assert!(old.ended().success());
}
