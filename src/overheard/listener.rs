//! What upstream tells a client over the event socket, overheard in the bytes as they pass.

use super::UserSeen;
use super::budget::{ListenBudget, Reservation};
use super::events::{self, LONGEST_OPENING, Opening, Subject};
use super::frames::{Frames, Piece};
use crate::identity::ObjectId;
use std::sync::Arc;

/// The longest event that is collected, in bytes. A user's record has about one kilobyte.
const LONGEST_EVENT: usize = 1 << 20;
/// The least that is set aside for an event, in bytes: a user's record and its envelope.
const USUAL_EVENT: usize = 1 << 10;

/// What was overheard. It only ever makes us forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// A user changed, perhaps their picture: the stamp tells.
    User(UserSeen),
    /// A team changed, perhaps its icon.
    Team(ObjectId),
    /// Who may see whom changed, or somebody's sessions ended.
    Rights,
    /// Something changed, but the message that told it could not be read: any picture may be another.
    Unclear,
}

/// Listens to one tunnel, server to client.
///
/// Only messages that begin as an event of the table are collected, whatever the others hold; all others, and all other
/// frames, are skipped in constant time for each piece of them. A collected message is held until it is whole, at most
/// 1 MiB of it; reading it takes as much again for a moment.
#[derive(Debug)]
pub struct Listener {
    budget: Arc<ListenBudget>,
    frames: Frames,
    message: Message,
}

impl Listener {
    /// A listener at the beginning of upstream's side, right after its 101. What all listeners of one budget together
    /// hold of messages that are not whole yet is bounded by it.
    #[must_use]
    pub fn new(budget: &Arc<ListenBudget>) -> Self {
        Self { budget: budget.clone(), frames: Frames::new(), message: Message::Skipped }
    }

    /// Takes the next bytes, however they were cut, and tells what they brought.
    ///
    /// After anything that no server without extensions may send, nothing is told any more: whatever compression or
    /// other protocol that is, it cannot be followed.
    pub fn hear(&mut self, bytes: &[u8], tell: &mut dyn FnMut(News)) {
        let Self { budget, frames, message } = self;
        frames.follow(bytes, &mut |piece| match piece {
            Piece::Begin => *message = Message::Opening { begin: [0; LONGEST_OPENING], have: 0 },
            Piece::Text(text, announced) => message.take(text, announced, budget, tell),
            Piece::End => message.end(tell),
            // What it held is given back.
            Piece::Lost => *message = Message::Skipped,
        });
    }
}

/// Whether an upgraded connection on this raw path carries events: `BASE/api/v4/websocket` in its canonical spelling,
/// with a slash behind it or not (`recordings`: `ws-trailing-slash`). `base` is the path of Mattermost's `SiteURL`
/// without its closing slash.
#[must_use]
pub fn is_event_socket(path: &str, base: &str) -> bool {
    matches!(path.strip_prefix(base), Some("/api/v4/websocket" | "/api/v4/websocket/"))
}

/// The text message that is under way.
#[derive(Debug)]
enum Message {
    /// Nothing of it is wanted any more, or there is none.
    Skipped,
    /// Its first bytes, which do not tell yet what it is.
    Opening { begin: [u8; LONGEST_OPENING], have: usize },
    /// An event of the table.
    Event(Event),
}

impl Message {
    /// Takes the next part of the message, which is `announced` bytes longer still at the least.
    fn take(&mut self, text: &[u8], announced: u64, budget: &Arc<ListenBudget>, tell: &mut dyn FnMut(News)) {
        match self {
            Self::Skipped => {}
            Self::Opening { begin, have } => {
                let before = *have;
                let more = text.len().min(LONGEST_OPENING - before);
                begin[before..before + more].copy_from_slice(&text[..more]);
                *have += more;
                match events::opening(&begin[..*have]) {
                    Opening::Undecided if *have < LONGEST_OPENING => {}
                    Opening::Undecided | Opening::Other => *self = Self::Skipped,
                    // The name says it all, so nothing is collected.
                    Opening::Event(Subject::Rights) => {
                        tell(News::Rights);
                        *self = Self::Skipped;
                    }
                    Opening::Event(subject) => {
                        let mut event = Event { subject, text: Vec::new(), share: Reservation::empty(budget) };
                        let fits = event.add(&begin[..before], 0) && event.add(text, announced);
                        *self = Self::Event(event);
                        self.skip_unless(fits, tell);
                    }
                }
            }
            Self::Event(event) => {
                let fits = event.add(text, announced);
                self.skip_unless(fits, tell);
            }
        }
    }

    fn skip_unless(&mut self, fits: bool, tell: &mut dyn FnMut(News)) {
        if !fits {
            *self = Self::Skipped;
            tell(News::Unclear);
        }
    }

    fn end(&mut self, tell: &mut dyn FnMut(News)) {
        if let Self::Event(event) = std::mem::replace(self, Self::Skipped) {
            tell(events::read(event.subject, &event.text));
        }
    }
}

/// An event as far as it has come.
#[derive(Debug)]
struct Event {
    subject: Subject,
    text: Vec<u8>,
    /// Its share of the budget: the capacity of `text`.
    share: Reservation,
}

impl Event {
    /// Adds the next part; `false` when the event is too long, or the budget too small to hold it.
    fn add(&mut self, part: &[u8], announced: u64) -> bool {
        let length = self.text.len() + part.len();
        let announced = usize::try_from(announced).unwrap_or(usize::MAX);
        if length.saturating_add(announced) > LONGEST_EVENT {
            return false;
        }
        if length > self.text.capacity() {
            let capacity = length.next_power_of_two().clamp(USUAL_EVENT, LONGEST_EVENT);
            if !self.share.grow_to(capacity) {
                return false;
            }
            self.text.reserve_exact(capacity - self.text.len());
        }
        self.text.extend_from_slice(part);
        true
    }
}

#[cfg(test)]
mod tests;
