//! A request and its answer's head over one worker's connections, sent once more only where nothing can come of it twice.
//!
//! The rule, of RFC 9110 section 9.2.2: a request with a safe method and without a body is repeated once, on a connection
//! made for it, when the kept connection that it went out on was lost before its answer came. Upstream may have closed
//! that connection just as the request went out (F21). All others fail: nobody can say whether they were done.
//!
//! `hyper-util` by itself puts a request on another connection only while not one byte of it was written; that is no
//! repetition, whatever the method.

use super::UpstreamError;
use super::body::RequestBody;
use super::connect::{Connector, Worn};
use super::error::find;
use http::uri::Uri;
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::error::Error;
use std::io;
use std::time::Duration;
use tokio::time::timeout;

/// What a connection that passes bodies through buffers in each direction, beside the chunk that is being handed over. With
/// what the client's side holds it stays below the mebibyte that may be in flight; a head has to fit into it, too.
const CONNECTION_BUFFER: usize = 128 << 10;

/// One worker's connections for what passes through.
pub(super) struct Exchange {
    kept: Client<Connector, RequestBody>,
    /// Keeps no connection, so each of its requests goes out on a new one.
    afresh: Client<Connector, RequestBody>,
    patience: Duration,
}

/// A request without its body.
#[derive(Clone)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
}

impl Head {
    fn with(self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

/// No answer came.
struct Failure {
    error: UpstreamError,
    /// The request went out on a connection that had served before, and that was lost.
    was_stale: bool,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let mut told = http::Extensions::new();
        if let Some(connection) = error.connect_info() {
            connection.get_extras(&mut told);
        }
        let was_stale = told.get::<Worn>().is_some_and(Worn::is_worn) && lost_connection(&error);
        Self { error: error.into(), was_stale }
    }
}

impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        Self { error, was_stale: false }
    }
}

/// Whether a connection ended where an answer should have begun, unlike one over which came no HTTP.
pub(super) fn lost_connection(error: &(dyn Error + 'static)) -> bool {
    find::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message) || find::<io::Error>(error).is_some()
}

impl Exchange {
    /// Connections by `connector`, of which at most `idle` are kept, each for `idle_time`. An answer may take `patience` to
    /// begin once all of its request has been taken.
    pub(super) fn new(connector: &Connector, idle: usize, idle_time: Duration, patience: Duration) -> Self {
        let client = |idle| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .http1_max_buf_size(CONNECTION_BUFFER)
                // Every request brings its own.
                .set_host(false)
                .pool_idle_timeout(idle_time)
                .pool_max_idle_per_host(idle)
                .build(connector.clone())
        };
        Self { kept: client(idle), afresh: client(0), patience }
    }

    pub(super) async fn send(&self, head: Head, body: RequestBody) -> Result<Response<Incoming>, UpstreamError> {
        if !head.method.is_safe() || body.length() != Some(0) {
            return self.send_once(&self.kept, head, body).await.map_err(|failure| failure.error);
        }
        match self.send_once(&self.kept, head.clone(), RequestBody::empty()).await {
            Err(Failure { was_stale: true, .. }) => {
                let again = self.send_once(&self.afresh, head, RequestBody::empty()).await;
                again.map_err(|failure| failure.error)
            }
            sent => sent.map_err(|failure| failure.error),
        }
    }

    async fn send_once(
        &self,
        client: &Client<Connector, RequestBody>,
        head: Head,
        body: RequestBody,
    ) -> Result<Response<Incoming>, Failure> {
        let progress = body.progress();
        let answer = client.request(head.with(body));
        tokio::pin!(answer);
        let mut seen = progress.made();
        loop {
            if let Ok(answer) = timeout(self.patience, &mut answer).await {
                let mut answer = answer?;
                if let Some(worn) = answer.extensions_mut().remove::<Worn>() {
                    worn.wear();
                }
                return Ok(answer);
            }
            // A slow upload is not a slow answer: the clock starts anew as long as chunks are taken.
            let now = progress.made();
            if now == seen {
                return Err(UpstreamError::TimedOut.into());
            }
            seen = now;
        }
    }
}
