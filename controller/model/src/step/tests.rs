//! What [`step`](super::step) does, by subject. Every step that these tests make goes through
//! [`fixture::Fixture::apply`], which also checks that it can be undone and that its rows are enough to
//! know the service by.

mod calls;
mod decisions;
mod failures;
pub(crate) mod fixture;
mod observations;
mod probes;
mod properties;
mod rows;
mod statuses;
mod updates;
mod waking;
