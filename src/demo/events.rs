//! Who listens on a WebSocket, and which events reach whom.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use tokio::sync::mpsc;

/// How many events may wait for a slow socket; beyond it the socket is closed.
const WAITING: usize = 256;

/// More open sockets than a demo or a bench needs; beyond it a new one replaces the oldest.
const MOST: usize = 4_000;

/// An event as a socket sends it, but for the sequence number, which is the socket's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Event(Arc<str>);

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
    Channel(String),
}

/// `model.WebsocketBroadcast`, in the order of its fields.
#[derive(Default, Serialize)]
struct Broadcast<'a> {
    omit_users: Option<Omitted<'a>>,
    user_id: &'a str,
    channel_id: &'a str,
    team_id: &'a str,
    connection_id: &'a str,
    omit_connection_id: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    contains_sanitized_data: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    contains_sensitive_data: bool,
}

/// One user: `{"<id>": true}`.
struct Omitted<'a> {
    id: &'a str,
}

impl Serialize for Omitted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(self.id, true)])
    }
}

impl Audience {
    fn broadcast(&self) -> Broadcast<'_> {
        let all = Broadcast::default();
        match self {
            Self::Everybody => all,
            Self::Owner(id) => Broadcast { user_id: id, ..all },
            Self::Admins(id) => Broadcast { omit_users: Some(Omitted { id }), contains_sensitive_data: true, ..all },
            Self::Others(id) => Broadcast { omit_users: Some(Omitted { id }), contains_sanitized_data: true, ..all },
            Self::Team(id) => Broadcast { team_id: id, ..all },
            Self::Channel(id) => Broadcast { channel_id: id, ..all },
        }
    }
}

impl Event {
    /// Written out once for all sockets, with the blanks of Mattermost's own spelling
    /// (`WebSocketEvent.ToJSON` in `server/public/model/websocket_message.go`).
    pub(super) fn new(name: &str, data: &impl Serialize, audience: &Audience) -> Self {
        let [name, data, broadcast] = [text(&name), text(data), text(&audience.broadcast())];
        Self(format!("{{\"event\": {name}, \"data\": {data}, \"broadcast\": {broadcast}, \"seq\": ").into())
    }

    /// The frame's text.
    pub(super) fn text(&self, sequence: u64) -> String {
        format!("{}{sequence}}}", self.0)
    }
}

fn text(record: &impl Serialize) -> String {
    serde_json::to_string(record).expect("a record always serialises")
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
    use serde_json::json;

    use super::*;

    #[test]
    fn events_reach_whom_they_are_for_until_they_do_not_keep_up() {
        let mut hub = Hub::default();
        let mut alice = hub.listen("a", "1");
        let mut bob = hub.listen("b", "2");
        let event = Event::new("user_updated", &json!({}), &Audience::Everybody);
        hub.publish(&event, |listener| listener.user_id == "a");
        assert_eq!(alice.try_recv().ok(), Some(event.clone()));
        assert!(bob.try_recv().is_err());
        for _ in 0..=WAITING {
            hub.publish(&event, |listener| listener.user_id == "b");
        }
        assert_eq!(hub.0.len(), 1);
    }

    #[test]
    fn the_envelope_is_spelled_as_mattermost_spells_it() {
        let check = |audience: &Audience, broadcast: &str| {
            let event = Event::new("user_updated", &json!({"user": {}}), audience);
            let expected = format!(
                "{{\"event\": \"user_updated\", \"data\": {{\"user\":{{}}}}, \"broadcast\": {broadcast}, \"seq\": 3}}"
            );
            assert_eq!(event.text(3), expected);
        };
        let id = || "x".to_owned();
        check(
            &Audience::Owner(id()),
            r#"{"omit_users":null,"user_id":"x","channel_id":"","team_id":"","connection_id":"","omit_connection_id":""}"#,
        );
        check(
            &Audience::Others(id()),
            "{\"omit_users\":{\"x\":true},\"user_id\":\"\",\"channel_id\":\"\",\"team_id\":\"\",\"connection_id\":\"\",\
             \"omit_connection_id\":\"\",\"contains_sanitized_data\":true}",
        );
    }
}
