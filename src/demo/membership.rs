//! Who is in which team and which channel, and what ends that. Whoever loses the view on others by it is told.

use std::collections::BTreeSet;

use serde_json::json;

use super::account::TeamState;
use super::events::Audience;
use super::options::{Channel, Team};
use super::roles::{self, GUEST};
use super::town::Town;

/// A channel with who is in it.
#[derive(Debug)]
pub(super) struct ChannelState {
    pub(super) team_id: String,
    pub(super) members: BTreeSet<String>,
    /// A team's town square: every member of the team is in it but guests, and only guests can be taken out.
    pub(super) town_square: bool,
}

impl Town {
    pub(super) fn team(&self, id: &str) -> Option<&TeamState> {
        self.teams.get(id)
    }

    pub(super) fn channel(&self, id: &str) -> Option<&ChannelState> {
        self.channels.get(id)
    }

    pub(super) fn teams_of(&self, user: &str) -> impl Iterator<Item = &TeamState> {
        self.teams.values().filter(move |state| self.is_member(user, &state.team.id))
    }

    pub(super) fn is_member(&self, user: &str, team: &str) -> bool {
        let teams = self.accounts.get(user).and_then(|account| account.resident.teams.as_ref());
        teams.is_some_and(|teams| teams.iter().any(|id| id == team))
    }

    pub(super) fn is_in_channel(&self, user: &str, channel: &str) -> bool {
        self.channels.get(channel).is_some_and(|state| state.members.contains(user))
    }

    pub(super) fn is_guest(&self, user: &str) -> bool {
        self.accounts.get(user).is_some_and(|account| roles::is_among(&account.roles, GUEST))
    }

    /// Makes the town squares of the teams and the other channels, with their members.
    pub(super) fn open_channels(&mut self, teams: &[Team], channels: &[Channel]) {
        for team in teams {
            let in_team = |id: &&String| self.is_member(id, &team.id) && !self.is_guest(id);
            let members = self.accounts.keys().filter(in_team).cloned().collect();
            let state = ChannelState { team_id: team.id.clone(), members, town_square: true };
            self.channels.insert(team.town_square.clone(), state);
        }
        for channel in channels {
            let members = channel.members.iter().cloned().collect();
            let state = ChannelState { team_id: channel.team_id.clone(), members, town_square: false };
            self.channels.insert(channel.id.clone(), state);
        }
    }

    /// Into the team, and but for guests into its town square.
    pub(super) fn join_team(&mut self, user: &str, team: &str) {
        if !self.teams.contains_key(team) {
            return;
        }
        let guest = self.is_guest(user);
        if let Some(account) = self.accounts.get_mut(user) {
            let teams = account.resident.teams.get_or_insert_default();
            if !teams.iter().any(|id| id == team) {
                teams.push(team.to_owned());
            }
        }
        for channel in self.channels.values_mut() {
            if channel.town_square && channel.team_id == team && !guest {
                channel.members.insert(user.to_owned());
            }
        }
    }

    /// Into the channel, and into its team first.
    pub(super) fn join_channel(&mut self, user: &str, channel: &str) {
        let Some(team) = self.channels.get(channel).map(|state| state.team_id.clone()) else {
            return;
        };
        self.join_team(user, &team);
        if let Some(state) = self.channels.get_mut(channel) {
            state.members.insert(user.to_owned());
        }
    }

    /// Out of the team and all its channels. The team is told before, so that the one who leaves hears it too.
    pub(super) fn leave_team(&mut self, user: &str, team: &str) {
        let data = json!({"team_id": team, "user_id": user});
        self.publish("leave_team", &data, &Audience::Team(team.to_owned()), None);
        if let Some(teams) = self.accounts.get_mut(user).and_then(|account| account.resident.teams.as_mut()) {
            teams.retain(|id| id != team);
        }
        for channel in self.channels.values_mut().filter(|channel| channel.team_id == team) {
            channel.members.remove(user);
        }
    }

    /// Out of the channel. A guest who leaves the last channel of a team leaves the team.
    pub(super) fn leave_channel(&mut self, user: &str, channel: &str, remover: &str) {
        let Some(state) = self.channels.get_mut(channel) else {
            return;
        };
        state.members.remove(user);
        let team = state.team_id.clone();
        let to_channel = json!({"remover_id": remover, "user_id": user});
        self.publish("user_removed", &to_channel, &Audience::Channel(channel.to_owned()), None);
        let to_user = json!({"channel_id": channel, "remover_id": remover});
        self.publish("user_removed", &to_user, &Audience::Owner(user.to_owned()), None);
        let left = self.channels.values().any(|state| state.team_id == team && state.members.contains(user));
        if !left && self.is_guest(user) {
            self.leave_team(user, &team);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::id_of;
    use super::super::options::Options;
    use super::*;

    #[test]
    fn what_is_shared_with_others_is_seen_of_them() {
        let mut options = Options::default();
        let team = options.teams[0].clone();
        let [alice, gus, mallory] = ["alice", "gus", "mallory"].map(id_of);
        let nook = Channel { members: vec![alice.clone(), gus.clone()], ..Channel::new("nook", &team) };
        options.channels.push(nook.clone());
        let mut town = Town::new(&options);
        let sights =
            |town: &Town| [(&gus, &alice), (&mallory, &alice)].map(|(viewer, target)| town.can_see(viewer, target));
        assert_eq!(sights(&town), [true, false]);
        town.leave_channel(&gus, &nook.id, &alice);
        town.join_team(&mallory, &team.id);
        assert_eq!(sights(&town), [false, true]);
        assert!(!town.is_member(&gus, &team.id), "the guest's last channel");
        town.join_channel(&gus, &nook.id);
        town.leave_team(&mallory, &team.id);
        assert_eq!(sights(&town), [true, false]);
        assert!(town.is_member(&gus, &team.id) && !town.is_in_channel(&mallory, &team.town_square));
    }
}
