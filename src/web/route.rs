//! The route table: a request's method and path, read once, to what is done with it. Pure.
//!
//! Two readings of one path. For *serving from memory* only the canonical spelling of a picture route counts, byte for
//! byte; every other spelling passes through and upstream decides. For *forgetting* the path is read as Mattermost's
//! router reads it, after percent-decoding (`recordings`: `encoded-post`, `encoded-delete`).

use crate::identity::{ObjectId, PictureKind};
use crate::overheard::as_routed;
use http::Method;

/// What a request is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// GET or HEAD of a picture in its canonical spelling.
    Picture(PictureKind, Who),
    /// Something that changes a picture, or may.
    Change(PictureKind, Who),
    /// Everything else.
    Passthrough,
    /// A path that we and upstream could read differently.
    Refused,
    /// `CONNECT`, which is for forward proxies.
    Connect,
}

/// Whose picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// The one with this id.
    Id(ObjectId),
    /// The caller's own.
    Me,
}

impl Route {
    /// Reads a request's method and raw path; `base` is the path of Mattermost's `SiteURL` without its closing slash,
    /// so empty for a site at the root.
    #[must_use]
    pub fn of(method: &Method, path: &str, base: &str) -> Self {
        if method == Method::CONNECT {
            return Self::Connect;
        }
        if is_ambiguous(path) {
            return Self::Refused;
        }
        let reads = method == Method::GET || method == Method::HEAD;
        let found = if reads { canonical_picture(path, base) } else { changed_picture(method, path, base) };
        match found {
            Some((kind, who)) if reads => Self::Picture(kind, who),
            Some((kind, who)) => Self::Change(kind, who),
            None => Self::Passthrough,
        }
    }
}

/// Dot segments, plain or escaped, and backslashes: what one parser folds, another routes as it stands. Mattermost's own
/// router would answer 301 or 404.
fn is_ambiguous(path: &str) -> bool {
    path.bytes().any(|byte| byte == b'\\' || byte.is_ascii_control())
        || path.as_bytes().split(|byte| *byte == b'/').any(is_dot_segment)
}

fn is_dot_segment(segment: &[u8]) -> bool {
    let after_dot = |rest: &[u8]| match rest {
        [b'.', ..] => Some(1),
        [b'%', b'2', b'e' | b'E', ..] => Some(3),
        _ => None,
    };
    let Some(first) = after_dot(segment) else { return false };
    let rest = &segment[first..];
    rest.is_empty() || after_dot(rest).is_some_and(|second| second == rest.len())
}

fn canonical_picture(path: &str, base: &str) -> Option<(PictureKind, Who)> {
    let path = path.strip_prefix(base)?.strip_prefix("/api/v4/")?;
    let (collection, rest) = path.split_once('/')?;
    let (id, tail) = rest.split_once('/')?;
    let kind = match (collection, tail) {
        ("users", "image") => PictureKind::User,
        ("users", "image/default") => PictureKind::Default,
        ("teams", "image") => PictureKind::Team,
        ("emoji", "image") => PictureKind::Emoji,
        _ => return None,
    };
    Some((kind, who(id, collection)?))
}

/// The picture that a write may change, from the path as upstream's router reads it.
fn changed_picture(method: &Method, path: &str, base: &str) -> Option<(PictureKind, Who)> {
    let path = as_routed(path)?;
    let path = path.strip_prefix(base)?.strip_prefix("/api/v4/")?;
    let (collection, rest) = path.split_once('/')?;
    let (id, tail) = rest.split_once('/').map_or((rest, None), |(id, tail)| (id, Some(tail)));
    let kind = match (method.as_str(), collection, tail) {
        ("POST" | "DELETE", "users", Some("image"))
        | ("POST", "remotecluster", Some("image"))
        | ("PUT", "users", None | Some("patch")) => PictureKind::User,
        ("POST" | "DELETE", "teams", Some("image")) => PictureKind::Team,
        ("DELETE", "emoji", None) => PictureKind::Emoji,
        _ => return None,
    };
    Some((kind, who(id, collection)?))
}

