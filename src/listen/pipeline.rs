//! Requests that a client sends without waiting for answers (RFC 9112 section 9.3.2): actix is given one at a time, because
//! it answers each by what it knows of the last whose head it has read.
//!
//! Where a head ends is found here; what follows it, the service has been told by actix. What is behind the end of a
//! request is held until its answer has gone out. A body that comes with its head, and nothing behind it, need not wait for
//! what actix says. Should the two ever disagree about an end, bytes are handed on as they come: nothing is kept from actix
//! for long.

use super::pulse::Pulse;
use actix_http::header::CONTENT_LENGTH;
use actix_http::{HttpMessage, Payload, Request};
use bytes::BytesMut;

/// How many bytes may be held before no more is read.
const AT_MOST: usize = 32 << 10;
/// How long a head may be, in bytes. actix looks at that when it has read so much, which may be in the midst of more.
const HEAD_AT_MOST: usize = 128 << 10;

/// How long the name of a field may be, in bytes: actix panics at a longer one.
const NAME_AT_MOST: usize = (1 << 16) - 1;

/// What follows a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// Nothing.
    None,
    /// So many bytes.
    Counted(u64),
    /// Chunks.
    Chunked,
}

/// The bytes of one connection on their way to actix.
#[derive(Debug)]
pub(super) struct Pipeline {
    at: At,
    /// In the head that is passing.
    name: Name,
    held: BytesMut,
}

/// Where in a head, as far as the names of its fields are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    /// In its first line, or behind a name.
    None,
    /// In what may be a name, of which so many bytes have come.
    Within(usize),
    /// Behind one that is too long.
    TooLong,
}

/// Where what comes next stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// In a head, of which so many bytes have passed, or before one.
    Head(Line, usize),
    /// Behind a head that actix has been given, and so many bytes of body with it. So many requests had begun before, and
    /// whether actix was given the time to begin this one.
    Given { begun: u32, body: u64, had_time: bool },
    /// In a body of which so many bytes are to come.
    Counted(u64),
    /// In a body of chunks.
    Chunk(Chunk),
    /// Behind a request.
    End,
    /// In what is no HTTP any more, or nobody can tell.
    Beyond,
}

/// What is behind in the line of a head, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Line {
    /// Nothing but line ends since the request before (RFC 9112 section 2.2).
    Before,
    /// Something.
    Text,
    /// Nothing, or a carriage return: with a line feed the head is over.
    Empty,
}

/// Where in a body of chunks (RFC 9112 section 7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Chunk {
    /// In the size.
    Size(u64),
    /// Behind the size.
    Extension(u64),
    /// In so many bytes of a chunk and its end.
    Data(u64),
    /// Behind the last chunk, in a line of which something has come or not.
    Trailer { is_empty: bool },
}

impl Framing {
    /// What actix makes of the head of a request.
    #[must_use]
    pub fn of(request: &mut Request) -> Self {
        if matches!(request.payload(), Payload::None) {
            return Self::None;
        }
        let length = request.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.trim().parse().ok());
        length.map_or(Self::Chunked, Self::Counted)
    }
}

impl Default for Pipeline {
    fn default() -> Self {
        Self { at: At::Head(Line::Before, 0), name: Name::None, held: BytesMut::new() }
    }
}

impl Pipeline {
    /// One on which so much has been said.
    pub(super) fn holding(said: BytesMut) -> Self {
        Self { held: said, ..Self::default() }
    }

    /// What is held goes to somebody else.
    pub(super) fn leaves(&mut self) -> BytesMut {
        std::mem::take(&mut self.held)
    }

    /// From now on everything passes.
    pub(super) fn opens(&mut self) {
        self.at = At::Beyond;
    }

    /// Whether no more is to be read for now.
    pub(super) fn is_full(&self) -> bool {
        self.held.len() >= AT_MOST
    }

    /// Whether a name has come that is longer than it may be. The end of its head has not been passed.
    pub(super) fn has_long_name(&self) -> bool {
        self.name == Name::TooLong
    }

    /// Whether bytes are held.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether actix has yet to begin the request whose head it was given. It is asked this once in vain: after that, it is
    /// taken for one that will not.
    pub(super) fn waits_for_beginning(&mut self) -> bool {
        match &mut self.at {
            At::Given { had_time, .. } => {
                *had_time = true;
                true
            }
            _ => false,
        }
    }

