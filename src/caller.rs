//! Who asks: the credentials of a request, read once, and the digest that stands for them in memory.
//!
//! One list says which fields decide who is asking ([`Credentials::of`]); the back door sends the same ones upstream.
//! What is kept is a keyed hash of the whole set, never a token and never a choice among tokens: precedence is
//! upstream's business (`ParseAuthTokenFromRequest` in `server/channels/app/authentication.go`).

use std::hash::{BuildHasher, RandomState};

/// Tokens are as long as an id (`model.NewId`); what is longer than Mattermost reads of one is none.
const TOKEN_LENGTHS: std::ops::RangeInclusive<usize> = 26..=50;

/// The name of the session cookie; it knows its case.
const SESSION_COOKIE: &[u8] = b"MMAUTHTOKEN";

/// The places at which callers and tokens are counted out; see `cache::Grants`.
pub const PLACES: usize = 1 << 20;

/// One of the fields that a client may send once, as far as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Field<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    Repeated,
}

impl<'a> Field<'a> {
    fn take(&mut self, value: &'a [u8]) {
        *self = if *self == Self::Absent { Self::Once(value) } else { Self::Repeated };
    }
}

/// The fields of a request that say who asks, borrowed from it.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    session: Field<'a>,
    authorization: Field<'a>,
    preauth: Field<'a>,
    server_to_server: bool,
}

impl<'a> Credentials<'a> {
    /// Reads the fields of a request, names in lower case, after the hop-by-hop ones were taken out.
    pub fn of(fields: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut credentials = Self::default();
        for (name, value) in fields {
            credentials.take(name, value);
        }
        credentials
    }

    /// Looks at one more field.
    pub fn take(&mut self, name: &str, value: &'a [u8]) {
        match name {
            "cookie" => self.take_cookies(value),
            "authorization" => self.authorization.take(value),
            "x-mattermost-preauth-secret" => self.preauth.take(value),
            "x-cloud-token" => self.server_to_server = true,
            name if name.starts_with("x-remotecluster-") => self.server_to_server = true,
            _ => {}
        }
    }

    fn take_cookies(&mut self, line: &'a [u8]) {
        for pair in line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            let Some(rest) = pair.strip_prefix(SESSION_COOKIE) else { continue };
            match rest {
                [b'=', value @ ..] => self.session.take(value),
                // `MMAUTHTOKEN` alone or with blanks before `=`: what upstream makes of it depends on its version.
                [] | [b' ' | b'\t', ..] => self.session = Field::Repeated,
                _ => {}
            }
        }
    }

    /// Whether the request says who asks: without a session cookie and without `Authorization` it is anonymous.
    #[must_use]
    pub fn are_present(&self) -> bool {
        self.session != Field::Absent || self.authorization != Field::Absent
    }

    /// Whether a server of Mattermost's own asks, with credentials that stand for no user.
    #[must_use]
    pub const fn are_of_a_server(&self) -> bool {
        self.server_to_server
    }

    /// The token whose budget a request draws on: the one that upstream looks at, however it is dressed and whatever
    /// was sent beside it. `None` where that is not certain.
    #[must_use]
    pub fn presented(&self) -> Option<&'a [u8]> {
        let token = match (self.session, self.authorization) {
            (Field::Once(value), _) if is_cookie_value(unquoted(value)) => unquoted(value),
            // A cookie that Go drops is none.
            (Field::Once(_) | Field::Absent, Field::Once(value)) => without_scheme(value),
            (Field::Repeated, _) | (_, Field::Absent | Field::Repeated) => return None,
        };
        Some(&token[..token.len().min(*TOKEN_LENGTHS.end())])
    }

    /// The caller they stand for, for the `Host` sent upstream. `None` where it is not certain which token upstream
    /// will use: then every request is asked upstream, and nothing is remembered of the answer, or a grant could be
    /// had by one token and used by another.
    #[must_use]
    pub fn caller(&self, key: &CallerKey, host: &[u8]) -> Option<Caller> {
        let session = match self.session {
            Field::Absent => None,
            Field::Once(value) => Some(token(value)?),
            Field::Repeated => return None,
        };
        let (authorization, bearer) = match self.authorization {
            Field::Absent => (None, None),
            Field::Once(value) => (Some(value), bearer(value)),
            Field::Repeated => return None,
        };
        let preauth = match self.preauth {
            Field::Absent => None,
            Field::Once(value) => Some(value),
            Field::Repeated => return None,
        };
        if self.server_to_server || session.or(bearer).is_none() {
            return None;
        }
        let digest = key.digest(&[session, authorization, preauth, Some(host)]);
        let own = place(u64::from_le_bytes(digest[..8].try_into().expect("eight bytes")));
        let of = |token: Option<&[u8]>| token.map_or(own, |token| key.place(token));
        Some(Caller { digest, places: [own, of(session), of(bearer)] })
    }
}

