//! The body of an answer, and the connection that it comes over until it is whole.

use super::UpstreamError;
use super::chunked::Next;
use super::clock::Clock;
use super::line::Line;
use super::pool::Pool;
use bytes::Bytes;
use futures_util::Stream;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Dropped before its end, it takes the connection along, and what of the request had not gone out yet.
pub(super) struct Download {
    line: Held,
    /// Why it broke off, to be told when what came before has been sent.
    broken: Option<UpstreamError>,
    pool: Rc<Pool>,
    idle: Duration,
}

/// A connection whose request may not have gone out yet.
enum Held {
    /// All of the request has, once anybody takes the body.
    Alone(Box<Line>),
    /// A task sends the rest of it.
    Shared(Shared, Sending),
    /// The body has ended, or has been left.
    Nothing,
}

type Shared = Rc<RefCell<Box<Line>>>;

/// The task that sends the rest of a request. It ends when this is dropped.
struct Sending(Option<JoinHandle<()>>);

impl Sending {
    /// It goes on.
    fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Download {
    /// The body of the answer whose head has just come over `line`; upstream may pause for `idle` while somebody waits for
    /// more, or while it is to take more of the request.
    pub(super) fn new(line: Box<Line>, pool: Rc<Pool>, idle: Duration) -> Self {
        let mut download = Self { line: Held::Alone(line), broken: None, pool, idle };
        download.release_if_whole();
        download
    }

    /// What comes of the body comes in parts of at most so many bytes, but for what came with its head.
    pub(super) fn in_parts_of(&mut self, bytes: usize) {
        match &mut self.line {
            Held::Alone(line) => line.reads_at_most(bytes),
            Held::Shared(line, _) => line.borrow_mut().reads_at_most(bytes),
            Held::Nothing => {}
        }
    }

    /// All of a body whose length was announced, if all of it came with its head.
    pub(super) fn all_at_once(&mut self) -> Option<Bytes> {
        let Held::Alone(line) = &mut self.line else { return None };
        if !line.holds_whole_body() {
            return None;
        }
        let Ok(Next::Bytes(whole)) = line.take() else { return None };
        self.release_if_whole();
        Some(whole)
    }

    /// From now on a task sends the rest of the request, if there is any: a client may be one that takes nothing of the answer
    /// before it has sent all. To be called on a thread that runs a [`tokio::task::LocalSet`].
    pub(super) fn beside_its_request(mut self) -> Self {
        self.line = match std::mem::replace(&mut self.line, Held::Nothing) {
            Held::Alone(line) if !line.has_sent() => {
                let shared = Rc::new(RefCell::new(line));
                let sending = send_rest(shared.clone(), self.pool.clone(), self.idle);
                Held::Shared(shared, Sending(Some(tokio::task::spawn_local(sending))))
            }
            line => line,
        };
        self
    }

    /// Once the body is whole the connection can be used again, when all of the request has gone out.
    fn release_if_whole(&mut self) {
        let is_whole = match &self.line {
            Held::Alone(line) => line.is_answered(),
            Held::Shared(line, _) => line.borrow().is_answered(),
            Held::Nothing => false,
        };
        if !is_whole {
            return;
        }
        match std::mem::replace(&mut self.line, Held::Nothing) {
            Held::Alone(line) if line.has_sent() => self.pool.keep(line),
            Held::Alone(line) => {
                let sending = send_rest(Rc::new(RefCell::new(line)), self.pool.clone(), self.idle);
                tokio::task::spawn_local(sending);
            }
            Held::Shared(line, sending) => match Rc::try_unwrap(line) {
                Ok(line) => self.pool.keep(line.into_inner()),
                // Whoever comes last keeps the connection.
                Err(_) => sending.detach(),
            },
            Held::Nothing => {}
        }
    }

    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, UpstreamError>> {
        let idle = self.idle;
        match &mut self.line {
            Held::Nothing => Poll::Ready(Ok(None)),
            Held::Shared(line, _) => {
                let line = &mut line.borrow_mut();
                if let Poll::Ready(error) = line.poll_failure(context) {
                    return Poll::Ready(Err(error));
                }
                poll_body(line, idle, context)
            }
            Held::Alone(line) => poll_body(line, idle, context),
        }
    }
}

fn poll_body(line: &mut Line, idle: Duration, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, UpstreamError>> {
    if let Poll::Ready(part) = line.poll_body(context) {
        line.moved();
        return Poll::Ready(part);
    }
    ready!(line.poll_idle(idle, context));
    Poll::Ready(Err(UpstreamError::TimedOut))
}

impl Stream for Download {
    type Item = Result<Bytes, UpstreamError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(broken) = self.broken.take() {
            return Poll::Ready(Some(Err(broken)));
        }
        match ready!(self.poll_part(context)) {
            Ok(part) => {
                self.release_if_whole();
                Poll::Ready(part.map(Ok))
            }
            Err(error) => {
                // actix forgets what it has not written when it hears of an error: it is given the time to.
                self.line = Held::Nothing;
                self.broken = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

/// Sends what is left of a request while its answer comes, or after it. Upstream may take nothing of it for `idle`.
async fn send_rest(line: Shared, pool: Rc<Pool>, idle: Duration) {
    let mut clock = Clock::default();
    let sent = poll_fn(|context| {
        let mut line = line.borrow_mut();
        if let Poll::Ready(sent) = line.poll_send(context) {
            return Poll::Ready(sent);
        }
        let Some(turn) = line.blocked_at() else {
            // It is the client that is waited for, and that wait has a limit of its own.
            clock.stop();
            return Poll::Pending;
        };
        ready!(clock.poll_still(turn, idle, context));
        Poll::Ready(Err(UpstreamError::TimedOut))
    });
    if let Err(error) = sent.await {
        line.borrow_mut().fail(error);
    }
    // Whoever comes last keeps the connection.
    if let Ok(line) = Rc::try_unwrap(line) {
        pool.keep(line.into_inner());
    }
}
