//! Everything of ours on a Kubernetes cluster, rendered by typed code: what each object is called, how it is
//! labelled and owned, and what it holds.
//!
//! [`render`] gives the objects of one controller, which the command line applies; [`endpoint`] and [`replica`] give
//! those that the controller makes while it runs.
//!
//! Invariants:
//! * Pure: no IO, no clock, no client. The same input gives the same objects, byte for byte.
//! * A name follows from the controller's name and a uid or a service's name, so whoever creates an object twice
//!   meets the first one.
//! * Every object carries [`names::CONTROLLER_LABEL`]: what has it is ours, what has not is never touched.
//! * Every object is in the controller's namespace: none is of the whole cluster ([`Object`]).
//! * No secret is in anything but a Secret.
#![forbid(unsafe_code)]

pub mod access;
mod controller;
pub mod endpoint;
mod error;
mod input;
mod load_balancers;
mod monitoring;
pub mod names;
mod network;
mod object;
mod owner;
mod pod;
mod quantity;
pub mod replica;
mod settings;
mod volume;

pub use error::ManifestError;
pub use input::ControllerInput;
pub use object::{Object, to_json, to_yaml};
pub use owner::{Owner, OwnerKind, owned_by};
pub use settings::to_yaml_for_pod;

/// The objects of one controller in the order to apply them: what a pod needs before the pod, the controller last.
///
/// # Errors
/// [`ManifestError`] when the configuration says what no object can hold.
pub fn render(input: &ControllerInput) -> Result<Vec<Object>, ManifestError> {
    replica::check_pod_config(&input.config.kubernetes)?;
    let settings = settings::Settings::of(input)?;
    let mut objects = access::controller(input);
    objects.push(Object::of(&settings.config_map(input)));
    objects.push(Object::of(&network::bundle_service(input)));
    if input.config.kubernetes.network_policy {
        objects.push(Object::of(&network::controller_policy(input)));
    }
    if input.has_load_balancers_alone() {
        objects.extend(access::load_balancers(input));
        objects.extend(load_balancers::objects(input, &settings)?);
    }
    if input.config.kubernetes.pod_monitor {
        objects.push(monitoring::pod_monitor(input));
    }
    if input.config.high_availability {
        objects.push(Object::of(&volume::claim(input)));
        objects.push(Object::of(&controller::deployment(input, &settings)?));
    } else {
        objects.push(Object::of(&controller::pod(input, &settings)?));
    }
    Ok(objects)
}
