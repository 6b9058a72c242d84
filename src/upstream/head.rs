//! The heads of messages as they stand on the wire (RFC 9112 sections 3 to 5): a request's written, an answer's read. What
//! is read stays the bytes that came, and its fields are parts of them.

use super::headers::{self, FramedTwice};
use super::{Fields, UpstreamError};
use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use httparse::{Header, ParserConfig, Response, Status};
use smallvec::SmallVec;
use std::mem::MaybeUninit;
use std::ops::Range;

/// The most fields that an answer may have.
const FIELDS_AT_MOST: usize = 100;

/// The longest name of a field, in bytes: what is longer, the crates that carry fields on refuse.
const NAME_AT_MOST: usize = 1 << 10;

/// The head of a request, written.
pub(super) fn written(method: &Method, target: &PathAndQuery, fields: &Fields) -> Bytes {
    let mut head = Vec::with_capacity(method.as_str().len() + target.as_str().len() + fields.length() + 14);
    for part in [method.as_str(), " ", target.as_str(), " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    fields.write(&mut head);
    head.extend_from_slice(b"\r\n");
    head.into()
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct AnswerHead {
    /// The status.
    pub status: StatusCode,
    bytes: Bytes,
    fields: Vec<Field>,
}

/// Where a field stands.
#[derive(Clone, Debug)]
struct Field {
    name: Range<u32>,
    value: Range<u32>,
}

/// The part of `bytes` that `part` is, which has to be one.
fn place(part: &[u8], bytes: &[u8]) -> Range<u32> {
    let begin = part.as_ptr().addr() - bytes.as_ptr().addr();
    let at = |place: usize| u32::try_from(place).expect("a head is much shorter");
    at(begin)..at(begin + part.len())
}

fn span(range: &Range<u32>) -> Range<usize> {
    let at = |place: u32| usize::try_from(place).expect("it was one");
    at(range.start)..at(range.end)
}

/// How the connection goes on behind a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sequel {
    pub(super) body: Framing,
    /// Upstream keeps the connection.
    pub(super) persists: bool,
}

/// How the end of a body is known (RFC 9112 section 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// There is none.
    Nothing,
    /// So many bytes.
    Length(u64),
    Chunked,
    /// The connection ends with it.
    Close,
}

/// Takes an answer's head from the front of `read`, once all of it is there.
///
/// # Errors
/// It is none, or nobody can tell what follows it.
pub(super) fn take(read: &mut BytesMut, asked: &Method) -> Result<Option<(AnswerHead, Sequel)>, UpstreamError> {
    let mut room = [const { MaybeUninit::<Header<'_>>::uninit() }; FIELDS_AT_MOST];
    let mut answer = Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut answer, read, &mut room);
    let parsed = parsed.map_err(|error| UpstreamError::Broken(format!("the head of its answer: {error}")))?;
    let Status::Complete(len) = parsed else { return Ok(None) };
    let (Some(code), Some(version)) = (answer.code, answer.version) else { return Ok(None) };
    let status = StatusCode::from_u16(code)
        .map_err(|_| UpstreamError::Broken(format!("the head of its answer: {code} is no status")))?;
    if answer.headers.iter().any(|field| field.name.len() > NAME_AT_MOST) {
        return Err(UpstreamError::Broken("the head of its answer: a name is too long".to_owned()));
    }
    let fields = answer
        .headers
        .iter()
        .map(|field| Field { name: place(field.name.as_bytes(), read), value: place(field.value, read) });
    let fields = fields.collect();
    let head = AnswerHead { status, bytes: read.split_to(len).freeze(), fields };
    let sequel = head.sequel(version, asked)?;
    Ok(Some((head, sequel)))
}

impl AnswerHead {
    /// The fields as they came, with repeats, in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.fields.iter().map(|field| (&self.bytes[span(&field.name)], &self.bytes[span(&field.value)]))
    }

    /// [`AnswerHead::fields`], each value as a part of the head that needs no copy.
    pub fn shared_fields(&self) -> impl Iterator<Item = (&[u8], Bytes)> {
        self.fields.iter().map(|field| (&self.bytes[span(&field.name)], self.bytes.slice(span(&field.value))))
    }

    /// The values of all fields of this name.
    pub fn all<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a [u8]> + Clone {
        named(&self.fields, &self.bytes, name)
    }

    /// The value of the first field of this name.
    #[must_use]
    pub fn get(&self, name: &'static str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The length that is declared, where it is a number.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        std::str::from_utf8(self.get("content-length")?).ok()?.parse().ok()
    }

    /// The fields as a map.
    #[must_use]
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.fields.len());
        for (name, value) in self.shared_fields() {
            let name = HeaderName::from_bytes(name).expect("a token is a name");
            map.append(name, HeaderValue::from_maybe_shared(value).expect("what the parser lets pass is a value"));
        }
        map
    }

    /// Without what belongs to upstream's connection with us (RFC 9110 section 7.6.1).
    pub(super) fn strip_hop_by_hop(&mut self) {
        let bytes = self.bytes.clone();
        let options = options(&self.fields, &bytes).collect::<SmallVec<[&[u8]; 4]>>();
        self.fields.retain(|field| {
            let name = &bytes[span(&field.name)];
            !headers::is_hop_by_hop(name) && !options.iter().any(|option| option.eq_ignore_ascii_case(name))
        });
    }

    /// Whether `Connection` names it.
    fn names_option(&self, option: &[u8]) -> bool {
        options(&self.fields, &self.bytes).any(|each| each.eq_ignore_ascii_case(option))
    }

    fn sequel(&self, minor: u8, asked: &Method) -> Result<Sequel, UpstreamError> {
        headers::check_framing(self.all("transfer-encoding"), self.get("content-length").is_some())?;
        let is_chunked = self.get("transfer-encoding").is_some();
        if is_chunked && minor == 0 {
            // It knows no chunks (RFC 9112 section 6.1).
            return Err(FramedTwice.into());
        }
        let length = length(self.all("content-length"))?;
        let has_none = *asked == Method::HEAD
            || self.status.is_informational()
            || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let body = match (is_chunked, length) {
            _ if has_none => Framing::Nothing,
            (true, _) => Framing::Chunked,
            (false, Some(0)) => Framing::Nothing,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Close,
        };
        let persists = !self.names_option(b"close") && (minor > 0 || self.names_option(b"keep-alive"));
        Ok(Sequel { body, persists: persists && body != Framing::Close })
    }
}

