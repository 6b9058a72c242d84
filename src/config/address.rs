//! Where Mattermost is, under which name it is asked, and below which path it lives: parsed once, with nothing in them
//! that could be a secret.

use rustls::pki_types::ServerName;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// How Mattermost is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http://`
    Http,
    /// `https://`
    Https,
}

impl Scheme {
    /// The word before `://`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port where none is named.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Mattermost's address: scheme, host and port, and nothing else. The only place that is ever dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamUrl {
    scheme: Scheme,
    authority: http::uri::Authority,
}

impl UpstreamUrl {
    /// Where a Mattermost server listens by default, seen from its own machine.
    pub(super) fn mattermost_on_this_machine() -> Self {
        Self { scheme: Scheme::Http, authority: http::uri::Authority::from_static("127.0.0.1:8065") }
    }

    /// Reads `http://host:port`; a trailing `/` is allowed.
    ///
    /// # Errors
    /// Says what is wrong without repeating any of it: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = if let Some(rest) = text.strip_prefix("http://") {
            (Scheme::Http, rest)
        } else if let Some(rest) = text.strip_prefix("https://") {
            (Scheme::Https, rest)
        } else {
            return Err("it does not begin with http:// or https://");
        };
        if rest.contains('@') {
            return Err("it holds credentials, and the configuration keeps none");
        }
        if rest.contains('?') {
            return Err("it has a query");
        }
        if rest.contains('#') {
            return Err("it has a fragment");
        }
        let host = rest.strip_suffix('/').unwrap_or(rest);
        if host.contains('/') {
            return Err("it has a path; the path of Mattermost's SiteURL belongs into server.base_path");
        }
        Ok(Self { scheme, authority: authority(host)? })
    }

    /// How it is spoken to.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host and port as they were written.
    #[must_use]
    pub const fn authority(&self) -> &http::uri::Authority {
        &self.authority
    }

    /// The port, named or by the scheme.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(self.scheme.default_port())
    }

    /// Whether a connection to it would end at our own `listener`, a loop. Names other than `localhost` are not
    /// resolved: that answer may change, and the loop marker catches it at the first request.
    #[must_use]
    pub fn is_listener(&self, listener: SocketAddr) -> bool {
        if self.port() != listener.port() {
            return false;
        }
        let own = listener.ip();
        let host = self.authority.host().trim_matches(['[', ']']);
        match host.parse::<IpAddr>() {
            Ok(host) => host == own || host.is_unspecified() || (own.is_unspecified() && host.is_loopback()),
            Err(_) => host.eq_ignore_ascii_case("localhost") && (own.is_loopback() || own.is_unspecified()),
        }
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.authority)
    }
}

/// The `Host` that is sent upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamHost {
    /// The client's own.
    Keep,
    /// This one.
    Fixed(String),
}

impl UpstreamHost {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "keep" { Ok(Self::Keep) } else { authority(text).map(|host| Self::Fixed(host.to_string())) }
    }
}

impl fmt::Display for UpstreamHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "keep",
            Self::Fixed(host) => host,
        })
    }
}

/// What upstream is called in TLS: the name that SNI tells it (RFC 6066 section 3) and that its certificate has to have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsName(String);

impl TlsName {
    /// Reads a host name.
    ///
    /// # Errors
    /// It is none; an address is none either, since SNI has no addresses.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match ServerName::try_from(text) {
            Ok(ServerName::DnsName(_)) => Ok(Self(text.to_owned())),
            Ok(_) => Err("it is an address"),
            Err(_) => Err("it is no host name"),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Host and port as `Host` may carry them (RFC 9110 section 7.2): a name, an IPv4 address, or an IPv6 address between
/// brackets.
fn authority(text: &str) -> Result<http::uri::Authority, &'static str> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let named = || !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let numbered = || {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
    };
    if host.len() > 253 || !(named() || numbered()) {
        return Err("its host is neither a name nor an address");
    }
    let numeric = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n > 0);
    if !port.is_none_or(numeric) {
        return Err("its port is not a number from 1 to 65535");
    }
    text.parse().map_err(|_| "its host is neither a name nor an address")
}

/// The path of Mattermost's `SiteURL`, without the slash at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct BasePath(String);

