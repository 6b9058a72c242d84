//! One connection to upstream and the HTTP/1.1 on it (RFC 9112). No task of its own moves it: whoever waits for its answer
//! does, so that a small answer wakes nobody but its client's connection.

use super::UpstreamError;
use super::body::{Aborted, RequestBody};
use super::chunked::{Chunked, Next};
use super::clock::Clock;
use super::connect::Link;
use super::head::{self, AnswerHead, Framing, Sequel};
use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode};
use smallvec::SmallVec;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::task::unconstrained;

/// The longest head of an answer, in bytes, and the most that is read of a body at a time. With what the client's side holds
/// it stays below the mebibyte that may be in flight.
const READ_AT_MOST: usize = 128 << 10;
/// How much is read at first, in bytes. Where that is not enough, twice as much is read the next time.
const READ_AT_FIRST: usize = 8 << 10;
/// Up to how many bytes a head and what is there of its body are copied into one piece: the system takes longer over two.
const ONE_PIECE: usize = 4 << 10;
/// How many interim answers (RFC 9110 section 15.2) upstream may give before the one that counts.
const INTERIM_AT_MOST: u32 = 16;

/// A connection that carries one request after the other. Dropped, it ends, and whatever is under way on it.
pub(super) struct Line {
    link: Link,
    /// What was read and not taken.
    read: BytesMut,
    /// How much is read at a time.
    portion: usize,
    /// How much of a body may be, at most.
    portion_at_most: usize,
    /// How much of what was read is known not to end a head.
    scanned: usize,
    out: Outflow,
    /// What is left of the request.
    upload: Upload,
    answer: Answer,
    /// Upstream keeps the connection, as far as is known.
    persists: bool,
    /// An answer has come over it.
    has_served: bool,
    /// Why nothing more is to come of it.
    failure: Option<UpstreamError>,
    /// Who is to hear of that.
    taker: Option<Waker>,
    clock: Clock,
}

/// What is to go out.
#[derive(Default)]
struct Outflow {
    parts: SmallVec<[Bytes; 4]>,
    /// Not all of it has left what encrypts it.
    holds: bool,
    /// Upstream has to take something before more can be written.
    is_blocked: bool,
    /// Changes with each write of which upstream took something: what has the same turn as before has not moved.
    turn: u32,
}

/// What is left of a request.
enum Upload {
    /// The body, in chunks or as it comes.
    Goes { body: RequestBody, is_chunked: bool },
    /// Nothing but what is going out.
    Sent,
    /// Upstream took no more of it: what it has to say may still come.
    Lost(io::ErrorKind),
}

/// How far the answer has come.
enum Answer {
    /// Its head has not.
    Due {
        asked: Method,
        interim: u32,
    },
    /// So many bytes of its body are to come.
    Length(u64),
    Chunked(Chunked),
    /// What comes until the connection ends.
    Close,
    /// All of it.
    Whole,
}

/// No answer came.
pub(super) struct Failure {
    pub(super) error: UpstreamError,
    /// What of the request can be sent again as it was: not one byte went out.
    pub(super) unsent: Option<RequestBody>,
    /// The connection had served before, and was lost before upstream had said anything.
    pub(super) was_stale: bool,
}

impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        Self { error, unsent: None, was_stale: false }
    }
}

fn broken(error: &io::Error) -> UpstreamError {
    UpstreamError::Broken(error.to_string())
}

fn ended() -> UpstreamError {
    UpstreamError::Broken("the connection ended".to_owned())
}

impl Line {
    pub(super) fn over(link: Link) -> Box<Self> {
        Box::new(Self {
            link,
            read: BytesMut::new(),
            portion: READ_AT_FIRST,
            portion_at_most: READ_AT_MOST,
            scanned: 0,
            out: Outflow::default(),
            upload: Upload::Sent,
            answer: Answer::Whole,
            persists: true,
            has_served: false,
            failure: None,
            taker: None,
            clock: Clock::default(),
        })
    }

