//! An answer on its way out: its framing, a body that is counted while it is sent, and the counters and the log line that
//! close a request however it ended.

use super::intake::Unread;
use super::request_id::RequestId;
use crate::identity::PictureId;
use crate::listen::Exchange;
use crate::telemetry::{Answered, Fault, Outcome, ProofKind, Reason, RequestLine, Route, Telemetry, log_request};
use crate::upstream::{AnswerBody, UpstreamError};
use actix_web::HttpResponse;
use actix_web::body::{BodySize, BodyStream, BoxBody, MessageBody, SizedStream};
use actix_web::http::{ConnectionType, StatusCode, Version};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, StatusCode as UpstreamStatus};
use std::convert::Infallible;
use std::error::Error;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// What is known of a request while it is answered. When it is dropped, which is when the last byte of the answer was
/// handed over or the client is gone, the request is counted and logged.
pub(super) struct Ledger {
    pub(super) method: Method,
    pub(super) client: IpAddr,
    pub(super) request_id: RequestId,
    pub(super) route: Route,
    pub(super) picture: Option<PictureId>,
    pub(super) outcome: Outcome,
    /// Bytes of bodies that upstream sent for a picture.
    pub(super) bytes_upstream: u64,
    /// Bytes that the client would have got without us.
    pub(super) bytes_original: u64,
    /// Upstream's answer goes out as it came: what is sent is what upstream sent.
    pub(super) relayed: bool,
    /// What let the caller see the picture.
    pub(super) proof: Option<ProofKind>,
    /// The name that Mattermost gave the request.
    upstream_request_id: Option<String>,
    /// What was sent, if anything was.
    status: Option<UpstreamStatus>,
    /// What follows the request's head, until it is answered.
    body: Option<Unread>,
    bytes_sent: u64,
    started: Instant,
    logs: bool,
    telemetry: Arc<Telemetry>,
    /// As long as this is there, nobody hurries the connection.
    exchange: Option<Exchange>,
}

impl Ledger {
    /// Opens the account of a request.
    pub(super) fn open(
        telemetry: &Arc<Telemetry>,
        logs: bool,
        method: Method,
        client: IpAddr,
        route: Route,
        exchange: Option<Exchange>,
    ) -> Self {
        telemetry.request_begins();
        Self {
            proof: None,
            method,
            client,
            request_id: RequestId::next(),
            route,
            picture: None,
            outcome: Outcome::Failed,
            bytes_upstream: 0,
            bytes_original: 0,
            relayed: false,
            upstream_request_id: None,
            status: None,
            body: None,
            bytes_sent: 0,
            started: Instant::now(),
            logs,
            telemetry: telemetry.clone(),
            exchange,
        }
    }

    /// This follows the request's head.
    pub(super) fn is_followed_by(&mut self, body: Unread) {
        self.body = Some(body);
    }

    fn answered(&mut self, status: UpstreamStatus) {
        self.status = Some(status);
        self.body = None;
    }

    /// Takes down what upstream called the request.
    pub(super) fn named_by_upstream<'a>(&mut self, id: impl FnOnce() -> Option<&'a [u8]>) {
        if self.logs {
            self.upstream_request_id = id().and_then(|id| String::from_utf8(id.to_owned()).ok());
        }
    }

    /// Whether the answer is upstream's, or was given after upstream had been asked.
    pub(super) fn asked_upstream(&self) -> bool {
        self.relayed || matches!(self.proof, Some(ProofKind::Fetched | ProofKind::Revalidated))
    }

    /// When the request came in.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Closes the account of an answer that is whole already: to watch it leave would cost more than to make it.
    pub(super) fn close_at_once(mut self, response: HttpResponse) -> HttpResponse {
        self.answered(status_of(&response));
        if let (BodySize::Sized(len), true) = (response.body().size(), self.method != Method::HEAD) {
            self.bytes_sent = len;
        }
        response
    }

    /// The answer is a 101: the account stays open as long as what comes of that.
    pub(super) fn switched(&mut self) {
        self.answered(UpstreamStatus::SWITCHING_PROTOCOLS);
    }

    /// So many bytes more have gone to the client, behind the head of the answer.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes_sent += bytes as u64;
    }

    /// What is being sent has come to an end before its end: counted, and logged once.
    fn broke_off(&mut self, error: &(dyn Error + 'static)) {
        self.outcome = Outcome::Failed;
        let request_id = self.request_id.spelt();
        let upstream_request_id = self.upstream_request_id.as_deref();
        let fault = match error.downcast_ref() {
            Some(UpstreamError::ClientAborted | UpstreamError::ClientStalled) => {
                tracing::debug!(request.id = request_id.as_str(), %error, "request broke off while it was answered");
                return;
            }
            Some(UpstreamError::TimedOut) => Fault::AnswerStalled,
            _ => Fault::AnswerBroken,
        };
        self.telemetry.fault(fault);
        tracing::warn!(
            fault = fault.name(),
            request.id = request_id.as_str(),
            upstream.request_id = upstream_request_id,
            %error,
            "answer broke off"
        );
    }

    /// Ties the account to the answer: it closes with the body's last byte.
    pub(super) fn close_with(mut self, response: HttpResponse) -> HttpResponse {
        self.answered(status_of(&response));
        match response.body().size() {
            BodySize::None | BodySize::Sized(0) => response,
            BodySize::Sized(_) | BodySize::Stream => {
                response.map_body(|_, body| BoxBody::new(CountedBody { body, ledger: self }))
            }
        }
    }
}

