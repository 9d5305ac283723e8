//! The environment of a replica's commands.
//!
//! It begins with what a program needs of the user's own session, never with all of it: the shim
//! inherits from whichever process happened to launch it. Then come SkyPilot's variables, then the
//! service's `envs` and `secrets`, then the few that nothing may override. In a pod the container's own
//! environment takes the session's place; the rest ([`add`]) is the same.

use crate::address::Place;
use crate::strays::{DIR_VARIABLE, UID_VARIABLE};
use skyserve_model::launch::{LaunchSpec, Stage};
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is taken over from the session: identity, language, search paths, proxies, accelerators.
const INHERITED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TERM",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];
const INHERITED_PREFIXES: &[&str] = &["LC_", "XDG_", "CUDA_", "NVIDIA_", "ROCR_", "HIP_"];

/// Where programs are searched when the session does not say.
pub const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where and since when a replica's commands run.
#[derive(Debug, Clone, Copy)]
pub struct Seat {
    /// The replica's own address.
    pub ip: IpAddr,
    /// The port to listen on for the endpoint's requests.
    pub port: u16,
    /// When the replica began, in milliseconds since the Unix epoch.
    pub began_unix_ms: u64,
}

/// All variables of the commands of `stage`. Values are bytes: those of the session may be any.
pub(crate) fn variables(
    stage: Stage,
    spec: &LaunchSpec,
    dir: &Path,
    place: &Place,
    claimed_unix_ms: u64,
) -> BTreeMap<String, OsString> {
    let mut all = inherited(std::env::vars_os());
    let seat = Seat { ip: place.ip.into(), port: place.port_to_bind(spec.port), began_unix_ms: claimed_unix_ms };
    add(&mut all, stage, spec, &seat);
    all.insert(UID_VARIABLE.to_owned(), spec.uid.as_str().into());
    all.insert(DIR_VARIABLE.to_owned(), dir.as_os_str().to_owned());
    all
}

/// Adds to the session's variables those of the replica.
pub fn add(all: &mut BTreeMap<String, OsString>, stage: Stage, spec: &LaunchSpec, seat: &Seat) {
    // As SkyPilot: what Python prints reaches the log at once.
    all.insert("PYTHONUNBUFFERED".into(), "1".into());
    let mut set = |name: &str, value: String| all.insert(name.to_owned(), value.into());
    let ip = seat.ip.to_string();
    let gpus = gpus_per_node(spec).to_string();
    set("SKYPILOT_NUM_NODES", "1".into());
    set("SKYPILOT_TASK_ID", format!("sky-{}_{}-{}_1", seat.began_unix_ms, spec.service, spec.replica_id));
    set("SKYPILOT_SERVE_REPLICA_ID", spec.replica_id.to_string());
    match stage {
        Stage::Setup | Stage::Provision => {
            set("SKYPILOT_SETUP_NODE_IPS", ip);
            set("SKYPILOT_SETUP_NODE_RANK", "0".into());
            set("SKYPILOT_SETUP_NUM_GPUS_PER_NODE", gpus);
        }
        Stage::Run => {
            set("SKYPILOT_NODE_IPS", ip);
            set("SKYPILOT_NODE_RANK", "0".into());
            set("SKYPILOT_NUM_GPUS_PER_NODE", gpus);
        }
    }
    let port = seat.port.to_string();
    set("PORT", port.clone());
    for (name, value) in spec.envs.iter().chain(&spec.secrets) {
        set(name, value.clone());
    }
    // A service that sets PORT to its own port means this one; any other value is its own business.
    if spec.envs.get("PORT").or(spec.secrets.get("PORT")).is_some_and(|value| *value == spec.port.to_string()) {
        set("PORT", port.clone());
    }
    set("SKYPILOT_SERVE_REPLICA_PORT", port);
}

