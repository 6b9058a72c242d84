//! Who may see whom, and who may change what (`UserCanSeeOtherUser` and `GetViewUsersRestrictions` in
//! `server/channels/app/user.go`).

use std::collections::HashSet;

use super::account::Account;
use super::roles::{self, ADMIN};
use super::town::Town;

impl Town {
    /// Whether a viewer is told of this user and shown their picture. Does not ask whether the target exists.
    pub(super) fn can_see(&self, viewer: &str, target: &str) -> bool {
        viewer == target
            || self
                .exception(viewer, target)
                .unwrap_or_else(|| self.sees_everybody(viewer) || self.share_a_channel(viewer, target))
    }

    /// The accounts that lists tell a viewer of, sorted by username: those whose picture they may get, but oneself only
    /// when in any channel (recorded: a member of no team is told of nobody).
    pub(super) fn seen_by(&self, viewer: &str) -> Vec<&Account> {
        let everybody = self.sees_everybody(viewer);
        let near = if everybody { HashSet::new() } else { self.neighbours(viewer) };
        let visible = |account: &&Account| {
            let id = account.resident.id.as_str();
            self.exception(viewer, id).unwrap_or(everybody || near.contains(id))
        };
        let mut seen: Vec<&Account> = self.accounts.values().filter(visible).collect();
        seen.sort_by(|one, other| one.resident.username.cmp(&other.resident.username));
        seen
    }

    /// Whether the viewer's roles have `view_members`. No role of a team or a channel has it on the recorded server.
    pub(super) fn sees_everybody(&self, viewer: &str) -> bool {
        self.accounts.get(viewer).is_some_and(|account| self.roles.see_everybody(&account.roles))
    }

    /// An exception from what roles and channels say.
    pub(super) fn set_sight(&mut self, viewer: &str, target: &str, sees: bool) {
        self.sight.entry(viewer.to_owned()).or_default().insert(target.to_owned(), sees);
    }

    /// Oneself, or anybody for an administrator.
    pub(super) fn may_change(&self, viewer: &str, target: &str) -> bool {
        viewer == target || self.is_admin(viewer)
    }

    pub(super) fn is_admin(&self, viewer: &str) -> bool {
        self.accounts.get(viewer).is_some_and(|account| roles::is_among(&account.roles, ADMIN))
    }

    fn exception(&self, viewer: &str, target: &str) -> Option<bool> {
        self.sight.get(viewer)?.get(target).copied()
    }

    fn share_a_channel(&self, one: &str, other: &str) -> bool {
        self.channels.values().any(|channel| channel.members.contains(one) && channel.members.contains(other))
    }

    fn neighbours(&self, viewer: &str) -> HashSet<&str> {
        let shared = self.channels.values().filter(|channel| channel.members.contains(viewer));
        shared.flat_map(|channel| channel.members.iter().map(String::as_str)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::id_of;
    use super::super::options::Options;
    use super::*;

    #[test]
    fn roles_and_exceptions_decide_who_sees_whom() {
        let mut town = Town::new(&Options::default());
        let [alice, bob, gus, mallory] = ["alice", "bob", "gus", "mallory"].map(id_of);
        for (viewer, expected) in [(&alice, true), (&bob, true), (&gus, false), (&mallory, false)] {
            assert_eq!(town.can_see(viewer, &alice), expected, "{viewer}");
        }
        town.set_sight(&gus, &alice, true);
        town.set_sight(&bob, &alice, false);
        assert!(town.can_see(&gus, &alice) && !town.can_see(&bob, &alice));
        assert_eq!(town.seen_by(&mallory).len(), 0);
        assert_eq!(town.seen_by(&gus).len(), 1);
    }

    /// Everybody about everybody, asked as a list and one by one, with and without `view_members`.
    #[test]
    fn lists_tell_of_exactly_those_whose_picture_is_shown() {
        let mut town = Town::new(&Options::default());
        let [alice, carol] = ["alice", "carol"].map(id_of);
        town.set_sight(&carol, &alice, false);
        let everybody: Vec<String> = town.accounts.keys().cloned().collect();
        for step in ["ordinary", "restricted"] {
            for viewer in &everybody {
                let told: HashSet<&str> =
                    town.seen_by(viewer).iter().map(|account| account.resident.id.as_str()).collect();
                for target in everybody.iter().filter(|target| *target != viewer) {
                    assert_eq!(
                        told.contains(target.as_str()),
                        town.can_see(viewer, target),
                        "{step} {viewer} {target}"
                    );
                }
            }
            let role = town.roles.named("system_user").expect("built in").id.clone();
            town.patch_role(&role, Vec::new());
        }
    }
}
