//! The product on a real Kubernetes cluster: the command line from outside, the controller's pod, replicas as
//! pods, and real traffic through Services.
//!
//! These tests make and delete things on a cluster, so they run only when they are told which one:
//! `SKYSERVE_E2E=cluster KUBECONFIG=… cargo test -p skyserve --test cluster -- --test-threads 1`, from where the
//! cluster's Services and nodes can be reached. They need `kubectl` and `oha`, the controller's image on every node
//! (`image/build`), and a replica image with bash and python3 under the name of the default one.
//!
//! What disturbs a whole node or the API server runs only where `SKYSERVE_E2E_NODES` names a program that does it:
//! `PROGRAM kill-node N`, `PROGRAM start-node N`; and `SKYSERVE_E2E_APISERVER` the file with the API server's pid.
//!
//! Each test has a namespace of its own, and deletes it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

#[path = "../load.rs"]
#[allow(dead_code, reason = "shared with the tests on one machine")]
mod load;
#[path = "../wait.rs"]
#[allow(dead_code, reason = "shared with the tests on one machine")]
mod wait;

mod deaths;
mod files;
mod manifests;
mod node_loss;
mod permissions;
mod random_moments;
mod refusals;
mod removal;
mod site;
mod walkthrough;
