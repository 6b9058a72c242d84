//! Between two HTTP crates: actix speaks `http` 0.2, the clients speak `http` 1, so header fields are carried over here.

use actix_web::http::header::{HeaderMap as ActixHeaders, HeaderName as ActixName, HeaderValue as ActixValue};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The client's fields, in their order, with repeats.
pub(super) fn from_client(fields: &ActixHeaders) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(fields.len() + 8);
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).expect("a field name in one is one in the other");
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a field value in one is one in the other");
        headers.append(name, value);
    }
    headers
}

/// Adds upstream's fields that `keeps` to an answer, in their order, with repeats.
pub(super) fn to_client(fields: &HeaderMap, into: &mut ActixHeaders, keeps: impl Fn(&HeaderName) -> bool) {
    for (name, value) in fields.iter().filter(|(name, _)| keeps(name)) {
        let name = ActixName::from_bytes(name.as_str().as_bytes()).expect("a field name in one is one in the other");
        into.append(name, to_actix(value));
    }
}

/// One value.
pub(super) fn to_actix(value: &HeaderValue) -> ActixValue {
    ActixValue::from_bytes(value.as_bytes()).expect("a field value in one is one in the other")
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
            let name = [b'a', byte];
            assert_eq!(ActixName::from_bytes(&name).is_ok(), HeaderName::from_bytes(&name).is_ok(), "{byte:#x}");
            assert_eq!(ActixValue::from_bytes(&name).is_ok(), HeaderValue::from_bytes(&name).is_ok(), "{byte:#x}");
            let (theirs, ours) = (actix_web::http::Method::from_bytes(&name), http::Method::from_bytes(&name));
            assert_eq!(theirs.is_ok(), ours.is_ok(), "{byte:#x}");
        }
        for length in [0, 1, 63, 64, 65, 0xfffe, 0xffff, 0x10000] {
            let name = vec![b'a'; length];
            assert_eq!(ActixName::from_bytes(&name).is_ok(), HeaderName::from_bytes(&name).is_ok(), "{length}");
            let (theirs, ours) = (actix_web::http::Method::from_bytes(&name), http::Method::from_bytes(&name));
            assert_eq!(theirs.is_ok(), ours.is_ok(), "{length}");
        }
        for status in 0..=0xffff {
            let (theirs, ours) = (actix_web::http::StatusCode::from_u16(status), http::StatusCode::from_u16(status));
            assert_eq!(theirs.is_ok(), ours.is_ok(), "{status}");
        }
    }
}