#[cfg(test)]
impl AnswerHead {
    /// The head that this text is.
    pub(crate) fn parsed(text: &str) -> Self {
        Self::read(text.as_bytes()).expect("a head")
    }

    /// The head that these bytes are, if they are one.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        Some(take(&mut BytesMut::from(bytes), &Method::GET).ok()??.0)
    }
}

/// The values of all `fields` of this name, which stand in `bytes`.
fn named<'a, 'fields>(
    fields: &'fields [Field],
    bytes: &'a [u8],
    name: &'static str,
) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a, 'fields> {
    // Most names differ in length, which is known without a look at the text.
    let is_named = move |field: &&Field| {
        field.name.len() == name.len() && bytes[span(&field.name)].eq_ignore_ascii_case(name.as_bytes())
    };
    fields.iter().filter(is_named).map(move |field| &bytes[span(&field.value)])
}

/// What `Connection` names (RFC 9110 section 7.6.1).
fn options<'a, 'fields>(
    fields: &'fields [Field],
    bytes: &'a [u8],
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'fields> {
    let lines = named(fields, bytes, "connection");
    lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// The one length that is declared, however often (RFC 9110 section 8.6).
fn length<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Option<u64>, FramedTwice> {
    let mut length = None;
    for number in lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii) {
        // A sign would pass for part of a number.
        let digits = std::str::from_utf8(number).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse::<u64>().ok()).ok_or(FramedTwice)?;
        if *length.get_or_insert(number) != number {
            return Err(FramedTwice);
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<Option<(AnswerHead, Sequel)>, UpstreamError> {
        take(&mut BytesMut::from(head), &Method::GET)
    }

    fn framing(head: &str) -> Option<(Framing, bool)> {
        let read = read(&head.replace('\n', "\r\n")).ok()?.expect("it is whole");
        Some((read.1.body, read.1.persists))
    }

    #[test]
    fn what_follows_a_head() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\nContent-Length: 5\n\n", Some((Framing::Length(5), true))),
            ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", Some((Framing::Nothing, true))),
            ("HTTP/1.1 200 OK\nContent-Length: 5\nConnection: x, Close\n\n", Some((Framing::Length(5), false))),
            ("HTTP/1.1 200 OK\nContent-Length: 5\ncontent-length: 5, 5\n\n", Some((Framing::Length(5), true))),
            ("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n\n", None),
            ("HTTP/1.1 200 OK\nContent-Length: +5\n\n", None),
            ("HTTP/1.1 200 OK\nContent-Length: -5\n\n", None),
            ("HTTP/1.1 200 OK\nContent-Length: 5 5\n\n", None),
            ("HTTP/1.1 200 OK\nContent-Length:\n\n", None),
            ("HTTP/1.1 200 OK\nContent-Length: 18446744073709551616\n\n", None),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", Some((Framing::Chunked, true))),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: Chunked\n\n", Some((Framing::Chunked, true))),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n", None),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: identity\n\n", None),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n", None),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 5\n\n", None),
            ("HTTP/1.0 200 OK\nTransfer-Encoding: chunked\n\n", None),
            ("HTTP/1.1 200 OK\n\n", Some((Framing::Close, false))),
            ("HTTP/1.0 200 OK\nContent-Length: 5\n\n", Some((Framing::Length(5), false))),
            ("HTTP/1.0 200 OK\nContent-Length: 5\nConnection: Keep-Alive\n\n", Some((Framing::Length(5), true))),
            (
                "HTTP/1.0 200 OK\nContent-Length: 5\nConnection: keep-alive, close\n\n",
                Some((Framing::Length(5), false)),
            ),
            ("HTTP/1.1 204 No Content\n\n", Some((Framing::Nothing, true))),
            ("HTTP/1.1 304 Not Modified\nContent-Length: 5\n\n", Some((Framing::Nothing, true))),
            ("HTTP/1.1 103 Early Hints\n\n", Some((Framing::Nothing, true))),
            ("HTTP/1.1 99 Low\n\n", None),
            ("HTTP/2 200 OK\n\n", None),
            ("HTTP/1.1 200 OK\nA b: c\n\n", None),
            ("HTTP/1.1 200 OK\nA : c\n\n", None),
            ("HTTP/1.1 200 OK\nA: b\n c\n\n", None),
            ("HTTP/1.1 200 OK\nA: \u{1}\n\n", None),
        ] {
            assert_eq!(framing(head), expected, "{head}");
        }
        let (_, sequel) = take(&mut BytesMut::from("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), &Method::HEAD)
            .expect("a head")
            .expect("all of it");
        assert_eq!(sequel.body, Framing::Nothing, "an answer to HEAD has none, whatever it says");
        let many = format!("HTTP/1.1 200 OK\n{}\n", "a: b\n".repeat(FIELDS_AT_MOST + 1));
        assert_eq!(framing(&many), None);
        let name = |len| format!("HTTP/1.1 204 No Content\n{}: b\n\n", "a".repeat(len));
        assert!(framing(&name(NAME_AT_MOST)).is_some());
        for len in [NAME_AT_MOST + 1, 0xffff, 0x1_0000, 100_000] {
            assert_eq!(framing(&name(len)), None, "{len}");
        }
    }

    #[test]
    fn a_head_is_taken_when_it_is_whole_and_nothing_behind_it() {
        let whole = "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-Latin:  gr\u{fc}n \r\nset-cookie: b=2\r\n\r\n";
        for len in 0..whole.len() {
            if whole.is_char_boundary(len) {
                assert!(read(&whole[..len]).expect("so far so good").is_none(), "{len}");
            }
        }
        let mut bytes = BytesMut::from(format!("{whole}body").as_str());
        let (head, _) = take(&mut bytes, &Method::GET).expect("a head").expect("all of it");
        assert_eq!(bytes, "body");
        assert_eq!(head.status, StatusCode::OK);
        assert_eq!(head.all("SET-COOKIE").collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        assert_eq!(head.get("x-latin"), Some("gr\u{fc}n".as_bytes()));
        assert_eq!(head.get("x-lati"), None);
        let map = head.to_map();
        assert_eq!(map.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
        assert_eq!(map.len(), 3);
    }

    #[test]
    fn what_belongs_to_the_connection_stops_here() {
        let head = "HTTP/1.1 200 OK\r\nConnection: X-Own , close\r\nx-own: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n\
            X-Kept: 2\r\nTrailer: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (mut head, _) = read(head).expect("a head").expect("all of it");
        head.strip_hop_by_hop();
        assert_eq!(head.fields().collect::<Vec<_>>(), [(&b"X-Kept"[..], &b"2"[..])]);
    }

    #[test]
    fn a_request_is_written_as_it_is() {
        let fields = Fields::from_iter([("host", &b"mattermost"[..]), ("cookie", b"a"), ("cookie", b"\xfc")]);
        let head = written(&Method::PUT, &PathAndQuery::from_static("/a%2F?b"), &fields);
        assert_eq!(&head[..], b"PUT /a%2F?b HTTP/1.1\r\nhost: mattermost\r\ncookie: a\r\ncookie: \xfc\r\n\r\n");
    }
}
