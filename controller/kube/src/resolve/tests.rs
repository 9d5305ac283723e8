use super::*;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record};
use tokio::net::UdpSocket;

const TTL_SECONDS: u32 = 60;

/// A name server on a loopback port of its own, for as long as the test's runtime lives.
async fn name_server(answer: fn(&str, RecordType) -> Result<Vec<IpAddr>, ResponseCode>) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let mut message = Message::from_vec(&buffer[..length]).unwrap().into_response();
            let query = message.queries[0].clone();
            match answer(&query.name().to_lowercase().to_utf8(), query.query_type()) {
                Ok(addresses) => addresses.into_iter().for_each(|address| {
                    message.add_answer(Record::from_rdata(query.name().clone(), TTL_SECONDS, RData::from(address)));
                }),
                Err(code) => message.metadata.response_code = code,
            }
            socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
        }
    });
    port
}

fn files(hosts: &str, resolv_conf: &str, dns_port: u16) -> Files {
    Files { hosts: hosts.into(), resolv_conf: resolv_conf.into(), dns_port }
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Knows one name in the domain that resolv.conf has us search, and one outside.
fn known(name: &str, kind: RecordType) -> Result<Vec<IpAddr>, ResponseCode> {
    match (name, kind) {
        ("api.cluster.test.", RecordType::A) => Ok(addresses(&["192.0.2.7"])),
        ("api.cluster.test.", RecordType::AAAA) => Ok(addresses(&["2001:db8::7"])),
        ("four.test.", RecordType::A) => Ok(addresses(&["192.0.2.4"])),
        ("four.test." | "nothing.test.", _) => Ok(Vec::new()),
        ("broken.test.", _) => Err(ResponseCode::ServFail),
        _ => Err(ResponseCode::NXDomain),
    }
}

const RESOLV_CONF: &str = "nameserver 127.0.0.1\nsearch cluster.test\noptions ndots:2 timeout:1 attempts:1\n";

#[tokio::test]
async fn an_address_is_itself_and_asks_nobody() {
    let nobody = files("", "", 1);
    assert_eq!(nobody.lookup("10.0.0.1").await.unwrap(), addresses(&["10.0.0.1"]));
    assert_eq!(nobody.lookup("::1").await.unwrap(), addresses(&["::1"]));
    assert_eq!(nobody.lookup("[2001:db8::1]").await.unwrap(), addresses(&["2001:db8::1"]));
}

#[tokio::test]
async fn localhost_works_without_any_file_but_the_hosts_file_comes_first() {
    assert_eq!(files("", "", 1).lookup("localhost").await.unwrap(), addresses(&["127.0.0.1", "::1"]));
    let hosts = "127.0.0.9 localhost\n";
    assert_eq!(files(hosts, "", 1).lookup("LocalHost").await.unwrap(), addresses(&["127.0.0.9"]));
}

#[tokio::test]
async fn the_hosts_file_comes_before_the_name_servers_and_their_search_list() {
    let port = name_server(known).await;
    let hosts = "# ours\n192.0.2.99 api other # a comment\n2001:db8::99 api\nnonsense\n";
    let found = files(hosts, RESOLV_CONF, port).lookup("API").await.unwrap();
    assert_eq!(found, addresses(&["192.0.2.99", "2001:db8::99"]));
}

#[tokio::test]
async fn a_name_is_found_by_the_search_list_and_as_it_is() {
    let port = name_server(known).await;
    let files = files("", RESOLV_CONF, port);
    assert_eq!(files.lookup("api").await.unwrap(), addresses(&["192.0.2.7", "2001:db8::7"]));
    assert_eq!(files.lookup("api.cluster.test.").await.unwrap(), addresses(&["192.0.2.7", "2001:db8::7"]));
    assert_eq!(files.lookup("four.test").await.unwrap(), addresses(&["192.0.2.4"]));
}

#[tokio::test]
async fn no_such_host_and_no_address_are_told_apart_and_name_the_host() {
    let port = name_server(known).await;
    let files = files("", RESOLV_CONF, port);
    let error = files.lookup("absent.test").await.unwrap_err();
    assert!(matches!(error, ResolveError::NoSuchHost { .. }), "{error:?}");
    let text = "no host is called absent.test: so say the name servers of /etc/resolv.conf (127.0.0.1)";
    assert_eq!(error.to_string(), text);
    let error = files.lookup("nothing.test").await.unwrap_err();
    assert!(matches!(error, ResolveError::NoAddress { .. }), "{error:?}");
    assert!(error.to_string().contains("nothing.test"));
}

#[tokio::test]
async fn a_name_server_that_fails_is_not_taken_for_an_absent_host() {
    let port = name_server(known).await;
    let error = files("", RESOLV_CONF, port).lookup("broken.test").await.unwrap_err();
    assert!(!matches!(error, ResolveError::NoSuchHost { .. } | ResolveError::NoAddress { .. }), "{error:?}");
    assert!(error.to_string().contains("broken.test"), "{error}");
}

#[tokio::test]
async fn a_silent_name_server_is_given_up_on_and_the_message_says_which() {
    // Bound and never read: nothing answers, nothing refuses.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let started = std::time::Instant::now();
    let error = files("", RESOLV_CONF, port).lookup("slow.test").await.unwrap_err();
    assert!(started.elapsed() < LOOKUP_WAIT);
    assert!(matches!(error, ResolveError::NoAnswer { .. }), "{error:?}");
    assert!(error.to_string().contains("slow.test") && error.to_string().contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn without_a_name_server_the_message_says_so() {
    for resolv_conf in ["", "search cluster.test\n"] {
        let error = files("", resolv_conf, 1).lookup("api.test").await.unwrap_err();
        assert!(matches!(error, ResolveError::NoNameServer { .. }), "{error:?}");
        assert!(error.to_string().starts_with("api.test is not in /etc/hosts"), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_a_name_is_refused_by_itself() {
    for host in ["", ".", "a..b", &"x".repeat(300)] {
        let error = files("", "", 1).lookup(host).await.unwrap_err();
        assert!(matches!(error, ResolveError::NotAName { .. }), "{host:?}: {error:?}");
    }
}