    /// Sends a request and waits for the head of its answer, which may take `patience` to come once all of the request has
    /// been taken. `head` is that of a request with the method `asked`, and frames `body`.
    pub(super) async fn send(
        &mut self,
        head: Bytes,
        asked: &Method,
        body: RequestBody,
        patience: Duration,
    ) -> Result<AnswerHead, Failure> {
        if poll_fn(|context| Poll::Ready(self.poll_end(context).is_ready())).await {
            return Err(Failure { error: ended(), unsent: Some(body), was_stale: true });
        }
        self.out.parts.push(head);
        let is_chunked = body.length().is_none();
        self.upload = if body.length() == Some(0) { Upload::Sent } else { Upload::Goes { body, is_chunked } };
        self.answer = Answer::Due { asked: asked.clone(), interim: 0 };
        let answered = poll_fn(|context| {
            if let Poll::Ready(Err(error)) = self.poll_send(context) {
                return Poll::Ready(Err(error.into()));
            }
            if let Poll::Ready(answer) = self.poll_head(context) {
                return Poll::Ready(answer);
            }
            if self.waits_for_client() {
                // That wait has a limit of its own.
                self.clock.stop();
                return Poll::Pending;
            }
            // A slow upload is not a slow answer: the clock starts anew as long as something is taken.
            ready!(self.clock.poll_still(self.out.turn, patience, context));
            Poll::Ready(Err(UpstreamError::TimedOut.into()))
        })
        .await;
        self.clock.stop();
        self.has_served |= answered.is_ok();
        answered
    }

    /// Sends what is left of the request, as far as upstream takes it; ready when all of it has gone out, or upstream takes no
    /// more of it.
    ///
    /// # Errors
    /// The client's body broke off, or stalled.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        loop {
            let mut waits = false;
            // What is there of a body goes out together with the head.
            if self.out.parts.len() < 2
                && let Upload::Goes { body, is_chunked } = &mut self.upload
            {
                match (body.poll_chunk(context), *is_chunked) {
                    (Poll::Ready(Some(Ok(chunk))), _) if chunk.is_empty() => continue,
                    (Poll::Ready(Some(Ok(chunk))), true) => {
                        let size = format!("{:x}\r\n", chunk.len());
                        self.out.parts.extend([size.into(), chunk, Bytes::from_static(b"\r\n")]);
                    }
                    (Poll::Ready(Some(Ok(chunk))), false) => self.out.parts.push(chunk),
                    (Poll::Ready(Some(Err(Aborted::BrokeOff))), _) => {
                        return Poll::Ready(Err(UpstreamError::ClientAborted));
                    }
                    (Poll::Ready(Some(Err(Aborted::Stalled))), _) => {
                        return Poll::Ready(Err(UpstreamError::ClientStalled));
                    }
                    (Poll::Ready(None), is_chunked) => {
                        if is_chunked {
                            self.out.parts.push(Bytes::from_static(b"0\r\n\r\n"));
                        }
                        self.upload = Upload::Sent;
                    }
                    (Poll::Pending, _) => waits = true,
                }
            }
            if let Err(error) = ready!(self.poll_out(context)) {
                self.out = Outflow { turn: self.out.turn, ..Outflow::default() };
                self.upload = Upload::Lost(error.kind());
            }
            match self.upload {
                Upload::Goes { .. } if waits => return Poll::Pending,
                Upload::Goes { .. } => {}
                Upload::Sent | Upload::Lost(_) => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes all that is to go out.
    fn poll_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.joins();
        while !self.out.parts.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            for (slice, part) in slices.iter_mut().zip(&self.out.parts) {
                *slice = IoSlice::new(part);
            }
            let slices = &slices[..self.out.parts.len().min(4)];
            let written = match slices {
                [all] => Pin::new(&mut self.link).poll_write(context, all),
                several => Pin::new(&mut self.link).poll_write_vectored(context, several),
            };
            self.out.is_blocked = written.is_pending();
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.took(written);
        }
        if self.out.holds {
            let flushed = Pin::new(&mut self.link).poll_flush(context);
            self.out.is_blocked = flushed.is_pending();
            ready!(flushed)?;
            self.out.holds = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The head of the answer that counts.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<AnswerHead, Failure>> {
        loop {
            // What is no HTTP at all is known from its first bytes.
            while !self.read.is_empty() && (self.scanned == 0 || ends_head(&self.read, self.scanned)) {
                let Answer::Due { asked, interim } = &mut self.answer else { unreachable!("it is waited for once") };
                let Some((head, sequel)) = head::take(&mut self.read, asked)? else { break };
                self.scanned = 0;
                if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                    *interim += 1;
                    if *interim > INTERIM_AT_MOST {
                        let error = format!("more than {INTERIM_AT_MOST} interim answers");
                        return Poll::Ready(Err(UpstreamError::Broken(error).into()));
                    }
                    continue;
                }
                self.begin(sequel);
                return Poll::Ready(Ok(head));
            }
            self.scanned = self.read.len();
            if self.read.len() >= READ_AT_MOST {
                let error = "the head of its answer is too long".to_owned();
                return Poll::Ready(Err(UpstreamError::Broken(error).into()));
            }
            let read = ready!(self.poll_read(context));
            if !matches!(read, Ok(1..)) {
                let said_nothing = matches!(self.answer, Answer::Due { interim: 0, .. }) && self.read.is_empty();
                let error = match (&read, &self.upload) {
                    (Err(error), _) => broken(error),
                    (Ok(_), Upload::Lost(kind)) => broken(&(*kind).into()),
                    (Ok(_), _) => ended(),
                };
                let was_stale = self.has_served && said_nothing;
                return Poll::Ready(Err(Failure { error, unsent: None, was_stale }));
            }
        }
    }

