//! Answers as Go's server and Mattermost's handlers write them: header names and values, framing, gzip, errors.

use actix_web::body::SizedStream;
use actix_web::http::{Method, StatusCode, Version};
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use serde::Serialize;

use super::account::Shown;
use super::delivery::{Delivery, allows_gzip, delivered, gzip};
use super::faults::Fault;
use super::ids::new_id;
use super::json::AppError;

/// The version that the recorded server says it is.
pub(super) const VERSION: &str = "11.6.0.dev.10ccc139158137a46645a2e13e81db3ba93b2d8b2ddc97900709476a4cd69741.false";

/// Go writes a body up to this size with a length, a longer one in chunks (`bufferBeforeChunkingSize`).
const LONGEST_WITH_LENGTH: usize = 2048;

/// gzhttp's `DefaultMinSize`.
const SHORTEST_GZIPPED: usize = 1024;

/// What a dead session is answered with, so that browsers forget it.
pub(super) const CLEARED_COOKIE: &str = "MMAUTHTOKEN=; Path=/; Max-Age=0; HttpOnly";

/// An answer before it is framed.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: Vec<(String, String)>,
    body: Vec<Bytes>,
    kind: Kind,
    /// Present on everything that a handler of the API wrote; absent on what the router or Go wrote.
    request_id: Option<String>,
    delivery: Delivery,
}

/// What decides about framing and gzip.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Written in one go: chunked when long, gzipped where allowed.
    Written,
    /// Written after its length was set (`http.ServeContent`, redirects).
    Measured,
}

impl Answer {
    fn api(status: StatusCode) -> Self {
        Self { request_id: Some(new_id()), ..Self::bare(status) }
    }

