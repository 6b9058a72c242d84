//! One gzip member, decoded whole or not at all, within a limit.

use super::Unreadable;
use flate2::bufread::GzDecoder;
use std::io::{ErrorKind, Read};

/// How much is decoded at once.
const STEP: usize = 16 << 10;

/// Decodes the one gzip member (RFC 1952) that `gzip` is, to at most `limit` bytes. Never holds more than `limit` and
/// one step of 16 KiB, however much the stream would decode to.
///
/// # Errors
///
/// [`Unreadable::TooLong`], [`Unreadable::Truncated`], or [`Unreadable::NotGzip`] for what is no gzip, has a wrong
/// checksum or length, or goes on after the member.
pub fn inflate(gzip: &[u8], limit: usize) -> Result<Vec<u8>, Unreadable> {
    let mut member = GzDecoder::new(gzip);
    let mut decoded = Vec::new();
    let mut step = [0; STEP];
    loop {
        let read = member.read(&mut step).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Unreadable::Truncated,
            _ => Unreadable::NotGzip,
        })?;
        if read == 0 {
            break;
        }
        let room = limit - decoded.len();
        if read > room {
            return Err(Unreadable::TooLong);
        }
        if decoded.capacity() - decoded.len() < read {
            // By doubling, as Vec does itself, but never past the limit.
            decoded.reserve_exact(decoded.capacity().max(STEP).min(room));
        }
        decoded.extend_from_slice(&step[..read]);
    }
    if member.into_inner().is_empty() { Ok(decoded) } else { Err(Unreadable::NotGzip) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).expect("writing to memory");
        encoder.finish().expect("writing to memory")
    }

    fn check(gzip: &[u8], limit: usize, expected: Result<&[u8], Unreadable>) {
        assert_eq!(inflate(gzip, limit).as_deref().map_err(|error| *error), expected);
    }

    #[test]
    fn one_whole_member_within_the_limit_is_decoded() {
        let whole = gzip(b"{\"id\":1}");
        check(&whole, 8, Ok(b"{\"id\":1}"));
        check(&whole, 7, Err(Unreadable::TooLong));
        check(&gzip(b""), 0, Ok(b""));
        check(b"", 100, Err(Unreadable::Truncated));
        check(b"{\"id\":1}   and some more", 100, Err(Unreadable::NotGzip));
        check(&[whole.as_slice(), b" "].concat(), 100, Err(Unreadable::NotGzip));
        check(&[whole.as_slice(), &whole].concat(), 100, Err(Unreadable::NotGzip));
        for end in 1..whole.len() {
            check(&whole[..end], 100, Err(Unreadable::Truncated));
        }
        for trailer in whole.len() - 8..whole.len() {
            let mut wrong = whole.clone();
            wrong[trailer] ^= 1;
            check(&wrong, 100, Err(Unreadable::NotGzip));
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = gzip(&vec![b' '; 64 << 20]);
        assert!(bomb.len() < 1 << 20);
        check(&bomb, 4 << 20, Err(Unreadable::TooLong));
        let decoded = inflate(&gzip(&vec![b' '; 3_000_000]), 4_000_000).expect("within the limit");
        assert_eq!(decoded.len(), 3_000_000);
        assert!(decoded.capacity() <= 4_000_000, "{}", decoded.capacity());
    }

    /// A header may claim a file name that never ends; it must not be collected.
    #[test]
    fn an_endless_header_is_none() {
        let endless = [[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0].as_slice(), &vec![b'a'; 4 << 20]].concat();
        assert!(inflate(&endless, 100).is_err());
    }

    proptest! {
        #[test]
        fn what_was_zipped_comes_back(plain in proptest::collection::vec(any::<u8>(), 0..60_000)) {
            prop_assert_eq!(inflate(&gzip(&plain), plain.len()), Ok(plain));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), limit in 0_usize..300) {
            let member = [[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0].as_slice(), &bytes].concat();
            prop_assert!(inflate(&member, limit).map_or(0, |decoded| decoded.len()) <= limit);
            prop_assert!(inflate(&bytes, limit).is_err());
        }
    }
}