    fn begin(&mut self, sequel: Sequel) {
        self.persists = sequel.persists;
        self.answer = match sequel.body {
            Framing::Nothing => Answer::Whole,
            Framing::Length(length) => Answer::Length(length),
            Framing::Chunked => Answer::Chunked(Chunked::Size),
            Framing::Close => Answer::Close,
        };
    }

    /// What has come of the body; `None` at its end.
    ///
    /// # Errors
    /// It makes no sense, or broke off.
    pub(super) fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, UpstreamError>> {
        loop {
            match self.take()? {
                Next::Bytes(bytes) => return Poll::Ready(Ok(Some(bytes))),
                Next::End => return Poll::Ready(Ok(None)),
                Next::Wait => {}
            }
            match ready!(self.poll_read(context)) {
                Ok(1..) => {}
                Ok(0) if matches!(self.answer, Answer::Close) => {
                    self.answer = Answer::Whole;
                    return Poll::Ready(Ok(None));
                }
                Ok(0) => return Poll::Ready(Err(ended())),
                Err(error) => return Poll::Ready(Err(broken(&error))),
            }
        }
    }

    /// What of the body has been read.
    pub(super) fn take(&mut self) -> Result<Next, UpstreamError> {
        Ok(match &mut self.answer {
            Answer::Due { .. } | Answer::Whole => Next::End,
            Answer::Chunked(chunked) => {
                let next = chunked.take(&mut self.read)?;
                if next == Next::End {
                    self.answer = Answer::Whole;
                }
                next
            }
            Answer::Length(_) | Answer::Close if self.read.is_empty() => Next::Wait,
            Answer::Close => Next::Bytes(self.read.split().freeze()),
            Answer::Length(left) => {
                let taken = usize::try_from(*left).map_or(self.read.len(), |left| left.min(self.read.len()));
                *left -= taken as u64;
                if *left == 0 {
                    self.answer = Answer::Whole;
                }
                Next::Bytes(self.read.split_to(taken).freeze())
            }
        })
    }

