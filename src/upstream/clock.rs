//! A limit for waits that costs nothing where nobody waits long.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// Measures one wait after the other. Its timer is wound when somebody has to wait for the first time, and not for each
/// wait: that would cost more than what is waited for. When it rings for a wait that is over, it is put to where the
/// present one ends.
#[derive(Default)]
pub(super) struct Clock {
    waits_since: Option<Instant>,
    /// The turn at which the present wait began.
    turn: u32,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    /// The wait is over.
    pub(super) fn stop(&mut self) {
        self.waits_since = None;
    }

    /// [`Clock::poll_over`] of a wait for something that has another `turn` whenever it moves: then the wait begins anew.
    pub(super) fn poll_still(&mut self, turn: u32, limit: Duration, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waits_since.is_none() {
                self.turn = turn;
            }
            ready!(self.poll_over(limit, context));
            if self.turn == turn {
                return Poll::Ready(());
            }
            self.stop();
        }
    }

    /// Ready when the present wait, which begins now if there is none, has taken `limit`.
    pub(super) fn poll_over(&mut self, limit: Duration, context: &mut Context<'_>) -> Poll<()> {
        let end = *self.waits_since.get_or_insert_with(Instant::now) + limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() > end {
            // It was wound for a longer wait.
            timer.as_mut().reset(end);
        }
        loop {
            // Whoever has so much to say that the budget of the task is used up is not to get more time for it.
            ready!(Pin::new(&mut unconstrained(timer.as_mut())).poll(context));
            if timer.deadline() >= end {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }
}
