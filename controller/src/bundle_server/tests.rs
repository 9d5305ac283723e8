use super::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

const TOKEN: &str = "0123456789abcdef";

/// A server of one bundle, on a thread of its own; gives the bundle's name.
fn served(content: &[u8]) -> (tempfile::TempDir, SocketAddr, String) {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::at(temp.path(), temp.path().join("run"));
    home.make_dirs().unwrap();
    let digest = "a".repeat(64);
    std::fs::write(home.bundles_dir().join(format!("{digest}.tar")), content).unwrap();
    std::fs::write(temp.path().join("secret"), "hush").unwrap();
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            serve(listener, home, TOKEN.to_owned()).await;
        });
    });
    (temp, address.recv().unwrap(), digest)
}

fn ask(address: SocketAddr, request: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

fn status(answer: &[u8]) -> &str {
    std::str::from_utf8(&answer[9..12]).unwrap()
}

fn request(method: &str, path: &str, token: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
}

#[test]
fn a_bundle_comes_whole_to_whoever_has_the_token() {
    let content: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    let (_temp, address, digest) = served(&content);
    let answer = ask(address, &request("GET", &format!("/bundles/{digest}"), TOKEN));
    assert_eq!(status(&answer), "200");
    assert!(answer.ends_with(&content));
    let head = ask(address, &request("HEAD", &format!("/bundles/{digest}"), TOKEN));
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.contains("content-length: 300000") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn nothing_else_comes_from_it() {
    let (_temp, address, digest) = served(b"x");
    let bundle = format!("/bundles/{digest}");
    let refused = [
        (request("GET", &bundle, "0123456789abcdeX"), "401"),
        (request("GET", &bundle, ""), "401"),
        (format!("GET {bundle} HTTP/1.1\r\nHost: x\r\n\r\n"), "401"),
        // Who has no token learns nothing about what is there.
        (request("GET", "/bundles/none", "wrong"), "401"),
        (request("GET", &format!("/bundles/{}", "b".repeat(64)), TOKEN), "404"),
        (request("GET", "/bundles/../../../../secret", TOKEN), "404"),
        (request("GET", "/", TOKEN), "404"),
        (request("PUT", &bundle, TOKEN), "405"),
        (format!("GET {bundle} HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(2 * HEADER_BYTES_MAX)), "431"),
    ];
    for (request, expected) in refused {
        assert_eq!(status(&ask(address, &request)), expected, "{request:.80}");
    }
}