    /// An answer without any of the API's common headers.
    pub(super) fn bare(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            kind: Kind::Measured,
            request_id: None,
            delivery: Delivery::Whole,
        }
    }

    pub(super) fn json(status: StatusCode, record: &impl Serialize) -> Self {
        let text = serde_json::to_vec(record).expect("a record always serialises");
        Self::api(status).with("Content-Type", "application/json").written(text)
    }

    /// `{"status":"OK"}`, what a change is answered with.
    pub(super) fn done() -> Self {
        Self::json(StatusCode::OK, &serde_json::json!({"status": "OK"}))
    }

    /// Mattermost's error JSON with the request id of this answer.
    pub(super) fn error(status: StatusCode, id: &str, message: &str) -> Self {
        let answer = Self::api(status).with("Content-Type", "application/json");
        let request_id = answer.request_id.as_deref();
        let error = AppError { id, message, detailed_error: "", request_id, status_code: status.as_u16() };
        let text = serde_json::to_vec(&error).expect("an error always serialises");
        answer.written(text)
    }

    /// Plain text with the error JSON behind it: what the WebSocket upgrader leaves when it refuses.
    pub(super) fn upgrade_refused(status: StatusCode, word: &str, origin: &str) -> Self {
        let answer =
            Self::api(status).with("Content-Type", "text/plain; charset=utf-8").with("Sec-Websocket-Version", "13");
        let error = AppError {
            id: "api.web_socket.connect.upgrade.app_error",
            message: &format!("URL Blocked because of CORS. Url: {origin}"),
            detailed_error: "",
            request_id: answer.request_id.as_deref(),
            status_code: 400,
        };
        let text = serde_json::to_string(&error).expect("an error always serialises");
        answer.written(format!("{word}\n{text}").into_bytes())
    }

    pub(super) fn unauthorized() -> Self {
        let message = "Invalid or expired session, please login again.";
        Self::error(StatusCode::UNAUTHORIZED, "api.context.session_expired.app_error", message)
    }

    pub(super) fn forbidden() -> Self {
        let message = "You do not have the appropriate permissions.";
        Self::error(StatusCode::FORBIDDEN, "api.context.permissions.app_error", message)
    }

    pub(super) fn bad_parameter(name: &str) -> Self {
        let message = format!("Invalid or missing {name} parameter in request URL.");
        Self::error(StatusCode::BAD_REQUEST, "api.context.invalid_url_param.app_error", &message)
    }

    pub(super) fn bad_body(name: &str) -> Self {
        let message = format!("Invalid or missing {name} in request body.");
        Self::error(StatusCode::BAD_REQUEST, "api.context.invalid_body_param.app_error", &message)
    }

    pub(super) fn too_large_body() -> Self {
        let message = "Unable to process request. Request body too large.";
        Self::error(StatusCode::PAYLOAD_TOO_LARGE, "api.context.request_body_too_large.app_error", message)
    }

    pub(super) fn no_such_user() -> Self {
        Self::error(StatusCode::NOT_FOUND, "app.user.missing_account.const", "Unable to find the user.")
    }

    /// The catch-all of the API (`web.Handle404`): no common headers, no request id, the path in the text.
    pub(super) fn no_such_route(path: &str) -> Self {
        let detailed_error = format!(
            "There doesn't appear to be an api call for the url='{path}'.  \
             Typo? are you missing a team_id or user_id as part of the url?"
        );
        let error = AppError {
            id: "api.context.404.app_error",
            message: "Sorry, we could not find the page.",
            detailed_error: &detailed_error,
            request_id: None,
            status_code: 404,
        };
        let text = serde_json::to_vec(&error).expect("an error always serialises");
        let answer = Self::bare(StatusCode::NOT_FOUND).with("Content-Type", "application/json");
        answer.measured(text)
    }

    pub(super) fn too_long_target() -> Self {
        let error = AppError {
            id: "basic_security_check.url.too_long_error",
            message: "URL is too long",
            detailed_error: "",
            request_id: Some(&new_id()),
            status_code: 414,
        };
        let text = serde_json::to_vec(&error).expect("an error always serialises");
        Self::bare(StatusCode::URI_TOO_LONG)
            .with("Content-Type", "application/json")
            .with("Vary", "Accept-Encoding")
            .measured(text)
    }

    pub(super) fn plain(status: StatusCode, text: &'static str) -> Self {
        Self::bare(status).with("Content-Type", "text/plain; charset=utf-8").measured(text.as_bytes().to_vec())
    }

    /// No body, no `Cache-Control`.
    pub(super) fn not_modified(etag: &str) -> Self {
        Self::api(StatusCode::NOT_MODIFIED).with("Etag", etag)
    }

    /// A picture, or a 304 where the request's `If-None-Match` is the stamp, compared as raw text.
    pub(super) fn picture(shown: Shown, if_none_match: &[u8]) -> Self {
        let stamp = shown.stamp.map(|stamp| stamp.to_string());
        if let Some(stamp) = stamp.as_ref().filter(|stamp| stamp.as_bytes() == if_none_match) {
            return Self::not_modified(stamp);
        }
        let answer = Self::api(StatusCode::OK)
            .with("Content-Type", &shown.file.content_type)
            .with("Cache-Control", &format!("max-age={}, private", shown.fresh));
        let answer = match stamp {
            Some(stamp) => answer.with("Etag", &stamp),
            None => answer,
        };
        Self { body: vec![shown.file.bytes], kind: Kind::Written, ..answer }
    }

    /// A file, its chunks as they are stored.
    pub(super) fn file(status: StatusCode, chunks: Vec<Bytes>) -> Self {
        Self { body: chunks, ..Self::api(status) }
    }

    #[must_use]
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn measured(self, body: Vec<u8>) -> Self {
        Self { body: vec![body.into()], ..self }
    }

    fn written(self, body: Vec<u8>) -> Self {
        Self { body: vec![body.into()], kind: Kind::Written, ..self }
    }

    /// The bytes of the body before gzip.
    pub(super) fn body_len(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// The same answer gone wrong.
    #[must_use]
    pub(super) fn spoiled(mut self, fault: Fault) -> Self {
        let whole = self.body.concat();
        let changed = |answer: Self, body: Vec<u8>| Self { body: vec![body.into()], ..answer };
        match fault {
            Fault::Empty => changed(self, Vec::new()),
            Fault::CutOff(length) => changed(self, whole[..length.min(whole.len())].to_vec()),
            Fault::TrailingBytes(more) => changed(self, [whole.as_slice(), &more].concat()),
            Fault::Garbage => changed(self, whole.iter().map(|byte| byte ^ 0x55).collect()),
            Fault::Html => {
                self.set("Content-Type", Some("text/html; charset=utf-8"));
                self.set("Etag", None);
                changed(self, b"<!doctype html><title>Sign in</title><p>Please sign in to this network.".to_vec())
            }
            Fault::WrongType(content_type) => {
                self.set("Content-Type", Some(&content_type));
                self
            }
            Fault::NoValidator => {
                self.set("Etag", None);
                self
            }
            Fault::UnaskedGzip => {
                self.set("Content-Encoding", Some("gzip"));
                changed(self, gzip(&whole))
            }
            Fault::Aborted(length) => Self { delivery: Delivery::Aborted(length), ..self },
            Fault::Stalled(length) => Self { delivery: Delivery::Stalled(length), ..self },
            Fault::Trickle(pause) => Self { delivery: Delivery::Trickle(pause), ..self },
            Fault::Status(status, headers, body) => Self {
                headers,
                body: vec![body],
                ..Self::bare(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
            },
            Fault::NotModified => {
                let etag = self.headers.iter().find(|(name, _)| name == "Etag").cloned();
                Self { headers: etag.into_iter().collect(), ..Self::api(StatusCode::NOT_MODIFIED) }
            }
            // Its whole point is that nothing is sent; the server sees to that before it gets here.
            Fault::Silent => self,
        }
    }

    fn set(&mut self, name: &str, value: Option<&str>) {
        self.headers.retain(|(found, _)| found != name);
        self.headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// Frames the answer.
    pub(super) fn send(mut self, method: &Method, version: Version, accept_encoding: &str) -> HttpResponse {
        if let Some(request_id) = self.request_id.take() {
            for (name, value) in [
                ("Permissions-Policy", ""),
                ("Referrer-Policy", "no-referrer"),
                ("Vary", "Accept-Encoding"),
                ("X-Content-Type-Options", "nosniff"),
                ("X-Request-Id", &request_id),
                ("X-Version-Id", VERSION),
            ] {
                self.headers.push((name.to_owned(), value.to_owned()));
            }
            if method == Method::GET {
                self.headers.push(("Expires".to_owned(), "0".to_owned()));
            }
        }
        if self.kind == Kind::Written && self.body_len() >= SHORTEST_GZIPPED && allows_gzip(accept_encoding) {
            self.set("Content-Encoding", Some("gzip"));
            self.body = vec![gzip(&self.body.concat()).into()];
        }
        let mut builder = HttpResponse::build(self.status);
        for header in self.headers.drain(..) {
            builder.append_header(header);
        }
        let mut response = self.framed(&mut builder);
        response.head_mut().set_camel_case_headers(true);
        // To HTTP/1.0 Go writes until it closes; actix would send chunks even there.
        response.head_mut().no_chunking(version < Version::HTTP_11);
        // Go keeps the words of RFC 2616.
        match response.status() {
            StatusCode::URI_TOO_LONG => response.head_mut().reason = Some("Request URI Too Long"),
            StatusCode::PAYLOAD_TOO_LARGE => {
                response.head_mut().reason = Some("Request Entity Too Large");
            }
            _ => {}
        }
        response
    }

    fn framed(self, builder: &mut HttpResponseBuilder) -> HttpResponse {
        let length = self.body_len();
        if self.status == StatusCode::NOT_MODIFIED {
            return builder.finish();
        }
        let chunked = self.kind == Kind::Written && length > LONGEST_WITH_LENGTH;
        let body = delivered(self.body, self.delivery);
        if chunked {
            builder.streaming(body)
        } else {
            // Not `Bytes` as the body: a broken delivery announces more than it sends.
            builder.body(SizedStream::new(u64::try_from(length).unwrap_or(u64::MAX), body))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_change_what_they_say() {
        let picture = || {
            let file = super::super::account::StoredFile::png(Bytes::from_static(b"picture"));
            Answer::picture(Shown { file, fresh: 86_400, stamp: Some(5) }, b"")
        };
        let body = |fault| picture().spoiled(fault).body.concat();
        assert_eq!(body(Fault::Empty), b"");
        assert_eq!(body(Fault::CutOff(3)), b"pic");
        assert_eq!(body(Fault::CutOff(99)), b"picture");
        assert_eq!(body(Fault::TrailingBytes(Bytes::from_static(b"!"))), b"picture!");
        assert_ne!(body(Fault::Garbage), b"picture");
        let headers = picture().spoiled(Fault::NoValidator).headers;
        assert!(headers.iter().all(|(name, _)| name != "Etag"));
        let refused = picture().spoiled(Fault::Status(429, vec![], Bytes::new()));
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(picture().spoiled(Fault::NotModified).status, StatusCode::NOT_MODIFIED);
    }

    #[test]
    fn the_validator_is_compared_as_raw_text() {
        for (sent, expected) in [("5", 304), ("\"5\"", 200), ("W/5", 200), ("*", 200), ("5, 6", 200), ("", 200)] {
            let file = super::super::account::StoredFile::png(Bytes::new());
            let answer = Answer::picture(Shown { file, fresh: 1, stamp: Some(5) }, sent.as_bytes());
            assert_eq!(answer.status, expected, "{sent}");
        }
    }
}
