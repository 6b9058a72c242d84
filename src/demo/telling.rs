//! Which sockets hear of a change (`server/channels/app/platform/web_conn.go`, `ShouldSendEvent`).

use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::events::{Audience, Event};
use super::json::UserRecord;
use super::town::Town;

impl Town {
    /// From now on events reach this socket.
    pub(super) fn listen(&mut self, user_id: &str, token: &str) -> mpsc::Receiver<Event> {
        self.hub.listen(user_id, token)
    }

    /// A new picture: one record for everybody.
    pub(super) fn tell_of_picture(&mut self, id: &str) {
        if let Some(record) = self.accounts.get(id).map(UserRecord::for_others) {
            self.publish("user_updated", &Updated { user: &record }, &Audience::Everybody, Some(id));
        }
    }

    /// Any other change of a record: told to the user, to administrators, and to everybody else, each what they may know.
    pub(super) fn tell_of_record(&mut self, id: &str) {
        let Some(account) = self.accounts.get(id) else {
            return;
        };
        let variants = [
            (UserRecord::for_owner(account), Audience::Owner(id.to_owned())),
            (UserRecord::for_admins(account), Audience::Admins(id.to_owned())),
            (UserRecord::for_others(account), Audience::Others(id.to_owned())),
        ];
        for (record, audience) in variants {
            self.publish("user_updated", &Updated { user: &record }, &audience, Some(id));
        }
    }

    /// Somebody came or went; the event says no more.
    pub(super) fn tell_of_activation(&mut self) {
        self.publish("user_activation_status_change", &json!({}), &Audience::Everybody, None);
    }

    /// Sends an event to whom it is for. A session that was a guest's when it began hears only of users it may see;
    /// all others hear of everybody, even of those whose picture they are refused.
    pub(super) fn publish(&mut self, name: &str, data: &impl Serialize, audience: &Audience, about: Option<&str>) {
        let mut hub = std::mem::take(&mut self.hub);
        hub.publish(&Event::new(name, data, audience), |listener| {
            let listening = &listener.user_id;
            let addressed = match audience {
                Audience::Everybody => true,
                Audience::Owner(id) => id == listening,
                Audience::Admins(id) => id != listening && self.is_admin(listening),
                Audience::Others(id) => id != listening && !self.is_admin(listening),
                Audience::Team(id) => self.is_member(listening, id),
                Audience::Channel(id) => self.is_in_channel(listening, id),
            };
            let seen = || {
                !self.sessions.began_as_guest(&listener.token)
                    || about.is_none_or(|about| self.can_see(listening, about))
            };
            addressed && self.sessions.get(&listener.token).is_some() && seen()
        });
        self.hub = hub;
    }
}

/// What `user_updated` tells.
#[derive(Serialize)]
struct Updated<'a> {
    user: &'a UserRecord,
}

#[cfg(test)]
mod tests {
    use super::super::ids::id_of;
    use super::super::options::Options;
    use super::*;

    #[test]
    fn events_follow_permission_and_session() {
        let mut town = Town::new(&Options::default());
        let mut sockets: Vec<_> = ["bob", "gus", "mallory", "carol"]
            .map(|name| {
                let session = town.sign_in(&id_of(name));
                (town.listen(&session.user_id, &session.token), session.token)
            })
            .into();
        let carols = sockets[3].1.clone();
        town.sessions.end(&carols);
        town.reset(&id_of("alice"));
        let heard: Vec<bool> = sockets.iter_mut().map(|(socket, _)| socket.try_recv().is_ok()).collect();
        assert_eq!(heard, [true, false, true, false]);
    }

    /// Recorded: the filter looks at the session, not at the account.
    #[test]
    fn a_session_older_than_the_guest_role_hears_of_those_it_may_not_see() {
        let mut town = Town::new(&Options::default());
        let [bob, mallory] = ["bob", "mallory"].map(id_of);
        let session = town.sign_in(&bob);
        let mut older = town.listen(&bob, &session.token);
        town.set_roles(&bob, "system_guest");
        let session = town.sign_in(&bob);
        let mut newer = town.listen(&bob, &session.token);
        assert!(!town.can_see(&bob, &mallory));
        town.reset(&mallory);
        assert!(older.try_recv().is_ok() && older.try_recv().is_ok(), "the new roles, then the picture");
        assert!(newer.try_recv().is_err());
    }
}
