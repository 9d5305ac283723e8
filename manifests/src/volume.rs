//! The volume of a highly available controller: its home, and so all that it must not forget.
//!
//! The controller owns it as it owns everything: deleting the controller deletes the volume, unless its StorageClass
//! retains volumes. `kubectl delete pod` does not touch it.

use crate::input::ControllerInput;
use crate::names::COMPONENT_CONTROLLER;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// SkyServe's size of a controller's disk. `serve.controller.resources.disk_size` makes it smaller: the state itself is
/// a few MB, logs and uploaded files are the rest.
const DISK_GB_DEFAULT: u64 = 200;

pub(crate) fn claim(input: &ControllerInput) -> PersistentVolumeClaim {
    let size = input.config.controller_resources.disk_size.unwrap_or(DISK_GB_DEFAULT);
    PersistentVolumeClaim {
        metadata: input.metadata(input.names.volume_claim(), COMPONENT_CONTROLLER),
        spec: Some(PersistentVolumeClaimSpec {
            // Not ReadWriteOncePod: a pod that is stuck on a lost node would keep its successor from being scheduled.
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(format!("{size}Gi")))].into()),
                limits: None,
            }),
            storage_class_name: input.config.storage_class_name.clone(),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
