//! WebSocket frames (RFC 6455), as little of them as Mattermost's clients use: whole text messages, control frames.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use sha1::{Digest, Sha1};
use thiserror::Error;

/// `SocketMaxMessageSizeKb`: a longer message closes the socket with 1009.
const LONGEST: u64 = 8 * 1024;

/// A frame from a client.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Frame {
    Text(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close,
}

/// Why a socket cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(super) enum FrameError {
    #[error("a message longer than 8 KiB")]
    TooLong,
    #[error("a frame that is unmasked, split, or of a kind that is not used here")]
    Protocol,
}

impl FrameError {
    /// The close code that tells it.
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::TooLong => 1009,
            Self::Protocol => 1002,
        }
    }
}

/// Takes the next whole frame off the buffer; `None` while it is not all there.
///
/// # Errors
///
/// When the frame is too long or none that a client may send here.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let &[first, second, ..] = buffer.as_ref() else {
        return Ok(None);
    };
    if second & 0x80 == 0 || first & 0xf0 != 0x80 {
        return Err(FrameError::Protocol);
    }
    let (extra, announced) = match second & 0x7f {
        126 => (2, buffer.get(2..4).map(|bytes| u64::from(u16::from_be_bytes([bytes[0], bytes[1]])))),
        127 => (8, buffer.get(2..10).map(|bytes| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))),
        length => (0, Some(u64::from(length))),
    };
    let Some(announced) = announced else {
        return Ok(None);
    };
    if announced > LONGEST {
        return Err(FrameError::TooLong);
    }
    let length = usize::try_from(announced).expect("at most 8 KiB");
    let start = 2 + extra + 4;
    if buffer.len() < start + length {
        return Ok(None);
    }
    buffer.advance(2 + extra);
    let mask = buffer.split_to(4);
    let payload = buffer.split_to(length).iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    match first & 0x0f {
        1 => Ok(Some(Frame::Text(payload))),
        8 => Ok(Some(Frame::Close)),
        9 => Ok(Some(Frame::Ping(payload))),
        10 => Ok(Some(Frame::Pong)),
        _ => Err(FrameError::Protocol),
    }
}

pub(super) fn text(message: &str) -> Bytes {
    frame(1, message.as_bytes())
}

pub(super) fn close(code: u16) -> Bytes {
    frame(8, &code.to_be_bytes())
}

pub(super) fn ping() -> Bytes {
    frame(9, b"")
}

pub(super) fn pong(payload: &[u8]) -> Bytes {
    frame(10, payload)
}

fn frame(opcode: u8, payload: &[u8]) -> Bytes {
    let length = payload.len();
    let mut bytes = vec![0x80 | opcode];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => bytes.push(short),
        (_, Ok(medium)) => {
            bytes.push(126);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(127);
            bytes.extend(u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes.into()
}

/// What proves to the client that its key was read (RFC 6455, section 4.2.2).
pub(super) fn accept_key(key: &[u8]) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    STANDARD.encode(digest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(first & 0x0f, payload).to_vec();
        bytes[0] = first;
        bytes[1] |= 0x80;
        let body = bytes.split_off(bytes.len() - payload.len());
        bytes.extend([1, 2, 3, 4]);
        bytes.extend(body.iter().zip([1_u8, 2, 3, 4].iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    fn check(bytes: &[u8], expected: &Result<Option<Frame>, FrameError>) {
        assert_eq!(&take(&mut BytesMut::from(bytes)), expected);
    }

    #[test]
    fn client_frames_are_read() {
        let long = vec![b'a'; 300];
        check(&masked(0x81, b"hi"), &Ok(Some(Frame::Text(b"hi".to_vec()))));
        check(&masked(0x81, &long), &Ok(Some(Frame::Text(long.clone()))));
        check(&masked(0x89, b"x"), &Ok(Some(Frame::Ping(b"x".to_vec()))));
        check(&masked(0x8a, b""), &Ok(Some(Frame::Pong)));
        check(&masked(0x88, b""), &Ok(Some(Frame::Close)));
        check(&masked(0x81, b"hi")[..7], &Ok(None));
        check(b"", &Ok(None));
        check(&masked(0x81, &vec![b'a'; 9000]), &Err(FrameError::TooLong));
        check(&[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &Err(FrameError::TooLong));
        check(&frame(1, b"unmasked"), &Err(FrameError::Protocol));
        check(&masked(0x01, b"split"), &Err(FrameError::Protocol));
        check(&masked(0x83, b""), &Err(FrameError::Protocol));
    }

    /// The handshake of a recorded client.
    #[test]
    fn the_key_is_accepted_as_recorded() {
        assert_eq!(accept_key(b"rh5OcsBafacOXi03RvRqtg=="), "RmxL2lgP89rPwgZd4M8C8GX7PpE=");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(bytes.as_slice());
            while let Ok(Some(_)) = take(&mut buffer) {}
        }
    }
}
