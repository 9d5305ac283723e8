use super::*;
use crate::testing::{replica, service};
use std::path::Path;

const NOW_MS: u64 = 3_744_000;

fn look(verbose: bool, style: Style) -> Look {
    Look { verbose, style, now_ms: NOW_MS }
}

/// Compares with a file; `UPDATE_GOLDEN=1` writes it anew, to be looked at before it is committed.
fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, golden, "differs from {}", path.display());
}

fn several() -> Vec<ServiceView> {
    let mut web = service("web", "READY");
    web.ready_since_ms = Some(1_000);
    web.replicas_ready = 1;
    web.replicas_wanted = 2;
    web.replicas = vec![replica("web", 1, "READY"), replica("web", 2, "STARTING")];
    web.replicas[1].endpoint = None;
    web.replicas[1].launched_at_ms = NOW_MS - 12_000;
    let mut broken = service("a-much-longer-name", "FAILED");
    broken.endpoint = "http://127.0.0.1:30002".to_owned();
    broken.status_reason = Some("launching was given up after 5 failures in a row".to_owned());
    broken.replicas = vec![replica("a-much-longer-name", 5, "FAILED")];
    broken.replicas[0].status_reason = Some("run exited with code 3\nafter 12 s".to_owned());
    let mut idle = service("idle", "NO_REPLICA");
    idle.replicas_wanted = 0;
    vec![broken, idle, web]
}

#[test]
fn services_and_replicas_are_shown_with_the_columns_of_skyserve_and_the_reasons_below() {
    assert_golden("status.txt", &services(&several(), look(false, Style::Plain)));
}

#[test]
fn the_versions_that_serve_are_shown_and_the_newest_while_none_does() {
    let mut web = service("web", "READY");
    web.version = 3;
    web.replicas = vec![replica("web", 1, "STARTING"), replica("web", 2, "READY"), replica("web", 3, "READY")];
    assert_eq!(versions(&web), "1");
    web.replicas[2].version = 3;
    assert_eq!(versions(&web), "1,3");
    web.replicas.clear();
    assert_eq!(versions(&web), "3");
}

#[test]
fn verbose_adds_the_columns_of_skyserve() {
    assert_golden("status_verbose.txt", &services(&several(), look(true, Style::Plain)));
}

#[test]
fn colours_do_not_move_columns() {
    let coloured = services(&several(), look(false, Style::Coloured));
    let mut plain = coloured.clone();
    while let Some(start) = plain.find('\x1b') {
        let end = start + plain[start..].find('m').unwrap();
        plain.replace_range(start..=end, "");
    }
    assert_ne!(plain, coloured);
    assert_eq!(plain, services(&several(), look(false, Style::Plain)));
}

#[test]
fn without_services_one_sentence_says_so() {
    assert_eq!(services(&[], look(false, Style::Plain)), "No existing services.\n");
}

#[test]
fn a_service_without_replicas_says_so_where_they_would_be() {
    let text = services(&[service("web", "NO_REPLICA")], look(false, Style::Plain));
    assert!(text.ends_with("Service Replicas\nNo existing replicas.\n"), "{text}");
}

#[test]
fn ten_replicas_are_shown_and_the_others_counted_unless_verbose() {
    let mut web = service("web", "READY");
    web.replicas = (1..=12).map(|id| replica("web", id, "READY")).collect();
    let rows = |verbose| {
        let text = services(std::slice::from_ref(&web), look(verbose, Style::Plain));
        (text.lines().filter(|line| line.contains("local process")).count(), text)
    };
    let (count, text) = rows(false);
    assert_eq!(count, 10);
    assert!(text.contains("... (use -v to show all 12 replicas)"), "{text}");
    assert_eq!(rows(true).0, 12);
}
