//! What follows the head of a request, as its client sends it.

use crate::listen::{Body, Pulse, Ticket};
use actix_http::Request;
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

/// A body on its way in. The connection knows whether all that came of it was taken: when its client hangs up, actix
/// forgets what it has read and not handed over.
pub(super) struct Intake {
    payload: Payload,
    ticket: Option<Ticket>,
}

impl Intake {
    /// What follows the head of `request`.
    pub(super) fn of(request: &mut Request) -> Self {
        let ticket = request.conn_data::<Rc<Pulse>>().cloned().map(Ticket::of);
        Self { payload: request.take_payload(), ticket }
    }

    /// The next part; until the one after it is asked for, this one counts as not taken.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, PayloadError>> {
        poll_fn(|context| {
            let next = self.payload.poll_next_unpin(context);
            if let Some(ticket) = &self.ticket {
                ticket.body_is(match next {
                    Poll::Pending => Body::Awaited,
                    Poll::Ready(Some(Ok(_))) => Body::Passed,
                    Poll::Ready(Some(Err(_)) | None) => Body::Over,
                });
            }
            next
        })
        .await
    }

    /// The connection that it comes over.
    pub(super) fn pulse(&self) -> Option<Rc<Pulse>> {
        self.ticket.as_ref().map(|ticket| ticket.pulse().clone())
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        // Whoever knows how long it is does not ask for its end.
        if let (Some(ticket), Some(None)) = (&self.ticket, self.payload.next().now_or_never()) {
            ticket.body_is(Body::Over);
        }
    }
}
