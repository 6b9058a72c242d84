//! Bodies on their way through: a request body handed over chunk by chunk, and an answer that must not stall.

use super::UpstreamError;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

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
    progress: Arc<AtomicU64>,
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
        Self { parts: None, remaining: Some(0), progress: Arc::default() }
    }

    /// A body of `length` bytes where that is known, chunked where it is not.
    #[must_use]
    pub fn channel(length: Option<u64>) -> (BodySender, Self) {
        let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        (BodySender { parts: sender }, Self { parts: Some(receiver), remaining: length, progress: Arc::default() })
    }

    /// How many bytes it has, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.remaining
    }

    /// Counts the chunks that upstream has taken so far: a time-out for the answer starts anew with each.
    pub(super) fn progress(&self) -> Arc<AtomicU64> {
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
        match std::task::ready!(parts.poll_recv(context)) {
            Some(Part::Chunk(chunk)) => {
                self.progress.fetch_add(1, Ordering::Relaxed);
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
    Box::pin(stream::unfold(Some(chunks), move |state| async move {
        let mut chunks = state?;
        match tokio::time::timeout(idle, chunks.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(chunks))),
            Ok(Some(Err(error))) => Some((Err(error.into()), None)),
            Err(_) => Some((Err(UpstreamError::TimedOut), None)),
        }
    }))
}
