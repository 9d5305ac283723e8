use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// A client that sends what it is told, byte by byte.
pub(crate) struct Client {
    pub(crate) stream: BufReader<TcpStream>,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The body came whole, by its framing.
    pub(crate) complete: bool,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn close(self) {
        self.stream.get_ref().shutdown(Shutdown::Both).unwrap();
    }

    /// A connection, if it is accepted.
    pub(crate) fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(super::PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self { stream: BufReader::new(stream) })
    }

    /// Sends a GET and reads the answer, if it comes whole.
    pub(crate) fn try_get(&mut self, path: &str) -> Option<Answer> {
        self.stream.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).ok()?;
        let line = self.stream.fill_buf().ok()?;
        (!line.is_empty()).then_some(())?;
        self.try_answer("GET").filter(|answer| answer.complete)
    }

    /// Sends a request and reads the answer.
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.answer("GET")
    }

    /// The next answer's head; `None` if the connection ends before.
    pub(crate) fn head(&mut self) -> Option<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match self.stream.read_line(&mut head) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error} after {head:?}"),
            }
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        Some(Answer { status, head, body: Vec::new(), complete: false })
    }

    /// The next answer.
    pub(crate) fn answer(&mut self, method: &str) -> Answer {
        self.try_answer(method).expect("an answer before the connection's end")
    }

    pub(crate) fn try_answer(&mut self, method: &str) -> Option<Answer> {
        let mut answer = self.head()?;
        if method == "HEAD" || matches!(answer.status, 100..200 | 204 | 304) {
            answer.complete = true;
        } else if let Some(length) = answer.field("content-length") {
            let length: u64 = length.parse().unwrap();
            let read = (&mut self.stream).take(length).read_to_end(&mut answer.body);
            answer.complete = read.is_ok_and(|read| read as u64 == length);
        } else if answer.field("transfer-encoding") == Some("chunked") {
            answer.complete = self.chunks(&mut answer.body).is_some();
        } else {
            answer.complete = self.stream.read_to_end(&mut answer.body).is_ok();
        }
        Some(answer)
    }

    /// Reads chunks to the last; trailers are appended as they came.
    fn chunks(&mut self, body: &mut Vec<u8>) -> Option<()> {
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                break;
            }
            body.extend(chunk);
        }
        loop {
            let line = self.line()?;
            if line == "\r\n" {
                return Some(());
            }
            body.extend(line.as_bytes());
        }
    }

    /// The next chunk; empty for the last. `None` if the connection ends instead.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line()?;
        let size = u64::from_str_radix(line.trim_end(), 16).ok()?;
        let mut chunk = Vec::new();
        if size > 0 {
            (&mut self.stream).take(size).read_to_end(&mut chunk).ok()?;
            (chunk.len() as u64 == size && self.line()? == "\r\n").then_some(())?;
        }
        Some(chunk)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.stream.read_line(&mut line).ok()? > 0).then_some(line)
    }

    /// Whether the connection ends without more bytes and without a reset.
    pub(crate) fn has_ended_in_order(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
    }

    /// Whether the connection has ended without more bytes.
    pub(crate) fn has_ended(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// One GET on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    Client::connect(address).ask(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
}

/// The same, if the connection is accepted and answered.
pub(crate) fn try_get(address: SocketAddr, path: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(super::PATIENCE)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    Client { stream: BufReader::new(stream) }.try_answer("GET").filter(|answer| answer.complete)
}
