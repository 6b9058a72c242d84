//! A request and its answer's head over one worker's connections, sent once more only where nothing can come of it twice.
//!
//! The rule, of RFC 9110 section 9.2.2: a request with a safe method and without a body is repeated once, on a connection
//! made for it, when the kept connection that it went out on was lost before its answer came. Upstream may have closed
//! that connection just as the request went out. All others fail: nobody can say whether they were done.
//!
//! A kept connection that turns out to have ended before one byte of the request was written is passed over for the next;
//! that is no repetition, whatever the method.

use super::body::RequestBody;
use super::connect::Connector;
use super::download::Download;
use super::head::{AnswerHead, written};
use super::line::{Failure, Line};
use super::pool::Pool;
use super::{Fields, UpstreamError};
use bytes::Bytes;
use http::Method;
use http::uri::PathAndQuery;
use std::rc::Rc;
use std::time::Duration;

/// One worker's connections for what passes through.
pub(super) struct Exchange {
    connector: Connector,
    pool: Rc<Pool>,
    times: Times,
}

/// How long upstream may take.
#[derive(Clone, Copy)]
pub(super) struct Times {
    /// Until an answer begins, once all of its request has been taken.
    pub(super) patience: Duration,
    /// Between two parts of an answer, or of what is taken of a request.
    pub(super) idle: Duration,
}

/// A request without its body, which its fields have to frame.
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) target: PathAndQuery,
    pub(super) fields: Fields,
}

impl Head {
    pub(super) fn written(&self) -> Bytes {
        written(&self.method, &self.target, &self.fields)
    }
}

impl Exchange {
    /// Connections by `connector`, of which at most `idle` are kept, each for `idle_time`.
    pub(super) fn new(connector: Connector, idle: usize, idle_time: Duration, times: Times) -> Self {
        let pool = Pool::new(idle, idle_time, connector.slots.clone());
        Self { connector, pool, times }
    }

    /// Sends a request, where the rule lets it twice; the head of its answer, and the connection that the rest comes over.
    pub(super) async fn send(
        &self,
        head: &Head,
        mut body: RequestBody,
    ) -> Result<(AnswerHead, Box<Line>), UpstreamError> {
        body.begin().await;
        let is_repeatable = head.method.is_safe() && body.length() == Some(0);
        let written = head.written();
        while let Some(mut line) = self.pool.take() {
            match line.send(written.clone(), &head.method, body, self.times.patience).await {
                Ok(answer) => return Ok((answer, line)),
                Err(Failure { unsent: Some(unsent), .. }) => body = unsent,
                Err(Failure { was_stale: true, .. }) if is_repeatable => {
                    body = RequestBody::empty();
                    break;
                }
                Err(Failure { error, .. }) => return Err(error),
            }
        }
        // On the heap: to connect takes many times the state of what is done for most requests.
        Box::pin(self.send_afresh(written, &head.method, body)).await
    }

    async fn send_afresh(
        &self,
        head: Bytes,
        method: &Method,
        body: RequestBody,
    ) -> Result<(AnswerHead, Box<Line>), UpstreamError> {
        let mut line = Line::over(self.connector.connect().await?);
        let answer = line.send(head, method, body, self.times.patience).await.map_err(|failure| failure.error)?;
        Ok((answer, line))
    }

    /// The body of the answer whose head has just come over `line`.
    pub(super) fn receive(&self, line: Box<Line>) -> Download {
        Download::new(line, self.pool.clone(), self.times.idle)
    }
}
