//! Which requests end a session or change a right, if upstream agrees: the one table of them.
//!
//! Paths are read as Mattermost's router reads them, after percent-decoding, because a spelling that we do not know
//! must not keep a grant alive. Which answers count (success, and every unknown outcome) is the caller's business; but
//! a login, a new password and a switch of login method count although no session asks for them.

use super::as_routed;
use http::Method;
use smallvec::SmallVec;
use std::sync::LazyLock;

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
/// general and the callbacks of single sign-on (on a Monday morning there is one every second); the exchange of an
/// OAuth refresh token (hourly for each application of each user); whatever a plugin offers below `/plugins/`.
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
        // No pattern has more; the last of them is all the rest.
        let segments = path.splitn(8, '/').collect::<SmallVec<[_; 8]>>();
        let routes = ROUTES.get(segments[0])?;
        let is_mobile = user_agent.is_some_and(|agent| agent.starts_with(b"Mattermost Mobile/"));
        let mut routes = routes.iter().filter(|route| {
            (route.client == Client::Any || is_mobile)
                && route.methods.contains(method)
                && matches_pattern(&route.pattern, &segments)
        });
        routes.next().map(|route| route.ending)
    }
}

/// One of the table, read.
struct Route {
    methods: SmallVec<[Method; 3]>,
    pattern: Vec<&'static str>,
    client: Client,
    ending: Ending,
}

/// The table by first segments, of which none is `*`: every POST there is asks for its own.
static ROUTES: LazyLock<foldhash::HashMap<&str, Vec<Route>>> = LazyLock::new(|| {
    let mut routes = foldhash::HashMap::<_, Vec<_>>::default();
    for (group, &(methods, pattern)) in
        ENDINGS.iter().flat_map(|group| group.routes.iter().map(move |one| (group, one)))
    {
        let pattern = pattern.split('/').collect::<Vec<_>>();
        let first = pattern[0];
        let methods = methods.split(' ').map(|method| method.parse().expect("a method")).collect();
        let route = Route { methods, pattern, client: group.client, ending: group.ending };
        routes.entry(first).or_default().push(route);
    }
    routes
});

fn matches_pattern(pattern: &[&str], path: &[&str]) -> bool {
    let is_one = |(wanted, segment): (&&str, &&str)| wanted == segment || *wanted == "*" && !segment.is_empty();
    let begins = |pattern: &[&str]| pattern.len() <= path.len() && pattern.iter().zip(path).all(is_one);
    match pattern {
        [pattern @ .., "**"] => {
            let mut rest = path.iter().skip(pattern.len()).flat_map(|segment| segment.split('/'));
            // Whatever follows, if the router would not first send it to a cleaner path.
            begins(pattern) && rest.all(|segment| !segment.is_empty())
        }
        _ => begins(pattern) && pattern.len() == path.len(),
    }
}

#[cfg(test)]
mod tests;
