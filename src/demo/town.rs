//! The stand-in's memory: accounts, teams, emoji, sessions, and what changes about them. Sync; the caller holds the one
//! lock around it. Who sees whom, who is where and who is told stand in `sight`, `membership` and `telling`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::json;

use super::account::{Account, Patch, Shown, Stored, StoredFile, TeamState, Verdict};
use super::events::{Audience, Hub};
use super::files::Files;
use super::ids::new_id;
use super::json::{EmojiRecord, TeamRecord};
use super::membership::ChannelState;
use super::options::{Emoji, Options, Portrait, Resident, Role, Team};
use super::roles::{Roles, SystemRole};
use super::sessions::{Session, Sessions, Standing};

/// Custom emoji beyond this push out the oldest.
const MOST_EMOJI: usize = 1_000;

/// Everything the stand-in knows.
pub(super) struct Town {
    pub(super) accounts: BTreeMap<String, Account>,
    pub(super) teams: BTreeMap<String, TeamState>,
    pub(super) channels: BTreeMap<String, ChannelState>,
    pub(super) roles: Roles,
    emoji: VecDeque<Emoji>,
    /// Exceptions from what roles and channels say, by viewer and then by target.
    pub(super) sight: HashMap<String, HashMap<String, bool>>,
    pub(super) sessions: Sessions,
    pub(super) files: Files,
    pub(super) hub: Hub,
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
                roles: resident.role.names().to_owned(),
                email: format!("{}@{domain}", resident.username),
                nickname: String::new(),
                create_at: born,
                update_at: born.max(resident.stamp.abs()),
                delete_at: if resident.deactivated { born } else { 0 },
                failed_attempts: 0,
                stamp: resident.stamp,
                told_stamp: None,
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
        let mut town = Self {
            accounts: options.residents.iter().map(account).collect(),
            teams: options.teams.iter().map(team).collect(),
            channels: BTreeMap::new(),
            roles: Roles::new(born),
            emoji: options.emoji.iter().cloned().collect(),
            sight: HashMap::new(),
            sessions: Sessions::default(),
            files: Files::default(),
            hub: Hub::default(),
            last_stamp: 0,
        };
        town.open_channels(&options.teams, &options.channels);
        town
    }

    /// An account by id or username.
    pub(super) fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.get(name).or_else(|| self.accounts.values().find(|account| account.resident.username == name))
    }

    pub(super) fn account_by_email(&self, email: &str) -> Option<&Account> {
        self.accounts.values().find(|account| account.email == email)
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
            account.change_picture(Stored::File(file), now, now);
            self.tell_of_picture(id);
        }
    }

    /// Back to the default picture; the stamp becomes negative, each time another.
    pub(super) fn reset(&mut self, id: &str) {
        let now = self.next_stamp();
        if let Some(account) = self.accounts.get_mut(id) {
            account.change_picture(Stored::Later(Portrait::Default), -now, now);
            self.tell_of_picture(id);
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
            account.told_stamp = None;
        }
    }

    pub(super) fn set_told_stamp(&mut self, id: &str, stamp: i64) {
        if let Some(account) = self.accounts.get_mut(id) {
            account.told_stamp = Some(stamp);
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
            account.change_picture(Stored::Later(Portrait::Default), -now, now);
        }
        self.tell_of_record(id);
    }

    /// Deactivates an account, which ends its sessions, or activates it again.
    pub(super) fn set_active(&mut self, id: &str, activity: Activity) {
        let now = self.next_stamp();
        let Some(account) = self.accounts.get_mut(id) else {
            return;
        };
        account.update_at = now;
        account.delete_at = if activity == Activity::Active { 0 } else { now };
        if activity == Activity::Deactivated {
            self.sessions.end_all_of(id);
        }
        self.tell_of_record(id);
        self.tell_of_activation();
    }

    /// Gives an account other roles. Only the user is told; open sessions keep the mark they began with.
    pub(super) fn set_roles(&mut self, id: &str, roles: &str) {
        let now = self.next_stamp();
        let Some(account) = self.accounts.get_mut(id) else {
            return;
        };
        roles.clone_into(&mut account.roles);
        account.update_at = now;
        let data = json!({"roles": roles, "user_id": id});
        self.publish("user_role_updated", &data, &Audience::Owner(id.to_owned()), None);
    }

    /// Gives a role other permissions and tells everybody.
    pub(super) fn patch_role(&mut self, id: &str, permissions: Vec<String>) -> Option<SystemRole> {
        let now = self.next_stamp();
        let role = self.roles.patch(id, permissions, now)?.clone();
        let record = serde_json::to_string(&role).expect("a record always serialises");
        self.publish("role_updated", &json!({ "role": record }), &Audience::Everybody, None);
        Some(role)
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
        let standing = if self.is_guest(id) { Standing::Guest } else { Standing::Ordinary };
        self.sessions.open(id, standing)
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
        self.publish("update_team", &json!({ "team": record }), &Audience::Team(id.to_owned()), None);
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
        self.publish("emoji_added", &json!({ "emoji": record }), &Audience::Everybody, None);
        id
    }

    /// Nobody is told of a deletion.
    pub(super) fn delete_emoji(&mut self, id: &str) {
        self.emoji.retain(|emoji| emoji.id != id);
    }

    /// Milliseconds since 1970; two changes never share one.
    pub(super) fn next_stamp(&mut self) -> i64 {
        self.last_stamp = now().max(self.last_stamp + 1);
        self.last_stamp
    }
}

/// Whether an account can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Activity {
    Active,
    Deactivated,
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
}
