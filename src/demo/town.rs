//! The stand-in's memory: accounts, teams, emoji, sessions, who may see whom, and how a change is told. Sync; the
//! caller holds the one lock around it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;

use super::account::{Account, Patch, Shown, Stored, StoredFile, TeamState, Verdict};
use super::events::{Audience, Event, Hub};
use super::files::Files;
use super::ids::new_id;
use super::json::{EmojiRecord, TeamRecord, UserRecord};
use super::options::{Emoji, Options, Portrait, Resident, Role, Team};
use super::sessions::{Session, Sessions};

/// Custom emoji beyond this push out the oldest.
const MOST_EMOJI: usize = 1_000;

/// Everything the stand-in knows.
pub(super) struct Town {
    accounts: BTreeMap<String, Account>,
    teams: BTreeMap<String, TeamState>,
    emoji: VecDeque<Emoji>,
    /// Exceptions from what the roles say, by viewer and target.
    sight: HashMap<(String, String), bool>,
    pub(super) sessions: Sessions,
    pub(super) files: Files,
    hub: Hub,
    last_stamp: i64,
}

impl Town {
    pub(super) fn new(options: &Options) -> Self {
        let home: Vec<String> = options.teams.iter().take(1).map(|team| team.id.clone()).collect();
        let born = 1_700_000_000_000;
        let account = |resident: &Resident| {
            let mut resident = resident.clone();
            resident.teams.get_or_insert_with(|| home.clone());
            let domain = if resident.role == Role::Bot { "localhost" } else { "example.test" };
            let account = Account {
                email: format!("{}@{domain}", resident.username),
                nickname: String::new(),
                create_at: born,
                update_at: born.max(resident.stamp.abs()),
                delete_at: if resident.deactivated { born } else { 0 },
                failed_attempts: 0,
                stamp: resident.stamp,
                portrait: Stored::Later(resident.portrait.clone()),
                resident,
            };
            (account.resident.id.clone(), account)
        };
        let team = |team: &Team| {
            let (icon, stamp) = team.icon.clone().unzip();
            let stamp = stamp.unwrap_or_default();
            let state = TeamState { team: team.clone(), create_at: born, update_at: born.max(stamp), stamp, icon };
            (team.id.clone(), state)
        };
        Self {
            accounts: options.residents.iter().map(account).collect(),
            teams: options.teams.iter().map(team).collect(),
            emoji: options.emoji.iter().cloned().collect(),
            sight: HashMap::new(),
            sessions: Sessions::default(),
            files: Files::default(),
            hub: Hub::default(),
            last_stamp: 0,
        }
    }

