//! Upstream's answer to our own fetch, taken apart: a picture that decodes, one that is broken, or nothing of ours.

use super::admission::{Granted, Inquiry, Proof};
use super::render_pool::PoolError;
use super::rendering::RenderError;
use super::{Avatars, Keep, Relayed};
use crate::cache::{Record, Rejection, Shortcuts};
use crate::render::DecodeError;
use crate::source::{ContentHash, SourceImage, Validator};
use crate::telemetry::Fault;
use crate::upstream::headers::{picture_lifetime, picture_vary, validator};
use crate::upstream::{Answer, AnswerBody, Extent, UpstreamError};
use http::{HeaderMap, StatusCode, header};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What an answer to a picture request turned out to be.
pub(super) enum Examined {
    /// A picture that decodes, and what this caller was told about it.
    Picture(Box<Granted>),
    /// A picture cut off, damaged or empty.
    Broken(Broken),
    /// A refusal, a redirect, another kind of content, a picture that we leave alone.
    Relay(Relayed),
}

/// A picture that does not decode.
pub(super) struct Broken {
    pub(super) answer: Answer,
    /// The name of its bytes.
    pub(super) hash: ContentHash,
    /// Whether it is known to be all that upstream has. Any other is worth asking for once more.
    pub(super) stays: bool,
}

/// Up to how many bytes of what is no picture are read before any of it is sent. Mattermost's errors have some hundreds.
const RELAYED_AT_ONCE: u64 = 64 << 10;

impl Avatars {
    /// Reads the answer and, if it is a picture whose bytes were not seen before, proves that it decodes.
    pub(super) async fn examine_once(&self, inquiry: &Inquiry, answer: Answer) -> Result<Examined, UpstreamError> {
        if !is_plain_picture(answer.status, &answer.headers) {
            // To its end, as far as it is short: as long as there is more of it, it takes one of the few requests for pictures, and
            // its client may take its time.
            let (answer, _) = answer.read_into(&self.room, RELAYED_AT_ONCE).await?;
            return Ok(relay(answer));
        }
        let (answer, extent) = answer.read_into(&self.room, self.settings.max_source).await?;
        let AnswerBody::Complete(bytes) = &answer.body else {
            let has_room = extent != Extent::NoRoom;
            self.telemetry.fault(if has_room { Fault::OverLimit } else { Fault::NoRoom });
            let keep = if has_room { Keep::AsUpstreamSays } else { Keep::StopGap };
            return Ok(Examined::Relay(Relayed { answer, keep }));
        };
        let bytes = bytes.clone();
        let hash = ContentHash::of(&bytes);
        if let Some(known) = self.sources.body(&hash).await {
            return Ok(Examined::Picture(Box::new(granted(inquiry, answer.headers, known))));
        }
        match self.sources.rejection(&hash).await {
            Some(Rejection::Broken) => return Ok(Examined::Broken(Broken { answer, hash, stays: false })),
            Some(Rejection::StaysBroken) => return Ok(Examined::Broken(Broken { answer, hash, stays: true })),
            Some(Rejection::LeftAlone | Rejection::Quarantined) => return Ok(relay(answer)),
            None => {}
        }
        // Not seen before: it has to decode, and its pixels stay for the render that follows, if the cache holds as many.
        match self.pixels(hash, &bytes).await.map(|pixels| pixels.info) {
            Ok(info) => {
                let image = Arc::new(SourceImage { hash, bytes, info });
                self.sources.keep_body(image.clone()).await;
                Ok(Examined::Picture(Box::new(granted(inquiry, answer.headers, image))))
            }
            Err(error) => Ok(self.not_proved(hash, answer, &error).await),
        }
    }

