//! Where one HTTP/1 request ends and the next begins, read off the bytes before hyper gets them.
//!
//! hyper forgives what must not be forgiven in a proxy: it ends a line at a bare LF, and when both
//! `Content-Length` and `Transfer-Encoding` are present it drops one unseen. A server behind us or a
//! proxy before us may forgive differently, and the difference is request smuggling. So the bytes pass
//! through this strict reader first; it changes nothing, it only refuses.
//!
//! Invariants:
//! * No head reaches hyper whole that has a bare LF, a folded line, both length fields, a repeated
//!   `Transfer-Encoding` or one other than `chunked`, or a `Content-Length` that is not one number.
//! * After a violation nothing more is read from the connection.
//! * After a head with `Upgrade` the bytes are no longer looked at: the caller must close the
//!   connection after the answer unless it becomes a tunnel.

/// Longest line of a chunked body's framing (size with extensions) or of its trailers. Sizes take 16
/// digits; extensions are hardly used.
const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;

/// Longest body that can be told in `Content-Length`: 19 digits stay below 2^64.
const CONTENT_LENGTH_DIGITS_MAX: usize = 19;

/// Reads the framing of one connection's requests.
#[derive(Debug)]
pub(crate) struct RequestFraming {
    expected: Expected,
    /// The line's bytes that came with earlier reads.
    partial: Vec<u8>,
    head: HeadFields,
    head_line_bytes_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    RequestLine,
    Field,
    Body { remaining: u64 },
    ChunkSize,
    ChunkData { remaining: u64 },
    ChunkEnd,
    Trailer,
    Anything,
}

/// What the fields seen so far say about the body.
#[derive(Debug, Default)]
struct HeadFields {
    content_length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

/// Why a connection's bytes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// In a head. The first `valid` bytes of this read belong to earlier requests.
    Head { valid: usize },
    /// In a body's framing.
    Body,
}

impl RequestFraming {
    pub(crate) fn new(head_line_bytes_max: usize) -> Self {
        Self { expected: Expected::RequestLine, partial: Vec::new(), head: HeadFields::default(), head_line_bytes_max }
    }

    /// Whether a head has begun and not ended.
    pub(crate) fn in_head(&self) -> bool {
        match self.expected {
            Expected::Field => true,
            Expected::RequestLine => !self.partial.is_empty(),
            _ => false,
        }
    }

    /// Reads the connection's next bytes.
    pub(crate) fn observe(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let mut position = 0;
        // Where the head that is being read starts among these bytes; 0 if it came earlier.
        let mut head_start = 0;
        while position < bytes.len() {
            let rest = &bytes[position..];
            match &mut self.expected {
                Expected::Anything => return Ok(()),
                Expected::Body { remaining } | Expected::ChunkData { remaining } => {
                    let taken = rest.len().min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                    *remaining -= taken as u64;
                    position += taken;
                    if *remaining == 0 {
                        self.expected = match self.expected {
                            Expected::ChunkData { .. } => Expected::ChunkEnd,
                            _ => Expected::RequestLine,
                        };
                    }
                }
                Expected::RequestLine
                | Expected::Field
                | Expected::ChunkSize
                | Expected::ChunkEnd
                | Expected::Trailer => {
                    if self.expected == Expected::RequestLine && self.partial.is_empty() {
                        head_start = position;
                    }
                    let end = rest.iter().position(|&byte| byte == b'\n');
                    let taken = end.map_or(rest.len(), |end| end + 1);
                    self.line_part(&rest[..taken], end.is_some()).ok_or_else(|| self.violation(head_start))?;
                    position += taken;
                }
            }
        }
        Ok(())
    }

    fn violation(&self, head_start: usize) -> Violation {
        match self.expected {
            Expected::RequestLine | Expected::Field => Violation::Head { valid: head_start },
            _ => Violation::Body,
        }
    }

    /// Takes a part of a line; `None` if the line is refused.
    fn line_part(&mut self, part: &[u8], ends: bool) -> Option<()> {
        let bytes_max = match self.expected {
            Expected::RequestLine | Expected::Field => self.head_line_bytes_max,
            _ => CHUNK_LINE_BYTES_MAX,
        };
        if self.partial.len() + part.len() > bytes_max {
            return None;
        }
        if !ends {
            self.partial.extend_from_slice(part);
            return Some(());
        }
        if self.partial.is_empty() {
            return self.line(part.strip_suffix(b"\r\n")?);
        }
        let mut line = std::mem::take(&mut self.partial);
        line.extend_from_slice(part);
        let read = line.strip_suffix(b"\r\n").and_then(|line| self.line(line));
        line.clear();
        self.partial = line;
        read
    }

    fn line(&mut self, line: &[u8]) -> Option<()> {
        self.expected = match self.expected {
            // RFC 9112, 2.2: an empty line before the request line is ignored.
            Expected::RequestLine if line.is_empty() => Expected::RequestLine,
            Expected::RequestLine => Expected::Field,
            Expected::Field if line.is_empty() => std::mem::take(&mut self.head).body()?,
            Expected::Field => {
                self.head.field(line)?;
                Expected::Field
            }
            Expected::ChunkSize => match chunk_size(line)? {
                0 => Expected::Trailer,
                remaining => Expected::ChunkData { remaining },
            },
            Expected::ChunkEnd if line.is_empty() => Expected::ChunkSize,
            Expected::ChunkEnd => return None,
            Expected::Trailer if line.is_empty() => Expected::RequestLine,
            Expected::Trailer => {
                split_field(line)?;
                Expected::Trailer
            }
            data @ (Expected::Body { .. } | Expected::ChunkData { .. } | Expected::Anything) => data,
        };
        Some(())
    }
}

impl HeadFields {
    fn field(&mut self, line: &[u8]) -> Option<()> {
        let (name, value) = split_field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = content_length(value)?;
            if self.content_length.is_some_and(|earlier| earlier != length) {
                return None;
            }
            self.content_length = Some(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return None;
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        }
        Some(())
    }

    fn body(self) -> Option<Expected> {
        match (self.chunked, self.content_length) {
            (true, Some(_)) => None,
            _ if self.upgrade => Some(Expected::Anything),
            (true, None) => Some(Expected::ChunkSize),
            (false, None | Some(0)) => Some(Expected::RequestLine),
            (false, Some(remaining)) => Some(Expected::Body { remaining }),
        }
    }
}

/// A field's name and its value without surrounding white space. A line that starts with white space
/// (an obsolete fold) or has some before the colon has no valid name.
fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let valid = !name.is_empty() && !name.iter().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control());
    valid.then(|| (name, trim(value)))
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn content_length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    (digits && value.len() <= CONTENT_LENGTH_DIGITS_MAX).then(|| std::str::from_utf8(value).ok()?.parse().ok())?
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|&byte| byte == b';').next()?;
    let digits = !size.is_empty() && size.len() <= 16 && size.iter().all(u8::is_ascii_hexdigit);
    let extensions = &line[size.len()..];
    let clean = !extensions.iter().any(|&byte| byte != b'\t' && byte.is_ascii_control());
    (digits && clean).then(|| u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok())?
}

#[cfg(test)]
mod tests;
