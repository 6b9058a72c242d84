//! Events of Mattermost's WebSocket: which are worth reading, told by a message's first bytes, and what they say.

use super::objects::{self, Fault, Keys};
use super::records::{Record, RecordSeed};
use super::{News, UserSeen};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// No opening of an event in the table is longer, blanks and all.
pub(super) const LONGEST_OPENING: usize = 64;

/// What an event of the table tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Subject {
    /// A user changed: `data.user` is the record.
    User,
    /// A team changed: `data.team` is a string that holds the record as JSON.
    Team,
    /// Who may see whom changed, or a session ended. The name says all there is to know.
    Rights,
}

/// The table.
///
/// Absent for a reason: `emoji_added`, `new_user`, `added_to_team`, `user_added` (nothing is held of what is new, and a
/// refusal is never kept); `channel_member_updated` (sent for notification settings too, all day, and a role in a
/// channel does not decide who sees whom); everything about posts, threads, reactions, typing and presence.
const EVENTS: [(&str, Subject); 16] = [
    ("user_updated", Subject::User),
    ("update_team", Subject::Team),
    // Somebody left a channel or a team, or it is gone: for guests and restricted roles, sharing one decides.
    ("user_removed", Subject::Rights),
    ("leave_team", Subject::Rights),
    ("delete_team", Subject::Rights),
    ("channel_deleted", Subject::Rights),
    // A role: whose, or what it allows.
    ("user_role_updated", Subject::Rights),
    ("memberrole_updated", Subject::Rights),
    ("role_updated", Subject::Rights),
    ("update_team_scheme", Subject::Rights),
    ("channel_scheme_updated", Subject::Rights),
    // Sessions ended with the account. Sent without saying whose, for activations as well (`ev-deactivate`).
    ("user_activation_status_change", Subject::Rights),
    ("guests_deactivated", Subject::Rights),
    // A channel became public or private.
    ("channel_converted", Subject::Rights),
    // Access tokens, guests or MFA may have been switched.
    ("config_changed", Subject::Rights),
    ("license_changed", Subject::Rights),
];

/// What the first bytes of a text message tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Opening {
    /// Too few of them.
    Undecided,
    /// Nothing of the table.
    Other,
    /// An event of the table.
    Event(Subject),
}

/// Whether a text message that begins with these bytes is an event of the table. Only `event` as the first member
/// counts: a real server always writes it there (`recordings`: all `ev-*` and `ws-*`), and nobody else can, since
/// whatever a person writes comes later and escaped.
pub(super) fn opening(begin: &[u8]) -> Opening {
    let mut rest = begin;
    for token in [b"{".as_slice(), b"\"event\"", b":", b"\""] {
        rest = rest.trim_ascii_start();
        match rest.strip_prefix(token) {
            Some(after) => rest = after,
            None if token.starts_with(rest) => return Opening::Undecided,
            None => return Opening::Other,
        }
    }
    let Some(end) = rest.iter().position(|byte| *byte == b'"') else {
        let may_become = EVENTS.iter().any(|(name, _)| name.as_bytes().starts_with(rest));
        return if may_become { Opening::Undecided } else { Opening::Other };
    };
    let named = EVENTS.iter().find(|(name, _)| name.as_bytes() == &rest[..end]);
    named.map_or(Opening::Other, |(_, subject)| Opening::Event(*subject))
}

/// What a whole message of the table says.
pub(super) fn read(subject: Subject, message: &[u8]) -> News {
    let fault = Fault::default();
    let mut keys = Keys::new(&fault);
    let in_data = |name, seed| Member { fault: &fault, name: "data", seed: Member { fault: &fault, name, seed } };
    let news = match subject {
        Subject::Rights => return News::Rights,
        Subject::User => {
            let user = objects::parse(message, &fault, in_data("user", Value::Plain(RecordSeed(&mut keys))));
            user.map(|user| News::User(UserSeen { user: user.id, stamp: user.stamp }))
        }
        Subject::Team => {
            let team = objects::parse(message, &fault, in_data("team", Value::Quoted(RecordSeed(&mut keys))));
            team.map(|team| News::Team(team.id))
        }
    };
    news.unwrap_or(News::Unclear)
}

