//! The head of a picture request, read in one pass: who asks, for what, and what may not be answered from memory.

use super::{Front, WebError};
use crate::avatar::Wish;
use crate::caller::Credentials;
use crate::identity::{PictureId, PictureKind};
use crate::variant::hints::Hints;
use crate::variant::negotiation::{Negotiated, negotiate};
use crate::variant::query::names_parameter;
use crate::variant::transform::Transform;
use smallvec::SmallVec;
use std::time::Duration;

/// The lines of a field that is mostly one line.
type Lines<'a> = SmallVec<[&'a [u8]; 2]>;

/// What a request's head says, borrowed from it.
#[derive(Default)]
pub(super) struct Ask<'a> {
    credentials: Credentials<'a>,
    host: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
    accept: Lines<'a>,
    if_none_match: Lines<'a>,
    directives: Directives,
    /// Another site's page asks: upstream alone can say what it is told (CORS).
    has_origin: bool,
    /// There is something about the connection, the body or the way here that only the long way deals with.
    takes_long_way: bool,
    came_through_another: bool,
    hints: Hints,
}

/// The directives of the request's `Cache-Control` that we heed (RFC 9111 section 5.2.1).
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a directive of its own, there or not")]
struct Directives {
    /// Upstream is to be asked: `no-cache`, or a `max-age` of 0.
    reload: bool,
    /// How long ago it may have been asked.
    max_age: Option<Duration>,
    no_store: bool,
    no_transform: bool,
    only_if_cached: bool,
}

impl Directives {
    fn take(&mut self, line: &[u8]) {
        for directive in line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is = |name: &[u8]| directive.eq_ignore_ascii_case(name);
            if let Some(age) = max_age(directive) {
                self.max_age = Some(self.max_age.map_or(age, |before| before.min(age)));
            }
            self.reload |= is(b"no-cache") || self.max_age == Some(Duration::ZERO);
            self.no_store |= is(b"no-store");
            self.no_transform |= is(b"no-transform");
            self.only_if_cached |= is(b"only-if-cached");
        }
    }
}

fn max_age(directive: &[u8]) -> Option<Duration> {
    let (name, value) = directive.split_at_checked(8)?;
    let seconds = std::str::from_utf8(value.trim_ascii()).ok().filter(|_| name.eq_ignore_ascii_case(b"max-age="))?;
    // What is no number is none: better asked once too often.
    Some(Duration::from_secs(seconds.trim_matches('"').parse().unwrap_or(0)))
}

/// What is wanted, with how it was negotiated.
pub(super) struct Wanted {
    pub(super) wish: Wish,
    pub(super) negotiated: Negotiated,
}

