//! A request's body on its way to a replica.
//!
//! Invariants:
//! * The body is read as the replica takes it, never ahead.
//! * Until the first read nothing of the body is lost: it can be sent to another replica.
//! * A body that waits for `100 Continue` is read after it, or after `continue_wait_ms_max`.

use crate::client::ClientState;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use prometheus::IntCounter;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// The body as hyper's client takes it. A clone is another handle to the same body.
#[derive(Debug, Clone)]
pub(crate) enum Upload {
    Empty,
    Stream(Rc<UploadStream>),
}

/// A body that has bytes to come.
#[derive(Debug)]
pub(crate) struct UploadStream {
    incoming: RefCell<Incoming>,
    client: Arc<ClientState>,
    bytes: IntCounter,
    touched: Cell<bool>,
    failed: Cell<bool>,
    progress: Cell<Instant>,
    hold: Option<Hold>,
}

/// Holds a body back until the replica asks for it.
#[derive(Debug)]
struct Hold {
    go_ahead: Arc<GoAhead>,
    patience: RefCell<Pin<Box<Sleep>>>,
}

/// Passes the replica's `100 Continue` to the body that waits for it.
#[derive(Debug, Default)]
pub(crate) struct GoAhead {
    given: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl GoAhead {
    pub(crate) fn give(&self) {
        self.given.store(true, Relaxed);
        if let Some(waker) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

impl Upload {
    pub(crate) fn new(incoming: Incoming, client: &Arc<ClientState>, bytes: &IntCounter) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        Self::Stream(Rc::new(UploadStream::new(incoming, client, bytes, None)))
    }

    /// A body that waits for the replica to say `100 Continue`.
    pub(crate) fn held(
        incoming: Incoming,
        client: &Arc<ClientState>,
        bytes: &IntCounter,
        wait_max: Duration,
    ) -> (Self, Arc<GoAhead>) {
        let go_ahead = Arc::new(GoAhead::default());
        let patience = RefCell::new(Box::pin(tokio::time::sleep(wait_max)));
        let hold = Some(Hold { go_ahead: Arc::clone(&go_ahead), patience });
        (Self::Stream(Rc::new(UploadStream::new(incoming, client, bytes, hold))), go_ahead)
    }

    /// Whether the whole body can still be sent to someone.
    pub(crate) fn is_untouched(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(stream) => !stream.touched.get(),
        }
    }

    /// Whether the body ended before its end, by the client's doing.
    pub(crate) fn has_failed(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::Stream(stream) => stream.failed.get(),
        }
    }

    /// When the body last went on.
    pub(crate) fn last_progress(&self) -> Option<Instant> {
        match self {
            Self::Empty => None,
            Self::Stream(stream) => Some(stream.progress.get()),
        }
    }
}

impl UploadStream {
    fn new(incoming: Incoming, client: &Arc<ClientState>, bytes: &IntCounter, hold: Option<Hold>) -> Self {
        Self {
            incoming: RefCell::new(incoming),
            client: Arc::clone(client),
            bytes: bytes.clone(),
            touched: Cell::new(false),
            failed: Cell::new(false),
            progress: Cell::new(Instant::now()),
            hold,
        }
    }

    /// The body itself, for whoever is its last holder.
    pub(crate) fn into_incoming(self) -> Incoming {
        self.client.client_went_on();
        self.incoming.into_inner()
    }

    fn poll_hold(&self, context: &mut Context<'_>) -> Poll<()> {
        let Some(hold) = &self.hold else { return Poll::Ready(()) };
        *hold.go_ahead.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        if hold.go_ahead.given.load(Relaxed) || self.touched.get() {
            return Poll::Ready(());
        }
        hold.patience.borrow_mut().as_mut().poll(context)
    }

    fn poll_frame(&self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        ready!(self.poll_hold(context));
        self.touched.set(true);
        let Poll::Ready(frame) = Pin::new(&mut *self.incoming.borrow_mut()).poll_frame(context) else {
            self.client.client_awaited();
            return Poll::Pending;
        };
        self.client.client_went_on();
        self.progress.set(Instant::now());
        match &frame {
            Some(Ok(frame)) => self.bytes.inc_by(frame.data_ref().map_or(0, |data| data.len() as u64)),
            Some(Err(_)) => self.failed.set(true),
            None => {}
        }
        Poll::Ready(frame)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &*self {
            Self::Empty => Poll::Ready(None),
            Self::Stream(stream) => stream.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(stream) => stream.incoming.borrow().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(stream) => stream.incoming.borrow().size_hint(),
        }
    }
}
