//! Bodies of streams: what comes is taken as somebody wants it, and what goes waits until the client has room for it.

use actix_http::header::{HeaderValue, TRANSFER_ENCODING};
use actix_http::{Payload, Request};
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::Stream;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::timeout;

/// How it ended with an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// All of it is on its way.
    Whole,
    /// There was no more of it than a part.
    Broken,
    /// Its client wants no more of it, or takes none.
    Left,
}

/// Gives a request what follows its head, framed as HTTP/1.1 would have it.
pub(super) fn attach(request: &mut Request, body: RecvStream) {
    if body.is_end_stream() {
        return;
    }
    let headers = request.headers_mut();
    if !headers.contains_key(actix_http::header::CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    *request.payload() = Payload::Stream { payload: Box::pin(Incoming(body)) };
}

/// What follows the head of a request. That it is as long as was announced, `h2` sees to.
struct Incoming(RecvStream);

impl Stream for Incoming {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self(stream) = &mut *self;
        loop {
            let Some(next) = ready!(stream.poll_data(context)) else { return Poll::Ready(None) };
            // Who asks for more has passed on what was before: so much may come again.
            let taken = next.and_then(|chunk| stream.flow_control().release_capacity(chunk.len()).map(|()| chunk));
            match taken {
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => return Poll::Ready(Some(Ok(chunk))),
                Err(error) => return Poll::Ready(Some(Err(PayloadError::Incomplete(Some(io::Error::other(error)))))),
            }
        }
    }
}

/// Of how many bytes a client must take all within the time that it may take nothing: of what it takes one by one, there is
/// no end.
const TAKEN_AT_ONCE: usize = 8 << 10;

/// Sends an answer, of whose body the client must take some kilobytes each `idle`, or all that there is. One that breaks off
/// is reset, so that it never looks whole.
pub(super) async fn send(
    mut respond: SendResponse<Bytes>,
    head: http::Response<()>,
    body: Option<BoxBody>,
    idle: Duration,
) -> Ended {
    let Ok(mut stream) = respond.send_response(head, body.is_none()) else { return Ended::Left };
    let Some(mut body) = body else { return Ended::Whole };
    let mut announced = match body.size() {
        BodySize::Sized(length) => Some(length),
        BodySize::None | BodySize::Stream => None,
    };
    loop {
        let next = poll_fn(|context| match body.as_pin_mut().poll_next(context) {
            Poll::Ready(next) => Poll::Ready(Some(next)),
            Poll::Pending => stream.poll_reset(context).map(|_| None),
        });
        let (chunk, is_last) = match next.await {
            Some(Some(Ok(mut chunk))) => {
                if let Some(left) = &mut announced {
                    chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= chunk.len() as u64;
                }
                (chunk, announced == Some(0))
            }
            Some(None) if announced.is_none() => (Bytes::new(), true),
            Some(None | Some(Err(_))) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ended::Broken;
            }
            None => return Ended::Left,
        };
        if !hand_over_in_time(&mut stream, chunk, is_last, idle).await {
            stream.send_reset(Reason::CANCEL);
            return Ended::Left;
        }
        if is_last {
            // It hears that it was taken to its end: only then is upstream's connection free, and a lesson whole.
            poll_fn(|context| Poll::Ready(_ = body.as_pin_mut().poll_next(context))).await;
            return Ended::Whole;
        }
    }
}

/// Sends a part of a body; `false` when the client takes no more of it, or too little.
async fn hand_over_in_time(stream: &mut SendStream<Bytes>, mut chunk: Bytes, is_last: bool, idle: Duration) -> bool {
    loop {
        let piece = chunk.split_to(chunk.len().min(TAKEN_AT_ONCE));
        let is_rest = chunk.is_empty();
        if !timeout(idle, hand_over(stream, piece, is_last && is_rest)).await.unwrap_or(false) {
            return false;
        }
        if is_rest {
            return true;
        }
    }
}

/// Sends a piece of a body as the client has room for it; `false` when it takes none any more.
async fn hand_over(stream: &mut SendStream<Bytes>, mut chunk: Bytes, is_last: bool) -> bool {
    while !chunk.is_empty() {
        stream.reserve_capacity(chunk.len());
        let room = match stream.capacity() {
            0 => poll_fn(|context| poll_room(stream, context)).await,
            room => Some(room),
        };
        let Some(room) = room else { return false };
        let part = chunk.split_to(room.min(chunk.len()));
        let ends = is_last && chunk.is_empty();
        if stream.send_data(part, ends).is_err() {
            return false;
        }
        if ends {
            return true;
        }
    }
    !is_last || stream.send_data(chunk, true).is_ok()
}

/// How many bytes may be sent; `None` when none ever again.
fn poll_room(stream: &mut SendStream<Bytes>, context: &mut Context<'_>) -> Poll<Option<usize>> {
    loop {
        match ready!(stream.poll_capacity(context)) {
            Some(Ok(0)) => {}
            Some(Ok(room)) => return Poll::Ready(Some(room)),
            Some(Err(_)) | None => return Poll::Ready(None),
        }
    }
}
