//! One connection to upstream and the HTTP on it. No task of its own moves it: whoever waits for its answer does, so that
//! a small answer wakes nobody but its client's connection.

use super::UpstreamError;
use super::body::RequestBody;
use super::clock::Clock;
use super::connect::{Link, Outflow};
use super::error::lost_connection;
use futures_util::task::AtomicWaker;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};
use tokio::task::unconstrained;

/// What a connection that passes bodies through buffers in each direction, beside the chunk that is being handed over. With
/// what the client's side holds it stays below the mebibyte that may be in flight; a head has to fit into it, too.
const CONNECTION_BUFFER: usize = 128 << 10;

/// A connection that carries one request after the other. Dropped, it ends, and whatever is under way on it.
pub(super) struct Line {
    requests: SendRequest<RequestBody>,
    /// Let go of when it is over: what was not sent is given back then.
    connection: Option<Pin<Box<dyn Future<Output = hyper::Result<()>>>>>,
    /// An answer has come over it.
    has_served: bool,
    bell: Arc<Bell>,
    /// The bell as hyper knows it.
    rings: Waker,
    outflow: Arc<Outflow>,
    /// The body of the request that was sent last has not been read to its end.
    takes_request: Rc<Cell<bool>>,
    /// Since when nothing more has gone out although something is to, and the turn it was then.
    stuck: Option<(u32, Instant)>,
    clock: Clock,
}

/// Wakes whoever moves the connection, but not for what that one does itself: hyper rings for each request that it is
/// handed and each chunk that is taken from it, and the connection is moved right after.
#[derive(Default)]
struct Bell {
    is_muffled: AtomicBool,
    mover: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_muffled.load(Ordering::Relaxed) {
            self.mover.wake();
        }
    }
}

impl Bell {
    /// Does something after which the connection is moved anyway.
    fn muffled<T>(&self, act: impl FnOnce() -> T) -> T {
        self.is_muffled.store(true, Ordering::Relaxed);
        let done = act();
        self.is_muffled.store(false, Ordering::Relaxed);
        done
    }
}

/// No answer came.
pub(super) struct Failure {
    pub(super) error: UpstreamError,
    /// Not one byte of it was sent.
    pub(super) unsent: Option<Box<Request<RequestBody>>>,
    /// The connection had served before, and was lost.
    pub(super) was_stale: bool,
}

impl Line {
    pub(super) async fn over(link: Link) -> Result<Self, UpstreamError> {
        let outflow = link.outflow();
        let (requests, connection) =
            http1::Builder::new().max_buf_size(CONNECTION_BUFFER).handshake(TokioIo::new(link)).await?;
        let connection: Pin<Box<dyn Future<Output = _>>> = Box::pin(connection.with_upgrades());
        let (bell, clock) = (Arc::<Bell>::default(), Clock::default());
        let rings = Waker::from(bell.clone());
        Ok(Self {
            requests,
            connection: Some(connection),
            has_served: false,
            bell,
            rings,
            outflow,
            takes_request: Rc::default(),
            stuck: None,
            clock,
        })
    }

