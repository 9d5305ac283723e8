//! Services and replicas to store, made by proptest or by hand, and a way to run a test as a process
//! of its own that may be killed.
#![allow(dead_code, reason = "each test file uses some of these")]

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use skyserve_model::{
    Amount, Change, Head, LaunchTemplate, Operation, OperationKind, ProbeRules, Proven, Replica, ReplicaId,
    ReplicaStatus, ReplicaUid, Service, Shutdown, Timestamp, Version, VersionRules,
};
use skyserve_recovery::{SqliteStore, Store};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// Where a child process finds the database it works on.
pub(crate) const PATH_VARIABLE: &str = "SKYSERVE_TEST_PATH";

/// This test program as another process that runs the ignored test `name` only.
pub(crate) fn child(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", name, "--nocapture", "--test-threads=1"]);
    command
}

/// The path that the parent gave to this child.
pub(crate) fn path_from_parent() -> std::path::PathBuf {
    std::env::var_os(PATH_VARIABLE).expect("run by another test as a child process").into()
}

pub(crate) fn rules() -> VersionRules {
    VersionRules {
        replicas: 2,
        probe: ProbeRules {
            path: "/health".to_owned(),
            post_data: None,
            headers: BTreeMap::new(),
            timeout_ms: 15_000,
            interval_ms: 10_000,
            initial_delay_ms: 1_200_000,
            failure_threshold_ms: 180_000,
        },
        launch: LaunchTemplate {
            setup: None,
            run: Some("python3 -m http.server 8080".to_owned()),
            envs: BTreeMap::new(),
            secrets: BTreeMap::new(),
            port: 8080,
            ports: vec![8080],
            cpus: None,
            memory_gb: None,
            accelerators: BTreeMap::new(),
            use_spot: false,
            image: None,
            bundle: None,
            has_workdir: false,
            file_mounts: vec![],
        },
        load_balancing_policy: "least_load".to_owned(),
        stream_timeout_ms: 120_000,
        resources: "1x(ports=8080)".to_owned(),
    }
}

pub(crate) fn service(name: &str, incarnation: u64) -> Service {
    Service::new(name.to_owned(), incarnation, address(30_001), rules(), Timestamp(1_000))
}

pub(crate) fn insert(service: &Service) -> Change {
    Change::InsertService {
        head: service.head.clone(),
        rules: service.rules.clone(),
        source: format!("# {}\nservice:\n  replicas: 2\n", service.head.name),
    }
}

pub(crate) fn replica(service: &Service, id: u64) -> Replica {
    Replica {
        id: ReplicaId(id),
        uid: service.uid(ReplicaId(id)),
        version: service.head.version,
        status: ReplicaStatus::Pending,
        status_since: Timestamp(2_000),
        reason: None,
        address: None,
        launched_at: Timestamp(2_000),
        first_ready_at: None,
        operation: Some(Operation {
            kind: OperationKind::Launch,
            attempt: 0,
            not_before: Timestamp(2_000),
            purge: false,
        }),
    }
}

/// The changes that launch replica `id`: its id is reserved first, as the model does it.
pub(crate) fn launch(service: &mut Service, id: u64) -> Vec<Change> {
    service.head.next_replica_id = ReplicaId(id + 1);
    let replica = replica(service, id);
    service.replicas.insert(replica.id, replica.clone());
    vec![
        Change::UpdateService(service.head.clone()),
        Change::InsertReplica { service: service.head.name.clone(), replica },
    ]
}

/// A home whose database was opened once, and holds a service with one replica.
pub(crate) fn home() -> (TempDir, PathBuf, Service) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("skyserve.db");
    let mut store = SqliteStore::open(&path).unwrap().store;
    let mut service = service("my-service", 1);
    store.commit(&[insert(&service)]).unwrap();
    store.commit(&launch(&mut service, 1)).unwrap();
    (folder, path, service)
}

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

pub(crate) fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(|characters| characters.into_iter().collect())
}

/// Every number that can be stored.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..10_u64, 0..=i64::MAX.unsigned_abs(), Just(i64::MAX.unsigned_abs())]
}

pub(crate) fn moment() -> impl Strategy<Value = Timestamp> {
    number().prop_map(Timestamp)
}

pub(crate) fn socket_address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<(u32, u16)>().prop_map(|(ip, port)| (Ipv4Addr::from(ip), port).into());
    let v6 = any::<(u128, u16)>().prop_map(|(ip, port)| (Ipv6Addr::from(ip), port).into());
    prop_oneof![v4, v6]
}

