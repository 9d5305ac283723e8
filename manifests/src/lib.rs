//! Everything of ours on a Kubernetes cluster, rendered by typed code: what each object is called, how it is
//! labelled and owned, and what it holds.
//!
//! Invariants:
//! * Pure: no IO, no clock, no client. The same input gives the same objects, byte for byte.
//! * A name follows from the controller's name and a uid or a service's name, so whoever creates an object twice
//!   meets the first one.
//! * Every object carries [`names::CONTROLLER_LABEL`]: what has it is ours, what has not is never touched.
#![forbid(unsafe_code)]

pub mod names;
