//! The keys SkyPilot 0.14 knows, besides those that are honoured: they are no mistake, and have no
//! effect.

pub(super) const SECTIONS: [&str; 39] = [
    "workspace",
    "db",
    "jobs",
    "serve",
    "kubernetes",
    "allowed_clouds",
    "admin_policy",
    "docker",
    "nvidia_gpus",
    "api_server",
    "active_workspace",
    "workspaces",
    "workspace_config",
    "provision",
    "rbac",
    "logs",
    "daemons",
    "data",
    "dashboard",
    "metrics",
    "plugins",
    "aws",
    "azure",
    "gcp",
    "ibm",
    "lambda",
    "scp",
    "oci",
    "runpod",
    "vast",
    "vsphere",
    "cudo",
    "fluidstack",
    "paperspace",
    "primeintellect",
    "do",
    "nebius",
    "ssh",
    "slurm",
];

pub(super) const SERVE: [&str; 5] = ["controller", "load_balancer", "replicas", "bucket", "force_disable_cloud_bucket"];

pub(super) const CONTROLLER: [&str; 6] = [
    "resources",
    "high_availability",
    "autostop",
    "consolidation_mode",
    "controller_logs_gc_retention_hours",
    "task_logs_gc_retention_hours",
];

pub(super) const LOAD_BALANCER: [&str; 7] =
    ["listen_host", "ports", "metrics_address", "threads", "drain_seconds", "queue_limit", "queue_timeout_seconds"];

pub(super) const KUBERNETES: [&str; 23] = [
    "allowed_contexts",
    "context_configs",
    "pod_config",
    "provision_timeout",
    "max_inline_command_length",
    "custom_metadata",
    "allowed_nodes",
    "rdma",
    "networking",
    "ports",
    "namespace",
    "autoscaler",
    "high_availability",
    "kueue",
    "quota",
    "dws",
    "remote_identity",
    "post_provision_runcmd",
    "apt_mirrors",
    "set_pod_resource_limits",
    "pricing",
    "auto_mounts",
    "enable_docker",
];