fn amount() -> impl Strategy<Value = Option<Amount>> {
    option::of((any::<f64>(), any::<bool>()).prop_filter_map("JSON has no infinite numbers", |(value, or_more)| {
        value.is_finite().then_some(Amount { value, or_more })
    }))
}

fn probe() -> impl Strategy<Value = ProbeRules> {
    let times = [number(), number(), number(), number()];
    (text(), option::of(text()), btree_map(text(), text(), 0..3), times).prop_map(
        |(path, post_data, headers, [timeout_ms, interval_ms, initial_delay_ms, failure_threshold_ms])| ProbeRules {
            path,
            post_data,
            headers,
            timeout_ms,
            interval_ms,
            initial_delay_ms,
            failure_threshold_ms,
        },
    )
}

fn launch_template() -> impl Strategy<Value = LaunchTemplate> {
    let scripts = (option::of(text()), option::of(text()));
    let variables = (btree_map(text(), text(), 0..3), btree_map(text(), text(), 0..3));
    let ports = (any::<u16>(), vec(any::<u16>(), 0..3));
    let resources = (amount(), amount(), btree_map(text(), -1e300..1e300_f64, 0..3), any::<bool>(), option::of(text()));
    let files = (option::of(text()), any::<bool>(), vec(text(), 0..3));
    (scripts, variables, ports, resources, files).prop_map(
        |((setup, run), (envs, secrets), (port, ports), resources, (bundle, has_workdir, file_mounts))| {
            let (cpus, memory_gb, accelerators, use_spot, image) = resources;
            LaunchTemplate {
                setup,
                run,
                envs,
                secrets,
                port,
                ports,
                cpus,
                memory_gb,
                accelerators,
                use_spot,
                image,
                bundle,
                has_workdir,
                file_mounts,
            }
        },
    )
}

pub(crate) fn any_rules() -> impl Strategy<Value = VersionRules> {
    (any::<u32>(), probe(), launch_template(), text(), number(), text()).prop_map(
        |(replicas, probe, launch, load_balancing_policy, stream_timeout_ms, resources)| VersionRules {
            replicas,
            probe,
            launch,
            load_balancing_policy,
            stream_timeout_ms,
            resources,
        },
    )
}

/// A head whose name, incarnation, version and next id are still to be set.
pub(crate) fn any_head() -> impl Strategy<Value = Head> {
    let flags = (any::<bool>(), any::<bool>());
    let moments = (moment(), option::of(moment()), moment());
    let shutdown = option::of((moment(), any::<bool>()).prop_map(|(since, purge)| Shutdown { since, purge }));
    let proven = option::weighted(0.2, (1..4_u64, any::<u32>(), moment())).prop_map(|proven| {
        proven.map(|(version, failures_in_a_row, launch_not_before)| Proven {
            version: Version(version),
            failures_in_a_row,
            launch_not_before,
        })
    });
    (socket_address(), flags, moments, any::<u32>(), option::of(text()), (proven, shutdown)).prop_map(
        |(listen, (endpoint_confirmed, ever_ready), moments, failures_in_a_row, given_up, (proven, shutdown))| {
            let (created_at, ready_since, launch_not_before) = moments;
            Head {
                name: String::new(),
                incarnation: 0,
                version: Version(1),
                created_at,
                listen,
                endpoint_confirmed,
                next_replica_id: ReplicaId(1),
                ready_since,
                ever_ready,
                failures_in_a_row,
                launch_not_before,
                given_up,
                proven,
                shutdown,
            }
        },
    )
}

/// A replica whose id and uid are still to be set.
pub(crate) fn any_replica() -> impl Strategy<Value = Replica> {
    let kind = prop_oneof![Just(OperationKind::Launch), Just(OperationKind::Terminate)];
    let operation = (kind, any::<u32>(), moment(), any::<bool>())
        .prop_map(|(kind, attempt, not_before, purge)| Operation { kind, attempt, not_before, purge });
    let status = (proptest::sample::select(ReplicaStatus::ALL.to_vec()), moment(), option::of(text()));
    let life = (moment(), option::of(moment()));
    (status, option::of(socket_address()), life, option::of(operation)).prop_map(
        |((status, status_since, reason), address, (launched_at, first_ready_at), operation)| Replica {
            id: ReplicaId(0),
            uid: ReplicaUid::new("", 0, ReplicaId(0)),
            version: Version(1),
            status,
            status_since,
            reason,
            address,
            launched_at,
            first_ready_at,
            operation,
        },
    )
}
