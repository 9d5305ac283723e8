//! Fetches the uploaded files from the controller. It may be away just now (its pod is being replaced): that is waited
//! for, in the open.

use crate::say;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use skyserve_api::BUNDLE_BYTES_MAX;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// First pause after a failed attempt; it doubles up to the longest, which is what a person would wait.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Longest wait for a connection, for the answer's head, and for each further piece of the body.
const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// Attempts whose content may differ from its name: the controller's disk is then damaged, not the way to it.
const DAMAGED_MAX: u32 = 3;

/// Why there are no files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// No waiting mends it.
    #[error("{0}")]
    Final(String),
    #[error("{0}")]
    Later(String),
    #[error("the uploaded files are damaged (their SHA-256 is {found}, not {wanted}): run `up` or `update` again")]
    Damaged { found: String, wanted: String },
}

/// Where one bundle is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BundleUrl {
    address: SocketAddr,
    path: String,
}

impl BundleUrl {
    /// The bundle `digest` of the server at `base`, such as `http://10.0.0.7:9091`: an address, since nothing here
    /// resolves names.
    pub(crate) fn parse(base: &str, digest: &str) -> Result<Self, FetchError> {
        let wrong = || FetchError::Final(format!("{base:?} is not where files are: give http://IP:PORT"));
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
        let ip: IpAddr = host.trim_matches(['[', ']']).parse().map_err(|_| wrong())?;
        let port = uri.port_u16().ok_or_else(wrong)?;
        Ok(Self { address: SocketAddr::new(ip, port), path: format!("/bundles/{digest}") })
    }
}

/// Fetches the bundle to `path`, where it is whole or not at all.
pub(crate) async fn until_there(url: &BundleUrl, token: &str, digest: &str, path: &Path) -> Result<(), FetchError> {
    let (mut pause, mut damaged, mut told) = (PAUSE_MIN, 0, String::new());
    loop {
        let problem = match fetch(url, token, digest, path).await {
            Ok(()) => return Ok(()),
            Err(FetchError::Later(problem)) => problem,
            Err(error @ FetchError::Damaged { .. }) if damaged + 1 < DAMAGED_MAX => {
                damaged += 1;
                error.to_string()
            }
            Err(error) => return Err(error),
        };
        if problem != told {
            say(&format!("waiting for the uploaded files from the controller at {}: {problem}", url.address));
            told = problem;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn fetch(url: &BundleUrl, token: &str, digest: &str, path: &Path) -> Result<(), FetchError> {
    let answer = in_time(request(url, token)).await?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => {
            return Err(FetchError::Final(format!(
                "the controller does not have the uploaded files {digest} any more: run `up` or `update` again"
            )));
        }
        StatusCode::UNAUTHORIZED => {
            return Err(FetchError::Final("the controller does not take this replica's token any more".to_owned()));
        }
        other => return Err(FetchError::Later(format!("it answers {other}"))),
    }
    let partial = path.with_extension("partial");
    let found = store(answer.into_body(), &partial).await?;
    if found != digest {
        return Err(FetchError::Damaged { found, wanted: digest.to_owned() });
    }
    fs::rename(&partial, path).await.map_err(not_kept)
}

async fn request(url: &BundleUrl, token: &str) -> Result<Response<Incoming>, FetchError> {
    let later = |error: hyper::Error| FetchError::Later(error.to_string());
    let stream = TcpStream::connect(url.address).await.map_err(|error| FetchError::Later(error.to_string()))?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(later)?;
    // Ends with the answer's body.
    tokio::spawn(connection);
    let request = Request::get(&url.path)
        .header(HOST, url.address.to_string())
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Final(format!("the token for the uploaded files cannot be sent: {error}")))?;
    client.send_request(request).await.map_err(later)
}

/// Writes the body to a file; its SHA-256.
async fn store(mut body: Incoming, partial: &Path) -> Result<String, FetchError> {
    let mut file = File::create(partial).await.map_err(not_kept)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
    loop {
        let frame = in_time(async { Ok(body.frame().await) }).await?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| FetchError::Later(format!("the connection broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        bytes += data.len() as u64;
        if bytes > BUNDLE_BYTES_MAX {
            return Err(FetchError::Final(format!("the uploaded files have more than {BUNDLE_BYTES_MAX} bytes")));
        }
        hash.update(&data);
        file.write_all(&data).await.map_err(not_kept)?;
    }
    file.flush().await.map_err(not_kept)?;
    Ok(hex::encode(hash.finalize()))
}

async fn in_time<T>(work: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
    let late = |_| FetchError::Later(format!("no answer within {} s", ANSWER_WAIT.as_secs()));
    timeout(ANSWER_WAIT, work).await.map_err(late)?
}

fn not_kept(error: io::Error) -> FetchError {
    FetchError::Final(format!("the uploaded files cannot be kept in the pod: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_an_address_and_a_port() {
        let url = BundleUrl::parse("http://10.0.0.7:9091", "abc").unwrap();
        assert_eq!(url, BundleUrl { address: "10.0.0.7:9091".parse().unwrap(), path: "/bundles/abc".into() });
        assert_eq!(BundleUrl::parse("http://[fd00::1]:80", "a").unwrap().address, "[fd00::1]:80".parse().unwrap());
        for wrong in ["", "10.0.0.7", "http://10.0.0.7", "https://10.0.0.7:1", "http://files:9091"] {
            assert!(matches!(BundleUrl::parse(wrong, "abc"), Err(FetchError::Final(_))), "{wrong}");
        }
    }
}
