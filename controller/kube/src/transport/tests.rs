use super::*;
use crate::chain;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const VERSION: &str = r#"{"major":"1","minor":"34","gitVersion":"v1.34.0","gitCommit":"","gitTreeState":"",
    "buildDate":"","goVersion":"","compiler":"","platform":""}"#;

fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}connection: close\r\n\r\n{body}", body.len())
}

async fn head_of_request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// An API server that gives these replies, one a connection, then none; what it was asked comes by the channel.
async fn api_server(replies: Vec<String>) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, requests) = mpsc::channel(replies.len() + 1);
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        let mut replies = replies.into_iter();
        while let Ok((mut stream, _)) = listener.accept().await {
            asked.send(head_of_request(&mut stream).await).await.unwrap();
            match replies.next() {
                Some(reply) => stream.write_all(reply.as_bytes()).await.unwrap(),
                None => unanswered.push(stream),
            }
        }
    });
    (port, requests)
}

async fn client_of(server: &str, user: &str, more: &str) -> Result<Client, ConnectError> {
    let yaml = format!(
        "{{clusters: [{{name: c, cluster: {{server: '{server}' {more}}}}}], users: [{{name: u, user: {user}}}], \
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}], current-context: x}}"
    );
    let kubeconfig = Kubeconfig::from_yaml(&yaml).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    client(config)
}

#[tokio::test]
async fn a_request_goes_to_the_named_server_below_its_path_with_the_token() {
    let (port, mut requests) = api_server(vec![reply("200 OK", "", VERSION)]).await;
    let client = client_of(&format!("http://localhost:{port}/prefix"), "{token: secret}", "").await.unwrap();
    client.apiserver_version().await.unwrap();
    let request = requests.recv().await.unwrap().to_lowercase();
    assert!(request.starts_with("get /prefix/version http/1.1"), "{request}");
    assert!(request.contains("authorization: bearer secret"), "{request}");
    assert!(request.contains(&format!("host: localhost:{port}")), "{request}");
}

#[tokio::test]
async fn a_credential_plugin_of_the_kubeconfig_is_run() {
    let (port, mut requests) = api_server(vec![reply("200 OK", "", VERSION)]).await;
    let credential =
        r#"{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"by-plugin"}}"#;
    let user = serde_json::json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", format!("echo '{credential}'")],
        "interactiveMode": "Never",
    }});
    let client = client_of(&format!("http://127.0.0.1:{port}"), &user.to_string(), "").await.unwrap();
    client.apiserver_version().await.unwrap();
    let request = requests.recv().await.unwrap();
    assert!(request.to_lowercase().contains("authorization: bearer by-plugin"), "{request}");
}

#[tokio::test]
async fn a_busy_server_is_asked_again() {
    let busy = reply("429 Too Many Requests", "retry-after: 0\r\n", "");
    let (port, mut requests) = api_server(vec![busy, reply("200 OK", "", VERSION)]).await;
    let client = client_of(&format!("http://127.0.0.1:{port}"), "{}", "").await.unwrap();
    client.apiserver_version().await.unwrap();
    assert!(requests.recv().await.is_some() && requests.recv().await.is_some());
}

#[tokio::test]
async fn an_answer_that_never_begins_is_an_error_in_the_end() {
    let (port, mut requests) = api_server(Vec::new()).await;
    let client = client_of(&format!("http://127.0.0.1:{port}"), "{}", "").await.unwrap();
    let answer = tokio::spawn(async move { client.apiserver_version().await });
    requests.recv().await.unwrap();
    // From here on only the clock can end it.
    tokio::time::pause();
    let error = answer.await.unwrap().unwrap_err();
    assert!(chain(&error).contains("timed out"), "{}", chain(&error));
}

#[tokio::test]
async fn a_server_that_cannot_be_resolved_is_named() {
    let client = client_of("http://absent.invalid:1", "{}", "").await.unwrap();
    let error = client.apiserver_version().await.unwrap_err();
    assert!(chain(&error).contains("absent.invalid"), "{}", chain(&error));
}

#[tokio::test]
async fn a_proxy_of_the_kubeconfig_is_asked_for_a_tunnel() {
    let (port, mut requests) = api_server(vec![reply("403 Forbidden", "", "")]).await;
    let proxy = format!(", proxy-url: 'http://localhost:{port}'");
    let client = client_of("https://192.0.2.1:6443", "{}", &proxy).await.unwrap();
    client.apiserver_version().await.unwrap_err();
    assert!(requests.recv().await.unwrap().starts_with("CONNECT 192.0.2.1:6443 HTTP/1.1"));
}

#[tokio::test]
async fn a_proxy_that_cannot_be_used_is_refused_and_never_passed_by() {
    for proxy in ["https://localhost:1", "socks5://localhost:1", "http://user:word@localhost:1"] {
        let refused = client_of("https://192.0.2.1:6443", "{}", &format!(", proxy-url: '{proxy}'")).await;
        assert!(matches!(refused, Err(ConnectError::Proxy(_))), "{proxy}");
    }
}
