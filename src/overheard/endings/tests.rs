//! Every group of the table, what stands beside it, and every spelling.

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

/// Routes are looked up by their first segments.
#[test]
fn no_pattern_begins_with_a_wildcard() {
    for (_, pattern) in ENDINGS.iter().flat_map(|group| group.routes) {
        assert!(!pattern.starts_with('*') && pattern.split('/').count() < 8, "{pattern}");
    }
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
        ("POST", "/users/sessions/a/b/c/d/e/f/g/h/i"),
        ("POST", "/users/me/sessions"),
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
        ("POST", "/users/me/sessions/a//b"),
        ("POST", "/users/me/sessions/a/b/c/d/e/f//g/h"),
        ("POST", "/users/me/sessions/a/b/c/d/e/f/g/"),
        ("PUT", "/users/me/roles/a/b/c/d/e/f/g/h"),
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
