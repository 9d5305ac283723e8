//! `manifests`: prints what a controller on a cluster is made of, and makes nothing.

use super::{CommandError, Context};
use crate::cluster::{ClusterError, UserHash};
use crate::output::{Screen, warning};
use crate::{controller, judge};
use skyserve_manifests::names::Names;
use skyserve_manifests::{ControllerInput, render, to_json, to_yaml};
use skyserve_spec::config::{Config, Placement};

/// Of a context that names none, as Kubernetes has it.
const NAMESPACE_DEFAULT: &str = "default";

pub(super) async fn manifests(context: &Context, json: bool, screen: &mut Screen<'_>) -> Result<(), CommandError> {
    let (config, warnings) = judge::config(&context.home)?;
    warnings.iter().for_each(|text| warning(text));
    let input = ControllerInput {
        names: Names::of_user(&UserHash::of(&context.home).digits),
        namespace: namespace(&config).await,
        image: controller::image(&config).to_owned(),
        config,
    };
    let objects = render(&input).map_err(ClusterError::from)?;
    let text = match json {
        true => format!("{:#}\n", to_json(&objects)),
        false => to_yaml(&objects).map_err(|error| CommandError::Refused(error.to_string()))?,
    };
    Ok(screen.text(&text)?)
}

/// Where it would be made. Without a kubeconfig that says so, in Kubernetes' own default.
async fn namespace(config: &Config) -> String {
    let options = match config.placement() {
        Ok(Placement::Cluster { context, namespace }) => skyserve_kube::Options { context, namespace },
        Ok(Placement::Local) | Err(_) => skyserve_kube::Options {
            context: config.kubernetes.context.clone(),
            namespace: config.kubernetes.namespace.clone(),
        },
    };
    if let Some(namespace) = options.namespace {
        return namespace;
    }
    skyserve_kube::connect(&options).await.map_or_else(|_| NAMESPACE_DEFAULT.to_owned(), |cluster| cluster.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestHome, shown};

    #[test]
    fn they_follow_from_the_configuration_and_are_printed_in_the_order_to_apply_them() {
        let test_home = TestHome::new();
        let config = "serve: {controller: {high_availability: true}}\nkubernetes: {namespace: here}\n";
        std::fs::write(test_home.context.home.config_file(), config).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let printed = |json| {
            let (outcome, text) =
                runtime.block_on(shown(async |screen| manifests(&test_home.context, json, screen).await));
            outcome.unwrap();
            text
        };
        let list: serde_json::Value = serde_json::from_str(&printed(true)).unwrap();
        let items = list["items"].as_array().unwrap();
        assert!(items.iter().all(|item| item["metadata"]["namespace"] == "here"));
        assert_eq!(items.last().unwrap()["kind"], "Deployment");
        assert_eq!(printed(false).matches("\nkind: ").count(), items.len());
        assert!(!test_home.context.home.sky_dir().join("user_hash").exists(), "nothing is made");
    }
}