    /// Heeds what has become of the request before; to be called before anything is passed.
    pub(super) fn catch_up(&mut self, pulse: &Pulse) {
        if let At::Given { begun, body, had_time } = self.at {
            if pulse.requests() != begun {
                self.at = match (pulse.framing(), body) {
                    (Framing::None, 0) => At::End,
                    (Framing::Counted(length), body) if length == body => At::End,
                    (Framing::Counted(length), 0) => At::Counted(length),
                    (Framing::Chunked, 0) => At::Chunk(Chunk::Size(0)),
                    _ => At::Beyond,
                };
            } else if had_time {
                // actix has refused it, or ends the connection.
                self.at = At::Beyond;
            }
        }
        if self.at == At::End && pulse.awaits_request() {
            self.at = At::Head(Line::Before, 0);
        }
    }

    /// What of the bytes that are held may be passed now, if any of them may.
    pub(super) fn next(&mut self, at_most: usize, pulse: &Pulse) -> Option<BytesMut> {
        let mut held = std::mem::take(&mut self.held);
        let passed = self.pass(&held[..held.len().min(at_most)], pulse);
        let passed = (passed > 0).then(|| held.split_to(passed));
        // The last of them lets go of the memory.
        self.held = if held.is_empty() { BytesMut::new() } else { held };
        passed
    }

    /// How many bytes of what came may be passed now. The others are held, if they are for anybody.
    pub(super) fn take(&mut self, came: &[u8], pulse: &Pulse) -> usize {
        let passed = self.pass(came, pulse);
        if passed < came.len() && !self.is_over(pulse) {
            self.held.extend_from_slice(&came[passed..]);
        }
        passed
    }

    /// Whether what comes now is behind the last request (RFC 9112 section 9.6).
    fn is_over(&self, pulse: &Pulse) -> bool {
        self.at == At::End && pulse.has_said_last()
    }

    fn pass(&mut self, bytes: &[u8], pulse: &Pulse) -> usize {
        let mut passed = 0;
        while passed < bytes.len() {
            let rest = &bytes[passed..];
            match &mut self.at {
                At::Head(_, HEAD_AT_MOST) => self.at = At::Beyond,
                At::Head(line, read) => {
                    let rest = &rest[..rest.len().min(HEAD_AT_MOST - *read)];
                    let is_all = *line == Line::Before;
                    let end = end_of_head(line, rest);
                    // All of a shorter one is too short for such a name.
                    if *read + rest.len() > NAME_AT_MOST || end.is_none() {
                        self.name.passes(&rest[..end.unwrap_or(rest.len())]);
                        if self.name == Name::TooLong {
                            return passed;
                        }
                    }
                    if let Some(end) = end {
                        self.name = Name::None;
                        let (head, behind) = rest.split_at(end);
                        let body = if is_all && is_body(behind, head) { behind.len() } else { 0 };
                        pulse.passes_head(body > 0);
                        self.at = At::Given { begun: pulse.requests(), body: body as u64, had_time: false };
                        return passed + end + body;
                    }
                    *read += rest.len();
                    return passed + rest.len();
                }
                At::Counted(left) => {
                    let here = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    *left -= here as u64;
                    passed += here;
                    if *left == 0 {
                        self.at = At::End;
                    }
                }
                At::Chunk(chunk) => match chunk.end_of_body(rest) {
                    Some(end) => {
                        self.at = At::End;
                        passed += end;
                    }
                    None => return bytes.len(),
                },
                At::End if pulse.awaits_request() => self.at = At::Head(Line::Before, 0),
                At::Given { .. } | At::End => break,
                At::Beyond => return bytes.len(),
            }
        }
        passed
    }
}

impl Name {
    /// More of the head comes.
    fn passes(&mut self, head: &[u8]) {
        for (n, line) in head.split(|byte| *byte == b'\n').enumerate() {
            if n > 0 {
                *self = Self::Within(0);
            }
            let Self::Within(before) = *self else { continue };
            let here = line.iter().position(|byte| *byte == b':');
            let length = before + here.unwrap_or(line.len());
            if length > NAME_AT_MOST {
                *self = Self::TooLong;
                return;
            }
            *self = if here.is_some() { Self::None } else { Self::Within(length) };
        }
    }
}

