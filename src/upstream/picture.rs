//! A request for a picture in a caller's name, and upstream's answer to it.

use super::body::BodyStream;
use super::{UpstreamError, headers};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::HeaderMap;

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
    pub async fn read_up_to(mut self, limit: u64) -> Result<Self, UpstreamError> {
        use futures_util::StreamExt;
        let AnswerBody::Partial(prefix, mut rest) = self.body else {
            return Ok(self);
        };
        let declared = headers::content_length(&self.headers);
        if declared.is_some_and(|length| length > limit) {
            self.body = AnswerBody::Partial(prefix, rest);
            return Ok(self);
        }
        let mut read = BytesMut::from(prefix);
        if let Some(length) = declared {
            read.reserve(usize::try_from(length).unwrap_or(0));
        }
        while let Some(chunk) = rest.next().await {
            read.extend_from_slice(&chunk?);
            if read.len() as u64 > limit {
                self.body = AnswerBody::Partial(read.freeze(), rest);
                return Ok(self);
            }
        }
        // A buffer that grew by doubling may be half empty, and what is kept of it is kept for long.
        self.body = AnswerBody::Complete(Bytes::copy_from_slice(&read));
        Ok(self)
    }
}
