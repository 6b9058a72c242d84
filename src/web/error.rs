//! The one table from errors to statuses, and our own answers in Mattermost's error shape.

use crate::avatar::AvatarError;
use crate::telemetry::Reason;
use crate::upstream::UpstreamError;
use crate::upstream::headers::{ConnectionNamesCredential, LoopDetected};
use crate::variant::transform::QueryError;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, HttpResponseBuilder};

/// How long a client should wait before it asks an overloaded proxy again, in seconds.
const RETRY_AFTER: &str = "2";

/// Everything that ends a request with an answer of our own.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// A query parameter of ours that cannot be understood.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A path that we and upstream could read differently.
    #[error("the path holds a dot segment, a backslash or a control character")]
    Path,
    /// A target that is no path of this site.
    #[error("the request target is not a path")]
    Target,
    /// `CONNECT`.
    #[error("CONNECT is for forward proxies")]
    Method,
    /// A `Connection` field that would strip credentials.
    #[error(transparent)]
    Connection(#[from] ConnectionNamesCredential),
    /// A WebSocket handshake that is none.
    #[error("a WebSocket handshake is a GET without a body")]
    Handshake,
    /// The request has been here before.
    #[error(transparent)]
    Loop(#[from] LoopDetected),
    /// `Cache-Control: only-if-cached`, but nothing is answered without asking upstream.
    #[error("nothing is served without asking upstream")]
    OnlyIfCached,
    /// No picture to serve.
    #[error(transparent)]
    Avatar(#[from] AvatarError),
    /// No answer from upstream.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl WebError {
    /// The answer's status, the last part of its `id`, and the reason that is counted.
    #[must_use]
    pub fn verdict(&self) -> (StatusCode, &'static str, Reason) {
        match self {
            Self::Query(error) => (StatusCode::BAD_REQUEST, error.id(), Reason::Query),
            Self::Path => (StatusCode::BAD_REQUEST, "avatar_proxy.path.ambiguous", Reason::Path),
            Self::Target => (StatusCode::BAD_REQUEST, "avatar_proxy.path.target", Reason::Path),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "avatar_proxy.method.connect", Reason::Method),
            Self::Connection(ConnectionNamesCredential) => {
                (StatusCode::BAD_REQUEST, "avatar_proxy.header.connection", Reason::Header)
            }
            Self::Handshake => (StatusCode::BAD_REQUEST, "avatar_proxy.header.upgrade", Reason::Header),
            Self::Loop(LoopDetected) => (StatusCode::LOOP_DETECTED, "avatar_proxy.loop", Reason::Loop),
            Self::OnlyIfCached => (StatusCode::GATEWAY_TIMEOUT, "avatar_proxy.only_if_cached", Reason::OnlyIfCached),
            Self::Avatar(AvatarError::Overloaded) => {
                (StatusCode::SERVICE_UNAVAILABLE, "avatar_proxy.overloaded", Reason::Overloaded)
            }
            Self::Avatar(AvatarError::Upstream(error)) | Self::Upstream(error) => match error {
                UpstreamError::Unreachable(_) => {
                    (StatusCode::BAD_GATEWAY, "avatar_proxy.upstream.unreachable", Reason::UpstreamUnreachable)
                }
                UpstreamError::TimedOut => {
                    (StatusCode::GATEWAY_TIMEOUT, "avatar_proxy.upstream.timeout", Reason::UpstreamTimeout)
                }
                UpstreamError::Broken(_) => {
                    (StatusCode::BAD_GATEWAY, "avatar_proxy.upstream.broken", Reason::UpstreamBroken)
                }
                UpstreamError::ClientAborted => {
                    (StatusCode::BAD_REQUEST, "avatar_proxy.request.aborted", Reason::ClientAborted)
                }
                UpstreamError::Overloaded => {
                    (StatusCode::SERVICE_UNAVAILABLE, "avatar_proxy.overloaded", Reason::Overloaded)
                }
            },
        }
    }

    /// The answer: Mattermost's error JSON (`model.AppError` in `server/public/model/utils.go`), never kept by anybody.
    #[must_use]
    pub fn answer(&self, request_id: &str) -> HttpResponse {
        let (status, id, _) = self.verdict();
        let body = serde_json::json!({
            "id": id,
            "message": self.message(),
            "detailed_error": "",
            "request_id": request_id,
            "status_code": status.as_u16(),
        });
        let mut answer = HttpResponseBuilder::new(status);
        answer
            .insert_header((header::CONTENT_TYPE, "application/json"))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header(("X-Request-Id", request_id));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            answer.insert_header((header::RETRY_AFTER, RETRY_AFTER));
        }
        if matches!(self, Self::Method | Self::Handshake | Self::Loop(_)) {
            answer.force_close();
        }
        answer.body(body.to_string())
    }

    /// What the client is told. What upstream's address is or how it failed is for the log alone.
    fn message(&self) -> String {
        match self {
            Self::Avatar(AvatarError::Upstream(error)) | Self::Upstream(error) => match error {
                UpstreamError::Unreachable(_) => "Mattermost cannot be reached.".to_owned(),
                UpstreamError::TimedOut => "Mattermost did not answer in time.".to_owned(),
                UpstreamError::Broken(_) => "Mattermost's answer broke off.".to_owned(),
                UpstreamError::ClientAborted => "The request broke off.".to_owned(),
                UpstreamError::Overloaded => "Too many pictures are being asked for. Try again in a moment.".to_owned(),
            },
            other => other.to_string(),
        }
    }
}
