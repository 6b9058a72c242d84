//! Bodies on their way through: a request's, drawn chunk by chunk as upstream takes it, and an answer's that must not stall.

use super::UpstreamError;
use super::clock::Clock;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The client's body ended before it was whole: upstream must see an aborted request, never a short one that looks whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Aborted {
    /// It broke off.
    #[error("the client's body broke off")]
    BrokeOff,
    /// It paused for too long.
    #[error("the client's body stalled")]
    Stalled,
}

/// The body of a request as it comes from the client, [`Aborted`] its last item if it is not whole.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, Aborted>>>>;

/// A request body that upstream's connection draws from, no faster than upstream takes it.
pub struct RequestBody(Option<Upload>);

struct Upload {
    chunks: Chunks,
    /// What came before anybody asked for it.
    first: Poll<Option<Result<Bytes, Aborted>>>,
    /// It will be there at the second poll, which nobody has to ask for.
    is_at_hand: bool,
    /// How many bytes are to come, where that is known.
    remaining: Option<u64>,
    /// How long the client may pause.
    idle: Duration,
    clock: Clock,
}

impl RequestBody {
    /// No body at all.
    #[must_use]
    pub fn empty() -> Self {
        Self(None)
    }

    /// A body of `length` bytes where that is known, chunked where it is not; the client may pause for `idle`, while
    /// somebody waits for more.
    #[must_use]
    pub fn of(chunks: Chunks, length: Option<u64>, idle: Duration) -> Self {
        let (first, clock) = (Poll::Pending, Clock::default());
        Self(Some(Upload { chunks, first, is_at_hand: false, remaining: length, idle, clock }))
    }

    /// It will be there when whoever sends it is polled for the second time, which will be without being woken.
    #[must_use]
    pub fn at_hand(mut self, is_at_hand: bool) -> Self {
        if let Some(upload) = &mut self.0 {
            upload.is_at_hand = is_at_hand;
        }
        self
    }

