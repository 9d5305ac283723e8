use super::*;

fn parse(text: &str) -> (Config, Vec<String>) {
    Config::parse(text.as_bytes(), "config.yaml").unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    Config::parse(text.as_bytes(), "config.yaml").expect_err(text).to_string()
}

#[test]
fn without_anything_said_endpoints_listen_on_loopback() {
    for empty in ["", "# nothing\n", "serve:\n", "serve: {controller: }\n"] {
        assert_eq!(parse(empty), (Config::default(), Vec::new()), "{empty:?}");
    }
    let load_balancer = Config::default().load_balancer;
    assert_eq!(load_balancer.listen_host.to_string(), "127.0.0.1");
    assert_eq!((load_balancer.ports.from, load_balancer.ports.to), (30001, 31000));
    assert_eq!(load_balancer.metrics_address.to_string(), "127.0.0.1:0");
    assert_eq!((load_balancer.threads, load_balancer.drain_seconds), (1, 30));
    assert_eq!((load_balancer.queue_limit, load_balancer.queue_timeout_seconds), (1000, 60));
    assert_eq!(Config::default().port_isolation, PortIsolation::Auto);
}

#[test]
fn every_honoured_key_is_read() {
    let (config, warnings) = parse(
        "serve:\n  controller:\n    high_availability: yes\n    resources: {infra: k8s, cpus: 4+, memory: 8GB, \
         disk_size: 100}\n  load_balancer: {listen_host: 0.0.0.0, ports: 30001-32767, metrics_address: '127.0.0.1:9090', \
         threads: 2, drain_seconds: 5, queue_limit: 0, queue_timeout_seconds: 7}\n  replicas: {port_isolation: \
         off}\nkubernetes: {high_availability: {storage_class_name: fast}}\n",
    );
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(config.high_availability);
    assert!(config.controller_resources.infra.is_kubernetes());
    assert_eq!(config.controller_resources.memory.as_deref(), Some("8.0"));
    assert_eq!(config.storage_class_name.as_deref(), Some("fast"));
    assert_eq!(config.port_isolation, PortIsolation::Off);
    let load_balancer = &config.load_balancer;
    assert_eq!(load_balancer.listen_host.to_string(), "0.0.0.0");
    assert!(load_balancer.ports.contains(32767) && !load_balancer.ports.contains(32768));
    assert_eq!(load_balancer.metrics_address.port(), 9090);
    assert_eq!((load_balancer.threads, load_balancer.queue_limit), (2, 0));
    assert_eq!((load_balancer.drain().as_secs(), load_balancer.queue_timeout().as_secs()), (5, 7));
    let listed = parse("serve: {load_balancer: {ports: [40000, 40010]}}").0.load_balancer.ports;
    assert_eq!((listed.from, listed.to), (40000, 40010));
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
}

#[test]
fn unknown_keys_warn_by_name_and_known_ones_without_effect_say_so() {
    let (_, warnings) = parse(
        "serv: {}\naws: {disk_encrypted: true}\nserve: {load_balancer: {thread: 2}, controller: {autostop: 5}}\n\
         kubernetes: {provision_timeout: 5, zzz: 1}\n",
    );
    let text = warnings.join("\n");
    for part in [
        "line 1: serv is not a known key: did you mean 'serve'?",
        "line 2: aws has no effect.",
        "line 3: serve.load_balancer.thread is not a known key: did you mean 'threads'?",
        "serve.controller.autostop has no effect.",
        "kubernetes.provision_timeout has no effect.",
        "kubernetes.zzz is not a known key, and has no effect.",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
}

#[test]
fn a_wrong_value_is_an_error_with_field_value_rule_and_line() {
    for (text, parts) in [
        (
            "serve:\n  controller:\n    high_availability: 'yes'\n",
            "config.yaml line 3: serve.controller.high_availability: 'yes'",
        ),
        (
            "serve: {load_balancer: {listen_host: localhost}}",
            "serve.load_balancer.listen_host: 'localhost' is not an IP",
        ),
        ("serve: {load_balancer: {ports: 8080}}", "is not a range of ports"),
        ("serve: {load_balancer: {ports: 9-8}}", "the first port must be"),
        ("serve: {load_balancer: {ports: [1, 2, 3]}}", "is not a range of ports"),
        ("serve: {load_balancer: {metrics_address: 9090}}", "9090 is not a string"),
        ("serve: {load_balancer: {threads: 0}}", "0 is less than the minimum of 1"),
        ("serve: {load_balancer: {queue_limit: 2000000}}", "more than the maximum of 1000000"),
        ("serve: {replicas: {port_isolation: on}}", "true is not auto or off"),
        ("serve: {controller: {resources: {cpus: 0}}}", "The \"cpus\" field should be positive"),
        ("serve: {controller: {resources: {ports: 80}}}", "cannot be chosen"),
        ("serve: []", "serve: [] is not a mapping"),
        ("a: 1\n---\nb: 1\n", "one YAML document"),
        ("serve: {load_balancer: {threads: 1, threads: 2}}", "Duplicate key 'threads'"),
    ] {
        let error = refusal(text);
        assert!(error.contains(parts), "{text}: {error}");
    }
}
