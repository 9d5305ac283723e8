use super::*;

const HEAD_LINE_BYTES_MAX: usize = 1024;

fn observe_in_pieces(bytes: &[u8], size: usize) -> Result<RequestFraming, Violation> {
    let mut framing = RequestFraming::new(HEAD_LINE_BYTES_MAX);
    for piece in bytes.chunks(size) {
        framing.observe(piece)?;
    }
    Ok(framing)
}

const ACCEPTED: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\ncontent-length:\t0 \r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\na\nb",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\na\nb\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n",
    b"GET / HTTP/1.1\r\nX:\r\nY: a:b\r\n\r\n",
];

const REFUSED: &[&[u8]] = &[
    b"GET / HTTP/1.1\nHost: a\n\n",
    b"GET / HTTP/1.1\r\nHost: a\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET / HTTP/1.1\r\n: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\nUpgrade: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 0x3\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n",
];

const REFUSED_IN_BODY: &[&[u8]] = &[
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n 3\r\nabc\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\nabc\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nbad trailer: x\r\n\r\n",
];

#[test]
fn well_framed_requests_pass_however_they_are_cut() {
    for bytes in ACCEPTED {
        for size in 1..=bytes.len() {
            let framing = observe_in_pieces(bytes, size);
            let framing = framing.unwrap_or_else(|_| panic!("{:?} in {size}", String::from_utf8_lossy(bytes)));
            assert_eq!(framing.expected, Expected::RequestLine, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}

#[test]
fn ambiguous_heads_are_refused_however_they_are_cut() {
    for bytes in REFUSED {
        for size in 1..=bytes.len() {
            let refused = observe_in_pieces(bytes, size).err();
            assert_eq!(refused, Some(Violation::Head { valid: 0 }), "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}

#[test]
fn ambiguous_chunks_are_refused_however_they_are_cut() {
    for bytes in REFUSED_IN_BODY {
        for size in 1..=bytes.len() {
            let refused = observe_in_pieces(bytes, size).err();
            assert_eq!(refused, Some(Violation::Body), "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}

#[test]
fn a_violation_tells_where_the_refused_head_starts() {
    let first = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
    let both = [first.as_slice(), b"GET /2 HTTP/1.1\nHost: a\r\n\r\n"].concat();
    assert_eq!(observe_in_pieces(&both, both.len()).err(), Some(Violation::Head { valid: first.len() }));
}

#[test]
fn a_line_without_end_is_refused_at_its_bound() {
    let endless = vec![b'a'; HEAD_LINE_BYTES_MAX + 1];
    assert!(observe_in_pieces(&endless, 100).is_err());
    assert!(observe_in_pieces(&endless[..HEAD_LINE_BYTES_MAX], 100).is_ok());
}

#[test]
fn bytes_after_an_upgrade_are_not_looked_at() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n\n\n\x00\xff";
    assert!(observe_in_pieces(bytes, bytes.len()).is_ok());
}

#[test]
fn a_head_is_under_way_from_its_first_byte_to_its_last() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut framing = RequestFraming::new(HEAD_LINE_BYTES_MAX);
    assert!(!framing.in_head());
    for (index, byte) in head.iter().enumerate() {
        framing.observe(&[*byte]).unwrap();
        assert_eq!(framing.in_head(), index + 1 < head.len(), "after byte {index}");
    }
}
