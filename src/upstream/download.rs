//! The body of an answer, and the connection that it comes over until it is whole.

use super::UpstreamError;
use super::line::Line;
use super::pool::Pool;
use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

/// Dropped before its end, it takes the connection along, and what of the request had not gone out yet.
pub(super) struct Download {
    /// Until the body has ended.
    line: Option<Line>,
    body: Incoming,
    /// What was read ahead.
    first: Option<Bytes>,
    /// Why it broke off, to be told when what came before has been sent.
    broken: Option<UpstreamError>,
    pool: Rc<Pool>,
    idle: Duration,
}

impl Download {
    /// An answer's body; upstream may pause for `idle` while somebody waits for more, or while it is to take more of the
    /// request.
    pub(super) fn new(line: Line, body: Incoming, pool: Rc<Pool>, idle: Duration) -> Self {
        let mut download = Self { line: Some(line), body, first: None, broken: None, pool, idle };
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
        if self.line.is_none() || self.body.size_hint().exact().is_none() {
            return Ok(None);
        }
        let Poll::Ready(Some(chunk)) = self.poll_body() else { return Ok(None) };
        let chunk = chunk?;
        if self.body.is_end_stream() {
            self.release();
            return Ok(Some(chunk));
        }
        self.first = Some(chunk);
        Ok(None)
    }

    /// What has come of the body. What moves the connection is what makes it come, so nobody has to be woken for it.
    fn poll_body(&mut self) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let body = Pin::new(&mut self.body);
            let frame = match &self.line {
                Some(line) => line.taking(|| body.poll_frame(&mut context)),
                None => body.poll_frame(&mut context),
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
        let Some(mut line) = self.line.take() else { return };
        if line.is_free() {
            self.pool.keep(line);
        } else if !line.is_over() {
            let (pool, idle) = (self.pool.clone(), self.idle);
            tokio::task::spawn_local(async move {
                if line.finish(idle).await {
                    pool.keep(line);
                }
            });
        }
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
        if self.line.is_none() {
            return Poll::Ready(None);
        }
        let next = match self.poll_body() {
            Poll::Ready(next) => next,
            Poll::Pending => ready!(self.poll_more(context)),
        };
        match next {
            Some(Ok(chunk)) => Poll::Ready(Some(Ok(chunk))),
            Some(Err(error)) => {
                // actix forgets what it has not written when it hears of an error: it is given the time to.
                self.line = None;
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

impl Download {
    /// Has the connection bring more.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        let line = self.line.as_mut().expect("it is held until the body has ended");
        let is_over = line.poll_connection(context).is_ready();
        if line.is_stuck(self.idle) {
            return Poll::Ready(Some(Err(UpstreamError::TimedOut)));
        }
        let next = self.poll_body();
        let line = self.line.as_mut().expect("as before");
        if next.is_ready() {
            line.moved();
            return next;
        }
        if is_over {
            return Poll::Ready(Some(Err(UpstreamError::Broken("the connection ended".to_owned()))));
        }
        ready!(line.poll_idle(self.idle, context));
        Poll::Ready(Some(Err(UpstreamError::TimedOut)))
    }
}
