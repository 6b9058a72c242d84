//! Which requests end a session or change a right, if upstream agrees: the one table of them.
//!
//! Paths are read as Mattermost's router reads them, after percent-decoding, because a spelling that we do not know must
//! not keep a grant alive. Which answers count (success, and every unknown outcome) is the caller's business; but a login,
//! a new password and a switch of login method count although no session asks for them.

use http::Method;
use std::borrow::Cow;

/// What a request ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The session that the request itself is made with: the grants of every credential set that holds its token.
    Session,
    /// Sessions or rights of somebody the request does not name in a way that we could follow: all grants.
    Rights,
}

struct Group {
    ending: Ending,
    client: Client,
    /// Methods, and a path below `BASE/api/v4/`: `*` is any one segment, a last `**` any number of them.
    routes: &'static [(&'static str, &'static str)],
}

/// Whose requests a group is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Any,
    MobileApp,
}

/// The table. The time to live of a grant is the guarantee, this is the courtesy of ending it sooner: what is missing
/// here costs at most that time, so a route that a server does not have is cheap and one left out is not.
///
/// Absent for a reason: joins, invitations, promotions, activations of what was never granted (they only add); edits of
/// profiles, of a channel's header and of notification settings (they touch no right, and come all day); logins in
/// general and the callbacks of single sign-on (on a Monday morning there is one every second); the exchange of an OAuth
/// refresh token (hourly for each application of each user); whatever a plugin offers below `/plugins/`.
static ENDINGS: [Group; 9] = [
    Group { ending: Ending::Session, client: Client::Any, routes: &[("POST", "users/logout")] },
    // Sessions and access tokens, known here by their ids and not by the tokens that grants hang on. A device that is
    // attached to a session ends the older sessions of that device.
    Group {
        ending: Ending::Rights,
        client: Client::Any,
        routes: &[
            ("POST PUT DELETE", "users/*/sessions/**"),
            ("POST PUT DELETE", "users/sessions/**"),
            ("POST", "users/tokens/revoke"),
            ("POST", "users/tokens/disable"),
        ],
    },
    // The app names its device when it signs in, which ends the older sessions of that device.
    // Not `login/type`, which anybody may ask without a password.
    Group {
        ending: Ending::Rights,
        client: Client::MobileApp,
        routes: &[("POST", "users/login"), ("POST", "users/login/cws"), ("POST", "users/login/sso/**")],
    },
    // Accounts: all the sessions of a user or bot end, or the user sees less than before.
    Group {
        ending: Ending::Rights,
        client: Client::Any,
        routes: &[
            ("DELETE", "users/*"),
            ("PUT", "users/*/active"),
            ("PUT", "users/*/auth"),
            ("PUT", "users/*/mfa"),
            ("PUT", "users/*/password"),
            ("PUT", "users/*/roles"),
            ("POST", "users/*/demote"),
            ("POST", "users/*/convert_to_bot"),
            ("POST", "users/password/reset"),
            ("POST", "users/login/switch"),
            ("POST", "users/migrate_auth/**"),
            ("POST", "bots/*/disable"),
            ("POST", "bots/*/convert_to_user"),
        ],
    },
    // Teams: who is in one decides who may be seen, and whether it is open who may see its icon.
    Group {
        ending: Ending::Rights,
        client: Client::Any,
        routes: &[
            ("DELETE", "teams/*/members/*"),
            ("PUT", "teams/*/members/*/roles"),
            ("PUT", "teams/*/members/*/schemeRoles"),
            ("PUT DELETE", "teams/*"),
            ("PUT", "teams/*/patch"),
            ("PUT", "teams/*/privacy"),
            ("PUT", "teams/*/scheme"),
        ],
    },
    // Channels: for guests, sharing one is what lets them see somebody. A channel that is moved loses members.
    Group {
        ending: Ending::Rights,
        client: Client::Any,
        routes: &[
            ("DELETE", "channels/*/members/*"),
            ("PUT", "channels/*/members/*/roles"),
            ("PUT", "channels/*/members/*/schemeRoles"),
            ("DELETE", "channels/*"),
            ("PUT", "channels/*/scheme"),
            ("PUT", "channels/*/privacy"),
            ("POST", "channels/*/convert"),
            ("POST", "channels/*/move"),
            ("PUT", "channels/*/moderations/patch"),
        ],
    },
    // Roles and schemes: `view_members` comes from there.
    Group {
        ending: Ending::Rights,
        client: Client::Any,
        routes: &[("PUT", "roles/*/patch"), ("PUT", "schemes/*/patch"), ("DELETE", "schemes/*")],
    },
    // Directories: groups carry people into and out of teams and channels.
    Group {
        ending: Ending::Rights,
        client: Client::Any,
        routes: &[
            ("POST PUT DELETE", "groups/*/teams/**"),
            ("POST PUT DELETE", "groups/*/channels/**"),
            ("PUT", "groups/*/patch"),
            ("DELETE", "groups/*"),
            ("DELETE", "groups/*/members"),
            ("POST PUT DELETE", "ldap/**"),
            ("POST PUT DELETE", "saml/**"),
        ],
    },
    // The site: access tokens, guests or MFA may be switched; an OAuth application takes its sessions along; and what
    // was changed behind the server's back acts when its caches are cleared.
    Group {
        ending: Ending::Rights,
        client: Client::Any,
        routes: &[
            ("PUT", "config"),
            ("PUT", "config/patch"),
            ("POST", "config/reload"),
            ("POST", "caches/invalidate"),
            ("POST PUT DELETE", "license/**"),
            ("POST", "trial-license"),
            ("PUT DELETE", "oauth/apps/*"),
            ("POST", "oauth/apps/*/regen_secret"),
        ],
    },
];

