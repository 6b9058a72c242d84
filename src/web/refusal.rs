//! The answer to what is no request, made whole here: there is no request for actix to answer.

use super::WebError;
use super::request_id::RequestId;
use crate::listen::Refusal;
use crate::telemetry::Telemetry;
use actix_web::HttpResponse;
use actix_web::body::MessageBody;
use actix_web::http::header::HttpDate;
use bytes::Bytes;
use std::fmt::Write;
use std::time::SystemTime;

/// Our own answer as it goes over the connection that ends with it: counted, and logged once.
#[must_use]
pub fn refuse(telemetry: &Telemetry, refusal: Refusal) -> Bytes {
    let error = WebError::Refused(refusal);
    let (_, id, reason) = error.verdict();
    let request_id = RequestId::next().spelt();
    telemetry.refused(reason);
    tracing::debug!(error.id = id, request.id = request_id.as_str(), %error, "request refused");
    written(error.answer(request_id.as_str()))
}

/// An answer with a body in memory as HTTP/1.1 writes it.
fn written(answer: HttpResponse) -> Bytes {
    let status = answer.status();
    let mut text = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let date = HttpDate::from(SystemTime::now());
    write!(text, "date: {date}\r\nconnection: close\r\n").expect("a String takes every write");
    for (name, value) in answer.headers() {
        let value = value.to_str().expect("the fields of our own errors are ASCII");
        write!(text, "{name}: {value}\r\n").expect("a String takes every write");
    }
    let body = answer.into_body().try_into_bytes().expect("an error's body is in memory");
    write!(text, "content-length: {}\r\n\r\n", body.len()).expect("a String takes every write");
    [text.as_bytes(), &body].concat().into()
}
