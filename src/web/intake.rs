//! What follows the head of a request, as its client sends it.

use crate::listen::{Body, Pulse, Ticket};
use actix_http::Request;
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

/// A body on its way in. The connection knows whether all that came of it was taken: when its client hangs up, actix
/// forgets what it has read and not handed over.
pub(super) struct Intake {
    coming: Rc<RefCell<Coming>>,
    ticket: Option<Ticket>,
}

struct Coming {
    payload: Payload,
    /// How much of it is to come, where that is known.
    remaining: Option<u64>,
    is_over: bool,
    /// It broke off in the midst of what its head says it is, or is something else: actix says so once, and no more after that.
    broke_off: bool,
    /// Some of it was thrown away, so that whoever still takes it does not get all.
    has_gaps: bool,
}

impl Coming {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, PayloadError>>> {
        if self.broke_off || self.has_gaps {
            return Poll::Ready(Some(Err(PayloadError::Incomplete(None))));
        }
        let next = ready!(self.payload.poll_next_unpin(context));
        match (&next, &mut self.remaining) {
            (Some(Ok(chunk)), Some(remaining)) => {
                *remaining = remaining.saturating_sub(chunk.len() as u64);
                self.is_over = *remaining == 0;
            }
            (Some(Ok(_)), None) => {}
            (Some(Err(_)) | None, _) => self.is_over = true,
        }
        self.broke_off |= matches!(next, Some(Err(PayloadError::EncodingCorrupted | PayloadError::Incomplete(None))));
        Poll::Ready(next)
    }
}

/// What nobody takes any more of a body. As long as it is held, actix takes the body for one that is being read, and ends the
/// connection with the answer; one that was let go of it would read on for nobody, however long it is.
pub(super) struct Unread(Rc<RefCell<Coming>>);

impl Unread {
    /// Whether there is nothing left to read.
    pub(super) fn is_over(&self) -> bool {
        self.0.borrow().is_over
    }

    /// Whether it broke off, or is not what the head says it is. To be asked when nobody takes any of it.
    pub(super) fn broke_off(&self) -> bool {
        let mut coming = self.0.borrow_mut();
        let mut has_gaps = coming.has_gaps;
        while matches!(coming.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Some(Ok(_)))) {
            has_gaps = true;
        }
        coming.has_gaps = has_gaps;
        coming.broke_off
    }
}

impl Intake {
    /// What follows the head of `request`.
    pub(super) fn of(request: &mut Request) -> Self {
        let ticket = request.conn_data::<Rc<Pulse>>().cloned().map(Ticket::of);
        let coming = Coming {
            payload: request.take_payload(),
            remaining: None,
            is_over: false,
            broke_off: false,
            has_gaps: false,
        };
        Self { coming: Rc::new(RefCell::new(coming)), ticket }
    }

    /// How long it is, where that is known.
    pub(super) fn announced(self, length: Option<u64>) -> Self {
        self.coming.borrow_mut().remaining = length;
        self
    }

    /// Whether all of it is there for whoever takes it in the midst of answering its request, once that has been polled.
    pub(super) fn is_at_hand(&self) -> bool {
        self.ticket.as_ref().is_some_and(Ticket::body_is_at_hand)
    }

    /// What is left of it when it is no longer taken.
    pub(super) fn unread(&self) -> Unread {
        Unread(self.coming.clone())
    }
}

/// Until the part after it is asked for, a part counts as not taken.
impl Stream for Intake {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.coming.borrow_mut().poll(context);
        if let Some(ticket) = &self.ticket {
            ticket.body_is(match next {
                Poll::Pending => Body::Awaited,
                Poll::Ready(Some(Ok(_))) => Body::Passed,
                Poll::Ready(Some(Err(_)) | None) => Body::Over,
            });
        }
        next
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        let Some(ticket) = &self.ticket else { return };
        // Whoever knows how long it is does not ask for its end.
        let mut coming = self.coming.borrow_mut();
        if coming.is_over || matches!(coming.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(None)) {
            ticket.body_is(Body::Over);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, stream};

    fn intake(parts: Vec<Result<Bytes, PayloadError>>) -> Intake {
        let mut request = Request::new();
        *request.payload() = Payload::Stream { payload: Box::pin(stream::iter(parts)) };
        Intake::of(&mut request)
    }

    /// Whoever goes on taking it, in a task of its own, must not take what is left of it for all.
    #[test]
    fn a_body_of_which_something_was_thrown_away_never_looks_whole() {
        let part = || Ok(Bytes::from_static(b"part"));
        let broken = || Err(PayloadError::Incomplete(None));
        for (parts, broke_off) in
            [(vec![broken()], true), (vec![part(), broken()], true), (vec![part(), part()], false)]
        {
            let mut intake = intake(parts);
            assert_eq!(intake.unread().broke_off(), broke_off);
            for _ in 0..2 {
                assert!(matches!(intake.next().now_or_never(), Some(Some(Err(_)))), "{broke_off}");
            }
        }
        let mut whole = intake(vec![part()]);
        assert!(matches!(whole.next().now_or_never(), Some(Some(Ok(_)))));
        assert!(!whole.unread().broke_off());
        assert!(matches!(whole.next().now_or_never(), Some(None)));
    }
}