/// A token as upstream takes it from a cookie. Letters and digits alone: there is but one way to read them.
fn token(value: &[u8]) -> Option<&[u8]> {
    let is_token = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (TOKEN_LENGTHS.contains(&value.len()) && value.iter().all(is_token)).then_some(value)
}

/// The token of `Authorization`: `bearer` or `token` in any case and one blank before it.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let blank = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(blank);
    let known = scheme.eq_ignore_ascii_case(b"bearer") || scheme.eq_ignore_ascii_case(b"token");
    if known { token(&rest[1..]) } else { None }
}

/// A cookie's value as Go reads it.
fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// Whether Go takes it for a cookie's value (`validCookieValueByte` in its `net/http`).
fn is_cookie_value(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b';' | b'\\'))
}

/// What upstream takes for the token of `Authorization`: everything behind the scheme and one byte more.
fn without_scheme(value: &[u8]) -> &[u8] {
    let scheme = |name: &[u8]| value.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name));
    let skipped = [&b"bearer"[..], b"token"].into_iter().find(|name| scheme(name)).map_or(0, |name| name.len() + 1);
    value.get(skipped..).unwrap_or_default()
}

/// Whoever sends one set of credentials to one site: a keyed hash of the set, and where it and each of its tokens are
/// counted. Of no use outside this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller {
    digest: [u8; 16],
    places: [u32; 3],
}

impl Caller {
    /// The digest.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 16] {
        &self.digest
    }

    /// The place of the set, of its cookie's token and of its header's token, each below [`PLACES`]; that of the set
    /// stands for a token that is absent.
    #[must_use]
    pub const fn places(&self) -> [u32; 3] {
        self.places
    }
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Caller(..)")
    }
}

/// Drawn at start and never stored: a dump of memory gives no token, and a restart voids all grants.
pub struct CallerKey {
    key: [u8; 32],
    places: RandomState,
}

impl CallerKey {
    /// Draws a key.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn draw() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self { key, places: RandomState::new() })
    }

    /// Hashes the parts, each with its length before it, so that no two sets make the same bytes.
    fn digest(&self, parts: &[Option<&[u8]>]) -> [u8; 16] {
        let len = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX).saturating_add(1).to_le_bytes();
        let total = parts.iter().map(|part| 4 + part.map_or(0, <[u8]>::len)).sum::<usize>();
        let mut room = [0; 256];
        let hash = if total <= room.len() {
            let mut at = 0;
            for part in parts {
                room[at..at + 4].copy_from_slice(&part.map_or([0; 4], len));
                at += 4;
                if let Some(part) = part {
                    room[at..at + part.len()].copy_from_slice(part);
                    at += part.len();
                }
            }
            blake3::keyed_hash(&self.key, &room[..at])
        } else {
            let mut hasher = blake3::Hasher::new_keyed(&self.key);
            for part in parts {
                hasher.update(&part.map_or([0; 4], len)).update(part.unwrap_or_default());
            }
            hasher.finalize()
        };
        hash.as_bytes()[..16].try_into().expect("blake3 gives 32 bytes")
    }

    fn place(&self, token: &[u8]) -> u32 {
        place(self.places.hash_one(token))
    }
}

fn place(hash: u64) -> u32 {
    u32::try_from(hash % PLACES as u64).expect("twenty bits fit")
}

