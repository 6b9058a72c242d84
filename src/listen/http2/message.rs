//! Heads between HTTP/2 and what the service speaks, which is HTTP/1.1 (RFC 9113 section 8).
//!
//! What HTTP/2 itself forbids, in fields, pseudo-header fields or their order, `h2` has refused before by a reset of the
//! stream.

use crate::listen::Refusal;
use actix_http::header::{HeaderMap as ActixHeaders, HeaderName as ActixName, HeaderValue as ActixValue};
use actix_http::uri::{PathAndQuery, Uri};
use actix_http::{Method, Request, ResponseHead, Version};
use actix_web::body::BodySize;
use actix_web::http::header::{self as actix_header, HttpDate};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::Authority;
use http::{Response, StatusCode};
use std::cell::RefCell;
use std::time::{Duration, SystemTime};

/// As many fields as `actix-http` takes in a head of HTTP/1.1.
const FIELDS_AT_MOST: usize = 96;
/// As many bytes as nginx takes. They are fewer than those of a head of HTTP/1.1, because `h2` reads the heads of all streams that a
/// connection may have before one of them is looked at, and of one byte that names a field it makes some seventy in memory.
pub(super) const BYTES_AT_MOST: u32 = 32 << 10;

/// What each field counts for beside its own bytes (RFC 9113 section 6.5.2).
const A_FIELD: usize = 32;

/// Fields of a connection, which no message of HTTP/2 may have (RFC 9113 section 8.2.2).
const OF_A_CONNECTION: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// How large a head is, in bytes, as RFC 9113 section 6.5.2 counts them.
pub(super) fn size(head: &Parts) -> usize {
    let path = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + A_FIELD);
    path + fields.sum::<usize>()
}

/// The same request as if it had come over HTTP/1.1, without what follows its head.
///
/// # Errors
/// It would have been refused there.
pub(super) fn request(head: &Parts) -> Result<Request, Refusal> {
    let Parts { method, uri, headers, .. } = head;
    if size(head) > BYTES_AT_MOST as usize {
        return Err(Refusal::LongHead);
    }
    let mut request = Request::new();
    let into = request.head_mut();
    into.version = Version::HTTP_2;
    into.method = Method::from_bytes(method.as_str().as_bytes()).map_err(|_| Refusal::Malformed)?;
    into.uri = target(uri, &into.method)?;
    into.headers = fields(uri.authority(), headers)?;
    if into.headers.len() > FIELDS_AT_MOST { Err(Refusal::LongHead) } else { Ok(request) }
}

/// The target as a request line has it: path and query byte for byte.
fn target(uri: &http::Uri, method: &Method) -> Result<Uri, Refusal> {
    let target = match (uri.path_and_query(), uri.authority()) {
        (Some(path), _) if path.as_str().starts_with('/') || path.as_str() == "*" => {
            PathAndQuery::try_from(path.as_str()).map(Uri::from).ok()
        }
        (None, Some(authority)) if method == Method::CONNECT => Uri::try_from(authority.as_str()).ok(),
        _ => None,
    };
    target.ok_or(Refusal::Malformed)
}

/// The fields in their order, whose first is `Host`.
fn fields(authority: Option<&Authority>, headers: &HeaderMap) -> Result<ActixHeaders, Refusal> {
    let mut fields = ActixHeaders::with_capacity(headers.len() + 2);
    fields.insert(actix_header::HOST, host(authority, headers)?);
    if headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Refusal::Malformed);
    }
    for (name, value) in headers {
        match *name {
            header::HOST => {}
            // In HTTP/1.1 there is one of them at most (RFC 9113 section 8.2.3).
            header::COOKIE if fields.contains_key(actix_header::COOKIE) => {}
            header::COOKIE => {
                let crumbs = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
                fields.insert(actix_header::COOKIE, carried(crumbs.join(&b"; "[..]))?);
            }
            _ => {
                let name = ActixName::from_bytes(name.as_str().as_bytes()).map_err(|_| Refusal::Malformed)?;
                fields.append(name, carried(value.as_bytes())?);
            }
        }
    }
    Ok(fields)
}

fn carried(value: impl AsRef<[u8]>) -> Result<ActixValue, Refusal> {
    ActixValue::from_bytes(value.as_ref()).map_err(|_| Refusal::Malformed)
}

/// Whose site is meant: `:authority`, or else `Host`. Both may be there if both say the same (RFC 9113 section 8.3.1).
fn host(authority: Option<&Authority>, headers: &HeaderMap) -> Result<ActixValue, Refusal> {
    let authority = authority.map(|authority| authority.as_str().as_bytes());
    let mut named = authority.into_iter().chain(headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes));
    let host = named.next().ok_or(Refusal::Malformed)?;
    if host.contains(&b'@') || named.any(|other| !other.eq_ignore_ascii_case(host)) {
        return Err(Refusal::Malformed);
    }
    carried(host)
}

/// Whether a client whose `Expect` has these lines waits to be told to send what follows the head (RFC 9110 section 10.1.1).
pub fn expects_continue<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut expected = lines.flat_map(|line| line.split(|byte| *byte == b','));
    expected.any(|each| each.trim_ascii().eq_ignore_ascii_case(b"100-continue"))
}

/// Tells it.
pub(super) fn go_on() -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::CONTINUE;
    response
}

/// What is sent of an answer to a request.
pub(super) struct Answer {
    pub(super) head: Response<()>,
    /// Whether a body follows.
    pub(super) has_body: bool,
}