/// Reads an object for one of its members, which must be there once.
struct Member<'f, S> {
    fault: &'f Fault,
    name: &'static str,
    seed: S,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Member<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, object: D) -> Result<S::Value, D::Error> {
        object.deserialize_map(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Member<'_, S> {
    type Value = S::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {}", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<S::Value, A::Error> {
        let mut keys = Keys::new(self.fault);
        let (mut seed, mut value) = (Some(self.seed), None);
        while let Some(is_wanted) = keys.next(&mut map, |key| key == self.name)? {
            match seed.take_if(|_| is_wanted) {
                Some(seed) => value = Some(map.next_value_seed(seed)?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        value.ok_or_else(|| Error::missing_field(self.name))
    }
}

/// A record, as it is or as JSON in a string.
enum Value<'k, 'f> {
    Plain(RecordSeed<'k, 'f>),
    Quoted(RecordSeed<'k, 'f>),
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = Record;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Record, D::Error> {
        match self {
            Self::Plain(record) => record.deserialize(value),
            Self::Quoted(record) => value.deserialize_str(Quoted(record)),
        }
    }
}

struct Quoted<'k, 'f>(RecordSeed<'k, 'f>);

impl Visitor<'_> for Quoted<'_, '_> {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record in a string")
    }

    fn visit_str<E: Error>(self, json: &str) -> Result<Record, E> {
        objects::parse(json.as_bytes(), &Fault::default(), self.0).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::ObjectId;

    const ALICE: &str = "ge45wmpse3g8umtziei4q749th";

    fn check_opening(begin: &str, expected: Opening) {
        assert_eq!(opening(begin.as_bytes()), expected, "{begin:?}");
    }

    #[test]
    fn first_bytes_tell_the_events_of_the_table() {
        for (name, subject) in EVENTS {
            for whole in [
                format!(r#"{{"event":"{name}""#),
                format!(r#"{{"event": "{name}", "data""#),
                format!("\r\n {{\t\"event\" : \"{name}\""),
            ] {
                check_opening(&whole, Opening::Event(subject));
            }
            let shortest = format!(r#"{{"event": "{name}""#);
            assert!(shortest.len() < LONGEST_OPENING - 8, "{name} leaves no room for blanks");
            for end in 0..shortest.len() {
                check_opening(&shortest[..end], Opening::Undecided);
            }
        }
        for other in [
            r#"{"event":"posted""#,
            r#"{"event":"user_updated2""#,
            r#"{"event":"user_update""#,
            r#"{"event":"""#,
            r#"{"event":"p"#,
            r#"{"event":"user_updatedx"#,
            r#"{"event":"user\u005fupdated""#,
            r#"{"data":{},"event":"user_updated""#,
            r#"{"Event":"user_updated""#,
            r#"{"event":{"#,
            r#"["event""#,
            r#""user_updated""#,
            r#"{"status":"OK","seq_reply":1}"#,
            "{}",
            "\0",
        ] {
            check_opening(other, Opening::Other);
        }
    }

    fn check(subject: Subject, message: &str, expected: News) {
        assert_eq!(read(subject, message.as_bytes()), expected, "{message}");
    }

    #[test]
    fn a_user_is_told_with_the_stamp() {
        let user = |stamp| News::User(UserSeen { user: id(), stamp });
        let event =
            |user: &str| format!(r#"{{"event":"user_updated","data":{{"user":{user}}},"broadcast":{{}},"seq":1}}"#);
        for (record, expected) in [
            (r#"{"id":"A"}"#, user(0)),
            (r#"{"id":"A","last_picture_update":-7}"#, user(-7)),
            (r#"{"props":{"id":"x"},"\u0069d":"A","last_picture_update":9}"#, user(9)),
            (r#"{"id":"A","last_picture_update":1e3}"#, News::Unclear),
            (r#"{"id":"A","last_picture_update":null}"#, News::Unclear),
            (r#"{"id":"A","id":"A"}"#, News::Unclear),
            (r#"{"id":"me"}"#, News::Unclear),
            ("{}", News::Unclear),
            ("null", News::Unclear),
            (r#"[{"id":"A"}]"#, News::Unclear),
            (r#""{\"id\":\"A\"}""#, News::Unclear),
        ] {
            check(Subject::User, &event(&record.replace('A', ALICE)), expected);
        }
    }

    #[test]
    fn a_team_is_told_from_its_string() {
        for (team, expected) in [
            (r#""{\"id\":\"A\",\"last_team_icon_update\":1}""#, News::Team(id())),
            (r#""{\"id\":\"A\",\"id\":\"A\"}""#, News::Unclear),
            (r#""{\"id\":\"A\"} x""#, News::Unclear),
            (r#""{\"id\":\"A\"""#, News::Unclear),
            (r#""""#, News::Unclear),
            (r#"{"id":"A"}"#, News::Unclear),
        ] {
            let event = format!(r#"{{"event":"update_team","data":{{"team":{team}}},"seq":1}}"#);
            check(Subject::Team, &event.replace('A', ALICE), expected);
        }
    }

    #[test]
    fn an_event_that_cannot_be_read_is_unclear() {
        let user = format!(r#"{{"id":"{ALICE}"}}"#);
        for message in [
            String::new(),
            r#"{"event":"user_updated"}"#.to_owned(),
            r#"{"event":"user_updated","data":{}}"#.to_owned(),
            format!(r#"{{"event":"user_updated","data":{{"user":{user}}}"#),
            format!(r#"{{"event":"user_updated","data":{{"user":{user}}}}}{{}}"#),
            format!(r#"{{"event":"user_updated","data":{{"user":{user}}},"data":{{}}}}"#),
            format!(r#"{{"event":"user_updated","event":"posted","data":{{"user":{user}}}}}"#),
            format!(r#"{{"event":"user_updated","data":{{"user":{user},"user":{user}}}}}"#),
            format!(r#"{{"event":"user_updated","user":{user},"data":{{"User":{user}}}}}"#),
            format!(r#"{{"event":"user_updated","data":{}"#, "[".repeat(10_000)),
        ] {
            check(Subject::User, &message, News::Unclear);
        }
    }

    fn id() -> ObjectId {
        ObjectId::parse(ALICE.as_bytes()).expect("an id")
    }
}