/// The places of every token that upstream might have read in a request, however it is dressed: each session cookie, each
/// `Authorization`, each value of `access_token`.
pub fn places_of_tokens<'a>(
    key: &CallerKey,
    fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    by_query: &[Vec<u8>],
) -> Vec<u32> {
    let mut places = by_query.iter().map(|token| key.place(token)).collect::<Vec<_>>();
    for (name, value) in fields {
        match name {
            "cookie" => {
                let cookies = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
                let sessions =
                    cookies.filter_map(|pair| pair.strip_prefix(SESSION_COOKIE)?.trim_ascii_start().strip_prefix(b"="));
                places.extend(sessions.map(|value| key.place(unquoted(value.trim_ascii()))));
            }
            "authorization" => places.push(key.place(without_scheme(value).trim_ascii())),
            _ => {}
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "abcdefghijklmnopqrstuvwx01";
    const OTHER: &str = "zbcdefghijklmnopqrstuvwx02";

    fn key() -> CallerKey {
        CallerKey { key: [7; 32], places: RandomState::new() }
    }

    fn caller(key: &CallerKey, fields: &[(&str, &str)]) -> Option<Caller> {
        let fields = fields.iter().map(|(name, value)| (*name, value.as_bytes()));
        Credentials::of(fields).caller(key, b"chat.example")
    }

    #[test]
    fn f46_only_credentials_that_can_be_read_in_one_way_stand_for_a_caller() {
        let cookie = |value: &str| ("cookie", format!("MMAUTHTOKEN={value}"));
        let bearer = |value: &str| ("authorization", format!("Bearer {value}"));
        let text = |name: &'static str, value: &str| (name, value.to_owned());
        for (fields, is_caller) in [
            (vec![cookie(TOKEN)], true),
            (vec![text("cookie", &format!("a=1; MMAUTHTOKEN={TOKEN};MMUSERID=x"))], true),
            (vec![bearer(TOKEN)], true),
            (vec![text("authorization", &format!("BEARER {TOKEN}"))], true),
            (vec![text("authorization", &format!("Token {TOKEN}"))], true),
            (vec![cookie(TOKEN), bearer(OTHER)], true),
            (vec![cookie(TOKEN), text("authorization", "Basic eDp5")], true),
            (vec![cookie(&format!("{TOKEN}0"))], true),
            (vec![], false),
            (vec![text("authorization", "Basic eDp5")], false),
            (vec![text("authorization", TOKEN)], false),
            (vec![text("authorization", &format!("Bearer  {TOKEN}"))], false),
            (vec![text("authorization", &format!("Bearer:{TOKEN}"))], false),
            (vec![text("authorization", &format!("Bearer {TOKEN} "))], false),
            (vec![bearer(TOKEN), bearer(TOKEN)], false),
            (vec![cookie(""), bearer(TOKEN)], false),
            (vec![cookie("x y"), bearer(TOKEN)], false),
            (vec![cookie(&format!("\"{TOKEN}\""))], false),
            (vec![cookie(&TOKEN.to_uppercase())], false),
            (vec![cookie(&TOKEN[1..])], false),
            (vec![cookie(&format!("{TOKEN}{TOKEN}"))], false),
            (vec![cookie(TOKEN), cookie(TOKEN)], false),
            (vec![cookie("\x01"), cookie(TOKEN)], false),
            (vec![text("cookie", &format!("MMAUTHTOKEN ={TOKEN}")), bearer(TOKEN)], false),
            (vec![text("cookie", "MMAUTHTOKEN"), bearer(TOKEN)], false),
            (vec![text("cookie", &format!("MMAUTHTOKENS={OTHER}")), bearer(TOKEN)], true),
            (vec![cookie(TOKEN), text("x-cloud-token", "1")], false),
            (vec![cookie(TOKEN), text("x-remotecluster-id", "1")], false),
            (
                vec![cookie(TOKEN), text("x-mattermost-preauth-secret", "1"), text("x-mattermost-preauth-secret", "2")],
                false,
            ),
        ] {
            let borrowed = fields.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>();
            assert_eq!(caller(&key(), &borrowed).is_some(), is_caller, "{fields:?}");
        }
    }

    #[test]
    fn every_part_of_the_set_and_the_site_count() {
        let (key, cookie) = (key(), format!("MMAUTHTOKEN={TOKEN}"));
        let (bearer, preauth) = (format!("Bearer {TOKEN}"), ("x-mattermost-preauth-secret", "s"));
        let (long, basic) = (format!("Basic {}", "x".repeat(300)), ("authorization", "Basic eDp5"));
        let sets: [&[(&str, &str)]; 6] = [
            &[("cookie", &cookie)],
            &[("authorization", &bearer)],
            &[("cookie", &cookie), ("authorization", &bearer)],
            &[("cookie", &cookie), basic],
            &[("cookie", &cookie), ("authorization", &long)],
            &[("cookie", &cookie), preauth],
        ];
        let digests = sets.map(|set| *caller(&key, set).expect("a caller").digest());
        for (n, digest) in digests.iter().enumerate() {
            assert!(!digests[..n].contains(digest), "set {n}");
            assert_eq!(caller(&key, sets[n]).expect("a caller").digest(), digest);
        }
        let fields = || Credentials::of([("cookie", cookie.as_bytes())]);
        assert_ne!(fields().caller(&key, b"one").expect("a caller"), fields().caller(&key, b"two").expect("a caller"));
        let other = CallerKey { key: [8; 32], places: RandomState::new() };
        assert_ne!(fields().caller(&other, b"one").expect("a caller").digest, digests[0]);
    }

    #[test]
    fn a_token_has_one_place_in_whatever_set_it_is() {
        let key = key();
        let (cookie, bearer) = (format!("MMAUTHTOKEN={TOKEN}"), format!("Bearer {TOKEN}"));
        let by_cookie = caller(&key, &[("cookie", &cookie)]).expect("a caller").places();
        let by_header = caller(&key, &[("authorization", &bearer)]).expect("a caller").places();
        assert_eq!(by_cookie[1], by_header[2]);
    }

    #[test]
    fn every_token_that_upstream_might_read_is_found() {
        let (key, bearer) = (key(), format!("Bearer {OTHER}"));
        let by_header = caller(&key, &[("authorization", &bearer)]).expect("a caller").places()[2];
        for (name, value) in [
            ("authorization", format!("Bearer:{OTHER}")),
            ("authorization", format!("token {OTHER} ")),
            ("cookie", format!("MMAUTHTOKEN={TOKEN}; MMAUTHTOKEN={OTHER}")),
            ("cookie", format!("MMAUTHTOKEN=\"{OTHER}\"; a=b")),
            ("cookie", format!("MMAUTHTOKEN = {OTHER}")),
        ] {
            assert!(places_of_tokens(&key, [(name, value.as_bytes())], &[]).contains(&by_header), "{name}: {value}");
        }
        assert!(places_of_tokens(&key, [], &[OTHER.into()]).contains(&by_header));
        assert!(places_of_tokens(&key, [("accept", &b"x"[..])], &[]).is_empty());
    }

    #[test]
    fn the_budget_goes_by_the_token_that_upstream_looks_at() {
        for (fields, first) in [
            (&[("cookie", "MMAUTHTOKEN=a"), ("authorization", "Bearer b")][..], Some("a")),
            (&[("cookie", "MMAUTHTOKEN=\"a\"")], Some("a")),
            (&[("cookie", "MMAUTHTOKEN="), ("authorization", "Bearer b")], Some("")),
            (&[("cookie", "MMAUTHTOKEN=\\1"), ("authorization", "Bearer b")], Some("b")),
            (&[("cookie", "MMAUTHTOKEN=a\"b"), ("authorization", "Bearer b")], Some("b")),
            (&[("cookie", "MMAUTHTOKEN=\\1")], None),
            (&[("authorization", "Bearer b")], Some("b")),
            (&[("authorization", "tOKEN:b")], Some("b")),
            (&[("authorization", "Bearer")], Some("")),
            (&[("authorization", "Basic b")], Some("Basic b")),
            (&[("cookie", "MMAUTHTOKEN=a; MMAUTHTOKEN=b")], None),
            (&[], None),
        ] {
            let credentials = Credentials::of(fields.iter().map(|(name, value)| (*name, value.as_bytes())));
            assert_eq!(credentials.presented(), first.map(str::as_bytes), "{fields:?}");
            assert_eq!(credentials.are_present(), !fields.is_empty());
        }
    }
}
