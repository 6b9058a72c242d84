//! A waker for tests, which says how often it was woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

/// How often its waker was woken since somebody asked.
#[derive(Default)]
pub(crate) struct Rings(AtomicUsize);

impl Rings {
    /// None yet, and the waker that is counted.
    pub(crate) fn counted() -> (Arc<Self>, Waker) {
        let rings = Arc::<Self>::default();
        (rings.clone(), Waker::from(rings))
    }

    /// How often, and counts from 0 again.
    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl Wake for Rings {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
