//! How many bytes may be held of what passes, by all who listen together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes shared by all listeners. Whoever wants more than is left gets nothing.
#[derive(Debug)]
pub struct ListenBudget {
    left: AtomicUsize,
}

impl ListenBudget {
    /// A budget of this many bytes.
    #[must_use]
    pub const fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    /// What is left of it, in bytes.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<ListenBudget>,
    bytes: usize,
}

impl Reservation {
    /// A share of nothing yet.
    #[must_use]
    pub fn empty(budget: &Arc<ListenBudget>) -> Self {
        Self { budget: budget.clone(), bytes: 0 }
    }

    /// Makes the share `bytes` large; `false`, and nothing changed, when that is more than there is.
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        // Relaxed: the count guards no other memory.
        let taken =
            self.budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(more)).is_ok();
        if taken {
            self.bytes += more;
        }
        taken
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Arc::new(ListenBudget::new(100));
        let mut first = Reservation::empty(&budget);
        let mut second = Reservation::empty(&budget);
        assert!(first.grow_to(60));
        assert!(!second.grow_to(41));
        assert!(second.grow_to(40));
        assert!(first.grow_to(10), "shrinking is not growing");
        assert!(!first.grow_to(61));
        assert_eq!(budget.left(), 0);
        drop(first);
        assert!(second.grow_to(100));
        drop(second);
        assert_eq!(budget.left(), 100);
    }
}
