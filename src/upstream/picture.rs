//! A request for a picture in a caller's name, and upstream's answer to it.

use super::body::BodyStream;
use super::{UpstreamError, headers};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::HeaderMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A request for a picture in the caller's name.
#[derive(Clone, Debug)]
pub struct PictureRequest {
    /// The canonical path, base path included.
    pub path: String,
    /// The query without our own parameters.
    pub query: Option<String>,
    /// The fixed list of [`headers::picture_request`], `Host` included.
    pub headers: HeaderMap,
}

/// Upstream's answer to a picture request. It occupies one of the slots for such requests until its body has been read.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header without what belongs to the connection.
    pub headers: HeaderMap,
    /// The body, not yet read.
    pub body: AnswerBody,
}

/// The body of an [`Answer`].
pub enum AnswerBody {
    /// All of it.
    Complete(Bytes),
    /// What was read so far, and the rest.
    Partial(Bytes, BodyStream),
}

impl Answer {
    /// The header alone; the body is not read, and the slot is free.
    #[must_use]
    pub fn into_headers(self) -> HeaderMap {
        self.headers
    }

    /// Reads the body if it is not longer than `limit` bytes; a longer one stays a stream that memory never holds.
    ///
    /// # Errors
    /// The body broke off, or stalled.
    pub async fn read_up_to(self, limit: u64) -> Result<Self, UpstreamError> {
        let enough = Room::new(limit.saturating_mul(WHILE_GROWING));
        Ok(self.read_into(&enough, limit).await?.0)
    }

    /// Reads the body if it is not longer than `limit` bytes and there is `room` for it, which it takes until the last who
    /// holds it lets go of it. Otherwise it stays a stream.
    ///
    /// # Errors
    /// The body broke off, or stalled.
    pub async fn read_into(mut self, room: &Room, limit: u64) -> Result<(Self, Extent), UpstreamError> {
        use futures_util::StreamExt;
        let AnswerBody::Partial(prefix, mut rest) = self.body else {
            return Ok((self, Extent::Whole));
        };
        let declared = headers::content_length(&self.headers);
        if declared.is_some_and(|length| length > limit) {
            self.body = AnswerBody::Partial(prefix, rest);
            return Ok((self, Extent::TooLong));
        }
        let Some(mut taken) = room.take(declared.unwrap_or(0)) else {
            self.body = AnswerBody::Partial(prefix, rest);
            return Ok((self, Extent::NoRoom));
        };
        let mut read = BytesMut::with_capacity(declared.and_then(|length| usize::try_from(length).ok()).unwrap_or(0));
        read.extend_from_slice(&prefix);
        while let Some(chunk) = rest.next().await {
            read.extend_from_slice(&chunk?);
            let length = read.len() as u64;
            let needed = if declared.is_some_and(|declared| length <= declared) { 0 } else { length * WHILE_GROWING };
            let has_room = taken.grow(room, needed);
            if length > limit || !has_room {
                self.body = AnswerBody::Partial(taken.held(read.freeze()), rest);
                return Ok((self, if has_room { Extent::TooLong } else { Extent::NoRoom }));
            }
        }
        let whole = if read.capacity() == read.len() {
            read.freeze()
        } else {
            // A buffer that grew by doubling may be half empty, and what is kept of it is kept for long.
            Bytes::copy_from_slice(&read)
        };
        self.body = AnswerBody::Complete(taken.held(whole));
        Ok((self, Extent::Whole))
    }
}

/// What a body of unknown length takes while it is read, for each of its bytes: a buffer that has just been doubled, and the
/// one before; then what is copied out of it.
const WHILE_GROWING: u64 = 3;

/// How far a body was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// To its end.
    Whole,
    /// Not, for it is over the limit.
    TooLong,
    /// Not, for others take all the room.
    NoRoom,
}

