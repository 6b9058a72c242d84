//! Which header fields cross the proxy and which stop here (RFC 9110 section 7.6.1). Pure.

use super::Fields;
use crate::source::Validator;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use std::net::IpAddr;

/// Whether a field belongs to one connection and never crosses (RFC 9110 section 7.6.1, RFC 9112 section 6), whoever sends
/// it.
pub(super) fn is_hop_by_hop(name: &[u8]) -> bool {
    // By their lengths: each field of each message is asked this.
    let listed: &[&str] = match name.len() {
        2 => &["te"],
        7 => &["trailer", "upgrade"],
        10 => &["connection", "keep-alive"],
        16 => &["proxy-connection"],
        17 => &["transfer-encoding"],
        18 => &["proxy-authenticate"],
        _ => return false,
    };
    listed.iter().any(|listed| name.eq_ignore_ascii_case(listed.as_bytes()))
}

/// Fields by which Mattermost tells who asks, from where and for which site: without one, as `Connection: <name>` would
/// have it, the request would be another. One that tries it is refused. So is any name that begins with one of
/// [`FORWARDING`] or [`OF_A_SERVER`].
const NOT_NAMEABLE: [&str; 10] = [
    "authorization",
    "cookie",
    "host",
    "origin",
    FORWARDED,
    X_REAL_IP,
    "x-cloud-token",
    "x-csrf-token",
    "x-mattermost-preauth-secret",
    "x-requested-with",
];

/// How the fields begin by which proxies tell where a request came from.
const FORWARDING: &str = "x-forwarded-";
/// How the credentials of another server begin.
const OF_A_SERVER: &str = "x-remotecluster-";

/// The `Cache-Control` of what must not be kept: a stop-gap, something broken, or perhaps older than its URL says.
pub const DO_NOT_KEEP: &str = "private, no-cache";

/// What Mattermost says of nearly every picture: one text for all of them, and free to share.
const USUAL_LIFETIME: &str = "max-age=86400, private";

/// RFC 8586: how a request that comes back to us is recognised.
const CDN_LOOP: &str = "cdn-loop";
const FORWARDED: &str = "forwarded";
const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_HOST: &str = "x-forwarded-host";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_REAL_IP: &str = "x-real-ip";

/// Removes what belongs to the client's connection with us, the fields that its `Connection` names included.
///
/// # Errors
/// `Connection` names a credential or a forwarding field: nothing honest does that, and dropping the field would
/// change the meaning of the request.
pub fn strip_request_hop_by_hop(fields: &mut Fields) -> Result<(), ConnectionNamesCredential> {
    let named = options(fields).map(<[u8]>::to_ascii_lowercase).collect::<SmallVec<[Vec<u8>; 2]>>();
    let is_forbidden = |name: &[u8]| {
        NOT_NAMEABLE.iter().any(|each| each.as_bytes() == name)
            || name.starts_with(FORWARDING.as_bytes())
            || name.starts_with(OF_A_SERVER.as_bytes())
    };
    if named.iter().any(|name| is_forbidden(name)) {
        return Err(ConnectionNamesCredential);
    }
    fields.retain(|name| {
        let is_named = || named.iter().any(|each| each == name);
        !is_hop_by_hop(name) && name != header::PROXY_AUTHORIZATION.as_str().as_bytes() && !is_named()
    });
    Ok(())
}

/// `Connection` of a request names a field that carries a credential or an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Connection names a credential or a forwarding field")]
pub struct ConnectionNamesCredential;

/// Removes what belongs to upstream's connection with us.
pub fn strip_response_hop_by_hop(headers: &mut HeaderMap) {
    for name in connection_tokens(headers) {
        headers.remove(&name);
    }
    strip_listed(headers);
}

