//! What is rendered: held against golden files, against rules that all of it keeps, and against a real API server.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod golden;
mod home_copy;
mod rules;
mod samples;
mod server;
