//! What the controller and the load balancers may do: the verbs they use, in the controller's namespace, and no more.

use crate::input::ControllerInput;
use crate::names::{COMPONENT_CONTROLLER, COMPONENT_LOAD_BALANCER, Names};
use crate::object::Object;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use skyserve_spec::config::{Config, EndpointKind};

/// One thing that an account may do.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// Empty for the core group.
    pub group: &'static str,
    pub resource: &'static str,
    pub verbs: &'static [&'static str],
    /// With these names alone; any if `None`. Verbs on no one object (create, list without a name) cannot have names.
    pub named: Option<fn(&Names) -> String>,
    /// Whether it is needed with this configuration.
    pub needed: fn(&Config) -> bool,
    /// What fails without it.
    pub reason: &'static str,
}

const ALWAYS: fn(&Config) -> bool = |_| true;
const WITH_LOAD_BALANCERS: fn(&Config) -> bool = |config| config.load_balancer.replicas > 1;

/// What the controller may do.
pub const CONTROLLER_GRANTS: &[Grant] = &[
    Grant {
        group: "",
        resource: "pods",
        verbs: &["get", "list", "watch", "create", "delete"],
        named: None,
        needed: ALWAYS,
        reason: "replicas are pods: they are made, watched and removed",
    },
    Grant {
        group: "",
        resource: "pods/log",
        verbs: &["get"],
        named: None,
        needed: ALWAYS,
        reason: "`logs` shows what a replica printed",
    },
    Grant {
        group: "",
        resource: "secrets",
        verbs: &["create"],
        named: None,
        needed: ALWAYS,
        reason: "a replica's launch is a Secret; its name and content follow from the uid, so none is ever read",
    },
    Grant {
        group: "",
        resource: "services",
        verbs: &["get", "list", "watch", "create", "patch", "delete"],
        named: None,
        needed: ALWAYS,
        reason: "each served service has a Service, whose address is its endpoint",
    },
    Grant {
        group: "networking.k8s.io",
        resource: "ingresses",
        verbs: &["get", "list", "watch", "create", "patch", "delete"],
        named: None,
        needed: |config| config.kubernetes.ports == EndpointKind::Ingress,
        reason: "with `ports: ingress` each served service has an Ingress",
    },
    Grant {
        group: "",
        resource: "configmaps",
        verbs: &["get", "patch"],
        named: Some(Names::routes),
        needed: WITH_LOAD_BALANCERS,
        reason: "load balancers alone read their routes from a ConfigMap",
    },
    Grant {
        group: "apps",
        resource: "deployments",
        verbs: &["get"],
        named: Some(Names::deployment),
        needed: |config| config.high_availability,
        reason: "the Deployment's uid is what everything is owned by",
    },
];

/// What a load balancer alone may do.
pub const LOAD_BALANCER_GRANTS: &[Grant] = &[Grant {
    group: "",
    resource: "configmaps",
    verbs: &["list", "watch"],
    named: Some(Names::routes),
    needed: WITH_LOAD_BALANCERS,
    reason: "it follows the controller's routes, and may see nothing else",
}];

/// ServiceAccount of the load balancers alone.
pub(crate) fn load_balancer_account(names: &Names) -> String {
    names.load_balancers()
}

pub(crate) fn controller(input: &ControllerInput) -> Vec<Object> {
    objects(input, &input.names.account(), COMPONENT_CONTROLLER, CONTROLLER_GRANTS)
}

pub(crate) fn load_balancers(input: &ControllerInput) -> Vec<Object> {
    objects(input, &load_balancer_account(&input.names), COMPONENT_LOAD_BALANCER, LOAD_BALANCER_GRANTS)
}

fn objects(input: &ControllerInput, name: &str, component: &str, grants: &[Grant]) -> Vec<Object> {
    let metadata = || input.metadata(name.to_owned(), component);
    let account = ServiceAccount {
        metadata: metadata(),
        // Pods that need the token ask for it.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    let needed = grants.iter().filter(|grant| (grant.needed)(&input.config));
    let role = Role { metadata: metadata(), rules: Some(needed.map(|grant| rule(grant, &input.names)).collect()) };
    let binding = RoleBinding {
        metadata: metadata(),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: name.to_owned(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: name.to_owned(),
            namespace: Some(input.namespace.clone()),
            api_group: None,
        }]),
    };
    vec![Object::of(&account), Object::of(&role), Object::of(&binding)]
}

fn rule(grant: &Grant, names: &Names) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![grant.group.to_owned()]),
        resources: Some(vec![grant.resource.to_owned()]),
        verbs: grant.verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        resource_names: grant.named.map(|named| vec![named(names)]),
        non_resource_urls: None,
    }
}
