//! What went wrong in `down`.

use super::{A_WHILE_MS, Stand, serving, up, with_a_crash_at_each_commit};

fn down(stand: &mut Stand, name: &str) {
    let now = stand.now;
    let Some(core) = stand.core.as_mut() else { return };
    let done = core.down(name, false, now);
    if matches!(done, Err(skyserve_controller::core::RequestError::Fatal(_))) {
        stand.core = None;
    }
}

fn names(stand: &Stand) -> Vec<String> {
    stand.core.iter().flat_map(|core| core.services()).map(|service| service.head.name.clone()).collect()
}

/// #8563: a crash in the middle of a teardown left rows that an assertion of the recovery did not expect, at every start.
#[test]
fn a_crash_during_teardown_failed_an_assertion_on_every_boot() {
    let act = |stand: &mut Stand| {
        down(stand, "svc");
        stand.run_for(A_WHILE_MS);
    };
    with_a_crash_at_each_commit(
        || serving("svc", 3),
        act,
        |mut stand| {
            // It boots, as often as one likes, and `down` is done or was never asked for.
            for _ in 0..3 {
                stand.restart();
                stand.run_for(A_WHILE_MS);
            }
            let left = if names(&stand).is_empty() { 0 } else { stand.ready("svc").len() };
            assert!(left == 0 || left == 3, "{left}");
            assert_eq!(stand.resources.len(), left);
        },
    );
}

/// #4059, #4135, #9678: the process that carried out `down` died, and the service was SHUTTING_DOWN for ever.
#[test]
fn a_crash_in_down_left_the_service_shutting_down_for_ever() {
    for fails_first in [false, true] {
        let mut stand = serving("svc", 3);
        stand.removals_fail = fails_first;
        down(&mut stand, "svc");
        stand.run_for(if fails_first { A_WHILE_MS } else { 0 });
        stand.restart();
        stand.removals_fail = false;
        stand.run_for(A_WHILE_MS);
        assert_eq!(names(&stand), Vec::<String>::new());
        assert!(stand.resources.is_empty(), "{:?}", stand.resources);
        // The name is free for another service.
        up(&mut stand, "svc", 1);
    }
}

/// Names were compared as patterns, or after `-` and `_` had been made one: `down my_svc` took `my-svc` down too.
#[test]
fn down_my_svc_matched_my_svc_with_a_hyphen() {
    let mut stand = serving("my-svc", 1);
    for other in ["my_svc", "my.svc", "my", "my-svc-1", "myxsvc"] {
        up(&mut stand, other, 1);
    }
    let kept: Vec<String> = names(&stand).into_iter().filter(|name| name != "my_svc").collect();
    let mut resources = stand.resources.clone();
    resources.retain(|uid, _| !uid.as_str().starts_with("my_svc-"));
    down(&mut stand, "my_svc");
    stand.run_for(A_WHILE_MS);
    assert_eq!(names(&stand), kept);
    assert_eq!(stand.resources, resources);
    let routed = stand.routed();
    assert_eq!(routed.len(), kept.len(), "{routed:?}");
}