    /// An account by id or username.
    pub(super) fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.get(name).or_else(|| self.accounts.values().find(|account| account.resident.username == name))
    }

    /// The accounts that a viewer is told of, sorted by username.
    pub(super) fn seen_by(&self, viewer: &str) -> Vec<&Account> {
        let visible = |account: &&Account| self.can_see(viewer, &account.resident.id);
        let mut seen: Vec<&Account> = self.accounts.values().filter(visible).collect();
        seen.sort_by(|one, other| one.resident.username.cmp(&other.resident.username));
        seen
    }

    /// `UserCanSeeOtherUser`: does not ask whether the target exists.
    pub(super) fn can_see(&self, viewer: &str, target: &str) -> bool {
        viewer == target
            || self.sight.get(&(viewer.to_owned(), target.to_owned())).copied().unwrap_or_else(|| {
                self.accounts.get(viewer).is_some_and(|account| account.resident.role.sees_everybody())
            })
    }

    pub(super) fn set_sight(&mut self, viewer: &str, target: &str, sees: bool) {
        self.sight.insert((viewer.to_owned(), target.to_owned()), sees);
    }

    /// Oneself, or anybody for an administrator.
    pub(super) fn may_change(&self, viewer: &str, target: &str) -> bool {
        viewer == target || self.is_admin(viewer)
    }

    pub(super) fn is_admin(&self, viewer: &str) -> bool {
        self.accounts.get(viewer).is_some_and(|account| account.resident.role == Role::Admin)
    }

    /// What a GET of a user's picture shows (`GetProfileImage`): a missing file is drawn for this answer, and for a
    /// user who never changed it also stored.
    pub(super) fn show(&mut self, id: &str) -> Option<Shown> {
        let account = self.accounts.get_mut(id)?;
        if let Some(file) = account.stored() {
            return Some(Shown { file, fresh: 86_400, stamp: Some(account.stamp) });
        }
        let file = account.default_picture();
        if account.stamp == 0 {
            account.portrait = Stored::File(file.clone());
        }
        Some(Shown { file, fresh: 300, stamp: None })
    }

    /// Stores an uploaded picture. The very same bytes change nothing and tell nobody.
    pub(super) fn upload(&mut self, id: &str, png: Bytes) {
        let file = StoredFile::png(png);
        let same = self.accounts.get_mut(id).is_some_and(|account| account.stored().as_ref() == Some(&file));
        if !same {
            self.replace(id, file);
        }
    }

    /// Stores a picture, moves the stamp and tells of it.
    pub(super) fn replace(&mut self, id: &str, file: StoredFile) {
        let now = self.next_stamp();
        if let Some(account) = self.accounts.get_mut(id) {
            account.portrait = Stored::File(file);
            account.stamp = now;
            account.update_at = now;
            self.tell_of_user(id);
        }
    }

    /// Back to the default picture; the stamp becomes negative, each time another.
    pub(super) fn reset(&mut self, id: &str) {
        let now = self.next_stamp();
        if let Some(account) = self.accounts.get_mut(id) {
            account.portrait = Stored::Later(Portrait::Default);
            account.stamp = -now;
            account.update_at = now;
            self.tell_of_user(id);
        }
    }

    pub(super) fn lose_file(&mut self, id: &str) {
        if let Some(account) = self.accounts.get_mut(id) {
            account.portrait = Stored::Nothing;
        }
    }

    pub(super) fn set_stamp(&mut self, id: &str, stamp: i64) {
        if let Some(account) = self.accounts.get_mut(id) {
            account.stored();
            account.stamp = stamp;
        }
    }

    /// A change of the record. A new username draws a new letter where the picture is still a default one.
    pub(super) fn patch(&mut self, id: &str, patch: Patch) {
        let now = self.next_stamp();
        let Some(account) = self.accounts.get_mut(id) else {
            return;
        };
        let resident = &mut account.resident;
        let renamed = patch.username.as_ref().is_some_and(|name| *name != resident.username);
        for (field, value) in [
            (&mut resident.username, patch.username),
            (&mut account.nickname, patch.nickname),
            (&mut resident.first_name, patch.first_name),
            (&mut resident.last_name, patch.last_name),
            (&mut resident.position, patch.position),
        ] {
            if let Some(value) = value {
                *field = value;
            }
        }
        account.update_at = now;
        if renamed && account.stamp <= 0 && !account.is_bot() {
            account.portrait = Stored::Later(Portrait::Default);
            account.stamp = -now;
        }
        let variants = [
            (UserRecord::for_owner(account), Audience::Owner(id.to_owned())),
            (UserRecord::for_admins(account), Audience::Admins(id.to_owned())),
            (UserRecord::for_others(account), Audience::Others(id.to_owned())),
        ];
        for (record, audience) in variants {
            self.publish("user_updated", json!({ "user": record }), &audience, Some(id));
        }
    }

    /// Counts wrong passwords until the right one.
    pub(super) fn note_password(&mut self, id: &str, verdict: Verdict) {
        if let Some(account) = self.accounts.get_mut(id) {
            account.failed_attempts = match verdict {
                Verdict::Right => 0,
                Verdict::Wrong => account.failed_attempts + 1,
            };
        }
    }

    /// Opens a session for an account.
    pub(super) fn sign_in(&mut self, id: &str) -> Session {
        self.sessions.open(id)
    }

    pub(super) fn team(&self, id: &str) -> Option<&TeamState> {
        self.teams.get(id)
    }

    pub(super) fn teams_of(&self, user: &str) -> impl Iterator<Item = &TeamState> {
        self.teams.values().filter(move |state| self.is_member(user, &state.team.id))
    }

    pub(super) fn is_member(&self, viewer: &str, team: &str) -> bool {
        let teams = self.accounts.get(viewer).and_then(|account| account.resident.teams.as_ref());
        teams.is_some_and(|teams| teams.iter().any(|id| id == team))
    }

    /// What a GET of a team's icon shows; `None` without a file.
    pub(super) fn show_icon(&self, id: &str) -> Option<Shown> {
        let state = self.teams.get(id)?;
        let file = StoredFile::png(state.icon.clone()?);
        Some(Shown { file, fresh: 86_400, stamp: Some(state.stamp) })
    }

    /// A new icon, or with `None` its removal: that only sets the stamp to 0.
    pub(super) fn set_icon(&mut self, id: &str, icon: Option<Bytes>) {
        let now = self.next_stamp();
        let Some(state) = self.teams.get_mut(id) else {
            return;
        };
        state.stamp = if icon.is_some() { now } else { 0 };
        state.update_at = state.stamp;
        state.icon = icon.or(state.icon.take());
        let record = serde_json::to_string(&TeamRecord::new(state)).expect("a record always serialises");
        self.publish("update_team", json!({ "team": record }), &Audience::Team(id.to_owned()), None);
    }

    pub(super) fn all_emoji(&self) -> impl Iterator<Item = &Emoji> {
        self.emoji.iter()
    }

    pub(super) fn emoji(&self, id: &str) -> Option<&Emoji> {
        self.emoji.iter().find(|emoji| emoji.id == id)
    }

    /// Adds an emoji under a fresh id, and returns that id.
    pub(super) fn add_emoji(&mut self, name: &str, creator_id: &str, file: StoredFile) -> String {
        if self.emoji.len() == MOST_EMOJI {
            self.emoji.pop_front();
        }
        let emoji = Emoji {
            id: new_id(),
            name: name.to_owned(),
            creator_id: creator_id.to_owned(),
            create_at: self.next_stamp(),
            bytes: file.bytes,
            content_type: file.content_type,
        };
        let id = emoji.id.clone();
        let record = serde_json::to_string(&EmojiRecord::new(&emoji)).expect("a record always serialises");
        self.emoji.push_back(emoji);
        self.publish("emoji_added", json!({ "emoji": record }), &Audience::Everybody, None);
        id
    }

    /// Nobody is told of a deletion.
    pub(super) fn delete_emoji(&mut self, id: &str) {
        self.emoji.retain(|emoji| emoji.id != id);
    }

    /// From now on events reach this socket.
    pub(super) fn listen(&mut self, user_id: &str, token: &str) -> mpsc::Receiver<Event> {
        self.hub.listen(user_id, token)
    }

    /// Milliseconds since 1970; two changes never share one.
    pub(super) fn next_stamp(&mut self) -> i64 {
        self.last_stamp = now().max(self.last_stamp + 1);
        self.last_stamp
    }

    fn tell_of_user(&mut self, id: &str) {
        if let Some(account) = self.accounts.get(id) {
            let record = UserRecord::for_others(account);
            self.publish("user_updated", json!({ "user": record }), &Audience::Everybody, Some(id));
        }
    }

    /// Guests hear only of users they can see; outsiders hear of everybody, as on the real server.
    fn publish(&mut self, name: &'static str, data: serde_json::Value, audience: &Audience, about: Option<&str>) {
        let mut hub = std::mem::take(&mut self.hub);
        hub.publish(&Event::new(name, data, audience), |listener| {
            let listening = &listener.user_id;
            let guest = self.accounts.get(listening).is_some_and(|account| account.resident.role == Role::Guest);
            let addressed = match audience {
                Audience::Everybody => true,
                Audience::Owner(id) => id == listening,
                Audience::Admins(id) => id != listening && self.is_admin(listening),
                Audience::Others(id) => id != listening && !self.is_admin(listening),
                Audience::Team(id) => self.is_member(listening, id),
            };
            let seen = !guest || about.is_none_or(|about| self.can_see(listening, about));
            addressed && seen && self.sessions.get(&listener.token).is_some()
        });
        self.hub = hub;
    }
}