/// How many bytes of pictures there may be in memory, wherever they are: on their way in, in a queue, in a cache, or on their
/// way to clients who take their time.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Room {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(Semaphore::new(usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS))))
    }

    /// What is left, in bytes.
    #[must_use]
    pub fn left(&self) -> usize {
        self.0.available_permits()
    }

    /// Room is never waited for: whoever has some of it may be waiting for more.
    fn take(&self, bytes: u64) -> Option<Taken> {
        let permit = self.0.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()?;
        Some(Taken(permit))
    }
}

/// A part of a room, until this is dropped.
struct Taken(OwnedSemaphorePermit);

impl Taken {
    /// Whether it is `bytes` now, or was more already.
    fn grow(&mut self, room: &Room, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.0.num_permits() as u64);
        if more == 0 {
            return true;
        }
        let taken = room.take(more);
        taken.is_some_and(|more| {
            self.0.merge(more.0);
            true
        })
    }

    /// Goes with `bytes`, and gives back what they do not need.
    fn held(mut self, bytes: Bytes) -> Bytes {
        drop(self.0.split(self.0.num_permits().saturating_sub(bytes.len())));
        Bytes::from_owner(Held { bytes, _taken: self })
    }
}

/// Bytes and the room that they take.
struct Held {
    bytes: Bytes,
    _taken: Taken,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http::header::{CONTENT_LENGTH, HeaderValue};

    /// Reads a body of `length` bytes that comes in pieces of ten.
    async fn read(room: &Room, length: usize, declared: bool) -> (Answer, Extent) {
        let body = vec![7; length];
        let pieces: Vec<_> = body.chunks(10).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut headers = HeaderMap::new();
        if declared {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let body = AnswerBody::Partial(Bytes::new(), Box::pin(stream::iter(pieces)));
        let answer = Answer { status: StatusCode::OK, headers, body };
        answer.read_into(room, 1000).await.expect("nothing breaks off")
    }

    fn bytes(answer: &Answer) -> &Bytes {
        match &answer.body {
            AnswerBody::Complete(bytes) | AnswerBody::Partial(bytes, _) => bytes,
        }
    }

    #[tokio::test]
    async fn a_body_takes_its_room_as_long_as_anybody_holds_it() {
        for declared in [true, false] {
            let room = Room::new(1000);
            let (answer, extent) = read(&room, 333, declared).await;
            assert_eq!((extent, room.left()), (Extent::Whole, 667), "{declared}");
            let held = bytes(&answer).slice(10..20);
            drop(answer);
            assert_eq!((&held[..], room.left()), (&[7; 10][..], 667), "{declared}");
            drop(held);
            assert_eq!(room.left(), 1000, "{declared}");
        }
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_stays_a_stream() {
        for (room, length, declared, extent, in_hand) in [
            (1000, 1000, true, Extent::Whole, 1000),
            (999, 1000, true, Extent::NoRoom, 0),
            (9999, 1010, true, Extent::TooLong, 0),
            // While it grows it takes more.
            (999, 333, false, Extent::Whole, 333),
            (998, 333, false, Extent::NoRoom, 333),
            (500, 333, false, Extent::NoRoom, 170),
            (9999, 1010, false, Extent::TooLong, 1010),
        ] {
            let all = Room::new(room);
            let (answer, found) = read(&all, length, declared).await;
            let name = format!("{room} {length} {declared}");
            assert_eq!((found, bytes(&answer).len()), (extent, in_hand), "{name}");
            drop(answer);
            assert_eq!(all.left() as u64, room, "{name}");
        }
    }

    #[tokio::test]
    async fn all_bodies_together_have_no_more_than_there_is() {
        let room = Room::new(1000);
        let mut held = Vec::new();
        for n in 0..20 {
            let (answer, extent) = read(&room, 300, true).await;
            assert_eq!(extent == Extent::Whole, n < 3, "{n}");
            held.push(answer);
        }
        assert_eq!(room.left(), 100);
        held.pop();
        held.remove(0);
        assert_eq!(read(&room, 300, true).await.1, Extent::Whole);
    }
}
