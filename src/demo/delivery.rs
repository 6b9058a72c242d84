//! How the body of an answer goes out: gzipped or not, whole or broken on purpose.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::LocalBoxStream;
use futures_util::{Stream, StreamExt, stream};

/// Longer than any sane client waits; a stalled answer ends with its connection, or then.
const STALL: Duration = Duration::from_secs(120);

/// How the body goes out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    Whole,
    Aborted(usize),
    Stalled(usize),
    Trickle(Duration),
}

pub(super) type Chunk = Result<Bytes, std::io::Error>;

/// The body as the wire will see it: whole, or broken on purpose.
pub(super) fn delivered(chunks: Vec<Bytes>, delivery: Delivery) -> LocalBoxStream<'static, Chunk> {
    let first = |length: usize| {
        let whole = Bytes::from(chunks.concat());
        stream::iter([Ok(whole.slice(..length.min(whole.len())))])
    };
    match delivery {
        Delivery::Whole => stream::iter(chunks.into_iter().map(Ok)).boxed_local(),
        // A pause first: an error in the same turn would keep the bytes before it from being written.
        Delivery::Aborted(length) => first(length).chain(broken_after(Duration::from_millis(20))).boxed_local(),
        Delivery::Stalled(length) => first(length).chain(broken_after(STALL)).boxed_local(),
        Delivery::Trickle(pause) => stream::iter(chunks.concat())
            .then(move |byte| async move {
                tokio::time::sleep(pause).await;
                Ok(Bytes::copy_from_slice(&[byte]))
            })
            .boxed_local(),
    }
}

fn broken_after(pause: Duration) -> impl Stream<Item = Chunk> {
    stream::once(async move {
        tokio::time::sleep(pause).await;
        Err(std::io::Error::other("broken off on purpose"))
    })
}

/// Whether `gzip` itself is named with a weight above zero; `*` does not count (gzhttp's `acceptsGzip`).
pub(super) fn allows_gzip(accept_encoding: &str) -> bool {
    accept_encoding.split(',').any(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let named = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse::<f32>);
        named && weight.is_ok_and(|weight| weight > 0.0)
    })
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("writing to memory cannot fail");
    encoder.finish().expect("writing to memory cannot fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gzip_by_name_is_answered_with_gzip() {
        for (accept, expected) in [
            ("gzip", true),
            ("gzip, deflate, br, zstd", true),
            ("identity;q=0, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("*", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(allows_gzip(accept), expected, "{accept}");
        }
    }
}
