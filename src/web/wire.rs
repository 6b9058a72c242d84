//! Between two HTTP crates: actix speaks `http` 0.2, the clients speak `http` 1, so header fields are carried over here.

use super::WebError;
use crate::upstream::{AnswerHead, Fields};
use actix_web::http::Version;
use actix_web::http::header::{HeaderMap as ActixHeaders, HeaderName as ActixName, HeaderValue as ActixValue};
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};
use std::cell::RefCell;
use std::hash::BuildHasher;

/// How many names are remembered, of up to so many bytes.
const NAMES: usize = 256;
const LONGEST: usize = 64;

/// How many fields are added to a client's.
const FIELDS_OF_OURS: usize = 6;
/// How many bytes the name and the value of a field mostly have. To count them would take as long as to grow.
const USUAL_FIELD: usize = 60;

thread_local! {
    static TO_CLIENTS: RefCell<Names> = const { RefCell::new(Names([const { None }; NAMES])) };
}

/// The client's fields, with repeats in their order, and room for a few of ours.
///
/// # Errors
/// A name that is no token (RFC 9110 section 5.1): actix's crate lets a quotation mark pass.
pub(super) fn from_client(fields: &ActixHeaders) -> Result<Fields, WebError> {
    let fields_in_all = fields.len() + FIELDS_OF_OURS;
    let mut all = Fields::with_capacity(fields_in_all * USUAL_FIELD, fields_in_all);
    for (name, value) in fields {
        let name = name.as_str();
        if name.contains('"') {
            return Err(WebError::Field);
        }
        all.append(name, value.as_bytes());
    }
    Ok(all)
}

/// The version of HTTP that a client speaks, as `Via` has it.
pub(super) fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2.0",
        Version::HTTP_11 => "1.1",
        _ => "1.0",
    }
}

/// Adds upstream's fields that `keeps` to an answer, in their order, with repeats.
pub(super) fn to_client(fields: &HeaderMap, into: &mut ActixHeaders, keeps: impl Fn(&HeaderName) -> bool) {
    if fields.is_empty() {
        return;
    }
    let kept = || fields.iter().filter(|(name, _)| keeps(name));
    let mut values = gathered(|| kept().map(|(_, value)| value.as_bytes()));
    TO_CLIENTS.with_borrow_mut(|names| {
        for (name, value) in kept() {
            let name = names.carry(name.as_str().as_bytes());
            into.append(name, shared(values.split_to(value.len())));
        }
    });
}

/// Adds the fields of upstream's head to an answer, in their order, with repeats, but for its length: that is framed anew.
/// Values stay parts of the head.
pub(super) fn head_to_client(head: &AnswerHead, into: &mut ActixHeaders) {
    TO_CLIENTS.with_borrow_mut(|names| {
        for (name, value) in head.shared_fields() {
            let name = names.carry(name);
            if name != actix_web::http::header::CONTENT_LENGTH {
                into.append(name, shared(value));
            }
        }
    });
}

/// Names as upstream spells them and as actix writes them, each in the place that its hash says, until another takes it.
/// Servers say the same few over and over, and to make one takes three times as long as to find it.
struct Names([Option<(Box<[u8]>, ActixName)>; NAMES]);

impl Names {
    fn carry(&mut self, spelt: &[u8]) -> ActixName {
        let make = || ActixName::from_bytes(spelt).expect("a field name in one is one in the other");
        if spelt.len() > LONGEST {
            return make();
        }
        let hash = foldhash::fast::FixedState::default().hash_one(spelt);
        let place = &mut self.0[usize::try_from(hash % NAMES as u64).expect("below their number")];
        match place {
            Some((known, name)) if **known == *spelt => name.clone(),
            _ => place.insert((spelt.into(), make())).1.clone(),
        }
    }
}

/// All of these in one piece of memory, of which each field's value is a part: one allocation instead of one each, and one
/// less for each where the fields are copied.
fn gathered<'a, Values: Iterator<Item = &'a [u8]>>(values: impl Fn() -> Values) -> Bytes {
    let mut all = Vec::with_capacity(values().map(<[u8]>::len).sum());
    values().for_each(|value| all.extend_from_slice(value));
    all.into()
}

/// A value that is ours already: its bytes are shared, not copied.
pub(super) fn shared(bytes: Bytes) -> ActixValue {
    ActixValue::from_maybe_shared(bytes).expect("made of field values")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderValue;
    use proptest::prelude::*;

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

    /// What is read of an upstream that says any byte at all crosses, or was refused as a head.
    #[test]
    fn what_can_be_read_of_an_answer_reaches_the_client() {
        let mut read = 0;
        for byte in 0..=0xff {
            for field in [&[b'a', byte, b'b', b':', b'x'][..], &[b'a', b':', b'x', byte, b'y'], &[byte, b':', b'x']] {
                let bytes = [b"HTTP/1.1 200 OK\r\n", field, b"\r\n\r\n"].concat();
                let Some(head) = AnswerHead::read(&bytes) else { continue };
                let mut sent = ActixHeaders::new();
                head_to_client(&head, &mut sent);
                let came = head.fields().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()));
                let went =
                    sent.iter().map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()));
                assert_eq!(went.collect::<Vec<_>>(), came.collect::<Vec<_>>(), "{byte:#x}");
                read += 1;
            }
        }
        assert!(read > 300, "{read}");
    }

    /// There and back: equal names in equal order, byte for byte.
    fn check(fields: &[(&str, &[u8])]) {
        let mut sent = ActixHeaders::new();
        for (name, value) in fields {
            let name = ActixName::from_bytes(name.as_bytes()).expect("a name");
            sent.append(name, ActixValue::from_bytes(value).expect("a value"));
        }
        let carried = from_client(&sent).expect("names that both take");
        let said = carried.iter().map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_bytes(value).expect("a value"))
        });
        let mut said_by_upstream = HeaderMap::new();
        said.for_each(|(name, value)| _ = said_by_upstream.append(name, value));
        let mut back = ActixHeaders::new();
        to_client(&said_by_upstream, &mut back, |name| name != "dropped");
        for (name, _) in fields {
            let expected =
                fields.iter().filter(|(other, _)| other == name).map(|(_, value)| *value).collect::<Vec<_>>();
            assert_eq!(carried.all(name).collect::<Vec<_>>(), expected, "{name}");
            let here = back.get_all(*name).map(ActixValue::as_bytes).collect::<Vec<_>>();
            assert_eq!(here, if *name == "dropped" { Vec::new() } else { expected }, "{name}");
        }
        assert_eq!(carried.iter().count(), fields.len());
    }

    #[test]
    fn fields_cross_as_they_came() {
        let long = "x".repeat(LONGEST + 1);
        check(&[]);
        check(&[
            ("cookie", b"a=1"),
            ("x-empty", b""),
            ("cookie", b"b=2"),
            ("dropped", b"y"),
            ("x-latin", b"gr\xfc\xdfe"),
        ]);
        check(&[(&long, b"1"), (&long[1..], b"2"), ("host", b""), ("set-cookie", b"z"), ("set-cookie", b"")]);
        for n in 0..2 * NAMES {
            check(&[(&format!("x-{n}"), b"1"), ("x-1", b"2")]);
        }
    }

    proptest! {
        #[test]
        fn any_fields_cross_as_they_came(
            fields in prop::collection::vec(("[a-z][a-z0-9-]{0,70}", prop::collection::vec(0x20_u8..0x7f, 0..40)), 0..60),
        ) {
            let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect::<Vec<_>>();
            check(&fields);
        }
    }
}
