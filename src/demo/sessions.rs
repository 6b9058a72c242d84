//! Who is signed in: tokens, and the secret against cross-site requests that belongs to each.

use std::collections::{HashMap, VecDeque};

use super::ids::{id_of, new_id};

/// More sessions than any test or demo needs; beyond it the oldest ends.
const MOST: usize = 10_000;

/// A session as its owner knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    /// What goes into `MMAUTHTOKEN` or `Authorization: Bearer`.
    pub token: String,
    /// What goes into `X-CSRF-Token`.
    pub csrf: String,
    /// Whose session it is.
    pub user_id: String,
}

impl Session {
    /// Mattermost's `session_id`, by which others end it.
    #[must_use]
    pub fn id(&self) -> String {
        id_of(&format!("session {}", self.token))
    }
}

/// What an account was when the session began: Mattermost marks the session, and does not look again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    Ordinary,
    Guest,
}

/// Every open session.
#[derive(Default, Debug)]
pub(super) struct Sessions {
    by_token: HashMap<String, (Session, Standing)>,
    by_age: VecDeque<String>,
}

impl Sessions {
    pub(super) fn open(&mut self, user_id: &str, standing: Standing) -> Session {
        let session = Session { token: new_id(), csrf: new_id(), user_id: user_id.to_owned() };
        self.by_token.insert(session.token.clone(), (session.clone(), standing));
        self.by_age.push_back(session.token.clone());
        if self.by_age.len() > MOST {
            self.by_age.pop_front().and_then(|oldest| self.by_token.remove(&oldest));
        }
        session
    }

    pub(super) fn get(&self, token: &str) -> Option<&Session> {
        self.by_token.get(token).map(|(session, _)| session)
    }

    pub(super) fn began_as_guest(&self, token: &str) -> bool {
        self.by_token.get(token).is_some_and(|(_, standing)| *standing == Standing::Guest)
    }

    /// The oldest open session of a user.
    pub(super) fn of(&self, user_id: &str) -> Option<&Session> {
        let mut sessions = self.by_age.iter().filter_map(|token| self.get(token));
        sessions.find(|session| session.user_id == user_id)
    }

    pub(super) fn end(&mut self, token: &str) {
        self.by_token.remove(token);
        self.by_age.retain(|kept| kept != token);
    }

    /// Ends the session of a user that has this id, if there is one.
    pub(super) fn end_by_id(&mut self, user_id: &str, id: &str) -> Option<Session> {
        let (session, _) =
            self.by_token.values().find(|(session, _)| session.user_id == user_id && session.id() == id)?;
        let session = session.clone();
        self.end(&session.token);
        Some(session)
    }

    pub(super) fn end_all_of(&mut self, user_id: &str) {
        self.by_token.retain(|_, (session, _)| session.user_id != user_id);
        self.by_age.retain(|token| self.by_token.contains_key(token));
    }

    pub(super) fn end_all(&mut self) {
        self.by_token.clear();
        self.by_age.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end_one_by_one_or_all_of_a_user() {
        let mut sessions = Sessions::default();
        let [first, second, other] = ["a", "a", "b"].map(|user| sessions.open(user, Standing::Ordinary));
        assert_eq!(sessions.of("a"), Some(&first));
        sessions.end(&first.token);
        assert_eq!((sessions.get(&first.token), sessions.of("a")), (None, Some(&second)));
        sessions.end_all_of("a");
        assert_eq!((sessions.of("a"), sessions.get(&other.token)), (None, Some(&other)));
        let [kept, guests] = [Standing::Ordinary, Standing::Guest].map(|standing| sessions.open("a", standing));
        assert_eq!([&kept, &guests].map(|session| sessions.began_as_guest(&session.token)), [false, true]);
        assert_eq!(sessions.end_by_id("b", &kept.id()), None);
        assert_eq!(sessions.end_by_id("a", &kept.id()), Some(kept));
        sessions.end_all();
        assert_eq!(sessions.of("b"), None);
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut sessions = Sessions::default();
        let first = sessions.open("a", Standing::Ordinary);
        for _ in 0..MOST {
            sessions.open("b", Standing::Ordinary);
        }
        assert_eq!(sessions.get(&first.token), None);
        assert_eq!(sessions.by_token.len(), MOST);
    }
}
