//! The raw query string: its pairs, decoded as `application/x-www-form-urlencoded` just far enough to know our own
//! parameters, and what is left of it for upstream.

use super::parameters::Parameter;
use std::borrow::Cow;

/// The pairs of a raw query in their order, still escaped; empty ones (`a=1&&b=2`) are none.
pub(super) fn pairs(raw: &str) -> impl Iterator<Item = Pair<'_>> {
    // By bytes: to look for a character takes longer than all that is done with the pairs.
    raw.as_bytes().split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(Pair)
}

/// The query that goes upstream: `raw` without our own parameters however their names are escaped, every other pair
/// byte for byte in its order. `None` when nothing is left.
///
/// `_` and `lastPictureUpdate` are Mattermost's, so they stay.
#[must_use]
pub fn forwarded_query(raw: &str) -> Option<String> {
    let mut forwarded = String::with_capacity(raw.len());
    for pair in raw.split('&').filter(|pair| Parameter::named(&Pair(pair.as_bytes()).name()).is_none()) {
        if !forwarded.is_empty() {
            forwarded.push('&');
        }
        forwarded.push_str(pair);
    }
    (!forwarded.is_empty()).then_some(forwarded)
}

/// Whether any pair of the query has this name, however it is escaped.
#[must_use]
pub fn names_parameter(raw: &str, name: &[u8]) -> bool {
    pairs(raw).any(|pair| *pair.name() == *name)
}

/// The decoded values of every pair of this name, however it is escaped.
#[must_use]
pub fn values_of(raw: &str, name: &[u8]) -> Vec<Vec<u8>> {
    pairs(raw).filter(|pair| *pair.name() == *name).map(|pair| pair.value().into_owned()).collect()
}

/// One `name=value`.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a>(&'a [u8]);

impl<'a> Pair<'a> {
    /// The decoded name. It need not be UTF-8: then it is none of ours.
    pub(super) fn name(self) -> Cow<'a, [u8]> {
        decode(self.halves().0)
    }

    /// The decoded value, empty where there is no `=`.
    pub(super) fn value(self) -> Cow<'a, [u8]> {
        decode(self.halves().1)
    }

    /// What is before the first `=`, and what is behind it.
    fn halves(self) -> (&'a [u8], &'a [u8]) {
        let Self(pair) = self;
        let equals = pair.iter().position(|byte| *byte == b'=');
        equals.map_or((pair, &[]), |at| (&pair[..at], &pair[at + 1..]))
    }
}

/// Undoes `%xx` and `+`; an escape that is none stays as it is (URL Standard, "percent-decode").
fn decode(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(raw);
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match (first, tail) {
            (b'+', _) => (b' ', tail),
            (b'%', [high, low, tail @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, tail),
                _ => (b'%', &rest[1..]),
            },
            _ => (*first, tail),
        };
        decoded.push(byte);
        rest = tail;
    }
    Cow::Owned(decoded)
}

/// The value of a hexadecimal digit in either case.
pub(super) const fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_query_is_decoded_as_a_form_is() {
        for (raw, decoded) in [
            ("", &b""[..]),
            ("size", b"size"),
            ("%73ize", b"size"),
            ("%73%69%7A%7a", b"sizz"),
            ("a+b%2B", b"a b+"),
            ("%", b"%"),
            ("%4", b"%4"),
            ("%zz", b"%zz"),
            ("%%41", b"%A"),
            ("%00%ff", b"\0\xff"),
            ("é", "é".as_bytes()),
        ] {
            assert_eq!(&*decode(raw.as_bytes()), decoded, "{raw}");
        }
    }

    #[test]
    fn upstream_gets_all_but_our_own_parameters() {
        for (raw, forwarded) in [
            ("", None),
            ("size=32", None),
            ("%73ize=32&s=1&q=8", None),
            ("_=1&size=32", Some("_=1")),
            ("size=32&_=-1&x=%41+%zz&f=webp&&lastPictureUpdate=5", Some("_=-1&x=%41+%zz&&lastPictureUpdate=5")),
            ("SIZE=32&size[]=1&sizes=2&flavour", Some("SIZE=32&size[]=1&sizes=2&flavour")),
            ("bg&output&method=x&animated", None),
            ("=1&=", Some("=1&=")),
        ] {
            assert_eq!(forwarded_query(raw).as_deref(), forwarded, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics_or_grows(raw in ".*") {
            prop_assert!(decode(raw.as_bytes()).len() <= raw.len());
        }

        #[test]
        fn what_is_forwarded_is_forwarded_again_unchanged(raw in "([a-z_%=&+]|size|%73|%3D){0,40}") {
            if let Some(once) = forwarded_query(&raw) {
                prop_assert_eq!(forwarded_query(&once), Some(once.clone()));
            }
        }
    }
}