fn status_of(response: &HttpResponse) -> UpstreamStatus {
    UpstreamStatus::from_u16(response.status().as_u16()).expect("a status in one crate is one in the other")
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if self.status.is_none() {
            let is_here = self.exchange.as_ref().is_some_and(|exchange| !exchange.has_hung_up());
            let is_malformed = is_here && self.body.take().is_some_and(|body| body.broke_off());
            self.outcome = if is_malformed { Outcome::Failed } else { Outcome::Left };
            // actix ends the connection with what came behind the head, and lets go of whoever read it.
            if is_malformed && self.exchange.as_ref().is_some_and(Exchange::refuse) {
                self.telemetry.refused(Reason::Malformed);
            }
        }
        let bytes_upstream = if self.relayed { self.bytes_sent } else { self.bytes_upstream };
        let is_picture = !matches!(self.route, Route::Passthrough | Route::Change | Route::Websocket);
        let shown = self.relayed && is_picture && self.status == Some(UpstreamStatus::OK);
        let bytes_original = if shown { self.bytes_sent } else { self.bytes_original };
        let duration = self.started.elapsed();
        let Self { route, outcome, status, bytes_sent, .. } = *self;
        self.telemetry.request_ends();
        self.telemetry.answered(&Answered { route, outcome, status, bytes_sent, duration });
        if let Some(proof) = self.proof {
            self.telemetry.picture_shown(proof);
        }
        self.telemetry.upstream_bytes(route, bytes_upstream);
        self.telemetry.original_bytes(bytes_original);
        if self.logs {
            log_request(&RequestLine {
                method: &self.method,
                route,
                picture: self.picture.as_ref(),
                status,
                outcome,
                bytes_sent,
                bytes_upstream,
                duration,
                request_id: self.request_id.spelt().as_str(),
                proof: self.proof,
                upstream_request_id: self.upstream_request_id.as_deref(),
                client: Some(self.client),
            });
        }
    }
}

struct CountedBody {
    body: BoxBody,
    ledger: Ledger,
}

impl MessageBody for CountedBody {
    type Error = Box<dyn Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let next = std::task::ready!(self.body.as_pin_mut().poll_next(context));
        match &next {
            Some(Ok(chunk)) => self.ledger.bytes_sent += chunk.len() as u64,
            Some(Err(error)) => self.ledger.broke_off(&**error),
            None => {}
        }
        Poll::Ready(next)
    }
}

/// An answer of upstream's without its fields, and with its body, whole or as a stream, framed anew. `declared` tells the length
/// that upstream declared.
pub(super) fn streamed(
    method: &Method,
    status: UpstreamStatus,
    declared: impl FnOnce() -> Option<u64>,
    body: AnswerBody,
) -> HttpResponse {
    let status = StatusCode::from_u16(status.as_u16()).expect("a status in one crate is one in the other");
    let response = HttpResponse::new(status);
    // Neither has a body, whatever its header says (RFC 9110 sections 15.3.5 and 15.4.5).
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return response;
    }
    if method == Method::HEAD {
        let len = match &body {
            AnswerBody::Complete(bytes) => Some(bytes.len() as u64),
            AnswerBody::Partial(..) => declared(),
        };
        return match len {
            Some(len) => response.map_body(|_, _| no_body(len)),
            // Not "empty": that would be said to be nothing long.
            None => response.map_body(|_, _| BoxBody::new(actix_web::body::None::new())),
        };
    }
    response.map_body(|_, _| match body {
        AnswerBody::Complete(bytes) => whole(bytes),
        AnswerBody::Partial(prefix, rest) => {
            let chunks = if prefix.is_empty() { rest } else { Box::pin(stream::iter([Ok(prefix)]).chain(rest)) };
            match declared() {
                Some(len) => BoxBody::new(SizedStream::new(len, chunks)),
                None => BoxBody::new(BodyStream::new(chunks)),
            }
        }
    })
}

/// HTTP/1.0 knows no chunks: there a body of unknown length ends with the connection (RFC 9112 section 6.3).
pub(super) fn framed_for(version: Version, mut response: HttpResponse) -> HttpResponse {
    if version < Version::HTTP_11 && matches!(response.body().size(), BodySize::Stream) {
        response.head_mut().no_chunking(true);
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    response
}

/// An answer during which `unread` is held.
pub(super) fn holding(unread: Unread, response: HttpResponse) -> HttpResponse {
    response.map_body(|_, body| BoxBody::new(Holding { body, _unread: unread }))
}

struct Holding {
    body: BoxBody,
    _unread: Unread,
}

impl MessageBody for Holding {
    type Error = Box<dyn Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.body.as_pin_mut().poll_next(context)
    }
}

/// How long a body is at least that is handed over in pieces, and how long these are, in bytes.
const PIECE: usize = 64 << 10;

/// A body that is in memory. A connection copies what it is given: of a long body it is given no more at once than goes out
/// soon, or each client who takes its time would have a copy that no budget knows of.
pub(super) fn whole(mut bytes: Bytes) -> BoxBody {
    if bytes.len() <= PIECE {
        return BoxBody::new(bytes);
    }
    let len = bytes.len() as u64;
    let pieces = std::iter::from_fn(move || {
        let length = bytes.len().min(PIECE);
        (length > 0).then(|| Ok::<_, Infallible>(bytes.split_to(length)))
    });
    BoxBody::new(SizedStream::new(len, stream::iter(pieces)))
}

/// A body of `len` bytes that is announced and not sent.
pub(super) fn no_body(len: u64) -> BoxBody {
    BoxBody::new(SizedStream::new(len, stream::empty::<Result<Bytes, Infallible>>()))
}