/// An answer to a request with this method as HTTP/2 has it, for a body of this size.
pub(super) fn answer(asked: &http::Method, head: &ResponseHead, size: BodySize) -> Answer {
    let mut response = Response::new(());
    let status = StatusCode::from_u16(head.status.as_u16()).expect("a status in one crate is one in the other");
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(head.headers.len() + 2);
    for (name, value) in &head.headers {
        let name =
            HeaderName::from_bytes(name.as_str().as_bytes()).expect("our names are tokens, and so are upstream's");
        // Of a 304 it is the length of what is not sent.
        let is_framing = name == header::CONTENT_LENGTH && status != StatusCode::NOT_MODIFIED;
        if !is_framing && !OF_A_CONNECTION.contains(&name.as_str()) {
            let value = HeaderValue::from_bytes(value.as_bytes());
            headers.append(name, value.expect("a field value in one is one in the other"));
        }
    }
    if let (BodySize::Sized(length), false) = (size, is_bodiless(status)) {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, date());
    }
    Answer { head: response, has_body: asked != http::Method::HEAD && !size.is_eof() && !is_bodiless(status) }
}

/// Whether an answer has no body, whatever its head says (RFC 9110 sections 15.3.5 and 15.4.5).
fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

thread_local! {
    /// The second of the last answer, since 1970, and what it is called.
    static DATE: RefCell<(Duration, HeaderValue)> = const { RefCell::new((Duration::MAX, HeaderValue::from_static(""))) };
}

/// Now, written once a second.
fn date() -> HeaderValue {
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    DATE.with_borrow_mut(|(written, date)| {
        if *written != Duration::from_secs(second) {
            *written = Duration::from_secs(second);
            *date = HeaderValue::try_from(HttpDate::from(now).to_string()).expect("a date is ASCII");
        }
        date.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_http::{HttpMessage, StatusCode as ActixStatus};
    use actix_web::HttpResponse;

    fn head(uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    /// Names and values.
    type Fields<'a> = &'a [(&'a str, &'a str)];

    /// What comes of a request with this URI and these fields: its target and all fields by name.
    fn check(uri: &str, fields: Fields, expected: Result<(&str, Fields), Refusal>) {
        let read = request(&head(uri, fields)).map(|request| {
            let mut fields = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect::<Vec<_>>();
            fields.sort();
            (request.uri().to_string(), fields)
        });
        let expected = expected.map(|(target, fields)| {
            let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            (target.to_owned(), fields)
        });
        assert_eq!(read, expected, "{uri} {fields:?}");
    }

    #[test]
    fn a_head_is_what_http_1_would_have_made_of_it() {
        let host = ("host", "chat.example");
        check("https://chat.example/a/%2F;b?c=d&", &[], Ok(("/a/%2F;b?c=d&", &[host])));
        check("https://chat.example/", &[("host", "CHAT.example")], Ok(("/", &[host])));
        check("/a", &[host], Ok(("/a", &[host])));
        check("*", &[host], Ok(("*", &[host])));
        check(
            "/a",
            &[("cookie", "a=1"), host, ("x-b", "1"), ("cookie", "b=2"), ("x-b", "2"), ("cookie", "")],
            Ok(("/a", &[("cookie", "a=1; b=2; "), host, ("x-b", "1"), ("x-b", "2")])),
        );
        let malformed = Err(Refusal::Malformed);
        check("/a", &[], malformed);
        check("/a", &[host, host], Ok(("/a", &[host])));
        check("/a", &[host, ("host", "other.example")], malformed);
        check("https://chat.example/", &[("host", "other.example")], malformed);
        check("https://mallory@chat.example/", &[], malformed);
        check("chat.example:443", &[], malformed);
        check("/a", &[host, ("content-length", "1"), ("content-length", "1")], malformed);
    }

    #[test]
    fn a_head_has_its_limits() {
        for (fields, bytes, is_taken) in
            [(FIELDS_AT_MOST, 1, true), (FIELDS_AT_MOST + 1, 1, false), (3, 15 << 10, true), (4, 15 << 10, false)]
        {
            let mut head = head("https://chat.example/", &[]);
            for n in 1..fields {
                let name = HeaderName::try_from(format!("x-{n}")).expect("a name");
                head.headers.insert(name, HeaderValue::try_from("y".repeat(bytes)).expect("a value"));
            }
            let expected = if is_taken { None } else { Some(Refusal::LongHead) };
            assert_eq!(request(&head).err(), expected, "{fields} {bytes}");
        }
    }

    #[test]
    fn an_answer_says_how_long_it_is() {
        use http::Method as M;
        let length = |length: &'static str| Some(length);
        for (method, status, size, announced, has_body) in [
            (M::GET, 200, BodySize::Sized(5), length("5"), true),
            (M::HEAD, 200, BodySize::Sized(5), length("5"), false),
            (M::GET, 200, BodySize::Sized(0), length("0"), false),
            (M::GET, 200, BodySize::Stream, None, true),
            (M::HEAD, 200, BodySize::Stream, None, false),
            (M::HEAD, 200, BodySize::None, None, false),
            (M::GET, 204, BodySize::Sized(0), None, false),
            (M::GET, 304, BodySize::None, length("7"), false),
        ] {
            let mut response = HttpResponse::new(ActixStatus::from_u16(status).expect("a status"));
            for (name, value) in [("content-length", "7"), ("transfer-encoding", "chunked"), ("connection", "close")] {
                let value = ActixValue::from_static(value);
                response.headers_mut().insert(ActixName::from_static(name), value);
            }
            let answer = answer(&method, response.head(), size);
            let headers = answer.head.headers();
            let said = headers.get(header::CONTENT_LENGTH).map(|value| value.to_str().expect("digits"));
            assert_eq!((said, answer.has_body), (announced, has_body), "{method} {status} {size:?}");
            assert_eq!(headers.len(), 1 + usize::from(said.is_some()), "{headers:?}");
            assert_eq!(headers[header::DATE].len(), "Tue, 15 Nov 1994 08:12:31 GMT".len());
        }
    }
}
