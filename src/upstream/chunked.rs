//! A body in chunks as it is read (RFC 9112 section 7.1). Chunk extensions and trailers are read and stop here.

use super::UpstreamError;
use bytes::{Buf, Bytes, BytesMut};
use httparse::{EMPTY_HEADER, Status, parse_chunk_size, parse_headers};

/// The most bytes that a line may take which is not part of the body, and all trailers together.
const LINES_AT_MOST: usize = 16 << 10;

/// How many trailers there may be.
const TRAILERS_AT_MOST: usize = 32;

/// Where in the body the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Chunked {
    /// In the line that says how long the next chunk is.
    Size,
    /// So many bytes before the end of a chunk.
    Data(u64),
    /// Behind the bytes of a chunk.
    DataEnd,
    /// In the trailers.
    Trailers,
    /// Behind it all.
    Over,
}

/// What comes next of a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Next {
    Bytes(Bytes),
    /// Nothing before more is read.
    Wait,
    /// Its end.
    End,
}

impl Chunked {
    /// Takes what comes next from the front of `read`.
    ///
    /// # Errors
    /// It makes no sense.
    pub(super) fn take(&mut self, read: &mut BytesMut) -> Result<Next, UpstreamError> {
        loop {
            match *self {
                // The parser takes no digits for a zero.
                Self::Size if read.first().is_some_and(|first| !first.is_ascii_hexdigit()) => return Err(no_size()),
                Self::Size => match parse_chunk_size(read) {
                    Ok(Status::Complete((len, size))) if len < LINES_AT_MOST => {
                        read.advance(len);
                        *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                    }
                    Ok(Status::Partial) if read.len() < LINES_AT_MOST => return Ok(Next::Wait),
                    _ => return Err(no_size()),
                },
                Self::Data(_) if read.is_empty() => return Ok(Next::Wait),
                Self::Data(left) => {
                    let taken = usize::try_from(left).map_or(read.len(), |left| left.min(read.len()));
                    let left = left - taken as u64;
                    *self = if left == 0 { Self::DataEnd } else { Self::Data(left) };
                    return Ok(Next::Bytes(read.split_to(taken).freeze()));
                }
                Self::DataEnd => match read.get(..2) {
                    Some(b"\r\n") => {
                        read.advance(2);
                        *self = Self::Size;
                    }
                    None if read.is_empty() || read[0] == b'\r' => return Ok(Next::Wait),
                    _ => return Err(UpstreamError::Broken("a chunk of its answer has another length".to_owned())),
                },
                Self::Trailers => match parse_headers(read, &mut [EMPTY_HEADER; TRAILERS_AT_MOST]) {
                    Ok(Status::Complete((len, _))) if len < LINES_AT_MOST => {
                        read.advance(len);
                        *self = Self::Over;
                    }
                    Ok(Status::Partial) if read.len() < LINES_AT_MOST => return Ok(Next::Wait),
                    _ => return Err(UpstreamError::Broken("the trailers of its answer are none".to_owned())),
                },
                Self::Over => return Ok(Next::End),
            }
        }
    }
}

fn no_size() -> UpstreamError {
    UpstreamError::Broken("a chunk of its answer has no size".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The body that comes out, and what is left behind it, when so many bytes come at a time; `None` if it makes no sense.
    fn read(sent: &[u8], at_a_time: usize) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let (mut chunked, mut buffer, mut body) = (Chunked::Size, BytesMut::new(), Vec::new());
        let mut parts = sent.chunks(at_a_time);
        loop {
            match chunked.take(&mut buffer).ok()? {
                Next::Bytes(bytes) => body.extend_from_slice(&bytes),
                Next::End => return Some((body, Some([&buffer[..], &parts.collect::<Vec<_>>().concat()].concat()))),
                Next::Wait => match parts.next() {
                    Some(part) => buffer.extend_from_slice(part),
                    None => return Some((body, None)),
                },
            }
        }
    }

    #[test]
    fn chunks_become_a_body() {
        let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(LINES_AT_MOST));
        let trailers = format!("0\r\na: {}\r\n\r\n", "b".repeat(LINES_AT_MOST));
        let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(TRAILERS_AT_MOST + 1));
        for (sent, expected) in [
            ("5\r\nhello\r\n0\r\n\r\n", Some(("hello", Some("")))),
            ("5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\nHTTP", Some(("hello world", Some("HTTP")))),
            ("A\r\n0123456789\r\n00\r\nTrailer: x\r\nOther: y\r\n\r\n", Some(("0123456789", Some("")))),
            ("5\r\nhel", Some(("hel", None))),
            ("5\r\nhello", Some(("hello", None))),
            ("5\r\nhello\r\n0\r\n", Some(("hello", None))),
            ("", Some(("", None))),
            ("5\r\nhello!\r\n0\r\n\r\n", None),
            ("5\r\nhello\n0\r\n\r\n", None),
            ("5\nhello\r\n0\r\n\r\n", None),
            ("\r\nhello\r\n0\r\n\r\n", None),
            ("-5\r\nhello\r\n0\r\n\r\n", None),
            ("0x5\r\nhello\r\n0\r\n\r\n", None),
            ("fffffffffffffffff\r\n", None),
            (&long, None),
            (&trailers, None),
            (&many, None),
            ("0\r\nHTTP/1.1 200 OK\r\n\r\n", None),
        ] {
            for at_a_time in [1, 2, 3, 7, 1 << 20] {
                let expected =
                    expected.map(|(body, left)| (body.as_bytes().to_vec(), left.map(|left| left.as_bytes().to_vec())));
                assert_eq!(read(sent.as_bytes(), at_a_time), expected, "{sent:.40} {at_a_time}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_chunks_are_their_bytes(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20),
            at_a_time in 1_usize..400,
        ) {
            let mut sent = Vec::new();
            for part in &parts {
                sent.extend_from_slice(format!("{:X}\r\n", part.len()).as_bytes());
                sent.extend_from_slice(part);
                sent.extend_from_slice(b"\r\n");
            }
            sent.extend_from_slice(b"0\r\n\r\nmore");
            prop_assert_eq!(read(&sent, at_a_time), Some((parts.concat(), Some(b"more".to_vec()))));
        }

        #[test]
        fn nothing_panics(sent in prop::collection::vec(any::<u8>(), 0..200), at_a_time in 1_usize..50) {
            read(&sent, at_a_time);
        }
    }
}
