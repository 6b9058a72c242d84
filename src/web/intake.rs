//! What follows the head of a request, as its client sends it.

use crate::listen::{Body, Pulse};
use actix_http::Request;
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A body on its way in. The connection knows whether all that came of it was taken: when its client hangs up, actix
/// forgets what it has read and not handed over.
pub(super) struct Intake {
    payload: Payload,
    pulse: Option<Rc<Pulse>>,
}

impl Intake {
    /// What follows the head of `request`.
    pub(super) fn of(request: &mut Request) -> Self {
        Self { payload: request.take_payload(), pulse: request.conn_data::<Rc<Pulse>>().cloned() }
    }

    /// The next part.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, PayloadError>> {
        StreamExt::next(self).await
    }

    /// The connection that it comes over.
    pub(super) fn pulse(&self) -> Option<Rc<Pulse>> {
        self.pulse.clone()
    }

    fn is(&self, body: Body) {
        if let Some(pulse) = &self.pulse {
            pulse.body_is(body);
        }
    }
}

/// Until the part after it is asked for, a part counts as not taken.
impl Stream for Intake {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.payload.poll_next_unpin(context);
        self.is(match next {
            Poll::Pending => Body::Awaited,
            Poll::Ready(Some(Ok(_))) => Body::Passed,
            Poll::Ready(Some(Err(_)) | None) => Body::Over,
        });
        next
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.is(Body::Over);
    }
}
