//! Who writes the database, and who is kept from it.

use super::{A_WHILE_MS, serving, update};
use skyserve_controller::core::{Core, Output};
use skyserve_recovery::Lease;

/// #8564: two controllers ran for one service, each launching what it missed and ending what it did not know.
#[test]
fn two_controllers_ran_for_one_service() {
    let mut stand = serving("svc", 2);
    let lock = stand.database().with_extension("lock");
    let held = Lease::acquire(&lock).unwrap();
    let refused = Lease::acquire(&lock).unwrap_err();
    assert!(refused.is_held(), "{refused}");
    drop(held);

    // And where locks fail: the earlier one is fenced at its first decision, and nothing of it is carried out.
    let mut later = stand.another();
    let now = stand.now;
    later.flush(now).unwrap();
    let resources = stand.resources.clone();
    assert!(!update(&mut stand, "svc", 5, "serve"), "the user is told");
    assert!(stand.core.is_none(), "it ends");
    assert_eq!(stand.resources, resources);

    stand.core = Some(later);
    assert!(update(&mut stand, "svc", 3, "serve"));
    stand.run_for(A_WHILE_MS);
    assert_eq!((stand.ready("svc").len(), stand.resources.len()), (3, 3));
}

/// #1507: "database is locked" ended the controller, or lost what it was about to store.
#[test]
fn the_database_was_locked() {
    let mut stand = serving("svc", 2);
    let other = rusqlite::Connection::open(stand.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(!update(&mut stand, "svc", 3, "serve"), "the user is told");
    assert!(stand.core.as_ref().unwrap().trouble().unwrap().contains("locked"), "and so is everybody else");
    let dead = stand.ready("svc").remove(0);
    stand.resources.remove(&dead);
    stand.probe_all();
    let outputs = stand.with_core(Core::flush).expect("the controller goes on");
    let ends = |output: &Output| matches!(output, Output::Launch { .. } | Output::Terminate { .. });
    assert!(!outputs.iter().any(ends), "nothing is done that is not stored: {outputs:?}");

    other.execute_batch("ROLLBACK").unwrap();
    stand.run_for(2_000);
    stand.probe_all();
    stand.run_for(A_WHILE_MS);
    assert_eq!(stand.core.as_ref().unwrap().trouble(), None);
    assert_eq!(stand.resources.len(), 2, "what was lost meanwhile was found again: {:?}", stand.statuses("svc"));
    assert!(update(&mut stand, "svc", 3, "serve"));
    stand.run_for(A_WHILE_MS);
    assert_eq!(stand.ready("svc").len(), 3);
}
