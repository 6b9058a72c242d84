//! Answers that teach: a copy of a user list is kept while it passes, and read when all of it has gone to the client.
//! Nothing of the answer is delayed or changed, and what is not whole teaches nothing.

use super::{Front, Inbound};
use crate::avatar::Avatars;
use crate::cache::grants::Asked;
use crate::caller::Caller;
use crate::identity::Site;
use crate::overheard::{Lesson, ListenBudget, Reservation, Unreadable, inflate};
use crate::telemetry::{LessonOutcome, Telemetry};
use crate::upstream::{AnswerBody, AnswerHead, BodyStream, Reply, UpstreamError};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::StatusCode;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// The longest answer that is read, decoded, in bytes.
const LONGEST_ANSWER: usize = 4 << 20;

/// Parts of an answer that are shorter, in bytes, are copied; answers that are shorter, read on the spot.
const SHORT: usize = 4 << 10;
/// What all copies together may take, in bytes.
const ALL_COPIES: usize = 64 << 20;
/// How many copies may wait to be read, however short they are.
const MOST_WAITING: usize = 4096;

/// What all lessons share. A short copy before which none waits is read where it came, once the client has its answer: a
/// thread would cost many times that. All others one thread reads, so that cores are left for the requests that wait; it
/// reads on until nothing waits, because to wake one for each copy takes longer than to read it, and the pictures are asked
/// for right after.
pub struct School {
    copies: Arc<ListenBudget>,
    desk: Mutex<Desk>,
}

/// Copies in the order in which they became whole.
#[derive(Default)]
struct Desk {
    waiting: VecDeque<Copy>,
    is_attended: bool,
}

impl Default for School {
    fn default() -> Self {
        Self { copies: Arc::new(ListenBudget::new(ALL_COPIES)), desk: Mutex::default() }
    }
}

impl School {
    /// Has `copy` read where nobody waits for it.
    fn hand_in(self: Arc<Self>, copy: Copy) {
        let mut desk = self.desk();
        if copy.is_short() && !desk.is_attended {
            drop(desk);
            actix_web::rt::spawn(copy.read());
            return;
        }
        if desk.waiting.len() == MOST_WAITING {
            return copy.telemetry.lesson(LessonOutcome::NoRoom);
        }
        desk.waiting.push_back(copy);
        if !std::mem::replace(&mut desk.is_attended, true) {
            drop(desk);
            let (runtime, reader) = (tokio::runtime::Handle::current(), Reader(self.clone()));
            // Not one of the threads that render: they step back behind everything else.
            let read_on = move || {
                while let Some(copy) = reader.0.next() {
                    runtime.block_on(copy.read());
                }
            };
            if std::thread::Builder::new().name("lessons".to_owned()).spawn(read_on).is_err() {
                // The next copy tries anew.
                self.desk().is_attended = false;
            }
        }
    }

    /// The next copy; with none, the desk is left in the same moment.
    fn next(&self) -> Option<Copy> {
        let mut desk = self.desk();
        let next = desk.waiting.pop_front();
        desk.is_attended = next.is_some();
        next
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever attends the desk. One that panics must not leave it for good.
struct Reader(Arc<School>);

impl Drop for Reader {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.desk().is_attended = false;
        }
    }
}

/// A request whose answer may teach something, as things stood when it was sent.
pub(super) struct Attending {
    lesson: Lesson,
    caller: Caller,
    asked: Asked,
    site: Site,
}

impl Attending {
    /// To be made before the request is sent upstream; `None` where nothing may be learned.
    pub(super) fn of(front: &Front, inbound: &Inbound) -> Option<Self> {
        if !front.settings.learn {
            return None;
        }
        let lesson = Lesson::of(&inbound.method, &inbound.path, &inbound.query, &front.settings.base_path)?;
        let caller = front.caller(&inbound.fields)?;
        let site = front.site(front.host(&inbound.fields));
        let asked = front.avatars.asking(&caller, Instant::now())?;
        Some(Self { lesson, caller, asked, site })
    }

    /// Keeps a copy of what passes, if it is an answer that can be read at all.
    pub(super) fn listen_to(self, front: &Front, reply: Reply) -> Reply {
        let Some(coding) = readable(&reply.head) else { return reply };
        let declared = reply.head.content_length().unwrap_or(0);
        let mut room = Reservation::empty(&front.school.copies);
        if declared > LONGEST_ANSWER as u64 || !room.grow_to(usize::try_from(declared).unwrap_or(usize::MAX)) {
            front.telemetry.lesson(LessonOutcome::NoRoom);
            return reply;
        }
        let mut copy = Copy {
            attending: self,
            coding,
            chunks: Vec::new(),
            len: 0,
            room,
            avatars: front.avatars.clone(),
            telemetry: front.telemetry.clone(),
            school: front.school.clone(),
        };
        let Reply { head, body } = reply;
        let body = match body {
            AnswerBody::Complete(whole) => {
                if copy.keep(&whole) {
                    copy.school.clone().hand_in(copy);
                } else {
                    copy.telemetry.lesson(LessonOutcome::NoRoom);
                }
                AnswerBody::Complete(whole)
            }
            AnswerBody::Partial(begun, rest) => {
                AnswerBody::Partial(begun, Box::pin(Overheard { body: rest, copy: Some(copy) }))
            }
        };
        Reply { head, body }
    }
}

