//! How far OPTIONS and TRACE go (RFC 9110 section 7.6.2): each proxy counts down, and the one that meets zero answers.

use super::error::ALLOWED;
use super::{Inbound, WebError};
use crate::telemetry::Outcome;
use crate::upstream::Fields;
use actix_web::HttpResponse;
use actix_web::http::header as actix_header;
use http::Method;
use http::header::MAX_FORWARDS;

/// Counts down; our own answer when the request goes no further.
///
/// # Errors
/// It is a TRACE that goes no further. To answer it is to send back what came, cookies included, which is nothing that a script
/// in a browser should get to see.
pub(super) fn count_down(inbound: &mut Inbound) -> Result<Option<HttpResponse>, WebError> {
    if ![Method::OPTIONS, Method::TRACE].contains(&inbound.method) {
        return Ok(None);
    }
    match left(&inbound.fields) {
        None => Ok(None),
        Some(0) if inbound.method == Method::TRACE => Err(WebError::Trace),
        Some(0) => {
            inbound.ledger.outcome = Outcome::Passed;
            let mut answer = HttpResponse::Ok();
            answer.insert_header((actix_header::ALLOW, ALLOWED));
            Ok(Some(answer.insert_header((actix_header::CACHE_CONTROL, "no-store")).finish()))
        }
        Some(left) => {
            inbound.fields.set(MAX_FORWARDS.as_str(), itoa::Buffer::new().format(left - 1).as_bytes());
            Ok(None)
        }
    }
}

/// How often it may be handed on, where that is said once and by a number.
fn left(fields: &Fields) -> Option<u64> {
    let mut lines = fields.all(MAX_FORWARDS.as_str());
    let (line, other) = (lines.next()?, lines.next());
    let is_number = other.is_none() && !line.is_empty() && line.iter().all(u8::is_ascii_digit);
    // More than that many proxies there are not.
    is_number.then(|| std::str::from_utf8(line).ok()?.parse().ok()).map(|number| number.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_says_nothing() {
        for (lines, expected) in [
            (&["0"][..], Some(0)),
            (&["10"], Some(10)),
            (&["007"], Some(7)),
            (&["99999999999999999999"], Some(u64::MAX)),
            (&[], None),
            (&[""], None),
            (&["+1"], None),
            (&["-1"], None),
            (&["1.5"], None),
            (&["0", "0"], None),
            (&["0, 1"], None),
        ] {
            let fields = lines.iter().map(|line| ("max-forwards", line.as_bytes())).collect();
            assert_eq!(left(&fields), expected, "{lines:?}");
        }
    }
}
