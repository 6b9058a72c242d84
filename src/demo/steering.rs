//! What tests do to a running stand-in's people: sign them in, change their pictures and their rights, let them hear.

use bytes::Bytes;
use serde_json::Value;

use super::StandIn;
use super::account::{Patch, StoredFile};
use super::events::Audience;
use super::sessions::Session;
use super::town::Town;

impl StandIn {
    /// The id of a user.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    #[must_use]
    pub fn id(&self, user: &str) -> String {
        resolve(&self.shared.town(), user)
    }

    /// A user's oldest session, or a new one for who has none.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    #[must_use]
    pub fn session(&self, user: &str) -> Session {
        let mut town = self.shared.town();
        let id = resolve(&town, user);
        let open = town.sessions.of(&id).cloned();
        open.unwrap_or_else(|| town.sign_in(&id))
    }

    /// The token of [`StandIn::session`].
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    #[must_use]
    pub fn token(&self, user: &str) -> String {
        self.session(user).token
    }

    /// Opens one more session for a user.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    #[must_use]
    pub fn sign_in(&self, user: &str) -> Session {
        let mut town = self.shared.town();
        let id = resolve(&town, user);
        town.sign_in(&id)
    }

    /// A session of everybody who can sign in, by username: the oldest, or a new one.
    #[must_use]
    pub fn sessions(&self) -> Vec<Session> {
        let mut town = self.shared.town();
        let people = town.accounts.values().filter(|account| account.delete_at == 0 && !account.is_bot());
        let mut people: Vec<(String, String)> =
            people.map(|account| (account.resident.username.clone(), account.resident.id.clone())).collect();
        people.sort();
        let mut session = |id: String| town.sessions.of(&id).cloned().unwrap_or_else(|| town.sign_in(&id));
        people.into_iter().map(|(_, id)| session(id)).collect()
    }

    /// Ends the session of a token, as a logout elsewhere would.
    pub fn revoke(&self, token: &str) {
        self.shared.town().sessions.end(token);
    }

    /// Ends all sessions of a user.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    pub fn revoke_all(&self, user: &str) {
        self.change(user, |town, id| town.sessions.end_all_of(id));
    }

    /// Stores these bytes as a user's picture, moves the stamp to now and tells every WebSocket, as a plugin would.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    pub fn show(&self, user: &str, png: impl Into<Bytes>) {
        self.show_raw(user, png, "image/png");
    }

    /// [`StandIn::show`] with any bytes under any `Content-Type`.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    pub fn show_raw(&self, user: &str, bytes: impl Into<Bytes>, content_type: &str) {
        self.change(user, |town, id| {
            town.replace(id, StoredFile { bytes: bytes.into(), content_type: content_type.to_owned() });
        });
    }

    /// Back to the default picture: the stamp becomes negative, every WebSocket hears of it.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    pub fn reset(&self, user: &str) {
        self.change(user, Town::reset);
    }

    /// Gives a user another name, and with it another letter under a negative stamp where the picture is a default one.
    /// Does not look whether the name is taken.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    pub fn rename(&self, user: &str, username: &str) {
        let patch = Patch { username: Some(username.to_owned()), ..Patch::default() };
        self.change(user, |town, id| town.patch(id, patch));
    }

    /// Stores these bytes as a team's icon and tells its members; `None` removes it. The team is named by its id.
    pub fn show_icon(&self, team: &str, png: Option<Bytes>) {
        self.shared.town().set_icon(team, png);
    }

    /// Removes a user's file from the store; stamp and record stay.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    pub fn lose_file(&self, user: &str) {
        self.change(user, Town::lose_file);
    }

    /// Sets `LastPictureUpdate` (milliseconds since 1970, 0, or negative) and tells nobody.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    pub fn set_stamp(&self, user: &str, stamp: i64) {
        self.change(user, |town, id| town.set_stamp(id, stamp));
    }

    /// What records and events say as `last_picture_update` until the picture changes, whatever the `ETag` says; tells
    /// nobody.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    pub fn set_told_stamp(&self, user: &str, stamp: i64) {
        self.change(user, |town, id| town.set_told_stamp(id, stamp));
    }

    /// From the next request on this viewer may see this user, whatever the role says.
    ///
    /// # Panics
    ///
    /// When nobody has one of the names.
    pub fn allow(&self, viewer: &str, target: &str) {
        self.set_sight(viewer, target, true);
    }

    /// From the next request on this viewer may not see this user, whatever the role says.
    ///
    /// # Panics
    ///
    /// When nobody has one of the names.
    pub fn deny(&self, viewer: &str, target: &str) {
        self.set_sight(viewer, target, false);
    }

    /// Puts a user into a team, named by its id.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    pub fn join_team(&self, user: &str, team: &str) {
        self.change(user, |town, id| town.join_team(id, team));
    }

    /// Takes a user out of a team, named by its id, and tells the team.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    pub fn leave_team(&self, user: &str, team: &str) {
        self.change(user, |town, id| town.leave_team(id, team));
    }

    /// Puts a user into a channel, named by its id, and into its team.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    pub fn join_channel(&self, user: &str, channel: &str) {
        self.change(user, |town, id| town.join_channel(id, channel));
    }

    /// Takes a user out of a channel, named by its id, and tells the channel and the user.
    ///
    /// # Panics
    ///
    /// When nobody has that name.
    pub fn leave_channel(&self, user: &str, channel: &str) {
        self.change(user, |town, id| town.leave_channel(id, channel, id));
    }

    /// Sends an event with this data to every WebSocket that is signed in: a chat message, or one that is not imitated.
    pub fn tell(&self, event: &str, data: &Value) {
        self.shared.town().publish(event, data, &Audience::Everybody, None);
    }

    fn change(&self, user: &str, change: impl FnOnce(&mut Town, &str)) {
        let mut town = self.shared.town();
        let id = resolve(&town, user);
        change(&mut town, &id);
    }

    fn set_sight(&self, viewer: &str, target: &str, sees: bool) {
        let mut town = self.shared.town();
        let (viewer, target) = (resolve(&town, viewer), resolve(&town, target));
        town.set_sight(&viewer, &target, sees);
    }
}

fn resolve(town: &Town, user: &str) -> String {
    let account = town.account(user).unwrap_or_else(|| panic!("nobody here is called {user:?}"));
    account.resident.id.clone()
}
