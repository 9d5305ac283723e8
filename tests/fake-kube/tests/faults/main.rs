//! Provider `kubernetes` against an API server at fault: each call, each fault, and in the end the world is what was
//! asked for. What "as asked" means is in `checks.rs`; that it can fail is shown in `controls.rs`.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod checks;
mod controller;
mod controls;
mod life;
mod matrix;
mod rig;
mod scenarios;
