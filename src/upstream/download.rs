//! The body of an answer, and the connection that it comes over until it is whole.

use super::UpstreamError;
use super::clock::Clock;
use super::line::{Finished, Line};
use super::pool::Pool;
use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Dropped before its end, it takes the connection along, and what of the request had not gone out yet.
pub(super) struct Download {
    mover: Mover,
    body: Incoming,
    /// What was read ahead.
    first: Option<Bytes>,
    /// Why it broke off, to be told when what came before has been sent.
    broken: Option<UpstreamError>,
    pool: Rc<Pool>,
    idle: Duration,
}

/// Who moves the connection.
enum Mover {
    /// Whoever takes the body.
    Taker(Line),
    /// A task: the request goes on, and so it must while nobody takes anything of the answer.
    Task(Alongside),
    /// Nobody: the body has ended, or has been left.
    Nobody,
}

/// A connection that is moved by a task of its own, which ends when this is dropped.
struct Alongside {
    task: Option<JoinHandle<()>>,
    /// The task gave up, because upstream takes no more of the request.
    is_stuck: Rc<Cell<bool>>,
    /// For the waits of whoever takes the body.
    clock: Clock,
}

impl Alongside {
    /// The body is whole, and the request may go on.
    fn goes_on(mut self) {
        self.task = None;
    }
}

impl Drop for Alongside {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Download {
    /// An answer's body; upstream may pause for `idle` while somebody waits for more, or while it is to take more of the
    /// request.
    pub(super) fn new(line: Line, body: Incoming, pool: Rc<Pool>, idle: Duration) -> Self {
        let mut download = Self { mover: Mover::Taker(line), body, first: None, broken: None, pool, idle };
        if download.body.is_end_stream() {
            download.release();
        }
        download
    }

    /// All of a body whose length was announced, if all of it came with its head.
    ///
    /// # Errors
    /// It broke off already.
    pub(super) fn all_at_once(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        if matches!(self.mover, Mover::Nobody) || self.body.size_hint().exact().is_none() {
            return Ok(None);
        }
        // What moves the connection is what makes more come, and nobody has waited for it yet.
        let Poll::Ready(Some(chunk)) = self.poll_body(&mut Context::from_waker(Waker::noop())) else { return Ok(None) };
        let chunk = chunk?;
        if self.body.is_end_stream() {
            self.release();
            return Ok(Some(chunk));
        }
        self.first = Some(chunk);
        Ok(None)
    }

    /// From now on the connection is moved by a task, if its request has not been read to the end: a client may be one that
    /// takes nothing of the answer before it has sent all. To be called on a thread that runs a [`tokio::task::LocalSet`].
    pub(super) fn beside_its_request(mut self) -> Self {
        let Mover::Taker(line) = &self.mover else { return self };
        if !line.takes_request() {
            return self;
        }
        let Mover::Taker(mut line) = std::mem::replace(&mut self.mover, Mover::Nobody) else { return self };
        let (pool, idle, is_stuck) = (self.pool.clone(), self.idle, Rc::<Cell<bool>>::default());
        let tells = is_stuck.clone();
        let task = tokio::task::spawn_local(async move {
            match line.finish(idle).await {
                Finished::Free => pool.keep(line),
                Finished::Over => {}
                // To be known before the body ends with the connection: it would look whole.
                Finished::Stuck => tells.set(true),
            }
        });
        self.mover = Mover::Task(Alongside { task: Some(task), is_stuck, clock: Clock::default() });
        self
    }

    /// What has come of the body.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        loop {
            let body = Pin::new(&mut self.body);
            let frame = match &self.mover {
                Mover::Taker(line) => line.taking(|| body.poll_frame(context)),
                Mover::Task(_) | Mover::Nobody => body.poll_frame(context),
            };
            let frame = ready!(frame);
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(chunk))) => return Poll::Ready(Some(Ok(chunk))),
                // Trailers, which stop here.
                Some(Ok(Err(_))) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            }
        }
    }

    /// The body is whole: the connection can be used again, when all of the request has gone out.
    fn release(&mut self) {
        match std::mem::replace(&mut self.mover, Mover::Nobody) {
            Mover::Taker(line) if line.is_free() => self.pool.keep(line),
            Mover::Taker(mut line) if !line.is_over() => {
                let (pool, idle) = (self.pool.clone(), self.idle);
                tokio::task::spawn_local(async move {
                    if line.finish(idle).await == Finished::Free {
                        pool.keep(line);
                    }
                });
            }
            Mover::Task(alongside) => alongside.goes_on(),
            Mover::Taker(_) | Mover::Nobody => {}
        }
    }

    /// Has the connection bring more.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        match &mut self.mover {
            Mover::Taker(line) => {
                let is_over = line.poll_connection(context).is_ready();
                if line.is_stuck(self.idle) {
                    return Poll::Ready(Some(Err(UpstreamError::TimedOut)));
                }
                // What moves the connection is what makes the body come, so nobody has to be woken for it.
                let next = self.poll_body(&mut Context::from_waker(Waker::noop()));
                let Mover::Taker(line) = &mut self.mover else { return next };
                if next.is_ready() {
                    line.moved();
                    return next;
                }
                if is_over {
                    return Poll::Ready(Some(Err(UpstreamError::Broken("the connection ended".to_owned()))));
                }
                ready!(line.poll_idle(self.idle, context));
            }
            Mover::Task(_) => {
                let next = self.poll_body(context);
                let Mover::Task(alongside) = &mut self.mover else { return next };
                match next {
                    Poll::Ready(None) if alongside.is_stuck.get() => {}
                    Poll::Ready(next) => {
                        alongside.clock.stop();
                        return Poll::Ready(next);
                    }
                    Poll::Pending => ready!(alongside.clock.poll_over(self.idle, context)),
                }
            }
            Mover::Nobody => return Poll::Ready(None),
        }
        Poll::Ready(Some(Err(UpstreamError::TimedOut)))
    }
}

impl Stream for Download {
    type Item = Result<Bytes, UpstreamError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if let Some(broken) = self.broken.take() {
            return Poll::Ready(Some(Err(broken)));
        }
        let here = match self.mover {
            Mover::Nobody => return Poll::Ready(None),
            Mover::Taker(_) => self.poll_body(&mut Context::from_waker(Waker::noop())),
            Mover::Task(_) => Poll::Pending,
        };
        let next = match here {
            Poll::Ready(next) => next,
            Poll::Pending => ready!(self.poll_more(context)),
        };
        match next {
            Some(Ok(chunk)) => Poll::Ready(Some(Ok(chunk))),
            Some(Err(error)) => {
                // actix forgets what it has not written when it hears of an error: it is given the time to.
                self.mover = Mover::Nobody;
                self.broken = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                self.release();
                Poll::Ready(None)
            }
        }
    }
}
