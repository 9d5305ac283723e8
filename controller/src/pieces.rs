//! An answer's body that comes in pieces from a bounded queue: whoever fills the queue is as slow as the client, and
//! ends when the client leaves.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// What may go wrong in the middle; the answer is then cut, which its reader sees.
pub(crate) type Broken = Box<dyn Error + Send + Sync>;

#[derive(Debug)]
pub(crate) struct Pieces {
    queue: mpsc::Receiver<Result<Bytes, Broken>>,
    /// Bytes still to come, if that is known.
    left: Option<u64>,
}

impl Pieces {
    pub(crate) fn new(queue: mpsc::Receiver<Result<Bytes, Broken>>, bytes: Option<u64>) -> Self {
        Self { queue, left: bytes }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let pieces = self.get_mut();
        pieces.queue.poll_recv(context).map(|piece| {
            piece.map(|piece| {
                let piece = piece?;
                pieces.left = pieces.left.map(|left| left.saturating_sub(piece.len() as u64));
                Ok(Frame::data(piece))
            })
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