    /// Sends a request and waits for the head of its answer, which may take `patience` to come once all of the request has
    /// been taken.
    pub(super) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
        patience: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        request.body_mut().tell(&self.takes_request);
        self.outflow.asks();
        let sent = self.bell.muffled(|| self.requests.try_send_request(request));
        // A budget that is used up would have to wake somebody.
        let mut answer = pin!(unconstrained(sent));
        let mut turn = None;
        let outcome = poll_fn(|context| {
            loop {
                let is_over = self.poll_connection(context).is_ready();
                // What moves the connection is what makes an answer come, so nobody has to be woken for it.
                if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    return Poll::Ready(Ok(answer));
                }
                if is_over {
                    return Poll::Ready(Err(UpstreamError::Broken("the connection ended".to_owned())));
                }
                let seen = *turn.get_or_insert(self.outflow.turn());
                ready!(self.clock.poll_over(patience, context));
                if seen == self.outflow.turn() {
                    return Poll::Ready(Err(UpstreamError::TimedOut));
                }
                // A slow upload is not a slow answer: the clock starts anew as long as something is taken.
                self.clock.stop();
                turn = None;
            }
        })
        .await;
        self.clock.stop();
        match outcome {
            Ok(Ok(answer)) => {
                self.has_served = true;
                Ok(answer)
            }
            Ok(Err(error)) => Err(self.failure(error)),
            Err(error) => Err(Failure { error, unsent: None, was_stale: false }),
        }
    }

    fn failure(&self, mut error: TrySendError<Request<RequestBody>>) -> Failure {
        let unsent = error.take_message().map(Box::new);
        let error = error.into_error();
        let was_stale = self.has_served && lost_connection(&error);
        Failure { error: error.into(), unsent, was_stale }
    }

    /// Moves what there is to move; ready when the connection is over.
    pub(super) fn poll_connection(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(()) };
        self.bell.mover.register(context.waker());
        // What went wrong is told to whoever waits for an answer or a body.
        let _ = ready!(connection.as_mut().poll(&mut Context::from_waker(&self.rings)));
        self.connection = None;
        Poll::Ready(())
    }

    /// Takes something from the connection, which is moved before anybody waits for more.
    pub(super) fn taking<T>(&self, take: impl FnOnce() -> T) -> T {
        self.bell.muffled(take)
    }

    /// Whether more of the request is to be read while its answer comes.
    pub(super) fn takes_request(&self) -> bool {
        self.takes_request.get()
    }

    /// Nobody moves it for now.
    pub(super) fn rest(&self) {
        drop(self.bell.mover.take());
    }

    /// Whether it can carry another request.
    pub(super) fn is_free(&self) -> bool {
        self.connection.is_some() && self.requests.is_ready()
    }

    pub(super) fn is_over(&self) -> bool {
        self.connection.is_none()
    }

    /// What comes next is here: a wait for it is over.
    pub(super) fn moved(&mut self) {
        self.clock.stop();
    }

    /// Ready when the one who waits for something from upstream has waited for `idle`.
    pub(super) fn poll_idle(&mut self, idle: Duration, context: &mut Context<'_>) -> Poll<()> {
        self.clock.poll_over(idle, context)
    }

    /// Whether upstream has taken nothing for `idle` of what is to go out. Counted from the first look that finds it so.
    pub(super) fn is_stuck(&mut self, idle: Duration) -> bool {
        if !self.outflow.is_blocked() {
            self.stuck = None;
            return false;
        }
        let (turn, now) = (self.outflow.turn(), Instant::now());
        match self.stuck {
            Some((seen, since)) if seen == turn => now.duration_since(since) >= idle,
            _ => {
                self.stuck = Some((turn, now));
                false
            }
        }
    }

    /// Moves the connection until its request has been sent and the answer has been taken from it, and it can carry another
    /// one.
    pub(super) async fn finish(&mut self, idle: Duration) -> Finished {
        let finished = poll_fn(|context| {
            loop {
                if self.poll_connection(context).is_ready() {
                    return Poll::Ready(Finished::Over);
                }
                if self.is_free() {
                    return Poll::Ready(Finished::Free);
                }
                if !self.outflow.is_blocked() {
                    // It is the client that is waited for, and that wait has a limit of its own.
                    self.clock.stop();
                    return Poll::Pending;
                }
                if self.is_stuck(idle) {
                    return Poll::Ready(Finished::Stuck);
                }
                ready!(self.clock.poll_over(idle, context));
                self.clock.stop();
            }
        })
        .await;
        self.clock.stop();
        finished
    }
}

/// What became of a connection that was moved to its end, or to that of its request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Finished {
    /// It can carry another request.
    Free,
    /// It has ended.
    Over,
    /// Upstream takes nothing of what is to go out.
    Stuck,
}
