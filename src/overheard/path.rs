//! A path as upstream's router reads it, however the client spelt it.

use std::borrow::Cow;

/// The path after percent-decoding, as Go's `net/url` does it. `None` for an escape that is none, which Go refuses, and
/// for what is not UTF-8, which no route of ours is.
#[must_use]
pub fn as_routed(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let (escape, tail) = tail.split_at_checked(2)?;
            let hex = std::str::from_utf8(escape).ok().filter(|hex| !hex.starts_with('+'))?;
            decoded.push(u8::from_str_radix(hex, 16).ok()?);
            rest = tail;
        } else {
            decoded.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}
