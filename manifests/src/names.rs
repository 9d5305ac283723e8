//! Names, labels, ports and environment variables: what the command line, the controller and the pods agree on.

use sha2::{Digest, Sha256};

/// Who we are to server-side apply.
pub const FIELD_MANAGER: &str = "skyserve";

/// The image of a controller unless the configuration names another: that of this very version. `image/build` gives
/// its image this name.
pub const DEFAULT_CONTROLLER_IMAGE: &str = concat!("docker.io/skyserve/skyserve:", env!("CARGO_PKG_VERSION"));

/// On every object of ours; the value is the controller's name.
pub const CONTROLLER_LABEL: &str = "skyserve.dev/controller";
/// What an object is for: one of the `COMPONENT_*` values.
pub const COMPONENT_LABEL: &str = "skyserve.dev/component";
/// On controller pods, by SkyPilot's name; the value is `1`.
pub const HEAD_LABEL: &str = "skypilot-head-node";
/// On pods that take a service's requests (the controller's, or those of the load balancers alone).
pub const ENDPOINT_LABEL: &str = "skyserve.dev/endpoint";
/// On what belongs to one service: [`label_value`] of its name.
pub const SERVICE_LABEL: &str = "skyserve.dev/service";
/// On a replica's objects: [`label_value`] of its uid.
pub const REPLICA_LABEL: &str = "skyserve.dev/replica";

/// A replica's uid, whole.
pub const UID_ANNOTATION: &str = "skyserve.dev/uid";
/// The port on which a replica serves.
pub const PORT_ANNOTATION: &str = "skyserve.dev/port";
/// The version of its service that a replica is of.
pub const VERSION_ANNOTATION: &str = "skyserve.dev/version";
/// A service's name, whole.
pub const SERVICE_ANNOTATION: &str = "skyserve.dev/service-name";
/// `true` or `false`: the `high_availability` a controller was made with.
pub const HIGH_AVAILABILITY_ANNOTATION: &str = "skyserve.dev/high-availability";

pub const COMPONENT_CONTROLLER: &str = "controller";
pub const COMPONENT_LOAD_BALANCER: &str = "load-balancer";
pub const COMPONENT_REPLICA: &str = "replica";
pub const COMPONENT_ENDPOINT: &str = "endpoint";

/// Metrics and health of the load balancer, on the pod's address.
pub const METRICS_PORT: u16 = 9090;
/// Where a controller pod serves replicas the files that were uploaded for them: needs a token.
pub const BUNDLE_PORT: u16 = 9091;
/// The control API in a controller pod, on 127.0.0.1 alone: reached by port-forward.
pub const CONTROL_PORT: u16 = 9092;

/// In every container of ours that is a controller or a load balancer: the controller's name. Its presence says
/// "this is a pod, and replicas are pods".
pub const CONTROLLER_VARIABLE: &str = "SKYSERVE_CONTROLLER";
/// Namespace of the pod (downward API).
pub const NAMESPACE_VARIABLE: &str = "SKYSERVE_NAMESPACE";
/// Name of the pod (downward API).
pub const POD_VARIABLE: &str = "SKYSERVE_POD";
/// UID of the pod (downward API): what a controller that is a plain pod owns its replicas by.
pub const POD_UID_VARIABLE: &str = "SKYSERVE_POD_UID";
/// Address of the pod (downward API).
pub const POD_IP_VARIABLE: &str = "SKYSERVE_POD_IP";
/// Address of the pod's node (downward API): where a node port answers.
pub const NODE_IP_VARIABLE: &str = "SKYSERVE_NODE_IP";
/// `true` if the controller is a Deployment, `false` if it is a plain pod.
pub const HIGH_AVAILABILITY_VARIABLE: &str = "SKYSERVE_HIGH_AVAILABILITY";
/// The controller's own image: its binary prepares replicas.
pub const IMAGE_VARIABLE: &str = "SKYSERVE_IMAGE";
/// A configuration file to read instead of `~/.sky/config.yaml`.
pub const CONFIG_VARIABLE: &str = "SKYSERVE_CONFIG";

/// In a replica's init container: where the uploaded files are, `http://ADDRESS:9091`.
pub const BUNDLE_URL_VARIABLE: &str = "SKYSERVE_BUNDLE_URL";
/// Where sockets and whatever belongs to this pod alone are, as the home's crate calls it.
pub const RUNTIME_DIR_VARIABLE: &str = "SKYSERVE_RUNTIME_DIR";

/// In the ConfigMap [`Names::routes`]: the route table, as `routes.json` holds it.
pub const ROUTES_KEY: &str = "routes.json";

