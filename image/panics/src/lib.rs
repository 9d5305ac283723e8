//! What a panic ends: the whole role, which init starts again from what is stored, unless what panicked is one of many
//! of its kind, whose end concerns nobody else.
//!
//! A task that is gone without a word (the one that watches replicas, say) would leave a role that answers and does not
//! work. A role that ends is noticed, and starting again is what it is built for.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::pin::pin;

thread_local! {
    /// Whether this thread is running something that may panic alone.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// From here on a panic outside [`alone`] ends this process.
pub fn end_the_process(role: &'static str) {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        if ALONE.get() {
            tracing::error!(
                "a panic in the {role} ended what it happened in, and nothing else; please report it: {panic}"
            );
            return;
        }
        tracing::error!("a panic ends the {role}, which is started again; please report it: {panic}");
        std::process::abort();
    }));
}

/// Runs what may panic without ending the process: the caller, or the runtime, catches it.
pub async fn alone<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let _within = Within(ALONE.replace(true));
        future.as_mut().poll(context)
    })
    .await
}

/// Puts back what was before, also when what runs panics.
struct Within(bool);

impl Drop for Within {
    fn drop(&mut self) {
        ALONE.set(self.0);
    }
}
