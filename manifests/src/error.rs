//! Why there is no object for what was asked.

/// What cannot be rendered; a retry gives the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// `kubernetes.pod_config` is no part of a pod, or changes what is ours.
    #[error("{field}: {problem}")]
    PodConfig { field: String, problem: String },
    /// Kubernetes holds no Secret this large.
    #[error(
        "The launch of {uid} is {bytes} bytes, and Kubernetes takes {bytes_max} at most: put large scripts into the \
         workdir, and large values of envs or secrets into files of file_mounts"
    )]
    LaunchTooLarge { uid: String, bytes: usize, bytes_max: usize },
    /// An amount that no Kubernetes quantity says.
    #[error("{0}")]
    Resources(String),
    /// The configuration cannot be written down again.
    #[error("the configuration cannot be written as YAML: {0}")]
    Yaml(String),
}