/// Whether what is behind a head is the body that it declares, and nothing else.
fn is_body(behind: &[u8], head: &[u8]) -> bool {
    if behind.is_empty() {
        return false;
    }
    let mut length = None;
    let line_feeds = memchr::memchr_iter(b'\n', head).chain([head.len()]);
    let mut from = 0;
    for end in line_feeds {
        let line = &head[from..end];
        from = end + 1;
        match line.first() {
            Some(b'c' | b'C') => {
                let Some(value) = behind_name(line, b"content-length:") else { continue };
                let digits = std::str::from_utf8(value).ok().and_then(|value| value.trim().parse::<usize>().ok());
                if length.replace(digits).is_some() {
                    return false;
                }
            }
            Some(b't' | b'T') if behind_name(line, b"transfer-encoding:").is_some() => return false,
            _ => {}
        }
    }
    length == Some(Some(behind.len()))
}

/// What is behind `name`, which ends in a colon, if the line begins with it.
fn behind_name<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (begin, rest) = line.split_at_checked(name.len())?;
    begin.eq_ignore_ascii_case(name).then_some(rest)
}

/// Behind the end of the head in these bytes, if it is there.
fn end_of_head(line: &mut Line, bytes: &[u8]) -> Option<usize> {
    let mut read = 0;
    while *line != Line::Text {
        let byte = *bytes.get(read)?;
        read += 1;
        match (*line, byte) {
            (Line::Empty, b'\n') => return Some(read),
            (Line::Before, b'\r' | b'\n') | (Line::Empty, b'\r') => {}
            _ => *line = Line::Text,
        }
    }
    let rest = &bytes[read..];
    let end = end_of_lines(rest);
    if end.is_none() && (rest.ends_with(b"\n") || rest.ends_with(b"\n\r")) {
        *line = Line::Empty;
    }
    end.map(|end| read + end)
}

/// Behind the first empty line of this text, which begins in the midst of a line. A head of the usual length takes some
/// tens of nanoseconds: most of it is looked at in blocks, in a way that the compiler makes vectors of.
fn end_of_lines(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(block) = text[from..].first_chunk::<65>()
        && !may_end::<65>(block)
    {
        from += 64;
    }
    while let Some(block) = text[from..].first_chunk::<17>()
        && !may_end::<17>(block)
    {
        from += 16;
    }
    let rest = &text[from..];
    let line_feeds = (0..rest.len()).filter(|at| rest[*at] == b'\n');
    let mut ends = line_feeds.filter_map(|at| match &rest[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    });
    ends.next().map(|end| from + end)
}

/// Whether a line ends in this block behind which there may be an empty one.
fn may_end<const N: usize>(block: &[u8; N]) -> bool {
    let is = |at: usize, byte| u8::from(block[at] == byte);
    (0..N - 1).fold(0, |may, at| may | is(at, b'\n') & (is(at + 1, b'\n') | is(at + 1, b'\r'))) != 0
}

