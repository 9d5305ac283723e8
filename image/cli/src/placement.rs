//! Where the controller is: on this machine, in this very pod, or on a cluster. The configuration says so, and
//! nothing is remembered besides it.

use crate::judge::{self, JudgeError};
use crate::runtime;
use skyserve_home::Home;
use skyserve_manifests::names::CONTROLLER_VARIABLE;
use skyserve_spec::Target;
use skyserve_spec::config::{self, Config};

/// Where the controller is, or is to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Placement {
    /// Processes of this home, which a command may start and stop.
    Local,
    /// This is its pod: it runs, and is not ours to start or stop.
    InPod,
    /// A cluster, asked through its API server.
    Cluster(Box<OnCluster>),
}

/// A controller on a cluster, as the configuration has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OnCluster {
    pub(crate) options: skyserve_kube::Options,
    pub(crate) config: Config,
}

impl Placement {
    /// # Errors
    /// When the configuration cannot be read, unless it says for certain that services run here, and there are some:
    /// they go on with what it said before, and whoever has them must be able to see them.
    pub(crate) fn of(home: &Home) -> Result<Self, JudgeError> {
        if std::env::var_os(CONTROLLER_VARIABLE).is_some_and(|value| !value.is_empty()) {
            return Ok(Self::InPod);
        }
        match judge::config(home) {
            Ok((config, _)) => Self::by(config),
            Err(_) if judge::config_says_here(home) && runtime::may_run(home) => Ok(Self::Local),
            Err(error) => Err(error),
        }
    }

    fn by(config: Config) -> Result<Self, JudgeError> {
        Ok(match config.placement()? {
            config::Placement::Local => Self::Local,
            config::Placement::Cluster { context, namespace } => {
                let options = skyserve_kube::Options { context, namespace };
                Self::Cluster(Box::new(OnCluster { options, config }))
            }
        })
    }

    /// What a service's YAML is judged for.
    pub(crate) fn target(&self) -> Target {
        match self {
            Self::Local => Target::LocalProcesses,
            Self::InPod | Self::Cluster(_) => Target::Kubernetes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(yaml: &str) -> Placement {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::at(temp.path().join("home"), temp.path().join("run"));
        std::fs::create_dir_all(home.sky_dir()).unwrap();
        std::fs::write(home.config_file(), yaml).unwrap();
        Placement::of(&home).unwrap()
    }

    #[test]
    fn the_configuration_decides() {
        assert_eq!(placement(""), Placement::Local);
        let Placement::Cluster(on) = placement("serve: {controller: {resources: {cloud: kubernetes}}}") else {
            panic!()
        };
        assert_eq!(on.options, skyserve_kube::Options::default());
        let yaml = "serve: {controller: {high_availability: true}}\nkubernetes: {namespace: a, context: b}\n";
        let Placement::Cluster(on) = placement(yaml) else { panic!() };
        assert_eq!(on.options.context.as_deref(), Some("b"));
        assert_eq!(on.options.namespace.as_deref(), Some("a"));
        assert_eq!(Placement::Cluster(on).target(), Target::Kubernetes);
    }

    #[test]
    fn a_slip_in_the_configuration_hides_no_service_of_this_machine() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::at(temp.path().join("home"), temp.path().join("run"));
        home.make_dirs().unwrap();
        std::fs::write(home.config_file(), "serve: {load_balancer: {threads: many}}\n").unwrap();
        // What a runtime leaves that has stopped with its last service.
        std::fs::write(home.config_in_force(), "{}").unwrap();
        assert!(Placement::of(&home).is_err());
        // And one that was killed.
        std::fs::write(home.database(), "").unwrap();
        std::fs::write(home.init_lock(), "").unwrap();
        assert_eq!(Placement::of(&home).unwrap(), Placement::Local);
        // Here is not where services are looked for that may be elsewhere.
        for yaml in
            ["serve: {controller: {resources: {cloud: kubernetes}}}\nkubernetes: {ports: nodepor}\n", "serve: [1]\n"]
        {
            std::fs::write(home.config_file(), yaml).unwrap();
            let error = Placement::of(&home).unwrap_err().to_string();
            assert!(error.contains("config.yaml line "), "{error}");
        }
    }
}