/// How a body is coded.
#[derive(Clone, Copy)]
enum Coding {
    Identity,
    Gzip,
}

/// How to read an answer; `None` for any but a complete one in JSON.
fn readable(head: &AnswerHead) -> Option<Coding> {
    let only = |name: &'static str| {
        let mut lines = head.all(name);
        let line = lines.next().map(<[u8]>::trim_ascii);
        if lines.next().is_some() { None } else { Some(line) }
    };
    let kind = only("content-type")??.split(|byte| *byte == b';').next()?.trim_ascii();
    if head.status != StatusCode::OK || !kind.eq_ignore_ascii_case(b"application/json") {
        return None;
    }
    match only("content-encoding")? {
        None => Some(Coding::Identity),
        Some(coding) if coding.eq_ignore_ascii_case(b"identity") => Some(Coding::Identity),
        Some(coding) if coding.eq_ignore_ascii_case(b"gzip") => Some(Coding::Gzip),
        Some(_) => None,
    }
}

/// What has passed so far.
struct Copy {
    attending: Attending,
    coding: Coding,
    chunks: Vec<Bytes>,
    len: usize,
    room: Reservation,
    avatars: Arc<Avatars>,
    telemetry: Arc<Telemetry>,
    school: Arc<School>,
}

impl Copy {
    /// Keeps `chunk`, whose memory is shared and not copied; `false` when it is too much.
    fn keep(&mut self, chunk: &Bytes) -> bool {
        // A short part would hold the buffer that it was read into.
        let part = if chunk.len() < SHORT { Bytes::copy_from_slice(chunk) } else { chunk.clone() };
        self.len += chunk.len();
        let taken = self.len + (self.chunks.len() + 1) * size_of::<Bytes>();
        let kept = self.len <= LONGEST_ANSWER && self.room.grow_to(taken);
        if kept {
            self.chunks.push(part);
        }
        kept
    }

    /// Whether it takes no longer to read it than to hand it to somebody.
    fn is_short(&self) -> bool {
        self.len < SHORT && matches!(self.coding, Coding::Identity)
    }

    async fn read(self) {
        let Attending { lesson, caller, asked, site } = self.attending;
        let users = joined(&self.chunks, self.coding).and_then(|body| lesson.read(&body));
        let outcome = if users.is_ok() { LessonOutcome::Learned } else { LessonOutcome::Unreadable };
        if let Err(why) = &users {
            tracing::debug!(%why, "nothing was learned of an answer");
        }
        for seen in users.unwrap_or_default() {
            self.avatars.learn(site, &caller, &asked, seen.user, seen.stamp).await;
        }
        // Counted when it is over: whoever reads the counter may rely on what was learned.
        self.telemetry.lesson(outcome);
    }
}

fn joined(chunks: &[Bytes], coding: Coding) -> Result<Bytes, Unreadable> {
    let whole = if let [only] = chunks { only.clone() } else { Bytes::from(chunks.concat()) };
    match coding {
        Coding::Identity => Ok(whole),
        Coding::Gzip => inflate(&whole, LONGEST_ANSWER).map(Bytes::from),
    }
}

/// A body that is handed on as it comes, while a copy of it is kept.
struct Overheard {
    body: BodyStream,
    copy: Option<Copy>,
}

impl Stream for Overheard {
    type Item = Result<Bytes, UpstreamError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.body.poll_next_unpin(context));
        match &next {
            Some(Ok(chunk)) => {
                if self.copy.as_mut().is_some_and(|copy| !copy.keep(chunk)) {
                    let given_up = self.copy.take().expect("there is one");
                    given_up.telemetry.lesson(LessonOutcome::NoRoom);
                }
            }
            // Broken off: what came is not what upstream said.
            Some(Err(_)) => self.copy = None,
            None => {
                if let Some(copy) = self.copy.take() {
                    copy.school.clone().hand_in(copy);
                }
            }
        }
        Poll::Ready(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_in_json_is_read() {
        for (status, fields, read) in [
            (200, &[("content-type", "application/json")][..], true),
            (200, &[("content-type", "Application/JSON; charset=utf-8")], true),
            (200, &[("content-type", "application/json"), ("content-encoding", "gzip")], true),
            (200, &[("content-type", "application/json"), ("content-encoding", "br")], false),
            (200, &[("content-type", "application/json"), ("content-encoding", "gzip, gzip")], false),
            (
                200,
                &[("content-type", "application/json"), ("content-encoding", "gzip"), ("content-encoding", "gzip")],
                false,
            ),
            (200, &[("content-type", "application/json"), ("content-type", "application/json")], false),
            (200, &[("content-type", "application/jsonp")], false),
            (200, &[("content-type", "text/html")], false),
            (200, &[], false),
            (206, &[("content-type", "application/json")], false),
            (201, &[("content-type", "application/json")], false),
            (401, &[("content-type", "application/json")], false),
        ] {
            let lines = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>();
            let head = AnswerHead::parsed(&format!("HTTP/1.1 {status} x\r\n{}\r\n", lines.concat()));
            assert_eq!(readable(&head).is_some(), read, "{status} {fields:?}");
        }
    }
}
