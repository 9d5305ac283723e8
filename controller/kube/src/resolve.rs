//! Host names to addresses without the C library's resolver, which in a static binary may want NSS modules that an
//! image from scratch has not.
//!
//! Invariants:
//! * The order is that of `hosts: files dns`: an address is itself, then `/etc/hosts`, then `localhost`, then the name
//!   servers of `/etc/resolv.conf` with its search list.
//! * Both files are read for each lookup. Lookups are few, because connections are kept, and a laptop's name servers
//!   change with its network.
//! * A lookup ends within [`LOOKUP_WAIT`], and every error names the host.

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use hyper_util::client::legacy::connect::dns;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Longest time for one name: one round of resolv.conf's default (5 s, two more attempts), whatever its search list.
pub const LOOKUP_WAIT: Duration = Duration::from_secs(15);

const HOSTS_FILE: &str = "/etc/hosts";
const RESOLV_CONF_FILE: &str = "/etc/resolv.conf";
/// Where name servers listen; resolv.conf cannot say otherwise.
const DNS_PORT: u16 = 53;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("no host is called {host}: so say the name servers of {RESOLV_CONF_FILE} ({servers})")]
    NoSuchHost { host: String, servers: String },
    #[error("{host} has no address: so say the name servers of {RESOLV_CONF_FILE} ({servers})")]
    NoAddress { host: String, servers: String },
    #[error("the name servers of {RESOLV_CONF_FILE} ({servers}) did not answer about {host}")]
    NoAnswer { host: String, servers: String },
    #[error("{host} is not in {HOSTS_FILE}, and {RESOLV_CONF_FILE} is of no use: {reason}")]
    NoNameServer { host: String, reason: String },
    #[error("{host} cannot be resolved by the name servers of {RESOLV_CONF_FILE} ({servers}): {source}")]
    Failed { host: String, servers: String, source: NetError },
    #[error("{host:?} cannot be a host's name")]
    NotAName { host: String },
}

/// The addresses of `host`, best first.
///
/// # Errors
/// [`ResolveError`]; asking again may help with [`ResolveError::NoAnswer`] and [`ResolveError::Failed`] alone.
pub async fn resolve(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    Files::of_system().lookup(host).await
}

/// [`resolve`] for hyper-util's connector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NameResolver;

impl tower::Service<dns::Name> for NameResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: dns::Name) -> Self::Future {
        Box::pin(async move {
            let addresses = resolve(name.as_str()).await?;
            // The connector sets the port.
            let addresses: Vec<_> = addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
            Ok(addresses.into_iter())
        })
    }
}

/// What decides about names on this machine.
#[derive(Debug)]
struct Files {
    hosts: Vec<u8>,
    resolv_conf: Vec<u8>,
    dns_port: u16,
}

impl Files {
    /// A file that is not there is an empty one: so it is for the C library.
    fn of_system() -> Self {
        let read = |path| std::fs::read(path).unwrap_or_default();
        Self { hosts: read(HOSTS_FILE), resolv_conf: read(RESOLV_CONF_FILE), dns_port: DNS_PORT }
    }

    async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(vec![address]);
        }
        let name = Name::from_utf8(host).ok().filter(|name| name.num_labels() > 0);
        let name = name.ok_or_else(|| ResolveError::NotAName { host: host.to_owned() })?;
        let listed = self.in_hosts(&name);
        if !listed.is_empty() {
            return Ok(listed);
        }
        if name.is_localhost() {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        self.ask_name_servers(host, name).await
    }

    fn in_hosts(&self, name: &Name) -> Vec<IpAddr> {
        let mut hosts = Hosts::default();
        // What is not a line of that file is left out by the parser; what is not text ends it.
        let _ = hosts.read_hosts_conf(self.hosts.as_slice());
        let of_type = |kind| hosts.lookup_static_host(&Query::query(name.to_lowercase(), kind));
        let found = [of_type(RecordType::A), of_type(RecordType::AAAA)].into_iter().flatten();
        found.flat_map(|lookup| lookup.answers().iter().filter_map(|r| r.data.ip_addr()).collect::<Vec<_>>()).collect()
    }

    async fn ask_name_servers(&self, host: &str, name: Name) -> Result<Vec<IpAddr>, ResolveError> {
        let host = host.to_owned();
        let (config, mut options) = match parse_resolv_conf(&self.resolv_conf) {
            Ok(parsed) => parsed,
            // Its own words, without "io error".
            Err(NetError::Io(error)) => return Err(ResolveError::NoNameServer { host, reason: error.to_string() }),
            Err(error) => return Err(ResolveError::NoNameServer { host, reason: error.to_string() }),
        };
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let servers = config.name_servers().iter().map(|server| server.ip.to_string()).collect::<Vec<_>>().join(", ");
        let provider = TokioRuntimeProvider::default();
        let builder = TokioResolver::builder_with_config(self.on_port(config), provider).with_options(options);
        let answer = async { builder.build()?.lookup_ip(name).await };
        match tokio::time::timeout(LOOKUP_WAIT, answer).await {
            Ok(Ok(found)) => {
                let addresses: Vec<IpAddr> = found.iter().collect();
                if addresses.is_empty() { Err(ResolveError::NoAddress { host, servers }) } else { Ok(addresses) }
            }
            Ok(Err(error)) => Err(why(host, servers, error)),
            Err(_) => Err(ResolveError::NoAnswer { host, servers }),
        }
    }

    fn on_port(&self, config: ResolverConfig) -> ResolverConfig {
        let (domain, search, mut servers) = config.into_parts();
        servers.iter_mut().flat_map(|server| &mut server.connections).for_each(|way| way.port = self.dns_port);
        ResolverConfig::from_parts(domain, search, servers)
    }
}

fn why(host: String, servers: String, error: NetError) -> ResolveError {
    if error.is_nx_domain() {
        ResolveError::NoSuchHost { host, servers }
    } else if error.is_no_records_found() {
        ResolveError::NoAddress { host, servers }
    } else if matches!(error, NetError::Timeout) {
        ResolveError::NoAnswer { host, servers }
    } else {
        ResolveError::Failed { host, servers, source: error }
    }
}

#[cfg(test)]
mod tests;
