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
         replicas: 3, \
         threads: 2, drain_seconds: 5, queue_limit: 0, queue_timeout_seconds: 7}\n  replicas: {port_isolation: \
         off}\nkubernetes: {context: here, namespace: models, ports: nodeport, replica_image: 'docker:busybox:1', \
         pod_config: {spec: {hostNetwork: true}}, unreachable_seconds: 5, network_policy: false, disruption_budget: true, \
         pod_monitor: true, high_availability: {storage_class_name: fast}}\n",
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
    assert_eq!(load_balancer.replicas, 3);
    let expected = KubernetesConfig {
        context: Some("here".to_owned()),
        namespace: Some("models".to_owned()),
        ports: EndpointKind::NodePort,
        replica_image: "busybox:1".to_owned(),
        pod_config: Some(serde_json::json!({ "spec": { "hostNetwork": true } })),
        unreachable_seconds: 5,
        network_policy: false,
        disruption_budget: true,
        pod_monitor: true,
    };
    assert_eq!(config.kubernetes, expected);
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
        ("serve: {load_balancer: {replicas: 0}}", "0 is less than the minimum of 1"),
        ("kubernetes: {ports: loadbalancr}", "Did you mean 'loadbalancer'?"),
        ("kubernetes: {namespace: My_Models}", "kubernetes.namespace: 'My_Models' is not a namespace"),
        ("kubernetes: {context: ''}", "kubernetes.context: '' is not a name"),
        ("kubernetes: {allowed_contexts: here}", "is not a list"),
        ("kubernetes: {replica_image: 'python 3'}", "is not the name of a container image"),
        ("kubernetes: {pod_config: [spec]}", "kubernetes.pod_config: ['spec'] is not a mapping"),
        ("kubernetes: {unreachable_seconds: 30s}", "'30s' is not an integer"),
        ("kubernetes: {network_policy: 'no'}", "is not a boolean"),
        ("serve: {controller: {resources: {image_id: ami-1}}}", "'ami-1' is not a container image"),
        ("serve: []", "serve: [] is not a mapping"),
        ("a: 1\n---\nb: 1\n", "one YAML document"),
        ("serve: {load_balancer: {threads: 1, threads: 2}}", "Duplicate key 'threads'"),
    ] {
        let error = refusal(text);
        assert!(error.contains(parts), "{text}: {error}");
    }
}

#[test]
fn services_run_on_a_cluster_if_the_controller_does_or_is_to_be_highly_available() {
    let cluster = |context: Option<&str>, namespace: Option<&str>| Placement::Cluster {
        context: context.map(str::to_owned),
        namespace: namespace.map(str::to_owned),
    };
    for (text, expected) in [
        ("", Placement::Local),
        ("kubernetes: {context: here}", Placement::Local),
        ("serve: {controller: {resources: {cpus: 2}}}", Placement::Local),
        ("serve: {controller: {resources: {cloud: kubernetes}}}", cluster(None, None)),
        ("serve: {controller: {high_availability: true}}", cluster(None, None)),
        (
            "serve: {controller: {resources: {infra: k8s}}}\nkubernetes: {context: a, namespace: n}",
            cluster(Some("a"), Some("n")),
        ),
        ("serve: {controller: {resources: {infra: k8s/b/c}}}\nkubernetes: {context: a}", cluster(Some("b/c"), None)),
        (
            "serve: {controller: {high_availability: true}}\nkubernetes: {allowed_contexts: [a]}",
            cluster(Some("a"), None),
        ),
        ("serve: {controller: {high_availability: true}}\nkubernetes: {allowed_contexts: all}", cluster(None, None)),
    ] {
        assert_eq!(parse(text).0.placement(), Ok(expected), "{text}");
    }
}

#[test]
fn high_availability_on_another_cloud_is_refused_with_the_line_and_the_remedy() {
    let error = refusal("serve:\n  controller:\n    resources: {cloud: aws}\n    high_availability: true\n");
    for part in [
        "config.yaml line 4: serve.controller.high_availability: true",
        "only supported when using Kubernetes",
        "the cloud aws",
        "set `cloud: kubernetes`",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn another_cloud_is_refused_with_the_key_the_line_and_what_there_is() {
    for (text, named) in [
        (
            "serve:\n  controller:\n    resources: {cloud: aws}\n",
            "line 3: serve.controller.resources.cloud: aws is not supported",
        ),
        (
            "serve:\n  controller:\n    resources:\n      infra: gcp/us-central1\n",
            "line 4: serve.controller.resources.infra: gcp/us-central1 is not supported",
        ),
        (
            "serve: {controller: {resources: {any_of: [{cloud: AWS}, {cloud: kubernetes}]}}}",
            "line 1: serve.controller.resources",
        ),
    ] {
        let error = refusal(text);
        for part in [named, "`kubernetes`", "this machine"] {
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

#[test]
fn a_wrong_file_says_here_only_if_what_says_where_is_right() {
    for (text, here) in [
        ("serve: {load_balancer: {threads: many}}", true),
        ("kubernetes: {ports: nodepor}", true),
        ("serve: {controller: {resources: {cpus: 2}}, replicas: 1}", true),
        ("serve: {controller: {resources: {cloud: kubernetes}}}\nkubernetes: {ports: nodepor}", false),
        ("serve: {controller: {high_availability: true}}\nkubernetes: {ports: nodepor}", false),
        ("serve: {controller: {high_availability: 'yes'}}", false),
        ("serve: {controller: {resources: {cloud: kubernets}}}", false),
        ("serve: {controller: {resources: {cloud: aws}}}", false),
        ("serve: {controller: 1}", false),
        ("serve: [1]", false),
        ("a: b: c", false),
        ("a: 1\n---\nserve: {controller: {high_availability: true}}\n", false),
    ] {
        assert!(Config::parse(text.as_bytes(), "config.yaml").is_err(), "{text}");
        assert_eq!(Config::says_here(text.as_bytes()), here, "{text}");
    }
}

#[test]
fn of_several_contexts_the_first_counts_unless_one_is_named() {
    let (config, warnings) = parse("kubernetes: {allowed_contexts: [a, b]}");
    assert_eq!(config.kubernetes.context.as_deref(), Some("a"));
    assert!(warnings.join("\n").contains("line 1: kubernetes.allowed_contexts names 2 contexts"), "{warnings:?}");
    let (config, _) = parse("kubernetes: {allowed_contexts: [a, b], context: b}");
    assert_eq!(config.kubernetes.context.as_deref(), Some("b"));
    assert!(parse("kubernetes: {allowed_contexts: []}").1.join("\n").contains("names no context"));
}

#[test]
fn the_controllers_image_and_disk_are_what_was_written() {
    let (config, _) = parse("serve: {controller: {resources: {image_id: 'docker:a/b:1', disk_size: 256}}}");
    assert_eq!(config.controller_image(), Some("a/b:1"));
    assert_eq!(config.controller_resources.disk_size, Some(256));
    let (config, _) = parse("serve: {controller: {resources: {infra: k8s, image_id: a/b:1}}}");
    assert_eq!(config.controller_image(), Some("a/b:1"));
    assert_eq!(Config::default().controller_image(), None);
}
