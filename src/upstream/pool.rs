//! The connections that one worker keeps to use them again: the last one first, so that those it could do without grow old.

use super::line::Line;
use super::slots::Slots;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// How often idle connections are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long whoever is short of a connection may need to take the place of one that was given up.
const TAKING: Duration = Duration::from_millis(10);

/// Belongs to one thread.
pub(super) struct Pool {
    /// The longest idle first.
    idle: RefCell<Vec<Kept>>,
    at_most: usize,
    idle_time: Duration,
    slots: Arc<Slots>,
    /// What the others know of it.
    count: Arc<AtomicUsize>,
    /// As of the last look: to ask a clock for each request would cost more than it brings.
    now: Cell<Instant>,
    keeper: Cell<Keeper>,
    rises: Rc<Notify>,
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The keeper is to find that there is nothing left.
        self.rises.notify_one();
    }
}

struct Kept {
    line: Box<Line>,
    since: Instant,
}

/// Whoever looks after idle connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeper {
    /// There was nothing to look after yet.
    Absent,
    /// There is nothing to look after any more.
    Asleep,
    Awake,
}

impl Pool {
    /// Keeps at most `at_most` connections, each for `idle_time`.
    pub(super) fn new(at_most: usize, idle_time: Duration, slots: Arc<Slots>) -> Rc<Self> {
        Rc::new(Self {
            idle: RefCell::default(),
            at_most,
            idle_time,
            count: slots.join(),
            slots,
            now: Cell::new(Instant::now()),
            keeper: Cell::new(Keeper::Absent),
            rises: Rc::default(),
        })
    }

    /// The connection that was used last. It may have ended; whoever sends over it learns of that before a byte is sent,
    /// if it is known.
    pub(super) fn take(&self) -> Option<Box<Line>> {
        let kept = self.idle.borrow_mut().pop()?;
        self.tell();
        Some(kept.line)
    }

    /// Keeps `line`, unless it is over, one too many, or its place is needed elsewhere. To be called on a thread that runs
    /// a [`tokio::task::LocalSet`].
    pub(super) fn keep(self: &Rc<Self>, mut line: Box<Line>) {
        if !line.is_free() || self.idle.borrow().len() >= self.at_most || self.slots.wanted() > 0 {
            return;
        }
        line.rest();
        self.look_after();
        self.idle.borrow_mut().push(Kept { line, since: self.now.get() });
        self.tell();
    }

    fn tell(&self) {
        self.count.store(self.idle.borrow().len(), Ordering::Relaxed);
    }

    fn look_after(self: &Rc<Self>) {
        match self.keeper.replace(Keeper::Awake) {
            Keeper::Awake => return,
            Keeper::Absent => {
                let (pool, rises, slots) = (Rc::downgrade(self), self.rises.clone(), self.slots.clone());
                tokio::task::spawn_local(keep_house(pool, rises, slots));
            }
            Keeper::Asleep => self.rises.notify_one(),
        }
        self.now.set(Instant::now());
    }

    /// Lets go of what has ended or grown too old, and of what others are short of; what is to be done next. What upstream
    /// has closed is found here: to be woken for it, the connection would have to be moved once more for each request.
    fn look(&self) -> Next {
        let now = Instant::now();
        self.now.set(now);
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|kept| {
            let ended = kept.line.poll_end(&mut Context::from_waker(Waker::noop())).is_ready();
            !ended && now.duration_since(kept.since) < self.idle_time
        });
        let given = self.slots.wanted().min(idle.len());
        idle.drain(..given);
        let is_empty = idle.is_empty();
        drop(idle);
        self.tell();
        if is_empty {
            self.keeper.set(Keeper::Asleep);
            Next::Sleep
        } else if given > 0 {
            Next::LetTake
        } else {
            Next::Wait
        }
    }
}

/// What the keeper does until it looks again.
enum Next {
    Sleep,
    LetTake,
    Wait,
}

async fn keep_house(pool: Weak<Pool>, rises: Rc<Notify>, slots: Arc<Slots>) {
    while let Some(next) = pool.upgrade().map(|pool| pool.look()) {
        match next {
            Next::Sleep => rises.notified().await,
            Next::LetTake => sleep(TAKING).await,
            // Whether it was the time or a shortage is for the next look to see.
            Next::Wait => _ = timeout(LOOK, slots.shortage()).await,
        }
    }
}