    /// How many bytes are to come, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.0.as_ref().map_or(Some(0), |upload| upload.remaining)
    }

    /// Lets the client's side hand over what came right behind the head, so that both leave in one write. A body of which
    /// nothing is there is not waited for: upstream may have something to say to the head alone.
    pub(super) async fn begin(&mut self) {
        let Some(upload) = &mut self.0 else { return };
        let mut gave_way = false;
        poll_fn(|context| {
            if std::mem::take(&mut upload.is_at_hand) {
                gave_way = true;
                return Poll::Pending;
            }
            upload.first = upload.chunks.poll_next_unpin(context);
            if upload.first.is_ready() || std::mem::replace(&mut gave_way, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

impl RequestBody {
    /// What comes next; its end, and [`Aborted`], once.
    pub(super) fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        let Some(upload) = &mut self.0 else { return Poll::Ready(None) };
        let next = ready!(upload.poll_chunk(context));
        if !matches!(next, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(next)
    }
}

impl Upload {
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        if self.remaining == Some(0) {
            return Poll::Ready(None);
        }
        let first = std::mem::replace(&mut self.first, Poll::Pending);
        let Poll::Ready(next) = (if first.is_ready() { first } else { self.chunks.poll_next_unpin(context) }) else {
            ready!(self.clock.poll_over(self.idle, context));
            return Poll::Ready(Some(Err(Aborted::Stalled)));
        };
        self.clock.stop();
        match (next, &mut self.remaining) {
            (Some(Ok(chunk)), Some(remaining)) => {
                // More than was announced would be the next request on upstream's connection.
                let Some(left) = remaining.checked_sub(chunk.len() as u64) else {
                    return Poll::Ready(Some(Err(Aborted::BrokeOff)));
                };
                *remaining = left;
                Poll::Ready(Some(Ok(chunk)))
            }
            // An end before the length that was announced is none.
            (None, Some(1..)) => Poll::Ready(Some(Err(Aborted::BrokeOff))),
            (next, _) => Poll::Ready(next),
        }
    }
}

/// A body on its way to the client.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, UpstreamError>>>>;

/// Ends `chunks` with an error when the next one takes longer than `idle` to come. The clock runs only while somebody
/// waits for a chunk, so a slow reader is no fault of upstream's.
pub fn with_idle_timeout<S, E>(chunks: S, idle: Duration) -> BodyStream
where
    S: Stream<Item = Result<Bytes, E>> + Unpin + 'static,
    E: Into<UpstreamError>,
{
    Box::pin(Watched { chunks: Some(chunks), idle, clock: Clock::default() })
}

struct Watched<S> {
    chunks: Option<S>,
    idle: Duration,
    clock: Clock,
}

impl<S, E> Stream for Watched<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<UpstreamError>,
{
    type Item = Result<Bytes, UpstreamError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { chunks, idle, clock } = &mut *self;
        let Some(stream) = chunks else { return Poll::Ready(None) };
        let Poll::Ready(next) = stream.poll_next_unpin(context) else {
            ready!(clock.poll_over(*idle, context));
            *chunks = None;
            return Poll::Ready(Some(Err(UpstreamError::TimedOut)));
        };
        clock.stop();
        if !matches!(next, Some(Ok(_))) {
            *chunks = None;
        }
        Poll::Ready(next.map(|chunk| chunk.map_err(Into::into)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counting_waker::Rings;
    use futures_util::stream;
    use std::cell::Cell;
    use std::rc::Rc;
    use tokio::time::Instant;
    use tokio::time::sleep;

    const IDLE: Duration = Duration::from_millis(60);

    const CHUNK: Result<Bytes, UpstreamError> = Ok(Bytes::from_static(b"chunk"));

    /// How a body of `length` bytes ends of which `chunks` come.
    async fn ended(
        length: Option<u64>,
        chunks: impl Stream<Item = Result<Bytes, Aborted>> + 'static,
    ) -> Option<Aborted> {
        let mut body = RequestBody::of(Box::pin(chunks), length, IDLE);
        body.begin().await;
        while let Some(chunk) = poll_fn(|context| body.poll_chunk(context)).await {
            if let Err(error) = chunk {
                return Some(error);
            }
        }
        None
    }

    #[tokio::test]
    async fn a_request_that_is_not_whole_never_looks_so() {
        let chunks = |count| stream::iter((0..count).map(|_| Ok(Bytes::from_static(b"chunk"))));
        for (length, count, end) in [
            (Some(10), 2, None),
            (Some(9), 2, Some(Aborted::BrokeOff)),
            (Some(10), 1, Some(Aborted::BrokeOff)),
            (Some(10), 0, Some(Aborted::BrokeOff)),
            (None, 2, None),
            (None, 0, None),
        ] {
            assert_eq!(ended(length, chunks(count)).await, end, "{length:?} {count}");
            let broken = chunks(count).chain(stream::iter([Err(Aborted::BrokeOff)]));
            assert_eq!(ended(None, broken).await, Some(Aborted::BrokeOff));
            let stalled = chunks(count).chain(stream::pending());
            assert_eq!(ended(None, stalled).await, Some(Aborted::Stalled));
        }
    }

    #[test]
    fn what_is_at_hand_is_not_waited_for_with_a_waker() {
        let (rings, waker) = Rings::counted();
        let mut context = Context::from_waker(&waker);
        for (is_at_hand, woken) in [(true, 0), (false, 1)] {
            let handed = Rc::new(Cell::new(false));
            let hands = handed.clone();
            let chunk = move || hands.take().then_some(Ok(Bytes::from_static(b"chunk")));
            let chunks = stream::poll_fn(move |_| chunk().map_or(Poll::Pending, |chunk| Poll::Ready(Some(chunk))));
            let mut body = RequestBody::of(Box::pin(chunks), Some(5), IDLE).at_hand(is_at_hand);
            let mut begin = Box::pin(body.begin());
            assert!(begin.as_mut().poll(&mut context).is_pending());
            handed.set(true);
            assert!(begin.as_mut().poll(&mut context).is_ready());
            drop(begin);
            assert!(matches!(body.poll_chunk(&mut context), Poll::Ready(Some(Ok(_)))));
            assert_eq!(rings.take(), woken);
        }
    }

    #[tokio::test]
    async fn a_slow_reader_is_no_fault_of_upstreams() {
        let mut watched = with_idle_timeout(stream::iter([CHUNK, CHUNK, CHUNK]), IDLE);
        for _ in 0..3 {
            assert!(matches!(watched.next().await, Some(Ok(_))));
            sleep(2 * IDLE).await;
        }
        assert!(watched.next().await.is_none());
        assert!(watched.next().await.is_none());
    }

    #[tokio::test]
    async fn a_wait_is_too_long_from_its_own_beginning() {
        let late = stream::once(async {
            sleep(IDLE / 2).await;
            CHUNK
        });
        let mut watched = with_idle_timeout(Box::pin(late.chain(stream::pending())), IDLE);
        // Whether this one is in time is for the machine to say; a busy one may be late itself.
        if matches!(watched.next().await, Some(Ok(_))) {
            let begun = Instant::now();
            assert!(matches!(watched.next().await, Some(Err(UpstreamError::TimedOut))));
            assert!(begun.elapsed() >= IDLE, "{:?}: the clock of the wait before", begun.elapsed());
        }
        assert!(watched.next().await.is_none());
    }

    #[tokio::test]
    async fn an_error_is_the_last_word() {
        let broken = Err(UpstreamError::Broken("so be it".to_owned()));
        let mut watched = with_idle_timeout(stream::iter([CHUNK, broken, CHUNK]), IDLE);
        assert!(matches!(watched.next().await, Some(Ok(_))));
        assert!(matches!(watched.next().await, Some(Err(UpstreamError::Broken(_)))));
        assert!(watched.next().await.is_none());
    }
}
