//! A request and its answer's head over one worker's connections, sent once more only where nothing can come of it twice.
//!
//! The rule, of RFC 9110 section 9.2.2: a request with a safe method and without a body is repeated once, on a connection
//! made for it, when the kept connection that it went out on was lost before its answer came. Upstream may have closed
//! that connection just as the request went out (F21). All others fail: nobody can say whether they were done.
//!
//! A kept connection that turns out to have ended before one byte of the request was written is passed over for the next;
//! that is no repetition, whatever the method.

use super::body::RequestBody;
use super::connect::Connector;
use super::download::Download;
use super::line::{Failure, Line};
use super::pool::Pool;
use super::{Again, UpstreamError};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Method, Request, Response, header};
use hyper::body::Incoming;
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

/// A request without its body.
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) target: PathAndQuery,
    pub(super) headers: HeaderMap,
}

impl Head {
    pub(super) fn with(self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = Uri::from(self.target);
        *request.headers_mut() = self.headers;
        request
    }
}

impl Exchange {
    /// Connections by `connector`, of which at most `idle` are kept, each for `idle_time`.
    pub(super) fn new(connector: Connector, idle: usize, idle_time: Duration, times: Times) -> Self {
        let pool = Pool::new(idle, idle_time, connector.slots.clone());
        Self { connector, pool, times }
    }

    /// Sends a request, where the rule lets it and `again` says how, once more; its answer, as far as it has come.
    pub(super) async fn send(
        &self,
        head: Head,
        mut body: RequestBody,
        again: Option<Again<'_>>,
    ) -> Result<Response<Download>, UpstreamError> {
        body.begin().await;
        let is_repeatable = head.method.is_safe() && body.length() == Some(0);
        let again = again.filter(|_| is_repeatable).map(|headers| (head.method.clone(), head.target.clone(), headers));
        let mut request = head.with(body);
        while let Some(mut line) = self.pool.take() {
            match line.send(request, self.times.patience).await {
                Ok(answer) => return Ok(self.receive(line, answer)),
                Err(Failure { unsent: Some(unsent), .. }) => request = *unsent,
                Err(Failure { was_stale: true, error, .. }) => {
                    let (method, target, headers) = again.ok_or(error)?;
                    let mut head = Head { method, target, headers: headers() };
                    head.headers.remove(header::CONTENT_LENGTH);
                    request = head.with(RequestBody::empty());
                    break;
                }
                Err(Failure { error, .. }) => return Err(error),
            }
        }
        // On the heap: to connect takes many times the state of what is done for most requests.
        Box::pin(self.send_afresh(request)).await
    }

    async fn send_afresh(&self, request: Request<RequestBody>) -> Result<Response<Download>, UpstreamError> {
        let mut line = Line::over(self.connector.connect().await?).await?;
        let answer = line.send(request, self.times.patience).await.map_err(|failure| failure.error)?;
        Ok(self.receive(line, answer))
    }

    fn receive(&self, line: Line, answer: Response<Incoming>) -> Response<Download> {
        answer.map(|body| Download::new(line, body, self.pool.clone(), self.times.idle))
    }
}
