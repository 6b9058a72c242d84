//! The system's roles, as far as they decide who is seen: a role has the permission `view_members` or has not.

use serde::Serialize;

use super::ids::id_of;

/// The permission to see everybody (`PermissionViewMembers` in `server/public/model/permission.go`).
pub(super) const VIEW_MEMBERS: &str = "view_members";

/// The role that marks a guest.
pub(super) const GUEST: &str = "system_guest";

/// The role that may do everything.
pub(super) const ADMIN: &str = "system_admin";

/// What `system_user` may do on the recorded server.
const ORDINARY: [&str; 13] = [
    "create_custom_group",
    "create_direct_channel",
    "create_emojis",
    "create_group_channel",
    "create_team",
    "delete_custom_group",
    "delete_emojis",
    "edit_custom_group",
    "join_public_teams",
    "list_public_teams",
    "manage_custom_group_members",
    "restore_custom_group",
    VIEW_MEMBERS,
];

/// `model.Role`, in the order of its fields.
#[derive(Clone, Serialize, Debug)]
pub(super) struct SystemRole {
    pub(super) id: String,
    pub(super) name: &'static str,
    display_name: String,
    description: String,
    create_at: i64,
    update_at: i64,
    delete_at: i64,
    pub(super) permissions: Vec<String>,
    scheme_managed: bool,
    built_in: bool,
    scheme_id: Option<&'static str>,
}

/// Every role there is. An account has one or several of them, named in one line of text.
#[derive(Debug)]
pub(super) struct Roles(Vec<SystemRole>);

impl Roles {
    /// The built-in ones. Beside `system_user`'s, only the permission that counts here is listed.
    pub(super) fn new(born: i64) -> Self {
        let role = |name: &'static str, title: &str, permissions: &[&str]| SystemRole {
            id: id_of(&format!("role {name}")),
            name,
            display_name: format!("authentication.roles.{title}.name"),
            description: format!("authentication.roles.{title}.description"),
            create_at: born,
            update_at: born,
            delete_at: 0,
            permissions: permissions.iter().map(|&permission| permission.to_owned()).collect(),
            scheme_managed: true,
            built_in: true,
            scheme_id: None,
        };
        Self(vec![
            role(ADMIN, "global_admin", &[VIEW_MEMBERS]),
            role("system_user", "global_user", &ORDINARY),
            role(GUEST, "global_guest", &[]),
            role("system_user_access_token", "system_user_access_token", &[]),
        ])
    }

    pub(super) fn named(&self, name: &str) -> Option<&SystemRole> {
        self.0.iter().find(|role| role.name == name)
    }

    pub(super) fn get(&self, id: &str) -> Option<&SystemRole> {
        self.0.iter().find(|role| role.id == id)
    }

    /// Whether every one of these names is a role's, and there is at least one.
    pub(super) fn know(&self, names: &str) -> bool {
        !names.trim().is_empty() && names.split_whitespace().all(|name| self.named(name).is_some())
    }

    /// Whether one of these roles has the system-level `view_members`.
    pub(super) fn see_everybody(&self, names: &str) -> bool {
        let mut roles = names.split_whitespace().filter_map(|name| self.named(name));
        roles.any(|role| role.permissions.iter().any(|permission| permission == VIEW_MEMBERS))
    }

    /// Gives a role other permissions (`PatchRole`), in the order of the alphabet.
    pub(super) fn patch(&mut self, id: &str, mut permissions: Vec<String>, now: i64) -> Option<&SystemRole> {
        let role = self.0.iter_mut().find(|role| role.id == id)?;
        permissions.sort();
        permissions.dedup();
        role.permissions = permissions;
        role.update_at = now;
        Some(role)
    }
}

/// Whether a role is among an account's.
pub(super) fn is_among(names: &str, wanted: &str) -> bool {
    names.split_whitespace().any(|name| name == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_members_comes_with_any_of_the_roles_and_goes_with_a_patch() {
        let mut roles = Roles::new(1);
        for (names, known, sees) in [
            ("system_user", true, true),
            ("system_admin system_user", true, true),
            ("system_guest", true, false),
            ("system_user_access_token", true, false),
            ("system_user_access_token system_user", true, true),
            ("system_user banana", false, true),
            ("", false, false),
            (" ", false, false),
        ] {
            assert_eq!((roles.know(names), roles.see_everybody(names)), (known, sees), "{names}");
        }
        let id = roles.named("system_user").expect("built in").id.clone();
        let kept = vec!["join_public_teams".to_owned(), "create_team".to_owned()];
        let patched = roles.patch(&id, kept, 2).expect("a role");
        assert_eq!((patched.permissions.concat(), patched.update_at), ("create_teamjoin_public_teams".to_owned(), 2));
        assert!(!roles.see_everybody("system_user"));
    }
}
