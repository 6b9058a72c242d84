//! WebSocket frames from a server (RFC 6455 section 5), cut into pieces of text messages without copying a byte.

/// What a chunk of the stream holds, in its order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Piece<'a> {
    /// A text message begins.
    Begin,
    /// More of the message that began, and how much more of it this frame is known to hold after this.
    Text(&'a [u8], u64),
    /// The message is whole.
    End,
    /// The stream cannot be followed any further; whatever message was under way stays incomplete.
    Lost,
}

/// Follows one stream of frames, fed in whatever chunks it comes.
#[derive(Debug)]
pub(super) struct Frames {
    step: Step,
    /// The data message that is under way, control frames between its fragments or not.
    message: Option<Kind>,
}

#[derive(Debug)]
enum Step {
    /// Inside a frame's head, of which this much has come.
    Head(Head),
    /// Inside a payload, of which so much is still to come.
    Payload { frame: Frame, left: u64 },
    /// Nothing is followed any more.
    Deaf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Text,
    /// Mattermost's server sends none; skipped.
    Binary,
}

/// Of a frame whose head was read, what matters while its payload passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Frame {
    /// The last of its message or not.
    Data {
        is_last: bool,
    },
    Control,
}

#[derive(Default, Debug)]
struct Head {
    /// Two bytes, and up to eight of an extended length.
    bytes: [u8; 10],
    have: usize,
}

/// The longest payload of a control frame.
const LONGEST_CONTROL: u64 = 125;

impl Frames {
    pub(super) const fn new() -> Self {
        Self { step: Step::Head(Head { bytes: [0; 10], have: 0 }), message: None }
    }

