//! Who listens on a WebSocket, and which events reach whom.

use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// How many events may wait for a slow socket; beyond it the socket is closed.
const WAITING: usize = 256;

/// More open sockets than a demo needs; beyond it a new one replaces the oldest.
const MOST: usize = 1_000;

/// An event as a socket sends it, but for the sequence number, which is the socket's own.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) data: Value,
    pub(super) broadcast: Value,
}

/// Whom an event is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Audience {
    Everybody,
    Owner(String),
    /// Administrators, but for this user.
    Admins(String),
    /// Everybody else: neither administrators nor this user.
    Others(String),
    Team(String),
}

impl Event {
    pub(super) fn new(name: &'static str, data: Value, audience: &Audience) -> Self {
        let (user, team, omitted) = match audience {
            Audience::Everybody => ("", "", Value::Null),
            Audience::Owner(id) => (id.as_str(), "", Value::Null),
            Audience::Admins(id) | Audience::Others(id) => ("", "", json!({ id.as_str(): true })),
            Audience::Team(id) => ("", id.as_str(), Value::Null),
        };
        let broadcast = json!({
            "omit_users": omitted, "user_id": user, "channel_id": "", "team_id": team,
            "connection_id": "", "omit_connection_id": "",
        });
        Self { name, data, broadcast }
    }

    /// The frame's text.
    pub(super) fn text(&self, sequence: u64) -> String {
        #[derive(Serialize)]
        struct Envelope<'a> {
            event: &'a str,
            data: &'a Value,
            broadcast: &'a Value,
            seq: u64,
        }
        let envelope = Envelope { event: self.name, data: &self.data, broadcast: &self.broadcast, seq: sequence };
        serde_json::to_string(&envelope).expect("strings and numbers always serialise")
    }
}

/// One socket that is signed in.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) user_id: String,
    /// The session it was opened with: when that ends, events stop, though the socket stays open.
    pub(super) token: String,
    sender: mpsc::Sender<Event>,
}

/// Every socket that is signed in.
#[derive(Default, Debug)]
pub(super) struct Hub(Vec<Listener>);

impl Hub {
    pub(super) fn listen(&mut self, user_id: &str, token: &str) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.0.retain(|listener| !listener.sender.is_closed());
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(Listener { user_id: user_id.to_owned(), token: token.to_owned(), sender });
        receiver
    }

    /// Sends to every listener that `reaches` says yes to; a socket that does not keep up is dropped.
    pub(super) fn publish(&mut self, event: &Event, reaches: impl Fn(&Listener) -> bool) {
        self.0.retain(|listener| !reaches(listener) || listener.sender.try_send(event.clone()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_reach_whom_they_are_for_until_they_do_not_keep_up() {
        let mut hub = Hub::default();
        let mut alice = hub.listen("a", "1");
        let mut bob = hub.listen("b", "2");
        let event = Event::new("user_updated", json!({}), &Audience::Everybody);
        hub.publish(&event, |listener| listener.user_id == "a");
        assert_eq!(alice.try_recv().ok(), Some(event.clone()));
        assert!(bob.try_recv().is_err());
        for _ in 0..=WAITING {
            hub.publish(&event, |listener| listener.user_id == "b");
        }
        assert_eq!(hub.0.len(), 1);
    }

    #[test]
    fn the_envelope_is_mattermosts() {
        let event = Event::new("user_updated", json!({"user": {}}), &Audience::Owner("x".to_owned()));
        let text: Value = serde_json::from_str(&event.text(3)).expect("JSON");
        assert_eq!((&text["event"], &text["seq"]), (&json!("user_updated"), &json!(3)));
        assert_eq!(text["broadcast"]["user_id"], "x");
        assert_eq!(text["broadcast"]["omit_users"], Value::Null);
    }
}