/// Whether an answer that reqwest has read says in one way, and in one that we understand, where it ends. hyper, on which it
/// stands, forgives what is checked here: of a length and chunks it believes the chunks and hands over both, and of other
/// codings it knows the last alone.
///
/// # Errors
/// It says so twice, or by a coding that would reach the client without its name (RFC 9112 section 6.3).
pub fn check_answer_framing(headers: &HeaderMap) -> Result<(), FramedTwice> {
    let codings = headers.get_all(header::TRANSFER_ENCODING).iter().map(HeaderValue::as_bytes);
    check_framing(codings, headers.contains_key(header::CONTENT_LENGTH))
}

/// Whether an answer with these values of `Transfer-Encoding` says in one way, and in one that we understand, where it ends.
///
/// # Errors
/// It says so twice, or by a coding that would reach the client without its name (RFC 9112 section 6.3).
pub(super) fn check_framing<'a>(
    mut codings: impl Iterator<Item = &'a [u8]>,
    has_length: bool,
) -> Result<(), FramedTwice> {
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") && !has_length => Ok(()),
        _ => Err(FramedTwice),
    }
}

/// An answer of which nobody can tell for certain where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its answer is framed twice, or in a way that nobody asked for")]
pub struct FramedTwice;

/// Most answers have one of them at most, and to look at all names costs less than to ask for each.
fn strip_listed(headers: &mut HeaderMap) {
    let listed = headers
        .keys()
        .filter(|name| is_hop_by_hop(name.as_str().as_bytes()))
        .cloned()
        .collect::<SmallVec<[HeaderName; 4]>>();
    for name in &listed {
        headers.remove(name);
    }
}