/// Now, in milliseconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The secret that every account of a stand-in signs in with.
pub const PASSWORD: &str = "avatar-proxy";

#[cfg(test)]
mod tests {
    use super::super::ids::id_of;
    use super::super::illustrations::{Style, portrait};
    use super::*;

    fn town() -> (Town, String) {
        (Town::new(&Options::default()), id_of("alice"))
    }

    #[test]
    fn the_first_look_at_an_undrawn_picture_has_no_validator() {
        let mut options = Options::empty();
        options.residents.push(Resident::new("new", Role::Member, Portrait::Undrawn));
        let mut town = Town::new(&options);
        let mut look = || town.show(&id_of("new")).map(|shown| (shown.fresh, shown.stamp));
        assert_eq!(look(), Some((300, None)));
        assert_eq!(look(), Some((86_400, Some(0))));
    }

    #[test]
    fn a_lost_file_is_drawn_for_each_answer() {
        let (mut town, alice) = town();
        town.lose_file(&alice);
        for _ in 0..2 {
            assert_eq!(town.show(&alice).map(|shown| (shown.fresh, shown.stamp)), Some((300, None)));
        }
    }

    #[test]
    fn only_other_bytes_move_the_stamp_and_resets_always_do() {
        let (mut town, alice) = town();
        let png = portrait(Style::Hills, 99);
        let stamp = |town: &mut Town| town.show(&alice).and_then(|shown| shown.stamp).expect("a stamp");
        let before = stamp(&mut town);
        town.upload(&alice, png.clone());
        let first = stamp(&mut town);
        town.upload(&alice, png);
        let second = stamp(&mut town);
        town.reset(&alice);
        let third = stamp(&mut town);
        town.reset(&alice);
        let fourth = stamp(&mut town);
        assert!(first > before && second == first, "{before} {first} {second}");
        assert!(third < 0 && fourth < third, "{third} {fourth}");
    }

