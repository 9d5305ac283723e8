//! What is rendered: held against golden files, against rules that all of it keeps, and against a real API server.

mod golden;
mod home_copy;
mod rules;
mod samples;
mod server;
