use super::*;
use proptest::prelude::*;
use skyserve_spec::Resource;
use skyserve_spec::config::{EndpointKind, KubernetesConfig, LoadBalancerConfig, PortRange};
use std::collections::BTreeMap;

/// What the pod reads, from what the command line wrote.
fn read_back(yaml: &str) -> Config {
    let (config, warnings) = Config::parse(yaml.as_bytes(), "config.yaml").unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    assert!(warnings.is_empty(), "{warnings:?}\n{yaml}");
    config
}

/// Any text that a file may hold: YAML holds no control characters but these.
fn text() -> impl Strategy<Value = String> {
    let hard =
        ["yes", "null", "~", "1:30", "0o7", "0x1f", "1_000", "=", "<<", "2001-01-01", "- a", "# b", "'", "\"", "a: b"];
    prop_oneof!["[ -~]{0,40}", "[a-z\n\t:#é€😀 ]{0,120}", prop::sample::select(hard.to_vec()).prop_map(str::to_owned)]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e15..1e15_f64).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn resources() -> impl Strategy<Value = Resource> {
    let amount = || prop::option::of((1..1000_u32, any::<bool>()));
    let written = |amount: Option<(u32, bool)>| amount.map(|(n, more)| format!("{n}{}", if more { "+" } else { "" }));
    (amount(), amount(), prop::option::of(1..10_000_u64), prop::option::of("[a-z0-9/.:-]{1,20}"), any::<bool>())
        .prop_map(move |(cpus, memory, disk_size, image, kubernetes)| Resource {
            infra: if kubernetes { Infra::parse("kubernetes") } else { Infra::default() },
            cpus: written(cpus),
            memory: written(memory),
            disk_size,
            image_id: image.map(|image| BTreeMap::from([("None".to_owned(), format!("docker:{image}"))])),
            ..Resource::default()
        })
}

fn kubernetes() -> impl Strategy<Value = KubernetesConfig> {
    let kind = prop_oneof![
        Just(EndpointKind::LoadBalancer),
        Just(EndpointKind::NodePort),
        Just(EndpointKind::Ingress),
        Just(EndpointKind::PodIp),
    ];
    let pod_config = prop::option::of(prop::collection::btree_map(text(), json_value(), 0..4));
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (prop::option::of("[a-z0-9]{1,20}"), kind, "[a-z0-9/.:]{1,20}", pod_config, 0..86_400_u32, flags).prop_map(
        |(namespace, ports, replica_image, pod_config, unreachable_seconds, flags)| KubernetesConfig {
            context: None,
            namespace,
            ports,
            replica_image: format!("i{replica_image}"),
            pod_config: pod_config.map(|map| json!(map)),
            unreachable_seconds,
            network_policy: flags.0,
            disruption_budget: flags.1,
            pod_monitor: flags.2,
        },
    )
}

fn config() -> impl Strategy<Value = Config> {
    let load_balancer = (1..30_000_u16, 30_000..u16::MAX, 1..100_u32, 1..1024_u32, 0..86_400_u32, 0..1_000_000_u32);
    (any::<bool>(), resources(), prop::option::of(text()), load_balancer, any::<bool>(), kubernetes()).prop_map(
        |(high_availability, controller_resources, storage_class_name, numbers, isolated, kubernetes)| {
            let (from, to, replicas, threads, drain_seconds, queue_limit) = numbers;
            Config {
                high_availability,
                controller_resources,
                storage_class_name,
                load_balancer: LoadBalancerConfig {
                    ports: PortRange { from, to },
                    replicas,
                    threads,
                    drain_seconds,
                    queue_limit,
                    queue_timeout_seconds: drain_seconds,
                    ..LoadBalancerConfig::default()
                },
                port_isolation: if isolated { PortIsolation::Auto } else { PortIsolation::Off },
                kubernetes,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_a_pod_reads_is_what_the_user_configured(config in config()) {
        let yaml = to_yaml_for_pod(&config).unwrap();
        prop_assert_eq!(read_back(&yaml), in_pod(&config), "{}", yaml);
    }
}

/// Found by the test above (the first two: not quoted, they were not read back), and their like.
#[test]
fn text_that_is_hard_to_write_is_read_as_it_was() {
    for text in [
        "A!:,",
        "\t\n",
        "a:,",
        "a:]",
        "{",
        "",
        " ",
        "é: ü\n\n",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{feff}",
        "😀",
        "'\\",
    ] {
        for pod_config in [json!({ "": { "": text } }), json!({ text: text }), json!({ "a": [[text]] })] {
            let mut config = Config::default();
            config.kubernetes.pod_config = Some(pod_config);
            let yaml = to_yaml_for_pod(&config).unwrap();
            assert_eq!(read_back(&yaml), in_pod(&config), "{text:?}\n{yaml}");
        }
    }
}

#[test]
fn a_pod_listens_on_its_own_address_and_knows_no_context() {
    let mut config = Config::default();
    config.kubernetes.context = Some("mine".to_owned());
    config.controller_resources.infra = Infra::parse("kubernetes/mine");
    let read = read_back(&to_yaml_for_pod(&config).unwrap());
    assert_eq!(read.load_balancer.listen_host.to_string(), "0.0.0.0");
    assert_eq!(read.load_balancer.metrics_address.to_string(), "0.0.0.0:9090");
    assert_eq!((read.kubernetes.context, read.controller_resources.infra.to_string().as_str()), (None, "kubernetes"));
}