impl BasePath {
    /// Reads `/` or `/chat`; a trailing slash is allowed.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "/" {
            return Ok(Self::default());
        }
        let Some(inner) = text.strip_prefix('/') else {
            return Err("it does not begin with /");
        };
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        for segment in inner.split('/') {
            match segment {
                "" => return Err("it has an empty segment"),
                "." | ".." => return Err("it has a dot segment"),
                _ if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) => {
                    return Err("it holds a character other than A-Z a-z 0-9 - . _ ~ /");
                }
                _ => {}
            }
        }
        Ok(Self(format!("/{inner}")))
    }

    /// What stands before `/api/v4/…`: nothing, or a path without the slash at its end.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "/" } else { &self.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_scheme_host_and_port() {
        for (text, shown, port) in [
            ("http://127.0.0.1:8065", "http://127.0.0.1:8065", 8065),
            ("http://mattermost/", "http://mattermost", 80),
            ("https://chat.example.org", "https://chat.example.org", 443),
            ("https://[::1]:8065", "https://[::1]:8065", 8065),
            ("https://[::1]", "https://[::1]", 443),
        ] {
            let url = UpstreamUrl::parse(text).expect(text);
            assert_eq!((url.to_string().as_str(), url.port()), (shown, port));
        }
    }

    #[test]
    fn anything_else_is_refused_and_not_repeated() {
        for (text, why) in [
            ("", "does not begin"),
            ("mattermost:8065", "does not begin"),
            ("HTTP://mattermost", "does not begin"),
            ("ftp://mattermost", "does not begin"),
            ("http://bob:pencil@mattermost", "credentials"),
            ("http://bob@mattermost", "credentials"),
            ("http://mattermost?pencil", "query"),
            ("http://mattermost/?pencil", "query"),
            ("http://mattermost#pencil", "fragment"),
            ("http://mattermost/chat", "server.base_path"),
            ("http://mattermost//", "path"),
            ("http://", "host"),
            ("http://:80", "host"),
            ("http://::1", "host"),
            ("http://[::g]", "host"),
            ("http://a b", "host"),
            ("http://a\u{e9}", "host"),
            ("http://a%41", "host"),
            ("http://mattermost:", "port"),
            ("http://mattermost:0", "port"),
            ("http://mattermost:+80", "port"),
            ("http://mattermost:65536", "port"),
            ("http://bob:pencil", "port"),
        ] {
            let told = UpstreamUrl::parse(text).expect_err(text);
            assert!(told.contains(why), "{text}: {told}");
            assert!(!told.contains("pencil"), "{told}");
        }
    }

    #[test]
    fn our_own_listeners_are_recognised() {
        for (url, listener, own) in [
            ("http://127.0.0.1:8066", "127.0.0.1:8066", true),
            ("http://127.0.0.1:8065", "127.0.0.1:8066", false),
            ("http://127.0.0.2:8066", "127.0.0.1:8066", false),
            ("http://127.0.0.2:8066", "0.0.0.0:8066", true),
            ("http://0.0.0.0:8066", "127.0.0.1:8066", true),
            ("http://LOCALHOST:8066", "127.0.0.1:8066", true),
            ("http://localhost:8066", "10.0.0.1:8066", false),
            ("http://[::1]:8066", "[::]:8066", true),
            ("http://10.0.0.1:8066", "10.0.0.1:8066", true),
            ("http://10.0.0.1:8066", "0.0.0.0:8066", false),
            ("http://localhost", "0.0.0.0:80", true),
        ] {
            let parsed = UpstreamUrl::parse(url).expect(url);
            assert_eq!(parsed.is_listener(listener.parse().expect(listener)), own, "{url} {listener}");
        }
    }

    #[test]
    fn a_base_path_is_plain() {
        for (text, prefix, shown) in
            [("/", "", "/"), ("/chat", "/chat", "/chat"), ("/chat/", "/chat", "/chat"), ("/a/b.c", "/a/b.c", "/a/b.c")]
        {
            let path = BasePath::parse(text).expect(text);
            assert_eq!((path.prefix(), path.to_string().as_str()), (prefix, shown));
        }
        for text in
            ["", "chat", "//", "/a//b", "/a//", "/.", "/../a", "/a/%2e", "/a?b", "/a#b", "/a\\b", "/a b", "/\u{e9}"]
        {
            assert!(BasePath::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_for_tls_is_a_host_name() {
        assert_eq!(
            TlsName::parse("chat.example.org").map(|name| name.as_str().to_owned()),
            Ok("chat.example.org".into())
        );
        for text in ["", "10.0.0.5", "::1", "[::1]", "chat.example.org:443", "a b", "a..b", "-a", "\u{e9}"] {
            assert!(TlsName::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_is_kept_or_fixed() {
        assert_eq!(UpstreamHost::parse("keep"), Ok(UpstreamHost::Keep));
        assert_eq!(
            UpstreamHost::parse("chat.example.org:8443"),
            Ok(UpstreamHost::Fixed("chat.example.org:8443".to_owned()))
        );
        for text in ["", "bob@chat.example.org", "chat.example.org/", "a b", "a:b", "a\r\nX: y"] {
            assert!(UpstreamHost::parse(text).is_err(), "{text}");
        }
    }
}
