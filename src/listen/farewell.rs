//! The last answer on a connection of HTTP/1.1, made whole here: there is no request for actix to answer.

use actix_web::HttpResponse;
use actix_web::body::MessageBody;
use actix_web::http::header::HttpDate;
use bytes::Bytes;
use std::fmt::Write;
use std::time::SystemTime;

/// An answer with a body in memory as it goes over the connection that ends with it.
pub(super) fn written(answer: HttpResponse) -> Bytes {
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
