use super::*;
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

pub(crate) fn rules(path: &str) -> ProbeRules {
    ProbeRules {
        path: path.to_owned(),
        post_data: None,
        headers: BTreeMap::new(),
        timeout_ms: 2_000,
        interval_ms: 10_000,
        initial_delay_ms: 1,
        failure_threshold_ms: 1,
    }
}

/// A replica that answers each connection with the answer for the path it was asked for, and gives
/// what it read.
pub(crate) async fn replica(
    answers: &'static [(&'static str, &'static str)],
) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let answer = answers.iter().find(|(asked, _)| *asked == path).map(|(_, answer)| *answer);
            sender.send(head).unwrap();
            if let Some(answer) = answer {
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (address, receiver)
}

#[tokio::test]
async fn only_200_passes() {
    let answers = &[
        ("/200", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ("/204", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("/503", "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"),
    ];
    let (address, _heads) = replica(answers).await;
    assert_eq!(probe(address, &rules("/200")).await, Ok(()));
    assert!(probe(address, &rules("/204")).await.unwrap_err().contains("204"));
    assert!(probe(address, &rules("/503")).await.unwrap_err().contains("503"));
}

#[tokio::test]
async fn a_redirect_on_the_replica_is_followed_and_one_to_elsewhere_is_not() {
    let answers = &[
        ("/health", "HTTP/1.1 301 Moved\r\nlocation: /health/\r\ncontent-length: 0\r\n\r\n"),
        ("/health/", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ("/away", "HTTP/1.1 302 Found\r\nlocation: http://example.invalid/\r\ncontent-length: 0\r\n\r\n"),
        ("/round", "HTTP/1.1 302 Found\r\nlocation: /round\r\ncontent-length: 0\r\n\r\n"),
    ];
    let (address, _heads) = replica(answers).await;
    assert_eq!(probe(address, &rules("/health")).await, Ok(()));
    assert!(probe(address, &rules("/away")).await.unwrap_err().contains("302"));
    assert!(probe(address, &rules("/round")).await.unwrap_err().contains("more than 5 times"));
}

#[tokio::test]
async fn a_body_makes_the_probe_a_json_post_with_the_headers_asked_for() {
    let (address, mut heads) = replica(&[("/v1", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")]).await;
    let post = ProbeRules {
        post_data: Some("{\"a\":1}".to_owned()),
        headers: BTreeMap::from([("Authorization".to_owned(), "Bearer t".to_owned())]),
        ..rules("/v1")
    };
    assert_eq!(probe(address, &post).await, Ok(()));
    let head = heads.recv().await.unwrap().to_lowercase();
    assert!(head.starts_with("post /v1 http/1.1"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(head.contains("authorization: bearer t"), "{head}");
}

#[tokio::test]
async fn an_answer_without_end_passes_by_its_status() {
    let (address, _heads) =
        replica(&[("/s", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")]).await;
    assert_eq!(probe(address, &rules("/s")).await, Ok(()));
}

#[tokio::test]
async fn a_replica_that_does_not_listen_or_does_not_answer_fails_with_the_reason() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(probe(unused, &rules("/")).await.unwrap_err().contains("cannot connect"));

    let (address, _heads) = replica(&[]).await;
    let silent = ProbeRules { timeout_ms: 50, interval_ms: 60_000, ..rules("/") };
    let (sender, mut results) = tokio::sync::mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        // The connection is closed without an answer, which is a failure too.
        run(address, &silent, |result| {
            sender.send(result).unwrap();
            std::future::ready(())
        })
        .await;
    });
    assert!(results.recv().await.unwrap().is_err());
    task.abort();
}

#[tokio::test]
async fn the_gap_between_probes_grows_until_one_passes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (sender, mut results) = tokio::sync::mpsc::unbounded_channel();
    let fast = ProbeRules { interval_ms: 400, ..rules("/") };
    let began = Instant::now();
    let task = tokio::spawn(async move {
        run(address, &fast, |_| {
            sender.send(began.elapsed()).unwrap();
            std::future::ready(())
        })
        .await;
    });
    let mut moments = Vec::new();
    for _ in 0..4 {
        moments.push(results.recv().await.unwrap());
    }
    task.abort();
    // 100 ms, 200 ms, 400 ms: each gap is at least what it should be.
    assert!(moments[1] - moments[0] >= Duration::from_millis(90), "{moments:?}");
    assert!(moments[2] - moments[1] >= Duration::from_millis(190), "{moments:?}");
    assert!(moments[3] - moments[2] >= Duration::from_millis(390), "{moments:?}");
}
