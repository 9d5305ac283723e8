//! From a configuration to a client, with a bound on every wait.
//!
//! The layers are those of kube's own `Client::try_from` (address, authorization, headers, retries), on a connection
//! that differs in three ways: names are resolved by [`crate::resolve`]; a peer that is gone is noticed by the kernel's
//! keep-alive, which is all that can be asked of a port-forward or a followed log, where silence is no sign of
//! anything (a silent watch is ended by kube's watcher); and an answer must begin within a bound that no stream is
//! held to.

use crate::connect::ConnectError;
use crate::resolve::NameResolver;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use std::time::Duration;
use tower::retry::RetryLayer;
use tower::timeout::TimeoutLayer;
use tower::{BoxError, Service, ServiceBuilder};

/// Longest time for a TCP connection, for all addresses of the name together.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for an answer's head, resolving and connecting included. The API server gives up on a request by
/// itself after 60 s (`--request-timeout`), and begins to answer a watch at once.
const ANSWER_WAIT: Duration = Duration::from_secs(70);
/// A connection silent for this long is tried by the kernel …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
/// … every so often …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// … and given up after this many tries: within a minute in all.
const KEEPALIVE_TRIES: u32 = 3;
/// Longest time for sent bytes to be acknowledged by the peer's kernel.
const UNACKNOWLEDGED: Duration = Duration::from_secs(50);

/// A server that is busy (429, 503, 504) is asked again so often, from the first pause to the last. It hides a hiccup;
/// what lasts longer is for the caller to know and to tell.
const RETRIES: u32 = 4;
const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(100);
const RETRY_PAUSE_LAST: Duration = Duration::from_secs(2);

/// A client for `config`. Asks nobody yet; runs the kubeconfig's credential plugin, if it has one.
pub(crate) fn client(config: Config) -> Result<Client, ConnectError> {
    // Rustls picks a provider by itself only while there is one to pick: a crate that brings another must not matter.
    // An error means that there is a choice already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut tcp = HttpConnector::new_with_resolver(NameResolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_WAIT));
    tcp.set_keepalive(Some(KEEPALIVE_IDLE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_TRIES));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    match config.proxy_url.clone() {
        None => layered(tcp, &config),
        Some(proxy) if is_plain_http(&proxy) => layered(Tunnel::new(proxy, tcp), &config),
        Some(proxy) => Err(ConnectError::Proxy(proxy.scheme_str().unwrap_or("unknown").to_owned())),
    }
}

fn is_plain_http(proxy: &http::Uri) -> bool {
    proxy.scheme_str() == Some("http") && proxy.authority().is_some_and(|authority| !authority.as_str().contains('@'))
}

fn layered<C>(connector: C, config: &Config) -> Result<Client, ConnectError>
where
    C: Service<http::Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: std::error::Error + Send + Sync + 'static,
{
    let https = config.rustls_https_connector_with_connector(connector).map_err(ConnectError::Client)?;
    let http: hyper_util::client::legacy::Client<_, Body> =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(https);
    // Its error is that of a backoff that shrinks.
    let retries = RetryPolicy::new(RETRY_PAUSE_FIRST, RETRY_PAUSE_LAST, RETRIES, true).ok();
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retries.map(RetryLayer::new))
        .option_layer(config.auth_layer().map_err(ConnectError::Client)?)
        .layer(config.extra_headers_layer().map_err(ConnectError::Client)?)
        .layer(TimeoutLayer::new(ANSWER_WAIT))
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

#[cfg(test)]
mod tests;
