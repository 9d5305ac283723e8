//! Bad days: each failure names the replica, what happened, and whether to try again.

use crate::support::{Site, how_ended, spec, until};
use skyserve_provider::Provider;
use std::fs;

#[tokio::test]
async fn another_launch_under_the_same_uid_is_refused() {
    let site = Site::new();
    let provider = site.provider();
    let first = spec("same-1-1", "exit 1");
    provider.launch(&first).await.unwrap();
    let error = provider.launch(&spec("same-1-1", "exit 2")).await.unwrap_err();
    assert!(!error.retryable && error.message.contains("same-1-1"), "{error:?}");
    until(&provider, &first, how_ended).await;
}

#[tokio::test]
async fn a_shim_that_cannot_be_started_is_named() {
    let site = Site::new();
    let missing = site.provider_with(vec!["/no/such/skyserve".into(), "shim".into()]);
    let error = missing.launch(&spec("missing-1-1", "true")).await.unwrap_err();
    assert!(!error.retryable && error.message.contains("/no/such/skyserve"), "{error:?}");
    let failing = site.provider_with(vec!["bash".into(), "-c".into(), "echo it went wrong >&2; exit 1".into()]);
    let error = failing.launch(&spec("failing-1-1", "true")).await.unwrap_err();
    assert!(error.retryable && error.message.contains("it went wrong"), "{error:?}");
    let full = site.provider_with(vec!["bash".into(), "-c".into(), "exit 28".into()]);
    let error = full.launch(&spec("full-1-1", "true")).await.unwrap_err();
    assert!(error.retryable && error.message.contains("free some space"), "{error:?}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_or_read_is_named() {
    let site = Site::new();
    let provider = site.provider();
    let blocked = spec("blocked-1-1", "true");
    fs::write(site.folder(&blocked).dir(), "a file").unwrap();
    let error = provider.launch(&blocked).await.unwrap_err();
    assert!(error.message.contains("blocked-1-1"), "{error:?}");
    assert_eq!(provider.list().await.unwrap(), [], "a file is no replica");

    let damaged = spec("damaged-1-1", "true");
    fs::create_dir(site.folder(&damaged).dir()).unwrap();
    fs::write(site.folder(&damaged).launch_file(), "not json").unwrap();
    let error = provider.launch(&damaged).await.unwrap_err();
    assert!(!error.retryable && error.message.contains("launch.json"), "{error:?}");
    provider.terminate(&damaged.uid, 0).await.unwrap();
    assert!(!site.folder(&damaged).dir().exists());
}
