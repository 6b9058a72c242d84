//! Where a stream of WebSocket frames stands: between two frames, or in the midst of one (RFC 6455 section 5.2).

/// Follows one direction of a tunnel, whatever its frames mean: compressed, masked or of kinds to come, their lengths are
/// written alike.
#[derive(Debug, Default)]
pub struct Boundary {
    /// What has come of the head of a frame.
    head: [u8; 10],
    have: usize,
    /// What is still to come of the frame whose head was read.
    left: u64,
}

impl Boundary {
    /// Takes the next bytes, however they were cut.
    pub fn pass(&mut self, mut chunk: &[u8]) {
        while let Some(first) = chunk.first() {
            if self.left > 0 {
                let here = usize::try_from(self.left).map_or(chunk.len(), |left| left.min(chunk.len()));
                self.left -= u64::try_from(here).expect("a length in memory fits 64 bits");
                chunk = &chunk[here..];
                continue;
            }
            self.head[self.have] = *first;
            self.have += 1;
            chunk = &chunk[1..];
            if let Some(left) = self.announced() {
                (self.have, self.left) = (0, left);
            }
        }
    }

    /// Whether a frame of our own may follow.
    #[must_use]
    pub const fn is_between_frames(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// How long the rest of the frame is, once its length has come: the payload and, before it, the key of a mask.
    fn announced(&self) -> Option<u64> {
        let [_, second, extended @ ..] = self.head;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let payload = match (second & 0x7f, self.have) {
            (..126, 2..) => u64::from(second & 0x7f),
            (126, 4..) => u64::from(u16::from_be_bytes([extended[0], extended[1]])),
            (127, 10..) => u64::from_be_bytes(extended),
            _ => return None,
        };
        Some(payload.saturating_add(mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That the stream stands between frames after its beginning, after each of these frames, and nowhere else, however it
    /// is cut.
    fn check(frames: &[&[u8]]) {
        let stream = frames.concat();
        let mut ends = vec![0];
        for frame in frames {
            ends.push(ends.last().expect("the beginning") + frame.len());
        }
        for size in 1..=stream.len().min(300) {
            let mut boundary = Boundary::default();
            let mut passed = 0;
            assert!(boundary.is_between_frames());
            for chunk in stream.chunks(size) {
                boundary.pass(chunk);
                passed += chunk.len();
                assert_eq!(boundary.is_between_frames(), ends.contains(&passed), "{passed} bytes by {size}");
            }
        }
    }

    #[test]
    fn frames_end_where_their_heads_say() {
        check(&[b"\x81\x02hi", b"\x89\0", b"\x01\x01a", b"\x80\x01b", b"\x88\x02\x03\xe8"]);
        check(&[b"\xc1\x03abc", b"\x81\x82\x01\x02\x03\x04hi", b"\x8f\x01x"]);
        let (middle, long) = (vec![7; 300], vec![7; 1 << 16]);
        check(&[&[b"\x82\x7e\x01\x2c", &middle[..]].concat(), b"\x81\0"]);
        check(&[&[b"\x82\x7f\0\0\0\0\0\x01\0\0", &long[..]].concat(), b"\x81\0"]);
    }

    #[test]
    fn an_absurd_length_is_only_long() {
        let mut boundary = Boundary::default();
        boundary.pass(b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff");
        boundary.pass(&[0; 1 << 10]);
        assert!(!boundary.is_between_frames());
    }
}