    /// Hands over what `chunk` holds of text messages.
    ///
    /// A masked frame, a reserved bit or opcode, a length that breaks the rules, a fragment out of place, a control
    /// frame that is long or split: a client that keeps to the protocol fails the connection there, and a reserved bit
    /// may mean that a compression was negotiated after all. Whatever follows could be misread, so it is not followed.
    pub(super) fn follow(&mut self, mut chunk: &[u8], found: &mut dyn FnMut(Piece<'_>)) {
        while !chunk.is_empty() {
            match &mut self.step {
                Step::Deaf => return,
                Step::Head(head) => {
                    head.bytes[head.have] = chunk[0];
                    head.have += 1;
                    chunk = &chunk[1..];
                    if head.have == head.length() {
                        let (flags, announced) = (head.bytes[0], head.announced());
                        self.step = self.opened(flags, announced, found).unwrap_or(Step::Deaf);
                        if matches!(self.step, Step::Deaf) {
                            found(Piece::Lost);
                        }
                    }
                }
                Step::Payload { frame, left } => {
                    let frame = *frame;
                    let here = usize::try_from(*left).map_or(chunk.len(), |left| left.min(chunk.len()));
                    let (payload, rest) = chunk.split_at(here);
                    *left -= u64::try_from(here).expect("a length in memory fits 64 bits");
                    let left = *left;
                    chunk = rest;
                    if matches!(frame, Frame::Data { .. }) && self.message == Some(Kind::Text) {
                        found(Piece::Text(payload, left));
                    }
                    if left == 0 {
                        self.closed(frame, found);
                    }
                }
            }
        }
    }

    /// What follows a frame's head; `None` when no server may send it.
    fn opened(&mut self, flags: u8, announced: Option<u64>, found: &mut dyn FnMut(Piece<'_>)) -> Option<Step> {
        let left = announced?;
        let is_last = flags & 0x80 != 0;
        if flags & 0x70 != 0 {
            return None;
        }
        let frame = match (flags & 0x0f, self.message) {
            (0, Some(_)) => Frame::Data { is_last },
            (1, None) => {
                self.message = Some(Kind::Text);
                found(Piece::Begin);
                Frame::Data { is_last }
            }
            (2, None) => {
                self.message = Some(Kind::Binary);
                Frame::Data { is_last }
            }
            // Ping and pong. After a close (8) a server sends nothing more.
            (9 | 10, _) if is_last && left <= LONGEST_CONTROL => Frame::Control,
            _ => return None,
        };
        if left == 0 {
            self.closed(frame, found);
            return Some(Step::Head(Head::default()));
        }
        Some(Step::Payload { frame, left })
    }

    fn closed(&mut self, frame: Frame, found: &mut dyn FnMut(Piece<'_>)) {
        self.step = Step::Head(Head::default());
        if frame == (Frame::Data { is_last: true }) && self.message.take() == Some(Kind::Text) {
            found(Piece::End);
        }
    }
}

impl Head {
    /// How long the head is, as far as its bytes so far tell.
    fn length(&self) -> usize {
        match (self.have, self.bytes[1] & 0x7f) {
            (2.., 126) => 4,
            (2.., 127) => 10,
            _ => 2,
        }
    }

    /// The payload's length in bytes; `None` when it is masked, longer than the protocol knows, or written longer than
    /// it need be.
    fn announced(&self) -> Option<u64> {
        let [_, second, extended @ ..] = self.bytes;
        let (announced, least) = match second {
            126 => (u64::from(u16::from_be_bytes([extended[0], extended[1]])), 126),
            127 => (u64::from_be_bytes(extended), 1 << 16),
            short => (u64::from(short), 0),
        };
        let is_plain = second & 0x80 == 0;
        (is_plain && announced >= least && announced >> 63 == 0).then_some(announced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text messages found in a stream; one that is not whole counts as far as it came.
    fn texts(stream: &[u8], chunk: usize) -> Vec<String> {
        let mut frames = Frames::new();
        let mut texts = Vec::new();
        for chunk in stream.chunks(chunk) {
            frames.follow(chunk, &mut |piece| match piece {
                Piece::Begin => texts.push(String::new()),
                Piece::Text(text, _) => {
                    let last = texts.last_mut().expect("a message begins first");
                    last.push_str(std::str::from_utf8(text).expect("the tests write ASCII"));
                }
                Piece::End => texts.last_mut().expect("a message begins first").push('.'),
                Piece::Lost => texts.push("lost".to_owned()),
            });
        }
        texts
    }

    fn check(stream: &[&[u8]], expected: &[&str]) {
        let stream = stream.concat();
        for chunk in 1..=stream.len() {
            assert_eq!(texts(&stream, chunk), expected, "{stream:x?} by {chunk}");
        }
    }

    #[test]
    fn text_messages_are_found_among_everything_else() {
        check(&[b"\x81\x02hi"], &["hi."]);
        check(&[b"\x81\0", b"\x81\x01a"], &[".", "a."]);
        check(&[b"\x01\x01a", b"\x89\x01x", b"\0\0", b"\0\x01b", b"\x8a\0", b"\x80\x01c"], &["abc."]);
        check(&[b"\x82\x01x", b"\x02\x01x", b"\x80\x01x", b"\x81\x01a"], &["a."]);
        check(&[b"\x89\x7d", &[b'x'; 125], b"\x81\x01a"], &["a."]);
        check(&[b"\x81\x7e\x01\x2c", &[b'a'; 300]], &[&format!("{}.", "a".repeat(300))]);
        let long = "a".repeat(1 << 16);
        assert_eq!(texts(&[b"\x81\x7f\0\0\0\0\0\x01\0\0", long.as_bytes()].concat(), 100), [format!("{long}.")]);
        check(&[b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xffhi"], &["hi"]);
    }

    #[test]
    fn nothing_is_followed_after_what_no_plain_server_sends() {
        for wrong in [
            b"\x81\x82\0\0\0\0hi".as_slice(),
            b"\xc1\x02hi",
            b"\xa1\x02hi",
            b"\x91\x02hi",
            b"\xc9\x00",
            b"\x83\x00",
            b"\x87\x00",
            b"\x8b\x00",
            b"\x8f\x00",
            b"\x80\x01x",
            b"\x00\x01x",
            b"\x09\x00",
            b"\x89\x7e\x00\x7e",
            b"\x89\x7f\0\0\0\0\0\0\0\x01",
            b"\x81\x7e\0\x7d",
            b"\x81\x7f\0\0\0\0\0\0\xff\xff",
            b"\x81\x7f\x80\0\0\0\0\0\0\0",
            b"\x88\x02\x03\xe8",
        ] {
            check(&[b"\x81\x01a", wrong, b"\x81\x01b", b"\x81\x01c"], &["a.", "lost"]);
        }
        // A message within a message.
        check(&[b"\x01\x01a", b"\x81\x01b", b"\x80\x01c"], &["a", "lost"]);
        check(&[b"\x01\x01a", b"\x82\x01b", b"\x80\x01c"], &["a", "lost"]);
    }
}
