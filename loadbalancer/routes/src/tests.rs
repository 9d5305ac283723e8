use super::*;
use proptest::prelude::*;

fn table() -> RouteTable {
    RouteTable {
        format: FORMAT,
        epoch: 3,
        seq: 9,
        services: vec![ServiceRoutes {
            name: "my-http-service".into(),
            listen: "127.0.0.1:30001".parse().unwrap(),
            policy: Policy::LeastLoad,
            stream_timeout_ms: 120_000,
            tls: None,
            replicas: vec![ReplicaRoute {
                uid: "my-http-service-1-1".into(),
                id: 1,
                address: "127.64.0.1:8080".parse().unwrap(),
                weight: 1,
                state: ReplicaRouteState::Ready,
            }],
            expects_replicas: true,
        }],
    }
}

#[test]
fn a_published_table_reads_back_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("routes.json");
    publish(&path, &table()).unwrap();
    assert_eq!(read(&path).unwrap(), table());
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_table_of_a_later_controller_is_not_overwritten() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("routes.json");
    let later = RouteTable { epoch: table().epoch + 1, seq: 1, ..table() };
    publish(&path, &later).unwrap();
    assert!(matches!(publish(&path, &table()), Err(RoutesError::Overtaken { .. })));
    assert_eq!(read(&path).unwrap(), later);
    // A file that cannot be read is nobody's.
    std::fs::write(&path, "torn").unwrap();
    publish(&path, &table()).unwrap();
}

#[test]
fn a_table_that_is_passed_on_is_written_only_if_it_is_the_next_and_over_what_cannot_be_read() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("routes.json");
    assert!(pass_on(&path, &table()).unwrap());
    let earlier = RouteTable { seq: table().seq - 1, ..table() };
    assert!(!pass_on(&path, &earlier).unwrap() && !pass_on(&path, &table()).unwrap());
    assert_eq!(read(&path).unwrap(), table());
    let next = RouteTable { seq: table().seq + 1, ..table() };
    assert!(pass_on(&path, &next).unwrap());
    std::fs::write(&path, "torn").unwrap();
    assert!(pass_on(&path, &table()).unwrap());
}

#[test]
fn a_table_cut_at_any_byte_is_damaged() {
    let bytes = encode(&table());
    // The last byte is the newline: without it the table is still whole.
    for length in 0..bytes.len() - 1 {
        assert!(matches!(decode(&bytes[..length]), Err(RoutesError::Damaged { .. })), "cut at {length}");
    }
}

#[test]
fn a_table_of_a_newer_format_is_refused_by_name() {
    let newer = RouteTable { format: FORMAT + 1, ..table() };
    assert!(matches!(decode(&encode(&newer)), Err(RoutesError::Newer { found }) if found == FORMAT + 1));
}

#[test]
fn versions_order_by_epoch_then_seq() {
    let version = |epoch, seq| TableVersion { epoch, seq };
    assert!(version(2, 0) > version(1, 99));
    assert!(version(2, 2) > version(2, 1));
}

proptest! {
    #[test]
    fn a_flipped_bit_is_found_or_harmless(position in 0usize..400, bit in 0u8..8) {
        let mut bytes = encode(&table());
        let position = position % bytes.len();
        bytes[position] ^= 1 << bit;
        if let Ok(read) = decode(&bytes) {
            prop_assert_eq!(read, table());
        }
    }
}
