//! Uploaded files, kept in memory as the chunks they came in: what a large upload or download passes through.

use std::collections::VecDeque;

use bytes::Bytes;

/// All files together; the oldest make room for a new one.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// One uploaded file.
#[derive(Clone, Debug)]
pub(super) struct StoredUpload {
    pub(super) id: String,
    pub(super) user_id: String,
    pub(super) name: String,
    pub(super) create_at: i64,
    pub(super) chunks: Vec<Bytes>,
}

impl StoredUpload {
    pub(super) fn size(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// The chunks of a range of bytes, shared with the stored ones.
    pub(super) fn slice(&self, range: std::ops::Range<usize>) -> Vec<Bytes> {
        let mut start = 0;
        let mut parts = Vec::new();
        for chunk in &self.chunks {
            let (from, to) = (range.start.max(start), range.end.min(start + chunk.len()));
            if from < to {
                parts.push(chunk.slice(from - start..to - start));
            }
            start += chunk.len();
        }
        parts
    }
}

/// The uploads, newest last.
#[derive(Default, Debug)]
pub(super) struct Files(VecDeque<StoredUpload>);

impl Files {
    pub(super) fn add(&mut self, file: StoredUpload) {
        self.0.push_back(file);
        let mut total: usize = self.0.iter().map(StoredUpload::size).sum();
        while total > MOST_BYTES {
            total -= self.0.pop_front().map_or(total, |oldest| oldest.size());
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&StoredUpload> {
        self.0.iter().find(|file| file.id == id)
    }
}

/// One range of a `Range` header over `size` bytes; anything else is served whole.
pub(super) fn single_range(header: &str, size: usize) -> Option<std::ops::Range<usize>> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first.parse().ok(), last.parse::<usize>().ok()) {
        (Some(start), Some(last)) => (start, last.checked_add(1)?.min(size)),
        (Some(start), None) if last.is_empty() => (start, size),
        (None, Some(tail)) if first.is_empty() => (size.saturating_sub(tail), size),
        _ => return None,
    };
    (start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_over_chunks() {
        let file = StoredUpload {
            id: String::new(),
            user_id: String::new(),
            name: String::new(),
            create_at: 0,
            chunks: vec![Bytes::from_static(b"abc"), Bytes::from_static(b"defg")],
        };
        for (range, expected) in [(0..7, "abcdefg"), (2..5, "cde"), (3..4, "d"), (5..5, "")] {
            assert_eq!(file.slice(range).concat(), expected.as_bytes());
        }
    }

    #[test]
    fn a_single_range_is_understood() {
        for (header, expected) in [
            ("bytes=0-1", Some(0..2)),
            ("bytes=5-", Some(5..10)),
            ("bytes=-3", Some(7..10)),
            ("bytes=0-99", Some(0..10)),
            ("bytes=10-", None),
            ("bytes=a-b", None),
            ("bytes=", None),
            ("lines=0-1", None),
        ] {
            assert_eq!(single_range(header, 10), expected, "{header}");
        }
    }
}
