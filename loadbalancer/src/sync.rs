//! What several threads share a service through: atomics, fences, and the pointer to the view in force.
//!
//! With `--cfg skyserve_loom` these are loom's, which runs the code of [`crate::service`], [`crate::replica`],
//! [`crate::retry`] and [`crate::policy`] through every order that the memory model allows (`service/interleavings.rs`).

#[cfg(not(skyserve_loom))]
pub(crate) use arc_swap::{ArcSwap, Guard};
#[cfg(skyserve_loom)]
pub(crate) use explored::{ArcSwap, Guard};
#[cfg(skyserve_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(skyserve_loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

/// `arc_swap` in loom's terms. Its loads and stores acquire and release, as a lock's do.
#[cfg(skyserve_loom)]
mod explored {
    use loom::sync::Mutex;
    use std::sync::Arc;

    pub(crate) type Guard<T> = T;

    #[derive(Debug)]
    pub(crate) struct ArcSwap<T>(Mutex<Arc<T>>);

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(value: T) -> Self {
            Self(Mutex::new(Arc::new(value)))
        }

        pub(crate) fn load(&self) -> Guard<Arc<T>> {
            self.load_full()
        }

        pub(crate) fn load_full(&self) -> Arc<T> {
            Arc::clone(&self.0.lock().expect("no holder panics"))
        }

        pub(crate) fn store(&self, value: Arc<T>) {
            *self.0.lock().expect("no holder panics") = value;
        }
    }
}