    #[test]
    fn a_rename_redraws_only_a_default_picture() {
        let (mut town, alice) = town();
        let rename = |name: &str| Patch { username: Some(name.to_owned()), ..Patch::default() };
        let look = |town: &mut Town| town.show(&alice).map(|shown| (shown.file, shown.stamp)).expect("a picture");
        let own = look(&mut town);
        town.patch(&alice, rename("zalice"));
        assert_eq!(look(&mut town), own);
        town.reset(&alice);
        let letter = look(&mut town);
        town.patch(&alice, rename("alice"));
        let redrawn = look(&mut town);
        assert_ne!(redrawn.0, letter.0);
        assert!(redrawn.1 < letter.1);
    }

    #[test]
    fn roles_and_exceptions_decide_who_sees_whom() {
        let (mut town, alice) = town();
        let [bob, gus, mallory] = ["bob", "gus", "mallory"].map(id_of);
        for (viewer, expected) in [(&alice, true), (&bob, true), (&gus, false), (&mallory, false)] {
            assert_eq!(town.can_see(viewer, &alice), expected, "{viewer}");
        }
        town.set_sight(&gus, &alice, true);
        town.set_sight(&bob, &alice, false);
        assert!(town.can_see(&gus, &alice) && !town.can_see(&bob, &alice));
        assert_eq!(town.seen_by(&mallory).len(), 1);
        assert_eq!(town.seen_by(&gus).len(), 2);
    }

    #[test]
    fn events_follow_permission_and_session() {
        let (mut town, alice) = town();
        let mut sockets: Vec<_> = ["bob", "gus", "mallory", "carol"]
            .map(|name| {
                let session = town.sign_in(&id_of(name));
                (town.listen(&session.user_id, &session.token), session.token)
            })
            .into();
        let carols = sockets[3].1.clone();
        town.sessions.end(&carols);
        town.reset(&alice);
        let heard: Vec<bool> = sockets.iter_mut().map(|(socket, _)| socket.try_recv().is_ok()).collect();
        assert_eq!(heard, [true, false, true, false]);
    }
}
