//! Which handler a method and a path reach, as gorilla/mux does it for Mattermost: on the decoded path, after a
//! redirect to the clean one.

/// What is to be done with a request. Ids are as the path gave them, not yet checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Endpoint {
    Page,
    Style,
    Script,
    Ping,
    ClientConfig,
    Login,
    Logout,
    ListUsers,
    UsersByIds,
    UsersByUsernames,
    SearchUsers,
    AutocompleteUsers,
    Presence,
    User(String),
    UserByName(String),
    UserByEmail(String),
    PatchUser(String),
    RevokeSession(String),
    RevokeSessions(String),
    RevokeEverySession,
    RevokeAccessToken,
    SetActive(String),
    DeleteUser(String),
    SetRoles(String),
    RoleByName(String),
    PatchRole(String),
    LeaveTeam(String, String),
    LeaveChannel(String, String),
    TeamsOfUser(String),
    UserImage(String),
    DefaultImage(String),
    ChangeUserImage(String),
    ResetUserImage(String),
    Team(String),
    TeamImage(String),
    ChangeTeamImage(String),
    RemoveTeamImage(String),
    ListEmoji,
    CreateEmoji,
    DeleteEmoji(String),
    EmojiImage(String),
    UploadFile,
    File(String),
    WebSocket,
}

impl Endpoint {
    /// Whether this answers with a picture: what delays, holds and scripted faults act on.
    pub(super) const fn is_picture(&self) -> bool {
        matches!(self, Self::UserImage(_) | Self::DefaultImage(_) | Self::TeamImage(_) | Self::EmojiImage(_))
    }

    /// Whether this answers with full records of several users.
    pub(super) const fn is_list(&self) -> bool {
        matches!(
            self,
            Self::ListUsers | Self::UsersByIds | Self::UsersByUsernames | Self::SearchUsers | Self::AutocompleteUsers
        )
    }
}

/// How a raw path is read.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Reading {
    /// Decoded and clean.
    Clean(String),
    /// mux answers a 301 to this path.
    Moved(String),
    /// Go's parser refuses an escape that is none: 400.
    Malformed,
}

/// Decodes the path of a request target and says whether mux would redirect it (`cleanPath` in gorilla/mux 1.8.1).
pub(super) fn read_path(raw: &str) -> Reading {
    let Some(decoded) = decode(raw) else {
        return Reading::Malformed;
    };
    let clean = clean(&decoded);
    if clean == decoded { Reading::Clean(decoded) } else { Reading::Moved(encode(&clean)) }
}

