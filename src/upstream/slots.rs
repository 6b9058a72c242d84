//! How many connections there may be at once in the whole process, and how a worker that is short of one gets one that
//! another worker keeps for nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a worker waits for another to let go of an idle connection, which takes a moment.
const LETTING_GO: Duration = Duration::from_secs(1);

/// The right to one connection.
pub(super) type Slot = OwnedSemaphorePermit;

/// What all workers share.
pub(super) struct Slots {
    free: Arc<Semaphore>,
    /// How many connections each worker keeps idle. Each writes its own, so no request waits for another core.
    idle: Mutex<Vec<Weak<AtomicUsize>>>,
    /// Who is short of one.
    waiting: AtomicUsize,
    shortage: Notify,
}

impl Slots {
    pub(super) fn new(at_most: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(at_most)),
            idle: Mutex::default(),
            waiting: AtomicUsize::new(0),
            shortage: Notify::new(),
        }
    }

    /// One more worker, and where it says how many connections it keeps idle, until it lets go of that.
    pub(super) fn join(&self) -> Arc<AtomicUsize> {
        let count = Arc::new(AtomicUsize::new(0));
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Where a worker dies, another takes its place.
        idle.retain(|count| count.strong_count() > 0);
        idle.push(Arc::downgrade(&count));
        count
    }

    /// A slot; when all are taken, one that somebody holds for nothing. `None` when all are in use.
    pub(super) async fn take(&self) -> Option<Slot> {
        if let Ok(slot) = self.free.clone().try_acquire_owned() {
            return Some(slot);
        }
        if !self.are_some_idle() {
            return None;
        }
        let _waiting = Waiting::begin(&self.waiting);
        self.shortage.notify_waiters();
        timeout(LETTING_GO, self.free.clone().acquire_owned()).await.ok()?.ok()
    }

    fn are_some_idle(&self) -> bool {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.iter().filter_map(Weak::upgrade).any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// How many are short of one.
    pub(super) fn wanted(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Returns when somebody is short of one.
    pub(super) async fn shortage(&self) {
        let told = self.shortage.notified();
        tokio::pin!(told);
        // Before the look, or a shortage in between would be missed.
        told.as_mut().enable();
        if self.wanted() == 0 {
            told.await;
        }
    }
}

/// Somebody who waits, until this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_holds_one_for_nothing_gives_it_to_who_needs_it() {
        let slots = Slots::new(1);
        let idle = slots.join();
        let held = slots.take().await.expect("it is the first");
        assert!(slots.take().await.is_none(), "it is in use");

        idle.store(1, Ordering::Relaxed);
        let lets_go = async {
            slots.shortage().await;
            assert_eq!(slots.wanted(), 1);
            drop(held);
        };
        let (taken, ()) = tokio::join!(slots.take(), lets_go);

        assert!(taken.is_some());
        assert_eq!(slots.wanted(), 0);
    }

    #[tokio::test]
    async fn who_leaves_is_not_waited_for() {
        let slots = Slots::new(1);
        let idle = slots.join();
        idle.store(1, Ordering::Relaxed);
        let _held = slots.take().await.expect("it is the first");
        let taken = timeout(Duration::from_millis(1), slots.take()).await;
        assert!(taken.is_err());
        assert_eq!(slots.wanted(), 0);
    }

    #[tokio::test]
    async fn who_is_gone_keeps_nothing() {
        let slots = Slots::new(1);
        let _held = slots.take().await.expect("it is the first");
        for _ in 0..100 {
            let idle = slots.join();
            idle.store(1, Ordering::Relaxed);
            drop(idle);
            assert!(slots.take().await.is_none(), "there is nobody to wait for");
        }
        assert_eq!(slots.idle.lock().expect("no panic").len(), 1);
    }
}
