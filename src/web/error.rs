//! The one table from errors to statuses, and our own answers in Mattermost's error shape.

use crate::avatar::AvatarError;
use crate::listen::Refusal;
use crate::telemetry::Reason;
use crate::upstream::UpstreamError;
use crate::upstream::headers::{ConnectionNamesCredential, LoopDetected};
use crate::variant::transform::QueryError;
use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, HttpResponseBuilder};
use std::time::Duration;

/// How long a client should wait before it asks an overloaded proxy again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The methods that are answered by us or handed on, as far as a list can say that (RFC 9110 section 10.2.1).
pub(super) const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

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
    /// A target that names another host than `Host`.
    #[error("the request target names another host than Host")]
    Authority,
    /// A `TRACE` that goes no further.
    #[error("TRACE is not answered here: it would show the credentials of the request")]
    Trace,
    /// `CONNECT`.
    #[error("CONNECT is for forward proxies")]
    Method,
    /// A `Connection` field that would strip credentials.
    #[error(transparent)]
    Connection(#[from] ConnectionNamesCredential),
    /// A field whose name is none.
    #[error("a field name is no token")]
    Field,
    /// A WebSocket handshake that is none.
    #[error("a WebSocket handshake is a GET of HTTP/1.1 without a body, and its Connection names the upgrade")]
    Handshake,
    /// What came is no request.
    #[error(transparent)]
    Refused(#[from] Refusal),
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
            Self::Authority => (StatusCode::BAD_REQUEST, "avatar_proxy.path.authority", Reason::Path),
            Self::Trace => (StatusCode::METHOD_NOT_ALLOWED, "avatar_proxy.method.trace", Reason::Method),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "avatar_proxy.method.connect", Reason::Method),
            Self::Connection(ConnectionNamesCredential) => {
                (StatusCode::BAD_REQUEST, "avatar_proxy.header.connection", Reason::Header)
            }
            Self::Field => (StatusCode::BAD_REQUEST, "avatar_proxy.header.name", Reason::Header),
            Self::Handshake => (StatusCode::BAD_REQUEST, "avatar_proxy.header.upgrade", Reason::Header),
            Self::Refused(Refusal::SlowHead) => {
                (StatusCode::REQUEST_TIMEOUT, "avatar_proxy.request.timeout", Reason::SlowHead)
            }
            Self::Refused(Refusal::LongHead) => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "avatar_proxy.request.head_too_large", Reason::LongHead)
            }
            Self::Refused(Refusal::Crowd) => (StatusCode::SERVICE_UNAVAILABLE, "avatar_proxy.crowd", Reason::Crowd),
            Self::Refused(Refusal::Malformed) => {
                (StatusCode::BAD_REQUEST, "avatar_proxy.request.malformed", Reason::Malformed)
            }
            Self::Loop(LoopDetected) => (StatusCode::LOOP_DETECTED, "avatar_proxy.loop", Reason::Loop),
            Self::OnlyIfCached => (StatusCode::GATEWAY_TIMEOUT, "avatar_proxy.only_if_cached", Reason::OnlyIfCached),
            Self::Avatar(AvatarError::Exhausted(_)) => {
                (StatusCode::TOO_MANY_REQUESTS, "avatar_proxy.too_many_requests", Reason::TooMany)
            }
            Self::Avatar(AvatarError::HeldBack(_)) => {
                (StatusCode::TOO_MANY_REQUESTS, "avatar_proxy.held_back", Reason::HeldBack)
            }
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
                UpstreamError::ClientStalled => {
                    (StatusCode::REQUEST_TIMEOUT, "avatar_proxy.request.timeout", Reason::ClientStalled)
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
        let wait = match self {
            Self::Avatar(AvatarError::Exhausted(exhausted)) => Some(exhausted.retry_after),
            Self::Avatar(AvatarError::HeldBack(left)) => Some(*left),
            _ => (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER),
        };
        if let Some(wait) = wait {
            answer.insert_header((header::RETRY_AFTER, delay_seconds(wait)));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            answer.insert_header((header::ALLOW, ALLOWED));
        }
        let unread = matches!(self, Self::Upstream(UpstreamError::ClientAborted | UpstreamError::ClientStalled));
        if unread || matches!(self, Self::Method | Self::Handshake | Self::Loop(_)) {
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
                UpstreamError::ClientStalled => "The request did not become whole in time.".to_owned(),
                UpstreamError::Overloaded => "Too many requests are under way. Try again in a moment.".to_owned(),
            },
            Self::Avatar(AvatarError::Exhausted(_)) => {
                "too many pictures that are not in memory were asked for; try again later".to_owned()
            }
            Self::Avatar(AvatarError::HeldBack(_)) => "Mattermost asks for a pause. Try again later.".to_owned(),
            other => other.to_string(),
        }
    }
}

/// `Retry-After` in whole seconds (RFC 9110 section 10.2.3). Never too early, and never 0, which would say "at once".
fn delay_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allowance::{Exhausted, Whose};
    use actix_web::body::MessageBody;

    fn field(answer: &HttpResponse, name: header::HeaderName) -> Option<&str> {
        answer.headers().get(name).map(|value| value.to_str().expect("ASCII"))
    }

    fn too_many(retry_after: Duration) -> WebError {
        WebError::Avatar(AvatarError::Exhausted(Exhausted { retry_after, whose: Whose::Caller }))
    }

    #[test]
    fn f40_a_spent_budget_says_when_to_come_again() {
        for (wait, told) in [
            (Duration::ZERO, "1"),
            (Duration::from_nanos(1), "1"),
            (Duration::from_secs(1), "1"),
            (Duration::from_millis(1_001), "2"),
            (Duration::from_secs(60), "60"),
            (Duration::MAX, "18446744073709551615"),
        ] {
            let answer = too_many(wait).answer("id");
            assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(field(&answer, header::RETRY_AFTER), Some(told), "{wait:?}");
            assert_eq!(field(&answer, header::CACHE_CONTROL), Some("no-store"));
        }
    }

    #[test]
    fn an_answer_of_ours_has_the_shape_of_mattermosts_errors() {
        let answer = too_many(Duration::ZERO).answer("rid");
        assert_eq!(field(&answer, header::CONTENT_TYPE), Some("application/json"));
        let body = answer.into_body().try_into_bytes().expect("a body in memory");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let expected = serde_json::json!({
            "id": "avatar_proxy.too_many_requests",
            "message": "too many pictures that are not in memory were asked for; try again later",
            "detailed_error": "",
            "request_id": "rid",
            "status_code": 429,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn only_what_passes_by_itself_is_to_be_asked_again() {
        for (error, told) in [
            (WebError::Avatar(AvatarError::Overloaded), Some("2")),
            (WebError::Upstream(UpstreamError::Overloaded), Some("2")),
            (WebError::Upstream(UpstreamError::TimedOut), None),
            (WebError::Path, None),
        ] {
            assert_eq!(field(&error.answer("id"), header::RETRY_AFTER), told, "{error}");
        }
    }
}