    /// Reads more; `0` at the end.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Parts of the buffer may be held by others, each of which holds all of it: it is used to its end.
        if self.read.capacity() - self.read.len() < self.portion.min(READ_AT_FIRST) / 4 {
            self.read.reserve(self.portion);
        }
        let room = self.read.capacity() - self.read.len();
        let read = ready!(pin!(self.link.read_buf(&mut self.read)).poll(context))?;
        // A body that comes faster than it is read is read in larger portions.
        if read >= room {
            self.portion = (2 * self.portion).min(self.portion_at_most);
        } else if read < self.portion / 4 {
            self.portion = (self.portion / 2).max(READ_AT_FIRST.min(self.portion_at_most));
        }
        Poll::Ready(Ok(read))
    }

    /// Ready when a connection on which nothing is due has ended: upstream has closed it, or says what nobody asked for.
    pub(super) fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (mut one, link) = ([0], &mut self.link);
        let read = poll_fn(|context| Pin::new(&mut *link).poll_read(context, &mut ReadBuf::new(&mut one)));
        // A task whose budget is used up would be told that there is nothing, without a look.
        pin!(unconstrained(read)).poll(context).map(drop)
    }

    /// Whether all of the body has been announced and read.
    pub(super) fn holds_whole_body(&self) -> bool {
        matches!(self.answer, Answer::Length(length) if self.read.len() as u64 >= length)
    }

    /// Nothing more is to come of it.
    pub(super) fn fail(&mut self, why: UpstreamError) {
        self.failure = Some(why);
        if let Some(taker) = self.taker.take() {
            taker.wake();
        }
    }

    /// Why nothing more is to come of it, once that is so.
    pub(super) fn poll_failure(&mut self, context: &Context<'_>) -> Poll<UpstreamError> {
        if let Some(why) = &self.failure {
            return Poll::Ready(why.clone());
        }
        self.taker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Whether all of the answer has been taken from it.
    pub(super) fn is_answered(&self) -> bool {
        matches!(self.answer, Answer::Whole)
    }

    /// Whether nothing can go out before the client sends more.
    fn waits_for_client(&self) -> bool {
        matches!(self.upload, Upload::Goes { .. }) && self.out.parts.is_empty() && !self.out.is_blocked
    }

    /// Whether there is nothing left to send.
    pub(super) fn has_sent(&self) -> bool {
        !matches!(self.upload, Upload::Goes { .. }) && self.out.parts.is_empty() && !self.out.holds
    }

    /// Whether it can carry another request.
    pub(super) fn is_free(&self) -> bool {
        self.persists
            && self.failure.is_none()
            && self.is_answered()
            && matches!(self.upload, Upload::Sent)
            && self.has_sent()
            && self.read.is_empty()
    }

    /// Of the body no more than this is read at a time, in bytes: whoever takes it may hold it for long.
    pub(super) fn reads_at_most(&mut self, bytes: usize) {
        self.portion_at_most = bytes;
        self.portion = self.portion.min(bytes);
    }

    /// Nobody needs room on it for now.
    pub(super) fn rest(&mut self) {
        (self.portion, self.portion_at_most) = (READ_AT_FIRST, READ_AT_MOST);
        if self.read.capacity() > READ_AT_FIRST {
            self.read = BytesMut::new();
        }
    }

    /// What comes next is here: a wait for it is over.
    pub(super) fn moved(&mut self) {
        self.clock.stop();
    }

    /// Ready when the one who waits for something from upstream has waited for `idle`.
    pub(super) fn poll_idle(&mut self, idle: Duration, context: &mut Context<'_>) -> Poll<()> {
        self.clock.poll_over(idle, context)
    }

    /// How often upstream has taken something, if it has to take something before more can go out.
    pub(super) fn blocked_at(&self) -> Option<u32> {
        self.out.is_blocked.then_some(self.out.turn)
    }

    /// What becomes of it when both sides have agreed to speak something else: the connection, and what was read of that.
    pub(super) fn into_link(self) -> (Link, Bytes) {
        // Without anything in it, the buffer would be held for as long as they speak.
        let first = if self.read.is_empty() { Bytes::new() } else { self.read.freeze() };
        (self.link, first)
    }
}

impl Outflow {
    /// Makes one piece of several short ones.
    fn joins(&mut self) {
        if self.parts.len() > 1 && self.parts.iter().map(Bytes::len).sum::<usize>() <= ONE_PIECE {
            let joined = self.parts.concat();
            self.parts.clear();
            self.parts.push(joined.into());
        }
    }

    /// Upstream took so many bytes.
    fn took(&mut self, mut bytes: usize) {
        self.turn = self.turn.wrapping_add(1);
        self.holds = true;
        while let Some(part) = self.parts.first_mut() {
            if part.len() > bytes {
                part.advance(bytes);
                return;
            }
            bytes -= part.len();
            self.parts.remove(0);
        }
    }
}

/// Whether a head may end behind the first `scanned` bytes of `read`, in which none does: its parser need not look before.
fn ends_head(read: &[u8], scanned: usize) -> bool {
    let fresh = &read[scanned.saturating_sub(3)..];
    fresh.windows(2).any(|pair| pair == b"\n\n") || fresh.windows(3).any(|end| end == b"\n\r\n")
}
