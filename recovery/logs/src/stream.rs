//! A log for a reader elsewhere: pieces in a bounded queue, so that a slow reader costs no memory, and one that
//! leaves ends it.

use crate::Follower;
use bytes::Bytes;
use std::io::{self, Write};
use std::time::Duration;
use tokio::sync::mpsc;

/// Pieces that may wait for the reader, of up to 64 KiB each.
pub const PIECES_QUEUED_MAX: usize = 16;
/// Pause between looks at a log: a person sees no delay, and nothing else is used for it.
const POLL: Duration = Duration::from_millis(200);

/// What `follower` reads, until `is_complete` says that nothing will be added, or the reader leaves. It is asked
/// before each look: what is read afterwards is then all there is.
pub fn stream(
    mut follower: Follower,
    mut is_complete: impl Fn(&Follower) -> bool + Send + 'static,
) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(PIECES_QUEUED_MAX);
    tokio::spawn(async move {
        loop {
            let mut queue = Queue(sender.clone());
            let looked = tokio::task::spawn_blocking(move || {
                let complete = is_complete(&follower);
                let result = follower.read_on(&mut queue);
                (follower, is_complete, complete, result)
            });
            let Ok(looked) = looked.await else { return };
            let (complete, result);
            (follower, is_complete, complete, result) = looked;
            if let Err(error) = result {
                let _ = sender.send(Err(error)).await;
                return;
            }
            if complete {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = sender.closed() => return,
            }
        }
    });
    receiver
}

/// Puts what is written to it into the queue; waits while that is full.
struct Queue(mpsc::Sender<io::Result<Bytes>>);

impl Write for Queue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Longer than any of these takes, even on a busy machine.
    const DEADLINE: Duration = Duration::from_secs(20);

    fn log(text: &str) -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("x.log");
        std::fs::write(&path, text).unwrap();
        (temp, path)
    }

    async fn next(pieces: &mut mpsc::Receiver<io::Result<Bytes>>) -> Option<Bytes> {
        tokio::time::timeout(DEADLINE, pieces.recv()).await.unwrap().map(Result::unwrap)
    }

    #[tokio::test]
    async fn what_is_there_comes_and_the_stream_ends() {
        let (_temp, path) = log("a\nb\nc\n");
        let mut pieces = stream(Follower::new(path, Some(2)), |_| true);
        assert_eq!(next(&mut pieces).await.unwrap(), "b\nc\n");
        assert_eq!(next(&mut pieces).await, None);
    }

    #[tokio::test]
    async fn what_is_added_comes_until_the_log_is_complete() {
        let (_temp, path) = log("a\n");
        let ended = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&ended);
        let mut pieces = stream(Follower::new(path.clone(), None), move |_| asked.load(Ordering::SeqCst));
        assert_eq!(next(&mut pieces).await.unwrap(), "a\n");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"b\n").unwrap();
        ended.store(true, Ordering::SeqCst);
        assert_eq!(next(&mut pieces).await.unwrap(), "b\n");
        assert_eq!(next(&mut pieces).await, None);
    }

    #[tokio::test]
    async fn a_reader_that_is_slow_stops_the_reading_and_one_that_left_ends_it() {
        let (_temp, path) = log(&"x".repeat(64 << 20));
        let held = Arc::new(());
        let kept = Arc::clone(&held);
        let pieces = stream(Follower::new(path, None), move |_| Arc::strong_count(&kept) == 0);
        assert!(pieces.len() <= PIECES_QUEUED_MAX);
        drop(pieces);
        let gone = async {
            while Arc::strong_count(&held) > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, gone).await.unwrap();
    }
}