/// The handler for a method and a clean, decoded path; `None` falls to the catch-all.
pub(super) fn endpoint(method: &str, path: &str) -> Option<Endpoint> {
    let read = method == "GET" || method == "HEAD";
    match path {
        "/" if read => return Some(Endpoint::Page),
        "/demo/page.css" if read => return Some(Endpoint::Style),
        "/demo/page.js" if read => return Some(Endpoint::Script),
        _ => {}
    }
    let segments: Vec<&str> = path.strip_prefix("/api/v4/")?.split('/').collect();
    let found = match (method, segments.as_slice()) {
        ("GET", ["system", "ping"]) => Endpoint::Ping,
        ("GET", ["config", "client"]) => Endpoint::ClientConfig,
        ("GET", ["websocket"] | ["websocket", ""]) => Endpoint::WebSocket,
        ("POST", ["users", "login"]) => Endpoint::Login,
        ("POST", ["users", "logout"]) => Endpoint::Logout,
        ("GET", ["users"]) => Endpoint::ListUsers,
        ("POST", ["users", "ids"]) => Endpoint::UsersByIds,
        ("POST", ["users", "usernames"]) => Endpoint::UsersByUsernames,
        ("POST", ["users", "search"]) => Endpoint::SearchUsers,
        ("POST", ["users", "status", "ids"]) => Endpoint::Presence,
        ("GET", ["users", "autocomplete"]) => Endpoint::AutocompleteUsers,
        ("GET", ["users", "username", name]) => Endpoint::UserByName((*name).to_owned()),
        ("GET", ["users", "email", email]) => Endpoint::UserByEmail((*email).to_owned()),
        ("POST", ["users", "sessions", "revoke", "all"]) => Endpoint::RevokeEverySession,
        ("POST", ["users", "tokens", "revoke" | "disable"]) => Endpoint::RevokeAccessToken,
        ("GET", ["users", id]) if is_word(id) => Endpoint::User((*id).to_owned()),
        ("GET", ["users", id, "teams"]) if is_word(id) => Endpoint::TeamsOfUser((*id).to_owned()),
        // `updateUser` sends the whole record; what is read of it is the same.
        ("PUT", ["users", id] | ["users", id, "patch"]) if is_word(id) => Endpoint::PatchUser((*id).to_owned()),
        ("DELETE", ["users", id]) if is_word(id) => Endpoint::DeleteUser((*id).to_owned()),
        ("PUT", ["users", id, "active"]) if is_word(id) => Endpoint::SetActive((*id).to_owned()),
        ("PUT", ["users", id, "roles"]) if is_word(id) => Endpoint::SetRoles((*id).to_owned()),
        ("POST", ["users", id, "sessions", "revoke"]) if is_word(id) => Endpoint::RevokeSession((*id).to_owned()),
        ("POST", ["users", id, "sessions", "revoke", "all"]) if is_word(id) => {
            Endpoint::RevokeSessions((*id).to_owned())
        }
        ("GET", ["users", id, "image"]) if is_word(id) => Endpoint::UserImage((*id).to_owned()),
        ("GET", ["users", id, "image", "default"]) if is_word(id) => Endpoint::DefaultImage((*id).to_owned()),
        ("POST", ["users", id, "image"]) if is_word(id) => Endpoint::ChangeUserImage((*id).to_owned()),
        ("DELETE", ["users", id, "image"]) if is_word(id) => Endpoint::ResetUserImage((*id).to_owned()),
        ("GET", ["teams", id]) if is_word(id) => Endpoint::Team((*id).to_owned()),
        ("DELETE", ["teams", id, "members", user]) if is_word(id) && is_word(user) => {
            Endpoint::LeaveTeam((*id).to_owned(), (*user).to_owned())
        }
        ("DELETE", ["channels", id, "members", user]) if is_word(id) && is_word(user) => {
            Endpoint::LeaveChannel((*id).to_owned(), (*user).to_owned())
        }
        ("GET", ["roles", "name", name]) => Endpoint::RoleByName((*name).to_owned()),
        ("PUT", ["roles", id, "patch"]) if is_word(id) => Endpoint::PatchRole((*id).to_owned()),
        ("GET", ["teams", id, "image"]) if is_word(id) => Endpoint::TeamImage((*id).to_owned()),
        ("POST", ["teams", id, "image"]) if is_word(id) => Endpoint::ChangeTeamImage((*id).to_owned()),
        ("DELETE", ["teams", id, "image"]) if is_word(id) => Endpoint::RemoveTeamImage((*id).to_owned()),
        ("GET", ["emoji"]) => Endpoint::ListEmoji,
        ("POST", ["emoji"]) => Endpoint::CreateEmoji,
        ("DELETE", ["emoji", id]) if is_word(id) => Endpoint::DeleteEmoji((*id).to_owned()),
        ("GET", ["emoji", id, "image"]) if is_word(id) => Endpoint::EmojiImage((*id).to_owned()),
        ("POST", ["files"]) => Endpoint::UploadFile,
        ("GET" | "HEAD", ["files", id]) if is_word(id) => Endpoint::File((*id).to_owned()),
        _ => return None,
    };
    Some(found)
}

