//! Between two HTTP crates: actix speaks `http` 0.2, the clients speak `http` 1, so header fields are carried over here.

use actix_web::http::header::{HeaderMap as ActixHeaders, HeaderName as ActixName, HeaderValue as ActixValue};
use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The client's fields, in their order, with repeats.
pub(super) fn from_client(fields: &ActixHeaders) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(fields.len() + 8);
    let mut text = OneText::for_all(fields.iter().map(|(_, value)| value.as_bytes()));
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).expect("a field name in one is one in the other");
        let value = HeaderValue::from_maybe_shared(text.copy(value.as_bytes()));
        headers.append(name, value.expect("a field value in one is one in the other"));
    }
    headers
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