impl Chunk {
    /// Behind the end of the body in these bytes, if it is there.
    fn end_of_body(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut read = 0;
        while let Some(&byte) = bytes.get(read) {
            if let Self::Data(left) = self {
                let here = usize::try_from(*left).map_or(bytes.len() - read, |left| left.min(bytes.len() - read));
                *left -= here as u64;
                read += here;
                if *left == 0 {
                    *self = Self::Size(0);
                }
                continue;
            }
            read += 1;
            *self = match (*self, byte) {
                (Self::Size(0) | Self::Extension(0), b'\n') => Self::Trailer { is_empty: true },
                (Self::Size(size) | Self::Extension(size), b'\n') => Self::Data(size.saturating_add(2)),
                (Self::Size(size), digit) => match char::from(digit).to_digit(16) {
                    Some(digit) => Self::Size(size.saturating_mul(16).saturating_add(digit.into())),
                    None => Self::Extension(size),
                },
                (Self::Trailer { is_empty: true }, b'\n') => return Some(read),
                (Self::Trailer { .. }, b'\n') => Self::Trailer { is_empty: true },
                (Self::Trailer { is_empty }, b'\r') => Self::Trailer { is_empty },
                (Self::Trailer { .. }, _) => Self::Trailer { is_empty: false },
                (other, _) => other,
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::pulse::{Exchange, Ticket};
    use actix_codec::Decoder;
    use actix_http::ServiceConfig;
    use actix_http::h1::{Codec, Message, MessageType};
    use futures_util::stream;
    use proptest::prelude::*;
    use std::rc::Rc;
    use std::time::Instant;

    /// A connection on which actix reads what it is given.
    struct Reader {
        pulse: Rc<Pulse>,
        pipeline: Pipeline,
        codec: Codec,
        given: BytesMut,
        exchange: Option<Exchange>,
        begun: usize,
    }

    impl Reader {
        fn new(config: &ServiceConfig) -> Self {
            Self {
                pulse: Rc::new(Pulse::begun(Instant::now())),
                pipeline: Pipeline::default(),
                codec: Codec::new(config.clone()),
                given: BytesMut::new(),
                exchange: None,
                begun: 0,
            }
        }

        /// More comes: as much as is passed is read, and nothing is passed that is not of the request that is due.
        fn hears(&mut self, bytes: &[u8]) {
            self.pipeline.catch_up(&self.pulse);
            let passed = if self.pipeline.holds() { 0 } else { self.pipeline.take(bytes, &self.pulse) };
            self.given.extend_from_slice(&bytes[..passed]);
            if passed == 0 {
                self.pipeline.held.extend_from_slice(bytes);
            }
            self.reads();
            self.goes_on();
        }

        /// What is held is passed, as long as it may be.
        fn goes_on(&mut self) {
            loop {
                self.pipeline.catch_up(&self.pulse);
                let Some(next) = self.pipeline.next(usize::MAX, &self.pulse) else { return };
                self.given.extend_from_slice(&next);
                self.reads();
            }
        }

        fn reads(&mut self) {
            while let Some(message) = self.codec.decode(&mut self.given).expect("good requests") {
                let is_whole = match message {
                    Message::Item(mut request) => {
                        assert!(self.exchange.is_none(), "the one before is not answered");
                        let has_body = self.codec.message_type() == MessageType::Payload;
                        if has_body {
                            *request.payload() = Payload::Stream { payload: Box::pin(stream::empty()) };
                        }
                        self.exchange = Some(Exchange::begin(&self.pulse, Framing::of(&mut request)));
                        self.begun += 1;
                        !has_body
                    }
                    Message::Chunk(chunk) => chunk.is_none(),
                };
                if is_whole {
                    assert!(self.given.is_empty(), "more than the request was passed: {:?}", self.given);
                    return;
                }
            }
        }

        /// The answer to the last request has gone out.
        fn answers(&mut self) {
            self.exchange = None;
            self.pulse.flushed();
            self.goes_on();
        }
    }

    const REQUESTS: [&str; 14] = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /a HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\nGET / HTTP/1.1\nHost: a\nX: \n\n",
        "GET / HTTP/1.1\r\nHost: a\nX:\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\nX: y\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET \n",
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 27\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n01B;n=\"v\"\r\nGET / HTTP/1.1\r\nHost: c\r\n\r\n\r\n0;x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\n\r\n\r\r\n4\r\n\n\n\n\n\r\n00\r\n\r\n",
    ];

    /// That of these requests, which come in these pieces, each is passed when the one before is answered, and not before.
    fn check(config: &ServiceConfig, requests: &[&str], pieces: &[usize]) {
        let (all, mut reader) = (requests.concat(), Reader::new(config));
        let mut rest = all.as_bytes();
        for size in pieces.iter().copied().chain([usize::MAX]) {
            let (piece, behind) = rest.split_at(size.min(rest.len()));
            rest = behind;
            if !piece.is_empty() {
                reader.hears(piece);
            }
            // As long as something is answered there may be more to answer.
            while reader.exchange.is_some() && (reader.pipeline.at == At::End || rest.is_empty()) {
                reader.answers();
            }
        }
        assert_eq!(reader.begun, requests.len(), "{requests:?} {pieces:?}");
        assert!(!reader.pipeline.holds());
    }

    #[actix_web::test]
    async fn one_request_is_passed_at_a_time_wherever_it_is_cut() {
        let config = ServiceConfig::default();
        for first in REQUESTS {
            for second in REQUESTS {
                for cut in 0..first.len() + second.len() {
                    check(&config, &[first, second], &[cut]);
                }
            }
        }
        check(&config, &REQUESTS, &[]);
        check(&config, &REQUESTS, &[1; 2000]);
    }

    #[actix_web::test]
    async fn a_long_head_is_found_whole() {
        let config = ServiceConfig::default();
        for length in 0..300 {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(length));
            check(&config, &[&head, REQUESTS[1], &head], &[]);
            check(&config, &[&head], &[]);
        }
    }

    #[actix_web::test]
    async fn of_a_head_passes_as_much_as_may_be() {
        let mut reader = Reader::new(&ServiceConfig::default());
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(HEAD_AT_MOST));
        let (some, more) = head.as_bytes().split_at(1000);
        assert_eq!(reader.pipeline.take(some, &reader.pulse), 1000);
        assert_eq!(reader.pipeline.take(more, &reader.pulse), HEAD_AT_MOST - 1000);
        // And no more before actix has had the time to refuse it.
        assert_eq!(reader.pipeline.held.len(), head.len() - HEAD_AT_MOST);
        let longest = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(HEAD_AT_MOST - 32));
        assert_eq!(longest.len(), HEAD_AT_MOST);
        check(&ServiceConfig::default(), &[REQUESTS[0], &longest, REQUESTS[0]], &[]);
    }

    #[test]
    fn a_name_that_is_too_long_does_not_pass_wherever_it_is_cut() {
        let pulse = Pulse::begun(Instant::now());
        let head = |name: usize| format!("GET / HTTP/1.1\r\nX: y\r\n{}: a\r\nHost: a\r\n\r\n", "n".repeat(name));
        let line = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a:b".repeat(NAME_AT_MOST / 3 + 1));
        let value = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(NAME_AT_MOST + 1));
        for (head, is_too_long) in [
            (head(3), false),
            (head(NAME_AT_MOST), false),
            (head(NAME_AT_MOST + 1), true),
            (head(100_000), true),
            (line, false),
            (value, false),
        ] {
            for cut in [head.len(), 1, 16, 17, 22, 30_000, NAME_AT_MOST, 65_558, 65_559, head.len() - 1] {
                let (first, rest) = head.as_bytes().split_at(cut.min(head.len()));
                let mut pipeline = Pipeline::default();
                let passed = pipeline.take(first, &pulse);
                let passed = passed + if pipeline.has_long_name() { 0 } else { pipeline.take(rest, &pulse) };
                assert_eq!(pipeline.has_long_name(), is_too_long, "{} {cut}", head.len());
                assert_eq!(passed == head.len(), !is_too_long, "{} {cut}", head.len());
            }
        }
        // The next head has names of its own.
        let mut pipeline = Pipeline::default();
        for _ in 0..3 {
            pipeline.at = At::Head(Line::Before, 0);
            assert_eq!(pipeline.take(b"GET / HTTP/1.1\r\nHo", &pulse), 18);
            assert_eq!(pipeline.take(b"st: a\r\n\r\n", &pulse), 9);
            assert_eq!(pipeline.name, Name::None);
        }
    }

    #[actix_web::test]
    async fn what_comes_behind_the_last_answer_is_for_nobody() {
        let config = ServiceConfig::default();
        let mut reader = Reader::new(&config);
        reader.hears(REQUESTS[0].as_bytes());
        reader.pulse.says_last();
        reader.pipeline.catch_up(&reader.pulse);
        assert_eq!(reader.pipeline.take(REQUESTS[0].as_bytes(), &reader.pulse), 0);
        assert!(!reader.pipeline.holds());
        reader.answers();
        assert_eq!(reader.begun, 1);
    }

    #[test]
    fn what_a_body_is_as_far_as_its_head_tells() {
        for (head, behind, expected) in [
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", "12345", true),
            ("POST / HTTP/1.1\ncontent-length:5\n\n", "12345", true),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", "1234", false),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", "123456", false),
            ("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "", false),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "12345", false),
            ("POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n", "12345", false),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "12345", false),
            ("POST / HTTP/1.1\r\nX: a\r\n Content-Length: 5\r\n\r\n", "12345", false),
            ("POST / HTTP/1.1\r\nX-Content-Length: 5\r\n\r\n", "12345", false),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ] {
            assert_eq!(is_body(behind.as_bytes(), head.as_bytes()), expected, "{head:?} {behind:?}");
        }
    }

    #[actix_web::test]
    async fn a_body_that_comes_with_its_head_passes_with_it() {
        let mut reader = Reader::new(&ServiceConfig::default());
        let (post, get) = (REQUESTS[7].as_bytes(), REQUESTS[0].as_bytes());
        assert_eq!(reader.pipeline.take(post, &reader.pulse), post.len());
        reader.given.extend_from_slice(post);
        reader.reads();
        assert!(Ticket::of(reader.pulse.clone()).body_is_at_hand());
        reader.pipeline.catch_up(&reader.pulse);
        assert_eq!(reader.pipeline.take(get, &reader.pulse), 0, "the answer has not gone out");
        reader.answers();
        assert_eq!(reader.begun, 2);
        assert!(!Ticket::of(reader.pulse.clone()).body_is_at_hand());
        reader.answers();
        let (head, body) = post.split_at(post.len() - 5);
        reader.hears(head);
        assert!(!Ticket::of(reader.pulse.clone()).body_is_at_hand(), "it comes later");
        reader.hears(body);
        assert_eq!(reader.begun, 3);
    }

    #[actix_web::test]
    async fn where_actix_reads_another_body_than_was_passed_nothing_is_kept_from_it() {
        for framing in [Framing::None, Framing::Counted(4), Framing::Counted(6), Framing::Chunked] {
            let mut reader = Reader::new(&ServiceConfig::default());
            let post = REQUESTS[7].as_bytes();
            assert_eq!(reader.pipeline.take(post, &reader.pulse), post.len());
            let _exchange = Exchange::begin(&reader.pulse, framing);
            reader.pipeline.catch_up(&reader.pulse);
            assert_eq!(reader.pipeline.at, At::Beyond, "{framing:?}");
        }
    }

    #[actix_web::test]
    async fn what_actix_does_not_begin_is_not_waited_for() {
        let config = ServiceConfig::default();
        let mut reader = Reader::new(&config);
        assert_eq!(reader.pipeline.take(b"nonsense\r\n\r\nmore", &reader.pulse), 12);
        reader.pipeline.catch_up(&reader.pulse);
        assert_eq!(reader.pipeline.next(100, &reader.pulse), None);
        assert!(reader.pipeline.waits_for_beginning());
        reader.pipeline.catch_up(&reader.pulse);
        assert_eq!(reader.pipeline.next(2, &reader.pulse).as_deref(), Some(&b"mo"[..]));
        assert_eq!(reader.pipeline.next(100, &reader.pulse).as_deref(), Some(&b"re"[..]));
        assert_eq!(reader.pipeline.take(b"\r\n\r\n\r\n\r\n", &reader.pulse), 8);
    }

    proptest! {
        #[test]
        fn one_request_is_passed_at_a_time_however_many_come(
            which in prop::collection::vec(0..REQUESTS.len(), 1..12),
            pieces in prop::collection::vec(1_usize..90, 0..40),
        ) {
            let requests = which.iter().map(|which| REQUESTS[*which]).collect::<Vec<_>>();
            // Its clock is a task.
            actix_web::rt::System::new().block_on(async {
                check(&ServiceConfig::default(), &requests, &pieces);
            });
        }

        #[test]
        fn an_empty_line_is_found_as_simply_as_can_be(
            text in prop::collection::vec(prop::sample::select(b"\r\n\n\nab".to_vec()), 0..400),
        ) {
            let simply = (0..text.len()).find_map(|at| {
                let rest = &text[at..];
                let found = [&b"\n\n"[..], b"\n\r\n"].into_iter().find(|end| rest.starts_with(end))?;
                Some(at + found.len())
            });
            prop_assert_eq!(end_of_lines(&text), simply);
        }
    }
}