/// `name=value` strings for execve(2); what cannot be one (a zero byte) is left out.
pub(crate) fn strings(variables: &BTreeMap<String, OsString>) -> Vec<CString> {
    variables
        .iter()
        .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
        .collect()
}

fn inherited(session: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<String, OsString> {
    let wanted =
        |name: &str| INHERITED.contains(&name) || INHERITED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let mut all: BTreeMap<String, OsString> = session
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| wanted(name))
        .collect();
    all.entry("PATH".into()).or_insert_with(|| PATH_DEFAULT.into());
    if let Ok(Some(user)) = nix::unistd::User::from_uid(nix::unistd::geteuid()) {
        all.entry("HOME".into()).or_insert_with(|| user.dir.into_os_string());
        all.entry("USER".into()).or_insert_with(|| user.name.clone().into());
        all.entry("LOGNAME".into()).or_insert_with(|| user.name.into());
    }
    all
}

/// SkyPilot's count: that of the first accelerator, fractions rounded up; 0 without any.
fn gpus_per_node(spec: &LaunchSpec) -> u64 {
    spec.accelerators.values().next().map_or(0, |count| count.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;
    use std::net::Ipv4Addr;

    fn value(all: &BTreeMap<String, OsString>, name: &str) -> Option<String> {
        all.get(name).map(|value| value.to_string_lossy().into_owned())
    }

    #[test]
    fn setup_and_run_see_skypilots_variables_and_no_stranger() {
        let mut spec = spec("svc-1-2", 8080);
        spec.accelerators.insert("A100".into(), 1.5);
        spec.envs.insert("SKYPILOT_NUM_NODES".into(), "mine".into());
        spec.envs.insert(UID_VARIABLE.into(), "forged".into());
        let place = Place::moving(Ipv4Addr::new(127, 70, 1, 2), 8080, 8080);
        let setup = variables(Stage::Setup, &spec, Path::new("/d"), &place, 7);
        let run = variables(Stage::Run, &spec, Path::new("/d"), &place, 7);
        assert_eq!(value(&setup, "SKYPILOT_SETUP_NODE_IPS").unwrap(), "127.70.1.2");
        assert_eq!(value(&setup, "SKYPILOT_SETUP_NUM_GPUS_PER_NODE").unwrap(), "2");
        assert_eq!(value(&setup, "SKYPILOT_NODE_RANK"), None);
        assert_eq!(value(&run, "SKYPILOT_NODE_RANK").unwrap(), "0");
        assert_eq!(value(&run, "SKYPILOT_NODE_IPS").unwrap(), "127.70.1.2");
        assert_eq!(value(&run, "SKYPILOT_NUM_NODES").unwrap(), "mine");
        assert_eq!(value(&run, "SKYPILOT_SERVE_REPLICA_ID").unwrap(), "2");
        assert_eq!(value(&run, "SKYPILOT_TASK_ID").unwrap(), "sky-7_svc-2_1");
        assert_eq!(value(&run, "PORT").unwrap(), "8080");
        assert_eq!(value(&run, UID_VARIABLE).unwrap(), "svc-1-2");
        assert_eq!(value(&run, "CARGO_PKG_NAME"), None);
    }

    #[test]
    fn without_isolation_port_is_the_one_to_listen_on_even_if_the_service_names_its_own() {
        let mut spec = spec("svc-1-2", 8080);
        let place = Place::shared(8080, 4567);
        spec.envs.insert("PORT".into(), "8080".into());
        assert_eq!(value(&variables(Stage::Run, &spec, Path::new("/d"), &place, 7), "PORT").unwrap(), "4567");
        spec.envs.insert("PORT".into(), "9".into());
        let run = variables(Stage::Run, &spec, Path::new("/d"), &place, 7);
        assert_eq!(value(&run, "PORT").unwrap(), "9");
        assert_eq!(value(&run, "SKYPILOT_SERVE_REPLICA_PORT").unwrap(), "4567");
    }
}