    async fn not_proved(&self, hash: ContentHash, answer: Answer, error: &RenderError) -> Examined {
        let (fault, verdict) = match error {
            RenderError::Decode(DecodeError::Broken(_)) => (Fault::BrokenPicture, Rejection::Broken),
            RenderError::Decode(DecodeError::Unsupported) => (Fault::UnsupportedPicture, Rejection::LeftAlone),
            RenderError::Decode(DecodeError::OverLimit(_)) => (Fault::OverLimit, Rejection::LeftAlone),
            RenderError::Pool(_) | RenderError::Encode(_) | RenderError::Decode(DecodeError::NoThread) => {
                // No verdict on the bytes: a busy moment is none, and a panic has quarantined them already.
                self.count_render_fault(error);
                let busy = *error != RenderError::Pool(PoolError::Panicked);
                let keep = if busy { Keep::StopGap } else { Keep::AsUpstreamSays };
                return Examined::Relay(Relayed { answer, keep });
            }
        };
        self.telemetry.fault(fault);
        self.sources.reject(hash, verdict).await;
        if verdict == Rejection::Broken {
            Examined::Broken(Broken { answer, hash, stays: false })
        } else {
            relay(answer)
        }
    }
}

fn relay(answer: Answer) -> Examined {
    Examined::Relay(Relayed { answer, keep: Keep::AsUpstreamSays })
}

fn granted(inquiry: &Inquiry, headers: HeaderMap, image: Arc<SourceImage>) -> Granted {
    let validator = validator(&headers);
    let record = Record {
        version: inquiry.question().answered(validator.as_ref()),
        validator,
        source: image.hash,
        info: image.info,
        source_len: image.bytes.len(),
        lifetime: picture_lifetime(&headers),
        vary: picture_vary(&headers),
        shortcuts: Shortcuts::default(),
        gone: AtomicBool::new(false),
    };
    let (record, upstream_bytes) = (Arc::new(record), image.bytes.len());
    Granted { record, upstream_bytes, body: Some(image), headers, proof: Proof::Fetched }
}

/// The validator of what, by its head, is a picture.
pub(super) fn names_picture(answer: &Answer) -> Option<Validator> {
    validator(&answer.headers).filter(|_| is_plain_picture(answer.status, &answer.headers))
}

/// Whether an answer may be taken for a picture at all: a 200 (never a 206) that says it is an image, in no encoding,
/// that upstream forbids neither to transform nor to keep (RFC 9111 sections 5.2.2.5 and 5.2.2.6).
fn is_plain_picture(status: StatusCode, headers: &HeaderMap) -> bool {
    let says = |name: header::HeaderName, test: fn(&str) -> bool| {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(test)
    };
    status == StatusCode::OK
        && says(header::CONTENT_TYPE, |kind| {
            kind.trim_start().get(..6).is_some_and(|kind| kind.eq_ignore_ascii_case("image/"))
        })
        && !says(header::CONTENT_ENCODING, |encoding| !encoding.trim().eq_ignore_ascii_case("identity"))
        && !says(header::CACHE_CONTROL, |directives| {
            let directives = directives.to_ascii_lowercase();
            directives.contains("no-transform") || directives.contains("no-store")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_a_plain_200_image_is_taken_for_a_picture() {
        for (status, fields, expected) in [
            (200, &[("content-type", "image/png")][..], true),
            (200, &[("content-type", "IMAGE/JPEG; x=y")], true),
            (200, &[("content-type", "image/svg+xml")], true),
            (200, &[("content-type", "image/png"), ("content-encoding", "identity")], true),
            (200, &[("content-type", "image/png"), ("content-encoding", "gzip")], false),
            (200, &[("content-type", "image/png"), ("cache-control", "private, No-Transform")], false),
            (200, &[("content-type", "image/png"), ("cache-control", "no-store")], false),
            (200, &[("content-type", "text/html")], false),
            (200, &[], false),
            (206, &[("content-type", "image/png")], false),
            (404, &[("content-type", "image/png")], false),
        ] {
            let headers = fields
                .iter()
                .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(is_plain_picture(status, &headers.collect()), expected, "{status} {fields:?}");
        }
    }
}
