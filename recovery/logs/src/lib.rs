//! Reads logs that are being written and rotated: at once or as they grow ([`Follower`]), and for a reader
//! elsewhere ([`stream`]).
#![forbid(unsafe_code)]

mod follow;
mod stream;

pub use follow::Follower;
pub use stream::{PIECES_QUEUED_MAX, stream};