/// Whether `Connection` names this field of a request.
#[must_use]
pub fn connection_names(fields: &Fields, name: &HeaderName) -> bool {
    options(fields).any(|option| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

/// What `Connection` names in a request.
fn options(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    let each = fields.all("connection").flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    // Listed above anyway, and nearly all there ever is.
    each.filter(|option| !option.eq_ignore_ascii_case(b"keep-alive"))
}

fn connection_tokens(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .collect()
}

/// The length that a message's head declares, where it is a number.
#[must_use]
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    number(headers.get(header::CONTENT_LENGTH)?.as_bytes())
}

/// [`content_length`] of a request.
#[must_use]
pub fn declared_length(fields: &Fields) -> Option<u64> {
    number(fields.get("content-length")?)
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Where a request came from, as far as we believe it.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The peer of the connection.
    pub peer: IpAddr,
    /// Whether that peer is a proxy whose forwarding fields are believed.
    pub trusted: bool,
    /// The client: the address that a believed proxy added itself, which is the last, or the peer.
    pub client: IpAddr,
    /// Whether the peer speaks HTTPS with us.
    pub encrypted: bool,
}

/// Sets the forwarding fields: a trusted peer's are kept, and its lists are extended by the peer; anybody else's are
/// dropped and ours take their place, because Mattermost takes the first address of the list for the client's
/// (`GetIPAddress` in `server/channels/utils/utils.go`). `Forwarded` (RFC 7239) is extended where it is, and never begun:
/// Mattermost does not read it.
pub fn set_forwarding(fields: &mut Fields, origin: Origin) {
    let (peer, scheme) = (written(origin.peer), if origin.encrypted { "https" } else { "http" });
    let host = fields.get("host").map(SmallVec::<[u8; 64]>::from_slice);
    if !origin.trusted {
        fields.retain(|name| {
            !(name.starts_with(FORWARDING.as_bytes()) || name == X_REAL_IP.as_bytes() || name == FORWARDED.as_bytes())
        });
        fields.append(X_FORWARDED_FOR, peer.as_bytes());
        fields.append(X_REAL_IP, peer.as_bytes());
        fields.append(X_FORWARDED_PROTO, scheme.as_bytes());
        if let Some(host) = host {
            fields.append(X_FORWARDED_HOST, &host);
        }
        return;
    }
    let chain = lines(fields, X_FORWARDED_FOR);
    // The address that the outer proxy added itself, which is the last: those before it may be the client's invention.
    let last = chain.last().and_then(|line| line.split(|byte| *byte == b',').next_back()).map(<[u8]>::trim_ascii);
    let client = last.filter(|last| !last.is_empty()).unwrap_or(peer.as_bytes()).to_owned();
    let chain = joined(&chain, peer.as_bytes());
    fields.set(X_FORWARDED_FOR, &chain);
    let mut or_insert = |name, value: &[u8]| {
        if !fields.contains(name) {
            fields.append(name, value);
        }
    };
    or_insert(X_REAL_IP, &client);
    or_insert(X_FORWARDED_PROTO, scheme.as_bytes());
    if let Some(host) = host {
        or_insert(X_FORWARDED_HOST, &host);
    }
    let forwarded = lines(fields, FORWARDED);
    if !forwarded.is_empty() {
        let forwarded = joined(&forwarded, forwarded_element(origin.peer).as_bytes());
        fields.set(FORWARDED, &forwarded);
    }
}

/// The address as it is written. Each request carries one, and an IPv4 address by way of its `Display` takes longer than
/// all other fields that are set.
fn written(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let (mut text, mut digits) = (String::with_capacity("255.255.255.255".len()), itoa::Buffer::new());
    for octet in address.octets() {
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(digits.format(octet));
    }
    text
}

/// The lines of a list, without empty ones.
fn lines<'a>(fields: &'a Fields, name: &'a str) -> Vec<&'a [u8]> {
    fields.all(name).filter(|line| !line.is_empty()).collect()
}

/// A peer as RFC 7239 section 6 writes it: an IPv6 address in brackets, and so in quotes.
fn forwarded_element(peer: IpAddr) -> String {
    match peer {
        IpAddr::V4(peer) => format!("for={peer}"),
        IpAddr::V6(peer) => format!("for=\"[{peer}]\""),
    }
}

fn joined(chain: &[&[u8]], last: &[u8]) -> Vec<u8> {
    chain.iter().copied().chain([last]).collect::<Vec<_>>().join(&b", "[..])
}

/// Adds our hop to `CDN-Loop`, or says that this process has seen the request already (RFC 8586 section 2).
///
/// # Errors
/// The request came back to us.
pub fn mark_hop(fields: &mut Fields, hop: &HeaderValue) -> Result<(), LoopDetected> {
    let seen = fields
        .all(CDN_LOOP)
        .flat_map(|line| line.split(|byte| *byte == b','))
        .any(|entry| entry.trim_ascii() == hop.as_bytes());
    if seen {
        return Err(LoopDetected);
    }
    fields.append(CDN_LOOP, hop.as_bytes());
    Ok(())
}

/// Tells upstream that the request came to us in HTTP of this version (RFC 9110 section 7.6.3). Whoever it passed before
/// stays named: a list may stand in several lines.
pub fn add_via(fields: &mut Fields, version: &str) {
    fields.append(header::VIA.as_str(), format!("{version} avatar-proxy").as_bytes());
}

/// A request that we sent upstream came back to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request has been here before")]
pub struct LoopDetected;

/// The `MMAUTHTOKEN` pairs of the `Cookie` lines, byte for byte and in their order, or `None` when there is no such
/// cookie. The name knows its case and an empty value counts: it wins over every header
/// (`ParseAuthTokenFromRequest` in `server/channels/app/authentication.go`).
#[must_use]
pub fn session_cookie(fields: &Fields) -> Option<HeaderValue> {
    let pairs = fields
        .all("cookie")
        .flat_map(|line| line.split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
        .filter(|pair| pair.split(|byte| *byte == b'=').next().is_some_and(|name| name.trim_ascii() == b"MMAUTHTOKEN"))
        .collect::<Vec<_>>();
    if pairs.is_empty() {
        return None;
    }
    let mut value = HeaderValue::from_bytes(&pairs.join(&b"; "[..])).expect("parts of a field value are a field value");
    value.set_sensitive(true);
    Some(value)
}

/// The fields of a client's request for a picture that go upstream, beside the forwarding fields: who asks (the fields that
/// a caller's name is made of as well), how a refusal is worded, and whose page asks. No other field of the client's may
/// change what upstream answers to our own fetch.
const PICTURE_FIELDS: [HeaderName; 5] = [
    header::AUTHORIZATION,
    HeaderName::from_static("x-mattermost-preauth-secret"),
    header::ACCEPT_LANGUAGE,
    header::ORIGIN,
    header::USER_AGENT,
];

/// The header of our own fetch of a picture from `host`: a fixed list, the session cookie alone of all cookies, no encoding.
#[must_use]
pub fn picture_request(client: &Fields, host: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(header::HOST, carried(host));
    if let Some(cookie) = session_cookie(client) {
        headers.insert(header::COOKIE, cookie);
    }
    for name in &PICTURE_FIELDS {
        for value in client.all(name.as_str()) {
            let mut value = carried(value);
            value.set_sensitive(name == header::AUTHORIZATION || name.as_str() == "x-mattermost-preauth-secret");
            headers.append(name, value);
        }
    }
    for name in [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REAL_IP, FORWARDED, CDN_LOOP] {
        for value in client.all(name) {
            headers.append(HeaderName::from_static(name), carried(value));
        }
    }
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers
}

fn carried(value: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(value).expect("it came as a field value")
}

/// Upstream's validator, from the header of its answer.
#[must_use]
pub fn validator(answer: &HeaderMap) -> Option<Validator> {
    answer.get(header::ETAG).and_then(|tag| Validator::new(tag.as_bytes()))
}

/// The `Cache-Control` that goes with a picture: as upstream said it, but always private and never for good. What one
/// caller may see is no business of a shared cache, and a picture changes under its URL.
#[must_use]
pub fn picture_lifetime(answer: &HeaderMap) -> Bytes {
    let Some(said) = answer.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok()) else {
        return Bytes::from_static(DO_NOT_KEEP.as_bytes());
    };
    let kept = |directive: &&str| {
        let name = directive.split('=').next().unwrap_or(directive).trim();
        !["public", "immutable", "s-maxage"].iter().any(|shared| name.eq_ignore_ascii_case(shared))
    };
    let mut directives =
        said.split(',').map(str::trim).filter(|each| !each.is_empty()).filter(kept).collect::<Vec<_>>();
    if !directives.iter().any(|each| each.eq_ignore_ascii_case("private")) {
        directives.push("private");
    }
    let lifetime = directives.join(", ");
    if lifetime == USUAL_LIFETIME { Bytes::from_static(USUAL_LIFETIME.as_bytes()) } else { lifetime.into() }
}

/// The names in upstream's `Vary` that go with a picture: without `Accept-Encoding`, since it is always sent as it is.
#[must_use]
pub fn picture_vary(answer: &HeaderMap) -> Bytes {
    let lines = answer.get_all(header::VARY).iter().filter_map(|line| line.to_str().ok());
    let names = lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("accept-encoding"))
        .collect::<Vec<_>>();
    Bytes::from(names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_its_display_has_it() {
        for address in ["0.0.0.0", "127.0.0.1", "10.20.30.40", "255.255.255.255", "192.0.2.100", "::1", "2001:db8::a:1"]
        {
            assert_eq!(written(address.parse().expect("an address")), address);
        }
    }

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (HeaderName::try_from(*name).expect("name"), HeaderValue::from_str(value).expect("value"))
            })
            .collect::<Vec<_>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            })
    }

    fn fields(of: &[(&str, &str)]) -> Fields {
        of.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
    }

    fn text(fields: &Fields, name: &str) -> Vec<String> {
        fields.all(name).map(|value| String::from_utf8(value.to_owned()).expect("ascii")).collect()
    }

    #[test]
    fn what_belongs_to_the_connection_stops_here() {
        let mut fields = fields(&[
            ("connection", "close, X-Secret-Hop"),
            ("x-secret-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic x"),
            ("x-csrf-token", "kept"),
        ]);
        strip_request_hop_by_hop(&mut fields).expect("nothing forbidden is named");
        assert_eq!(fields.iter().collect::<Vec<_>>(), [("x-csrf-token", &b"kept"[..])]);
    }

    #[test]
    fn an_answer_is_framed_once() {
        for (fields, once) in [
            (&[][..], true),
            (&[("content-length", "5")], true),
            (&[("transfer-encoding", "chunked")], true),
            (&[("transfer-encoding", "Chunked")], true),
            (&[("transfer-encoding", "chunked"), ("content-length", "5")], false),
            (&[("transfer-encoding", "gzip, chunked")], false),
            (&[("transfer-encoding", "gzip")], false),
            (&[("transfer-encoding", "")], false),
            (&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], false),
        ] {
            assert_eq!(check_answer_framing(&map(fields)).is_ok(), once, "{fields:?}");
        }
    }

    #[test]
    fn connection_may_not_name_a_credential() {
        for named in [
            "Authorization",
            "cookie",
            "keep-alive, X-Forwarded-For",
            "close,x-forwarded-port",
            "Host",
            "X-RemoteCluster-Token",
            "X-CSRF-Token",
            "\t,, Forwarded ,",
        ] {
            let mut fields = fields(&[("connection", named)]);
            assert_eq!(strip_request_hop_by_hop(&mut fields), Err(ConnectionNamesCredential), "{named}");
        }
    }

    #[test]
    fn a_strangers_forwarding_fields_are_replaced_and_a_trusted_ones_extended() {
        let peer = "192.0.2.7".parse().expect("address");
        let given = [
            ("host", "chat.example"),
            ("x-forwarded-for", "10.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "10.1.1.1"),
            ("forwarded", "for=x"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-prefix", "/mm"),
        ];
        let mut told = fields(&given);
        set_forwarding(&mut told, Origin { peer, trusted: false, client: peer, encrypted: false });
        assert_eq!(text(&told, "x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(text(&told, "x-forwarded-proto"), ["http"]);
        assert_eq!(text(&told, "x-real-ip"), ["192.0.2.7"]);
        assert_eq!(text(&told, "x-forwarded-host"), ["chat.example"]);
        assert_eq!(told.iter().count(), 5, "{told:?}");

        let mut told = fields(&given);
        set_forwarding(&mut told, Origin { peer, trusted: true, client: peer, encrypted: false });
        assert_eq!(text(&told, "x-forwarded-for"), ["10.1.1.1, 192.0.2.7"]);
        assert_eq!(text(&told, "x-forwarded-proto"), ["https"]);
        assert_eq!(text(&told, "x-real-ip"), ["10.1.1.1"]);
        assert_eq!(text(&told, "forwarded"), ["for=x, for=192.0.2.7"]);
        assert_eq!(text(&told, "x-forwarded-prefix"), ["/mm"]);

        let mut told = fields(&[("x-forwarded-for", "6.6.6.6, 10.1.1.1")]);
        set_forwarding(&mut told, Origin { peer, trusted: true, client: peer, encrypted: false });
        assert_eq!(text(&told, "x-real-ip"), ["10.1.1.1"]);

        let peer = "2001:db8::1".parse().expect("address");
        let mut told = fields(&[("x-forwarded-for", ""), ("forwarded", "for=x"), ("forwarded", "for=y")]);
        set_forwarding(&mut told, Origin { peer, trusted: true, client: peer, encrypted: false });
        assert_eq!(text(&told, "x-forwarded-for"), ["2001:db8::1"]);
        assert_eq!(text(&told, "forwarded"), ["for=x, for=y, for=\"[2001:db8::1]\""]);
    }

    #[test]
    fn a_lifetime_is_always_private_and_never_for_good() {
        for (said, sent) in [
            (Some("max-age=86400, private"), "max-age=86400, private"),
            (Some("max-age=2592000, private"), "max-age=2592000, private"),
            (Some("public, max-age=60, immutable"), "max-age=60, private"),
            (Some("Public, S-MaxAge=9, max-age=5"), "max-age=5, private"),
            (Some(""), "private"),
            (None, "private, no-cache"),
        ] {
            let answer = map(&said.map(|said| ("cache-control", said)).into_iter().collect::<Vec<_>>());
            assert_eq!(picture_lifetime(&answer), sent, "{said:?}");
        }
    }

    #[test]
    fn the_encoding_that_is_never_used_is_not_varied_on() {
        for (lines, passed) in [
            (&[][..], ""),
            (&["Accept-Encoding"], ""),
            (&["Origin", "accept-encoding"], "Origin"),
            (&["Origin, Accept-Encoding, X-Y"], "Origin, X-Y"),
        ] {
            let answer = map(&lines.iter().map(|line| ("vary", *line)).collect::<Vec<_>>());
            assert_eq!(picture_vary(&answer), passed, "{lines:?}");
        }
    }

    #[test]
    fn a_request_that_comes_back_is_recognised() {
        let hop = HeaderValue::from_static("avatar-proxy;id=a1");
        let mut fields = fields(&[("cdn-loop", "other-cdn, avatar-proxy;id=b2")]);
        assert_eq!(mark_hop(&mut fields, &hop), Ok(()));
        assert_eq!(mark_hop(&mut fields, &hop), Err(LoopDetected));
    }

    #[test]
    fn who_was_passed_before_stays_named() {
        let mut fields = fields(&[("via", "1.1 outer"), ("x", "y")]);
        add_via(&mut fields, "2.0");
        assert_eq!(text(&fields, "via"), ["1.1 outer", "2.0 avatar-proxy"]);
    }

    #[test]
    fn only_the_session_cookie_crosses_and_it_crosses_as_it_came() {
        for (lines, expected) in [
            (&["a=1; MMAUTHTOKEN=tok; MMUSERID=u"][..], Some("MMAUTHTOKEN=tok")),
            (&["MMAUTHTOKEN="], Some("MMAUTHTOKEN=")),
            (&["MMAUTHTOKEN=\"q\"", "MMAUTHTOKEN=second"], Some("MMAUTHTOKEN=\"q\"; MMAUTHTOKEN=second")),
            (&["mmauthtoken=x; XMMAUTHTOKEN=y"], None),
            (&[], None),
        ] {
            let fields = fields(&lines.iter().map(|line| ("cookie", *line)).collect::<Vec<_>>());
            assert_eq!(session_cookie(&fields).map(|v| v.to_str().expect("ascii").to_owned()).as_deref(), expected);
        }
    }

    #[test]
    fn a_picture_is_asked_for_with_a_fixed_list_of_fields() {
        let client = fields(&[
            ("authorization", "Bearer x"),
            ("cookie", "theme=dark; MMAUTHTOKEN=t"),
            ("accept", "image/webp"),
            ("accept-encoding", "gzip"),
            ("if-none-match", "\"x\""),
            ("range", "bytes=0-1"),
            ("x-http-method-override", "DELETE"),
            ("x-forwarded-for", "192.0.2.7"),
        ]);
        let sent = picture_request(&client, b"chat.example");
        let mut names = sent.keys().map(HeaderName::as_str).collect::<Vec<_>>();
        names.sort_unstable();
        assert_eq!(names, ["accept-encoding", "authorization", "cookie", "host", "x-forwarded-for"]);
        let sent_as = |name: &str| sent.get(name).expect("there");
        assert_eq!(sent_as("cookie"), "MMAUTHTOKEN=t");
        assert_eq!(sent_as("accept-encoding"), "identity");
        assert_eq!(sent_as("host"), "chat.example");
        assert!(sent.get("authorization").expect("there").is_sensitive());
    }
}