fn who(id: &str, collection: &str) -> Option<Who> {
    if id == "me" && collection == "users" { Some(Who::Me) } else { ObjectId::parse(id.as_bytes()).map(Who::Id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "ge45wmpse3g8umtziei4q749th";

    fn id() -> Who {
        Who::Id(ObjectId::parse(ID.as_bytes()).expect("an id"))
    }

    fn check(method: &str, path: &str, base: &str, expected: &Route) {
        let path = path.replace("{id}", ID);
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let prefix = base.trim_end_matches('/');
        assert_eq!(Route::of(&method, &path, prefix), *expected, "{method} {path} under {base}");
    }

    #[test]
    fn canonical_spellings_are_served() {
        for (path, kind) in [
            ("/api/v4/users/{id}/image", PictureKind::User),
            ("/api/v4/users/{id}/image/default", PictureKind::Default),
            ("/api/v4/teams/{id}/image", PictureKind::Team),
            ("/api/v4/emoji/{id}/image", PictureKind::Emoji),
        ] {
            check("GET", path, "/", &Route::Picture(kind, id()));
            check("HEAD", path, "/", &Route::Picture(kind, id()));
            check("GET", &format!("/chat/mm{path}"), "/chat/mm", &Route::Picture(kind, id()));
            check("GET", path, "/chat/mm", &Route::Passthrough);
            check("PATCH", path, "/", &Route::Passthrough);
        }
        check("GET", "/api/v4/users/me/image", "/", &Route::Picture(PictureKind::User, Who::Me));
    }

    #[test]
    fn f34_every_other_spelling_passes_through() {
        for path in [
            "/api/v4/users/{id}/image/",
            "/api/v4//users/{id}/image",
            "//api/v4/users/{id}/image",
            "/api/v4/users/{id}/image.png",
            "/api/v4/users/{id}/image/x.css",
            "/api/v4/users/{id}/image;x=1",
            "/api/v4/users/{id}/image%00",
            "/api/v4/users/{id}%2fimage",
            "/api/v4/users/%67e45wmpse3g8umtziei4q749th/image",
            "/api/v4/users/GE45WMPSE3G8UMTZIEI4Q749TH/image",
            "/api/v4/users/ge45wmpse3g8umtziei4q749t/image",
            "/api/v4/users/ge45wmpse3g8umtziei4q749thh/image",
            "/api/v4/users/ge45wmpse3g8umtziei4q749t\u{fc}/image",
            "/api/v4/teams/me/image",
            "/API/v4/users/{id}/image",
            "/api/v4/users/{id}/IMAGE",
            "/api/v4/users/{id}",
            "/",
            "*",
            "",
        ] {
            check("GET", path, "/", &Route::Passthrough);
        }
    }

    #[test]
    fn m1_paths_that_two_parsers_read_differently_are_refused() {
        for path in [
            "/api/v4/users/../x",
            "/api/v4/users/%2e%2e/y",
            "/api/v4/users/.%2E/y",
            "/api/v4/users/%2e/image",
            "/./",
            "/..",
            "/api\\v4",
            "/\\evil.example/x",
            "/a\u{7}b",
        ] {
            check("GET", path, "/", &Route::Refused);
            check("POST", path, "/", &Route::Refused);
        }
        check("GET", "/static/..hidden/.well-known/a..b/...", "/", &Route::Passthrough);
        check("CONNECT", "", "/", &Route::Connect);
    }

    #[test]
    fn writes_are_recognised_however_they_are_spelt() {
        let user = Route::Change(PictureKind::User, id());
        for (method, path) in [
            ("POST", "/api/v4/users/{id}/image"),
            ("DELETE", "/api/v4/users/{id}/image"),
            ("POST", "/api/v4/users/%67e45wmpse3g8umtziei4q749th/image"),
            ("DELETE", "/api/v4/users/{id}/imag%65"),
            ("POST", "/api/v4/users/{id}%2Fimage"),
            ("POST", "/%61pi/v4/users/{id}/image"),
            ("POST", "/api/v4/remotecluster/{id}/image"),
            ("PUT", "/api/v4/users/{id}"),
            ("PUT", "/api/v4/users/{id}/patch"),
        ] {
            check(method, path, "/", &user);
        }
        check("POST", "/api/v4/teams/{id}/image", "/", &Route::Change(PictureKind::Team, id()));
        check("DELETE", "/api/v4/teams/{id}/image", "/", &Route::Change(PictureKind::Team, id()));
        check("DELETE", "/api/v4/emoji/{id}", "/", &Route::Change(PictureKind::Emoji, id()));
        check("POST", "/api/v4/users/%6de/image", "/", &Route::Change(PictureKind::User, Who::Me));
        check("PUT", "/mm/api/v4/users/me/patch", "/mm", &Route::Change(PictureKind::User, Who::Me));
        for (method, path) in [
            ("POST", "/api/v4/users/{id}/image/"),
            ("POST", "/api/v4/users/{id}/image%2"),
            ("POST", "/api/v4/users/{id}/image%zz"),
            ("POST", "/api/v4/users/{id}"),
            ("PUT", "/api/v4/teams/{id}/patch"),
            ("DELETE", "/api/v4/users/{id}"),
        ] {
            check(method, path, "/", &Route::Passthrough);
        }
    }
}