/// Outside the API: the user takes an OAuth application's access away.
const OAUTH_DEAUTHORIZE: &str = "oauth/deauthorize";

impl Ending {
    /// Reads a request's method and raw path; `base` is the path of Mattermost's `SiteURL` without its closing slash.
    /// `user_agent` tells the mobile app, whose logins end sessions, from every other client.
    #[must_use]
    pub fn of(method: &Method, path: &str, base: &str, user_agent: Option<&[u8]>) -> Option<Self> {
        // None of the table's, and nearly all there are.
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return None;
        }
        let path = as_routed(path)?;
        let path = path.strip_prefix(base)?.strip_prefix('/')?;
        if path == OAUTH_DEAUTHORIZE {
            return (*method == Method::POST).then_some(Self::Rights);
        }
        let path = path.strip_prefix("api/v4/")?;
        let is_mobile = user_agent.is_some_and(|agent| agent.starts_with(b"Mattermost Mobile/"));
        let is_route = |(methods, pattern): &(&str, &str)| {
            methods.split(' ').any(|one| one == method.as_str()) && matches_pattern(pattern, path)
        };
        let mut groups = ENDINGS.iter().filter(|group| group.client == Client::Any || is_mobile);
        groups.find(|group| group.routes.iter().any(is_route)).map(|group| group.ending)
    }
}

