//! Between two HTTP crates: actix speaks `http` 0.2, the clients speak `http` 1, so header fields are carried over here.

use super::WebError;
use actix_web::http::header::{HeaderMap as ActixHeaders, HeaderName as ActixName, HeaderValue as ActixValue};
use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The client's fields, in their order, with repeats.
///
/// # Errors
/// A name that is no token (RFC 9110 section 5.1): actix's crate lets a quotation mark pass, which HTTP/2 could bring.
pub(super) fn from_client(fields: &ActixHeaders) -> Result<HeaderMap, WebError> {
    let mut headers = HeaderMap::with_capacity(fields.len() + 8);
    let mut text = OneText::for_all(fields.iter().map(|(_, value)| value.as_bytes()));
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| WebError::Field)?;
        let value = HeaderValue::from_maybe_shared(text.copy(value.as_bytes()));
        headers.append(name, value.expect("a field value in one is one in the other"));
    }
    Ok(headers)
}

/// Copies of all values of a message in one allocation: most of them live and end together.
struct OneText(BytesMut);

impl OneText {
    fn for_all<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        Self(BytesMut::with_capacity(values.map(<[u8]>::len).sum()))
    }

    fn copy(&mut self, value: &[u8]) -> Bytes {
        self.0.extend_from_slice(value);
        self.0.split().freeze()
    }
}

/// Adds upstream's fields that `keeps` to an answer, in their order, with repeats.
pub(super) fn to_client(fields: &HeaderMap, into: &mut ActixHeaders, keeps: impl Fn(&HeaderName) -> bool) {
    let kept = || fields.iter().filter(|(name, _)| keeps(name));
    let mut text = OneText::for_all(kept().map(|(_, value)| value.as_bytes()));
    for (name, value) in kept() {
        let name = ActixName::from_bytes(name.as_str().as_bytes()).expect("a field name in one is one in the other");
        into.append(name, shared(text.copy(value.as_bytes())));
    }
}

/// A value that is ours already: its bytes are shared, not copied.
pub(super) fn shared(bytes: Bytes) -> ActixValue {
    ActixValue::from_maybe_shared(bytes).expect("made of field values")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one crate takes and the other does not would be a panic at whoever sends it.
    #[test]
    fn what_is_a_field_in_one_crate_is_one_in_the_other() {
        for byte in 0..=0xff {
            let bytes = [b'a', byte];
            let name = ActixName::from_bytes(&bytes);
            assert_eq!(name.is_ok(), HeaderName::from_bytes(&bytes).is_ok() || byte == b'"', "{byte:#x}");
            if let Ok(name) = name {
                let read = from_client(&ActixHeaders::from_iter([(name, ActixValue::from_static("x"))]));
                assert_eq!(read.is_ok(), byte != b'"', "{byte:#x}");
            }
            assert_eq!(ActixValue::from_bytes(&bytes).is_ok(), HeaderValue::from_bytes(&bytes).is_ok(), "{byte:#x}");
            let (theirs, ours) = (actix_web::http::Method::from_bytes(&bytes), http::Method::from_bytes(&bytes));
            assert!(theirs.is_err() || ours.is_ok(), "{byte:#x}");
        }
        for length in [0, 1, 63, 64, 65, 0xfffe, 0xffff, 0x10000] {
            let bytes = vec![b'a'; length];
            assert_eq!(ActixName::from_bytes(&bytes).is_ok(), HeaderName::from_bytes(&bytes).is_ok(), "{length}");
            let (theirs, ours) = (actix_web::http::Method::from_bytes(&bytes), http::Method::from_bytes(&bytes));
            assert_eq!(theirs.is_ok(), ours.is_ok(), "{length}");
        }
        for status in 0..=0xffff {
            let (theirs, ours) = (actix_web::http::StatusCode::from_u16(status), http::StatusCode::from_u16(status));
            assert_eq!(theirs.is_ok(), ours.is_ok(), "{status}");
        }
    }
}