impl<'a> Ask<'a> {
    /// Reads the fields of a request, names in lower case.
    pub(super) fn read(fields: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut ask = Self::default();
        for (name, value) in fields {
            match name {
                "accept" => ask.accept.push(value),
                "if-none-match" => ask.if_none_match.push(value),
                "host" => ask.host = ask.host.or(Some(value)),
                "user-agent" => ask.user_agent = ask.user_agent.or(Some(value)),
                "cache-control" => ask.directives.take(value),
                "pragma" => ask.directives.reload |= value.trim_ascii().eq_ignore_ascii_case(b"no-cache"),
                "origin" => ask.has_origin = true,
                "connection" => ask.takes_long_way |= !is_plain_connection(value),
                "content-length" => ask.takes_long_way |= value != b"0",
                "via" | "forwarded" | "x-real-ip" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" => {
                    ask.came_through_another = true;
                }
                "transfer-encoding" | "upgrade" | "expect" | "cdn-loop" => ask.takes_long_way = true,
                "sec-ch-dpr" | "dpr" | "sec-ch-width" | "width" | "save-data" => ask.hints.take(name, value),
                _ => ask.credentials.take(name, value),
            }
        }
        ask
    }

    /// Whether the request is one that we answer ourselves; all others pass through untouched.
    pub(super) fn is_ours(&self, front: &Front, kind: PictureKind, query: &str) -> bool {
        front.settings.pictures.contains(&kind)
            && self.credentials.are_present()
            && !self.credentials.are_of_a_server()
            && !self.directives.no_transform
            && !self.directives.no_store
            && !names_parameter(query, b"access_token")
    }

    /// Whether nothing stands against an answer from memory.
    pub(super) const fn may_be_recalled(&self) -> bool {
        !self.takes_long_way && !self.must_ask()
    }

    /// Whether upstream has to be asked though there may be a grant.
    pub(super) const fn must_ask(&self) -> bool {
        self.has_origin || self.directives.reload
    }

    /// Whether the request says that it came by way of another, who may keep what passes. On the long way it always does:
    /// it has come by way of us.
    pub(super) const fn came_through_another(&self) -> bool {
        self.came_through_another
    }

    /// Whether upstream is not to be asked.
    pub(super) const fn only_if_cached(&self) -> bool {
        self.directives.only_if_cached
    }

    /// The lines of `If-None-Match`.
    pub(super) fn if_none_match(&self) -> impl Iterator<Item = &'a [u8]> {
        self.if_none_match.iter().copied()
    }

    /// The token that pays for what is asked of upstream; empty where that is not certain.
    pub(super) fn token(&self) -> &'a [u8] {
        self.credentials.presented().unwrap_or_default()
    }

    /// What is wanted of the picture of that kind; of `me` where there is no `object`.
    ///
    /// # Errors
    /// A query that cannot be understood.
    pub(super) fn wanted(
        &self,
        front: &Front,
        kind: PictureKind,
        object: Option<crate::identity::ObjectId>,
        query: &str,
    ) -> Result<Wanted, WebError> {
        let settings = &front.settings;
        let hints = if settings.client_hints { self.hints } else { Hints::default() };
        let parsed = Transform::parse_hinted(query, &settings.sizes, &hints)?;
        let accept = self.accept.iter().copied();
        let negotiated = negotiate(parsed.transform.format(), accept, self.user_agent, &settings.negotiation);
        let host = front.upstream.host_for(self.host);
        let wish = Wish {
            picture: object.map(|object| PictureId { site: front.site(host), kind, object }),
            caller: self.credentials.caller(&front.caller_key, host),
            must_ask: self.must_ask(),
            max_age: self.directives.max_age,
            stamp: parsed.stamp,
            transform: parsed.transform.of(kind),
            offer: negotiated.offer,
        };
        Ok(Wanted { wish, negotiated })
    }
}

/// Whether `Connection` names nothing but itself (RFC 9110 section 7.6.1).
fn is_plain_connection(line: &[u8]) -> bool {
    let plain = |token: &[u8]| token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close");
    line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask<'a>(fields: &[(&'a str, &'a str)]) -> Ask<'a> {
        Ask::read(fields.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    #[test]
    fn what_may_be_answered_from_memory() {
        for (field, recalled) in [
            (("accept", "image/webp"), true),
            (("connection", "keep-alive"), true),
            (("connection", "Close, Keep-Alive"), true),
            (("connection", "close, Cookie"), false),
            (("connection", "upgrade"), false),
            (("connection", ""), false),
            (("cache-control", "max-age=60, max-stale"), true),
            (("cache-control", "max-age=0"), false),
            (("cache-control", "Max-Age=00"), false),
            (("cache-control", "max-age=x"), false),
            (("cache-control", "max-age=5, max-age=0"), false),
            (("cache-control", "private, No-Cache"), false),
            (("pragma", "no-cache"), false),
            (("origin", "https://elsewhere.example"), false),
            (("content-length", "0"), true),
            (("content-length", "4"), false),
            (("transfer-encoding", "chunked"), false),
            (("upgrade", "websocket"), false),
            (("expect", "100-continue"), false),
            (("cdn-loop", "other"), false),
        ] {
            assert_eq!(ask(&[("host", "x"), field]).may_be_recalled(), recalled, "{field:?}");
        }
    }
}
