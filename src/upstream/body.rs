//! Bodies on their way through: a request body handed over chunk by chunk, and an answer that must not stall.

use super::UpstreamError;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

/// How many chunks of a request body may wait for upstream: back-pressure, not buffering. actix hands over up to 128 KiB in
/// one of them, and holds as much before and behind it.
const CHUNKS_IN_FLIGHT: usize = 1;

/// The client's body broke off: upstream must see an aborted request, never a short one that looks whole.
#[derive(Debug, thiserror::Error)]
#[error("the client's body broke off")]
pub struct Aborted;

/// What goes from the client's side to upstream's.
enum Part {
    Chunk(Bytes),
    /// The body is whole. Without this its end counts as broken off, however it came about.
    End,
}

/// A request body that upstream's connection draws from.
pub struct RequestBody {
    parts: Option<mpsc::Receiver<Part>>,
    remaining: Option<u64>,
    progress: Progress,
}

/// How many chunks of a body upstream has taken so far; a body that is empty makes none.
#[derive(Clone, Default)]
pub(super) struct Progress(Option<Arc<AtomicU64>>);

impl Progress {
    pub(super) fn made(&self) -> u64 {
        self.0.as_ref().map_or(0, |taken| taken.load(Ordering::Relaxed))
    }

    fn make(&self) {
        if let Some(taken) = &self.0 {
            taken.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The end of a [`RequestBody`] that the client's side fills.
///
/// Dropped without [`BodySender::finish`], it aborts the request: nothing that goes wrong on the way can make half a
/// body look whole.
pub struct BodySender {
    parts: mpsc::Sender<Part>,
}

impl RequestBody {
    /// No body at all.
    #[must_use]
    pub fn empty() -> Self {
        Self { parts: None, remaining: Some(0), progress: Progress::default() }
    }

    /// A body of `length` bytes where that is known, chunked where it is not.
    #[must_use]
    pub fn channel(length: Option<u64>) -> (BodySender, Self) {
        let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let progress = Progress(Some(Arc::default()));
        (BodySender { parts: sender }, Self { parts: Some(receiver), remaining: length, progress })
    }

    /// How many bytes it has, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.remaining
    }

    /// What upstream takes of it: a time-out for the answer starts anew with each chunk.
    pub(super) fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl BodySender {
    /// Hands `chunk` over as soon as upstream has room for it; `false` when upstream takes no more.
    pub async fn send(&self, chunk: Bytes) -> bool {
        self.parts.send(Part::Chunk(chunk)).await.is_ok()
    }

    /// Ends the body: it is whole.
    pub async fn finish(self) {
        // When upstream has hung up already there is nobody left to tell.
        let _ = self.parts.send(Part::End).await;
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let Some(parts) = &mut self.parts else {
            return Poll::Ready(None);
        };
        match ready!(parts.poll_recv(context)) {
            Some(Part::Chunk(chunk)) => {
                self.progress.make();
                if let Some(remaining) = &mut self.remaining {
                    *remaining = remaining.saturating_sub(chunk.len() as u64);
                }
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            Some(Part::End) => {
                self.parts = None;
                Poll::Ready(None)
            }
            None => Poll::Ready(Some(Err(Aborted))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
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
    Box::pin(Watched { chunks: Some(chunks), idle, waits_since: None, clock: None })
}

struct Watched<S> {
    chunks: Option<S>,
    idle: Duration,
    waits_since: Option<Instant>,
    /// Wound when somebody has to wait for the first time, and not for each chunk: that would cost more than the chunk.
    /// When it rings for a wait that is over, it is put to where the present one ends.
    clock: Option<Pin<Box<Sleep>>>,
}

impl<S, E> Stream for Watched<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<UpstreamError>,
{
    type Item = Result<Bytes, UpstreamError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(chunks) = &mut self.chunks else { return Poll::Ready(None) };
        let Poll::Ready(next) = chunks.poll_next_unpin(context) else {
            ready!(self.poll_idle(context));
            self.chunks = None;
            return Poll::Ready(Some(Err(UpstreamError::TimedOut)));
        };
        self.waits_since = None;
        if !matches!(next, Some(Ok(_))) {
            self.chunks = None;
        }
        Poll::Ready(next.map(|chunk| chunk.map_err(Into::into)))
    }
}

impl<S> Watched<S> {
    /// Ready when the present wait has been too long.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let end = *self.waits_since.get_or_insert_with(Instant::now) + self.idle;
        let clock = self.clock.get_or_insert_with(|| Box::pin(sleep_until(end)));
        loop {
            ready!(clock.as_mut().poll(context));
            if clock.deadline() >= end {
                return Poll::Ready(());
            }
            clock.as_mut().reset(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use tokio::time::sleep;

    const IDLE: Duration = Duration::from_millis(60);

    const CHUNK: Result<Bytes, UpstreamError> = Ok(Bytes::from_static(b"chunk"));

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
