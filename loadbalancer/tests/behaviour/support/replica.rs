use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A server whose every connection is handled by a closure, on a thread of its own.
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<Recorded>>>,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

/// A request as its bytes came.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Recorded {
    pub(crate) fn request_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The values of a field, in order.
    pub(crate) fn fields(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

impl Replica {
    pub(crate) fn start(handle: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        Self::start_at(super::free_address(), handle)
    }

    pub(crate) fn start_at(address: SocketAddr, handle: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        // A listener that was just closed may live on for a moment in a child that is being started.
        let listener = super::eventually("a free address", || TcpListener::bind(address).ok());
        let log = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let (handle, shared, stop) = (Arc::new(handle), Arc::clone(&log), Arc::clone(&stopping));
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
                let (handle, log) = (Arc::clone(&handle), Arc::clone(&shared));
                std::thread::spawn(move || handle(&mut Peer { stream: BufReader::new(stream), log }));
            }
        });
        Self { address, log, stopping, accepting: Some(accepting) }
    }

    /// Answers every request with 200 and this body, on connections that stay open.
    pub(crate) fn saying(body: &'static str) -> Self {
        Self::start(move |peer| while peer.read_request().is_some_and(|_| peer.reply(body)) {})
    }

    /// The requests that came so far.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn only_request(&self) -> Recorded {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.into_iter().next().unwrap()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// The load balancer's end of one connection, as a replica sees it.
pub(crate) struct Peer {
    pub(crate) stream: BufReader<TcpStream>,
    log: Arc<Mutex<Vec<Recorded>>>,
}

impl Peer {
    /// The next head, recorded without its body; `None` when the connection ends.
    pub(crate) fn read_head(&mut self) -> Option<Recorded> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let recorded = Recorded { head, body: Vec::new() };
        self.log.lock().unwrap().push(recorded.clone());
        Some(recorded)
    }

    /// The next request with its body, as sent: chunked bodies with their chunks.
    pub(crate) fn read_request(&mut self) -> Option<Recorded> {
        let mut recorded = self.read_head()?;
        if let Some(length) = recorded.fields("content-length").first() {
            recorded.body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut recorded.body).ok()?;
        } else if recorded.fields("transfer-encoding") == ["chunked"] {
            let mut body = String::new();
            while !(body.ends_with("\r\n\r\n") && (body.starts_with("0\r\n") || body.contains("\r\n0\r\n"))) {
                if self.stream.read_line(&mut body).ok()? == 0 {
                    return None;
                }
            }
            recorded.body = body.into_bytes();
        }
        *self.log.lock().unwrap().last_mut().unwrap() = recorded.clone();
        Some(recorded)
    }

    /// Sends bytes; false when the connection is gone.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    pub(crate) fn reply(&mut self, body: &str) -> bool {
        self.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    /// Waits until the load balancer closes the connection.
    pub(crate) fn wait_for_end(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    }

    /// Closes with a reset.
    pub(crate) fn reset(&mut self) {
        socket2::SockRef::from(self.stream.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
    }
}