/// mux's `[A-Za-z0-9]+`.
fn is_word(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Percent-decoding as `net/url` does it for a path: `+` stays, a broken escape is an error.
pub(super) fn decode(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let [high, low, tail @ ..] = tail else {
            return None;
        };
        let value = char::from(*high).to_digit(16)? * 16 + char::from(*low).to_digit(16)?;
        bytes.push(u8::try_from(value).ok()?);
        rest = tail;
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Go's `path.Clean`, with the slash at the end kept as mux keeps it.
fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let mut clean = format!("/{}", kept.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    clean
}

/// What a `Location` may hold: Go's `URL.String` escapes everything else.
fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~$&+,:;=@!'()*".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for digit in [byte >> 4, byte & 15] {
                encoded.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IMAGE: &str = "/api/v4/users/ge45wmpse3g8umtziei4q749th/image";

    #[test]
    fn paths_are_read_as_mux_reads_them() {
        let clean = |path: &str| Reading::Clean(path.to_owned());
        let moved = |path: &str| Reading::Moved(path.to_owned());
        for (raw, expected) in [
            (IMAGE, clean(IMAGE)),
            ("/api/v4/users/%67e45wmpse3g8umtziei4q749th/image", clean(IMAGE)),
            ("/api/v4/users/ge45wmpse3g8umtziei4q749th%2Fimage", clean(IMAGE)),
            ("/api/v4/users/ge45wmpse3g8umtziei4q749th/imag%65", clean(IMAGE)),
            ("/api/v4//users/ge45wmpse3g8umtziei4q749th/image", moved(IMAGE)),
            ("//api/v4/users/ge45wmpse3g8umtziei4q749th/image", moved(IMAGE)),
            ("/api/v4/users/ge45wmpse3g8umtziei4q749th/./image", moved(IMAGE)),
            ("/api/v4/users/x/%2e%2e/ge45wmpse3g8umtziei4q749th/image", moved(IMAGE)),
            ("/a b/../%C3%A4", moved("/%C3%A4")),
            ("/a/", clean("/a/")),
            ("/", clean("/")),
            ("/%", Reading::Malformed),
            ("/%4", Reading::Malformed),
            ("/%zz", Reading::Malformed),
        ] {
            assert_eq!(read_path(raw), expected, "{raw}");
        }
    }

    #[test]
    fn methods_and_paths_reach_their_handlers() {
        let id = "ge45wmpse3g8umtziei4q749th".to_owned();
        for (method, path, expected) in [
            ("GET", IMAGE, Some(Endpoint::UserImage(id.clone()))),
            ("POST", IMAGE, Some(Endpoint::ChangeUserImage(id.clone()))),
            ("DELETE", IMAGE, Some(Endpoint::ResetUserImage(id))),
            ("HEAD", IMAGE, None),
            ("OPTIONS", IMAGE, None),
            ("PUT", IMAGE, None),
            ("GET", "/api/v4/users/me/image", Some(Endpoint::UserImage("me".to_owned()))),
            ("GET", "/api/v4/users/me/image/", None),
            ("GET", "/api/v4/users/a_b/image", None),
            ("GET", "/api/v4/users//image", None),
            ("GET", "/api/v4/users/websocket", Some(Endpoint::User("websocket".to_owned()))),
            ("GET", "/api/v4/websocket/", Some(Endpoint::WebSocket)),
            ("POST", "/api/v4/users/login", Some(Endpoint::Login)),
            ("PUT", "/api/v4/users/me", Some(Endpoint::PatchUser("me".to_owned()))),
            ("DELETE", "/api/v4/users/me", Some(Endpoint::DeleteUser("me".to_owned()))),
            ("GET", "/api/v4/users/autocomplete", Some(Endpoint::AutocompleteUsers)),
            ("GET", "/api/v4/users/email/bob@example.test", Some(Endpoint::UserByEmail("bob@example.test".to_owned()))),
            ("POST", "/api/v4/users/sessions/revoke/all", Some(Endpoint::RevokeEverySession)),
            ("POST", "/api/v4/users/x/sessions/revoke/all", Some(Endpoint::RevokeSessions("x".to_owned()))),
            ("POST", "/api/v4/users/x/sessions/revoke", Some(Endpoint::RevokeSession("x".to_owned()))),
            ("DELETE", "/api/v4/teams/x/members/y", Some(Endpoint::LeaveTeam("x".to_owned(), "y".to_owned()))),
            ("GET", "/API/v4/users", None),
            ("GET", "/", Some(Endpoint::Page)),
            ("POST", "/", None),
        ] {
            assert_eq!(endpoint(method, path), expected, "{method} {path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics_and_a_redirect_ends(raw in "/[ -~]{0,40}") {
            if let Reading::Moved(location) = read_path(&raw) {
                prop_assert!(matches!(read_path(&location), Reading::Clean(_)), "{location}");
            }
        }
    }
}