fn matches_pattern(pattern: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        match (wanted, segments.next()) {
            ("**", _) => return true,
            ("*", Some(segment)) if !segment.is_empty() => {}
            (wanted, Some(segment)) if wanted == segment => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

/// The path after percent-decoding, as Go's `net/url` does it. `None` for an escape that is none, which Go refuses, and
/// for what is not UTF-8, which no route of the table is.
fn as_routed(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let (escape, tail) = tail.split_at_checked(2)?;
            let hex = std::str::from_utf8(escape).ok().filter(|hex| !hex.starts_with('+'))?;
            decoded.push(u8::from_str_radix(hex, 16).ok()?);
            rest = tail;
        } else {
            decoded.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOBILE: &[u8] = b"Mattermost Mobile/2.43.0+700 (Android; 16; Pixel)";
    const BROWSER: &[u8] = b"Mozilla/5.0 (X11; Linux x86_64) Mattermost Mobile/2.43.0";

    fn ending(method: &str, path: &str, base: &str, user_agent: Option<&[u8]>) -> Option<Ending> {
        let path = path.replace("{alice}", "ge45wmpse3g8umtziei4q749th");
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        Ending::of(&method, &path, base, user_agent)
    }

    fn check(method: &str, path: &str, expected: Option<Ending>) {
        let api = format!("/api/v4{path}");
        for user_agent in [None, Some(BROWSER)] {
            assert_eq!(ending(method, &api, "", user_agent), expected, "{method} {path}");
        }
        assert_eq!(ending(method, &format!("/mm{api}"), "/mm", None), expected, "{method} {path} below a base");
        assert_eq!(ending(method, &api, "/mm", None), None, "{method} {path} outside the base");
        assert_eq!(ending("GET", &api, "", None), None, "GET {path}");
    }

    #[test]
    fn whatever_ends_a_session_or_changes_a_right() {
        check("POST", "/users/logout", Some(Ending::Session));
        for (method, path) in [
            ("POST", "/users/{alice}/sessions/revoke"),
            ("POST", "/users/me/sessions/revoke"),
            ("POST", "/users/{alice}/sessions/revoke/all"),
            ("POST", "/users/sessions/revoke/all"),
            ("PUT", "/users/sessions/device"),
            ("POST", "/users/sessions/device"),
            ("POST", "/users/tokens/revoke"),
            ("POST", "/users/tokens/disable"),
            ("PUT", "/users/{alice}/active"),
            ("DELETE", "/users/{alice}"),
            ("DELETE", "/users/me"),
            ("POST", "/users/{alice}/convert_to_bot"),
            ("PUT", "/users/{alice}/auth"),
            ("PUT", "/users/me/mfa"),
            ("PUT", "/users/{alice}/password"),
            ("POST", "/users/password/reset"),
            ("PUT", "/users/{alice}/roles"),
            ("POST", "/users/{alice}/demote"),
            ("POST", "/users/migrate_auth/ldap"),
            ("POST", "/users/migrate_auth/saml"),
            ("POST", "/users/login/switch"),
            ("POST", "/bots/{alice}/disable"),
            ("POST", "/bots/{alice}/convert_to_user"),
            ("DELETE", "/teams/{alice}/members/{alice}"),
            ("DELETE", "/teams/{alice}/members/me"),
            ("PUT", "/teams/{alice}/members/{alice}/roles"),
            ("PUT", "/teams/{alice}/members/{alice}/schemeRoles"),
            ("PUT", "/teams/{alice}"),
            ("PUT", "/teams/{alice}/patch"),
            ("PUT", "/teams/{alice}/privacy"),
            ("PUT", "/teams/{alice}/scheme"),
            ("DELETE", "/teams/{alice}"),
            ("DELETE", "/channels/{alice}/members/{alice}"),
            ("PUT", "/channels/{alice}/members/{alice}/roles"),
            ("PUT", "/channels/{alice}/members/{alice}/schemeRoles"),
            ("DELETE", "/channels/{alice}"),
            ("PUT", "/channels/{alice}/scheme"),
            ("PUT", "/channels/{alice}/privacy"),
            ("POST", "/channels/{alice}/convert"),
            ("POST", "/channels/{alice}/move"),
            ("PUT", "/roles/{alice}/patch"),
            ("PUT", "/schemes/{alice}/patch"),
            ("DELETE", "/schemes/{alice}"),
            ("PUT", "/config"),
            ("PUT", "/config/patch"),
            ("POST", "/config/reload"),
            ("POST", "/groups/{alice}/teams/{alice}/link"),
            ("DELETE", "/groups/{alice}/channels/{alice}/link"),
            ("POST", "/ldap/sync"),
            ("DELETE", "/oauth/apps/{alice}"),
            ("POST", "/license"),
            ("DELETE", "/license"),
            ("POST", "/caches/invalidate"),
        ] {
            check(method, path, Some(Ending::Rights));
        }
    }

    #[test]
    fn what_only_adds_or_touches_no_right_ends_nothing() {
        for (method, path) in [
            ("POST", "/users/{alice}/promote"),
            ("POST", "/teams/{alice}/members"),
            ("POST", "/teams/{alice}/members/batch"),
            ("POST", "/channels/{alice}/members"),
            ("PUT", "/channels/{alice}/members/{alice}/notify_props"),
            ("POST", "/channels/members/me/view"),
            ("PUT", "/channels/{alice}/patch"),
            ("PUT", "/users/{alice}"),
            ("PUT", "/users/{alice}/patch"),
            ("POST", "/users/{alice}/image"),
            ("DELETE", "/users/{alice}/image"),
            ("PUT", "/users/{alice}/status"),
            ("DELETE", "/users/{alice}/status/custom"),
            ("POST", "/users/ids"),
            ("POST", "/users/status/ids"),
            ("POST", "/users/{alice}/tokens"),
            ("POST", "/users"),
            ("POST", "/roles/names"),
            ("POST", "/posts"),
            ("DELETE", "/posts/{alice}"),
            ("PATCH", "/teams/{alice}"),
            ("PUT", "/users/logout"),
            ("POST", "/users/logout/"),
            ("POST", "//users/logout"),
            ("POST", "/users/logouts"),
            ("POST", "/users/%6"),
            ("POST", "/users/logou%+4"),
            ("POST", "/users/logout%zz"),
            ("POST", "/users/%ff/logout"),
            ("DELETE", "/users/"),
        ] {
            check(method, path, None);
        }
        assert_eq!(ending("POST", "/plugins/x/api/v4/users/logout", "", None), None);
        assert_eq!(ending("POST", "/API/v4/users/logout", "", None), None);
    }

    /// `recordings`: `encoded-post`, `path-encoded-slash`.
    #[test]
    fn every_spelling_that_the_server_routes_counts() {
        check("POST", "/users/%6cogout", Some(Ending::Session));
        check("POST", "/users%2Flogout", Some(Ending::Session));
        check("POST", "/users/{alice}/%73essions%2frevoke/all", Some(Ending::Rights));
        assert_eq!(ending("POST", "/%61pi/v4/users/logout", "", None), Some(Ending::Session));
        assert_eq!(ending("POST", "/m%6D/api/v4/users/logout", "/mm", None), Some(Ending::Session));
    }

    #[test]
    fn a_login_ends_sessions_only_when_the_app_makes_it() {
        check("POST", "/users/login", None);
        check("POST", "/users/login/desktop_token", None);
        for path in ["/api/v4/users/login", "/api/v4/users/%6Cogin", "/api/v4/users/login/cws"] {
            assert_eq!(ending("POST", path, "", Some(MOBILE)), Some(Ending::Rights), "{path}");
        }
        assert_eq!(ending("GET", "/api/v4/users/login", "", Some(MOBILE)), None);
        assert_eq!(ending("POST", "/api/v4/users/login/type", "", Some(MOBILE)), None);
        assert_eq!(ending("POST", "/api/v4/users/logout", "", Some(MOBILE)), Some(Ending::Session));
        assert_eq!(ending("POST", "/api/v4/posts", "", Some(MOBILE)), None);
    }

    #[test]
    fn taking_an_applications_access_away_is_outside_the_api() {
        for (method, path, base, expected) in [
            ("POST", "/oauth/deauthorize", "", Some(Ending::Rights)),
            ("POST", "/mm/oauth/de%61uthorize", "/mm", Some(Ending::Rights)),
            ("POST", "/oauth/deauthorize", "/mm", None),
            ("DELETE", "/oauth/deauthorize", "", None),
            ("POST", "/oauth/authorize", "", None),
            ("POST", "/oauth/access_token", "", None),
        ] {
            assert_eq!(ending(method, path, base, None), expected, "{method} {path}");
        }
    }

    proptest! {
        #[test]
        fn escaping_any_byte_changes_nothing(at in 0_usize..20, path in "(users/logout|users/me/mfa|teams/a/patch|posts)") {
            let path = format!("/api/v4/{path}");
            let at = at.min(path.len() - 1);
            let escaped = format!("{}%{:02x}{}", &path[..at], path.as_bytes()[at], &path[at + 1..]);
            for method in ["POST", "PUT"] {
                // The first slash is what tells a path from `*`; no client can send it escaped.
                if at > 0 {
                    prop_assert_eq!(ending(method, &escaped, "", None), ending(method, &path, "", None));
                }
            }
        }

        #[test]
        fn no_path_panics(path in "(/api/v4/)?[/%a-z0-9é]{0,40}", base in "(/mm)?") {
            let _ = ending("POST", &path, &base, Some(MOBILE));
        }
    }
}