/// The controller's configuration in its pod.
pub const CONFIG_PATH: &str = "/etc/skyserve/config.yaml";
/// Where a pod keeps what belongs to it alone, on no volume that another may mount. The mount itself is the node's
/// root's.
pub const RUNTIME_MOUNT: &str = "/run/skyserve";
/// The runtime folder in a pod: init makes it, so it is ours.
pub const RUNTIME_DIR: &str = "/run/skyserve/own";
/// The home in a pod: the volume.
pub const HOME_DIR: &str = "/home/sky";

/// Longest DNS label.
const DNS_LABEL_MAX: usize = 63;
/// Hexadecimal digits of a hash that tells two names apart when both read alike.
const HASH_DIGITS: usize = 8;

/// The names of one controller's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// `sky-serve-controller-0123abcd`.
    pub controller: String,
}

impl Names {
    /// Of the controller that belongs to the user with this hash (8 hexadecimal digits, SkyPilot's).
    pub fn of_user(user_hash: &str) -> Self {
        Self { controller: format!("sky-serve-controller-{user_hash}") }
    }

    /// The HA controller's Deployment.
    pub fn deployment(&self) -> String {
        format!("{}-deployment", self.controller)
    }

    /// The pod of a controller that is not HA, by SkyPilot's name.
    pub fn pod(&self) -> String {
        format!("{}-head", self.controller)
    }

    /// The volume of an HA controller's home.
    pub fn volume_claim(&self) -> String {
        format!("{}-home", self.controller)
    }

    /// ServiceAccount, Role and RoleBinding.
    pub fn account(&self) -> String {
        self.controller.clone()
    }

    /// ConfigMap with the controller's configuration.
    pub fn config(&self) -> String {
        format!("{}-config", self.controller)
    }

    /// Service in front of [`BUNDLE_PORT`].
    pub fn bundle_service(&self) -> String {
        format!("{}-files", self.controller)
    }

    /// Deployment of load balancers alone.
    pub fn load_balancers(&self) -> String {
        format!("{}-lb", self.controller)
    }

    /// ConfigMap with the route table, for load balancers alone.
    pub fn routes(&self) -> String {
        format!("{}-routes", self.controller)
    }

    /// The Kubernetes Service (and Ingress) of a served service.
    pub fn endpoint(&self, service: &str) -> String {
        self.readable("sky-serve", service)
    }

    /// The pod of a replica, and the Secret with its launch.
    pub fn replica(&self, uid: &str) -> String {
        self.readable("sky-replica", uid)
    }

    /// A DNS label that a person recognises, and that no other text of this controller or another has.
    fn readable(&self, prefix: &str, text: &str) -> String {
        let hash = &hash_of(&[&self.controller, prefix, text])[..HASH_DIGITS];
        let room = DNS_LABEL_MAX - prefix.len() - HASH_DIGITS - 2;
        let safe = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let plain: String = text.chars().map(safe).collect();
        // The end of a uid tells replicas apart, so that is what stays of a long one.
        let plain = plain.get(plain.len().saturating_sub(room)..).unwrap_or_default().trim_matches('-');
        if plain.is_empty() { format!("{prefix}-{hash}") } else { format!("{prefix}-{plain}-{hash}") }
    }
}

/// `text` as a label's value: itself if it may be one, else a hash of it.
pub fn label_value(text: &str) -> String {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let fits = text.len() <= DNS_LABEL_MAX
        && ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if fits { text.to_owned() } else { format!("h-{}", &hash_of(&[text])[..40]) }
}

fn hash_of(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_dns_label(text: &str) -> bool {
        let inner = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inner && !text.is_empty() && text.len() <= DNS_LABEL_MAX && !text.starts_with('-') && !text.ends_with('-')
    }

    #[test]
    fn every_name_is_a_dns_label_whatever_the_service_is_called() {
        let names = Names::of_user("0123abcd");
        let long = "x".repeat(128);
        for text in ["my-svc-1-1", "my_svc-1-1", "A.b_C", "é", "---", "", &long] {
            assert!(is_dns_label(&names.replica(text)), "{}", names.replica(text));
            assert!(is_dns_label(&names.endpoint(text)), "{}", names.endpoint(text));
        }
    }

    #[test]
    fn names_that_read_alike_differ() {
        let names = Names::of_user("0123abcd");
        assert_ne!(names.endpoint("my-svc"), names.endpoint("my_svc"));
        assert_ne!(names.endpoint("my-svc"), names.endpoint("My-svc"));
        assert_ne!(names.replica("a-1-1"), Names::of_user("ffffffff").replica("a-1-1"));
    }

    #[test]
    fn a_label_holds_the_text_itself_where_it_can() {
        assert_eq!(label_value("my_svc.A"), "my_svc.A");
        assert!(label_value(&"x".repeat(64)).starts_with("h-"));
        assert!(label_value("-a").starts_with("h-"));
    }
}
