//! The table of keys: what each is called, what it expects, and how it gets into [`Config`] and out of it.
//!
//! Adding a key is one row here, a field in [`Config`] and a line in `config.toml`; tests hold the three together.

use super::problem::Problem;
use super::quantity::{ByteSize, Decimal, Rate};
use super::raw::{Invalid, Raw};
use super::setting::{Setting, UserAgentFormats};
use super::{Config, Scheme};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What every variable of ours begins with.
///
/// Two underscores: Kubernetes sets `AVATAR_PROXY_PORT` and the like for a service of our name, and those are not ours.
pub const ENVIRONMENT_PREFIX: &str = "AVATAR_PROXY__";

/// One key.
#[derive(Clone, Copy)]
pub struct Key {
    /// Its section.
    pub section: &'static str,
    /// Its name in the section.
    pub name: &'static str,
    /// What a value has to be, to be read after "expected".
    pub expects: &'static str,
    /// The flag of the same meaning.
    pub flag: Option<&'static str>,
    read: fn(&mut Config, &Raw) -> Result<(), Invalid>,
    show: fn(&Config) -> String,
}

impl Key {
    /// `section.name`
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}__{}", self.section.replace('.', "__"), self.name).to_uppercase()
    }

    /// Its value in `config`, as TOML.
    #[must_use]
    pub fn show(&self, config: &Config) -> String {
        (self.show)(config)
    }

    pub(super) fn read(&self, config: &mut Config, raw: &Raw) -> Result<(), Invalid> {
        (self.read)(config, raw)
    }

    const fn with_flag(self, flag: &'static str) -> Self {
        Self { flag: Some(flag), ..self }
    }
}

/// `key!(section.name, "what it expects", check)`: a value that reads as the field's type and passes `check`. A section may
/// be a part of another.
macro_rules! key {
    ($section:ident.$name:ident, $($rest:tt)+) => {
        key!(@ stringify!($section), $section, $name, $($rest)+)
    };
    ($section:ident.$part:ident.$name:ident, $($rest:tt)+) => {
        key!(@ concat!(stringify!($section), ".", stringify!($part)), $section.$part, $name, $($rest)+)
    };
    (@ $path:expr, $($section:ident).+, $name:ident, $expects:expr) => {
        key!(@ $path, $($section).+, $name, $expects, |_| true)
    };
    (@ $path:expr, $($section:ident).+, $name:ident, $expects:expr, $check:expr) => {
        Key {
            section: $path,
            name: stringify!($name),
            expects: $expects,
            flag: None,
            read: |config, raw| {
                let value = Setting::read(raw)?;
                if !($check)(&value) {
                    return Err(Invalid::Unexpected);
                }
                config.$($section).+.$name = value;
                Ok(())
            },
            show: |config| config.$($section).+.$name.show(),
        }
    };
}

const ADDRESS: &str = "an IP address with a port, such as 127.0.0.1:8066";
const ADDRESS_OR_NONE: &str = "an IP address with a port, such as 127.0.0.1:9090, or nothing between the quotes";
const FILE_OR_NONE: &str = "the name of a file in PEM, or nothing between the quotes";
const TIME: &str = "a time above 0s and at most 1h, such as 500ms, 15s or 2m";
const BUDGET: &str = "a size from 0 to 1024GiB, such as 64MiB";
const RATE: &str = "0 (no limit), or at most 1000000 in a time from 1s to 1h, such as 600/60s";
const SCORE: &str = "a number from 0 to 100";
const SWITCH: &str = "true or false";
const THREADS: &str = "a whole number from 0 (one per core) to 1024";
const WORKERS: &str = "a whole number from 0 (one per core) to 512";
const FORMATS: &str = r#"a list of formats to negotiate, of which there are "avif" and "webp""#;

/// Every key, in the order of `config.toml`.
pub static KEYS: &[Key] = &[
    key!(server.listen, ADDRESS).with_flag("--listen"),
    key!(server.base_path, "a path that begins with /, such as / or /chat"),
    key!(server.workers, WORKERS, within(0..=512)),
    key!(
        server.max_connections,
        "a whole number from 0 (what the file limit allows) to 1000000",
        within(0..=1_000_000)
    ),
    key!(
        server.max_connections_per_address,
        "a whole number from 0 (a quarter of all connections) to 1000000",
        within(0..=1_000_000)
    ),
    key!(server.keep_alive, TIME, is_timeout),
    key!(server.head_timeout, TIME, is_timeout),
    key!(server.body_idle_timeout, TIME, is_timeout),
    key!(server.write_idle_timeout, TIME, is_timeout),
    key!(server.shutdown_timeout, TIME, is_timeout),
    key!(server.trusted_proxies, r#"a list of at most 256 networks, such as ["10.0.0.0/8", "::1"]"#, at_most(256)),
    key!(server.tls.certificate, FILE_OR_NONE),
    key!(server.tls.key, FILE_OR_NONE),
    key!(upstream.url, "http:// or https:// with a host and perhaps a port, such as http://127.0.0.1:8065")
        .with_flag("--upstream"),
    key!(upstream.host, "keep, or a host with perhaps a port, such as chat.example.org"),
    key!(upstream.tls_name, "a host name, such as chat.example.org, or nothing between the quotes"),
    key!(upstream.ca_file, "a file of certificates in PEM form, or nothing between the quotes"),
    key!(upstream.connect_timeout, TIME, is_timeout),
    key!(upstream.head_timeout, TIME, is_timeout),
    key!(upstream.idle_timeout, TIME, is_timeout),
    key!(upstream.picture_timeout, TIME, is_timeout),
    key!(upstream.passthrough_timeout, TIME, is_timeout),
    key!(upstream.max_picture_requests, "a whole number from 1 to 65536", within(1..=65_536)),
    key!(upstream.max_connections, "a whole number from 1 to 1000000", within(1..=1_000_000)),
    key!(pictures.users, SWITCH),
    key!(pictures.defaults, SWITCH),
    key!(pictures.teams, SWITCH),
    key!(pictures.emoji, SWITCH),
    key!(pictures.sizes, "1 to 64 whole numbers from 1 to 4096, each above the one before", are_sizes),
    key!(pictures.formats, FORMATS),
    key!(
        pictures.user_agents,
        r#"a table of at most 32 prefixes and their formats, such as { "Mattermost Mobile/" = ["webp"] }"#,
        are_user_agents
    ),
    key!(pictures.client_hints, SWITCH),
    key!(pictures.target, SCORE, within(Decimal::whole(0)..=Decimal::whole(100))),
    key!(pictures.flat_target, SCORE, within(Decimal::whole(0)..=Decimal::whole(100))),
    key!(cache.sources, BUDGET, bytes_within(0..=1 << 40)),
    key!(cache.variants, BUDGET, bytes_within(0..=1 << 40)),
    key!(cache.pixels, BUDGET, bytes_within(0..=1 << 40)),
    key!(cache.max_entry, "a size from 1KiB to 1GiB, such as 1MiB", bytes_within(1 << 10..=1 << 30)),
    key!(grants.ttl, "a time from 0s (ask every time) to 1h, such as 30s", is_at_most_an_hour),
    key!(grants.learn, SWITCH),
    key!(grants.listen, SWITCH),
    key!(grants.memory, "a size from 64KiB to 1024GiB, such as 32MiB", bytes_within(1 << 16..=1 << 40)),
    key!(render.permits, THREADS, within(0..=1024)),
    key!(render.queue, "a whole number from 1 to 65536", within(1..=65_536)),
    key!(render.queue_timeout, TIME, is_timeout),
    key!(improve.enabled, SWITCH),
    key!(improve.after_hits, "a whole number from 1 to 1000000", within(1..=1_000_000)),
    key!(improve.cpu_share, "a number from 0.01 to 1", within(Decimal::hundredths(1)..=Decimal::whole(1))),
    key!(limits.source, "a size from 1KiB to 1GiB, such as 10MiB", bytes_within(1 << 10..=1 << 30)),
    key!(limits.edge, "a whole number from 1 to 65535", within(1..=65_535)),
    key!(limits.pixels, "a whole number from 1 to 1000000000", within(1..=1_000_000_000)),
    key!(limits.decoder_memory, "a size from 1MiB to 16GiB, such as 32MiB", bytes_within(1 << 20..=16 << 30)),
    key!(limits.frames, "a whole number from 1 to 100000", within(1..=100_000)),
    key!(limits.frame_pixels, "a whole number from 1 to 1000000000", within(1..=1_000_000_000)),
    key!(limits.animation_time, TIME, is_timeout),
    key!(limits.caller_misses, RATE, is_rate),
    key!(limits.address_misses, RATE, is_rate),
    key!(headers.cache_status, SWITCH),
    key!(headers.server_timing, SWITCH),
    key!(headers.via, SWITCH),
    key!(admin.listen, ADDRESS_OR_NONE),
    key!(log.level, "off, error, warn, info, debug or trace"),
    key!(log.format, "human or json"),
    key!(log.requests, SWITCH),
];

fn within<T: PartialOrd>(range: RangeInclusive<T>) -> impl Fn(&T) -> bool {
    move |value| range.contains(value)
}

fn bytes_within(range: RangeInclusive<u64>) -> impl Fn(&ByteSize) -> bool {
    move |size| range.contains(&size.bytes())
}

fn is_timeout(time: &Duration) -> bool {
    !time.is_zero() && is_at_most_an_hour(time)
}

fn is_at_most_an_hour(time: &Duration) -> bool {
    *time <= Duration::from_secs(3600)
}

#[expect(clippy::ref_option, reason = "a check takes the field's own type")]
fn is_rate(rate: &Option<Rate>) -> bool {
    // The budgets count in whole nanoseconds: within these bounds rounding them costs at most a thousandth of the pace.
    rate.is_none_or(|rate| {
        (1..=1_000_000).contains(&rate.count) && rate.per >= Duration::from_secs(1) && is_at_most_an_hour(&rate.per)
    })
}

fn at_most<T>(count: usize) -> impl Fn(&Vec<T>) -> bool {
    move |items| items.len() <= count
}

#[expect(clippy::ptr_arg, reason = "a check takes the field's own type")]
fn are_sizes(sizes: &Vec<u32>) -> bool {
    (1..=64).contains(&sizes.len())
        && sizes.iter().all(|edge| (1..=4096).contains(edge))
        && sizes.is_sorted_by(|smaller, larger| smaller < larger)
}

#[expect(clippy::ptr_arg, reason = "a check takes the field's own type")]
fn are_user_agents(agents: &Vec<UserAgentFormats>) -> bool {
    agents.len() <= 32
        && agents.iter().all(|agent| {
            (1..=128).contains(&agent.prefix.len()) && agent.prefix.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        })
}

/// What no key can see alone. `trusted` tells whether the keys of these paths were read without a problem, so that a
/// slip in one key is not reported as two.
pub(super) fn conflicts(config: &Config, trusted: impl Fn(&[&str]) -> bool) -> Vec<(&'static str, Problem)> {
    let mut found = Vec::new();
    if let Some(admin) = config.admin.listen {
        if trusted(&["server.listen", "admin.listen"]) && share_a_socket(config.server.listen, admin) {
            let told = format!(
                "{admin} is taken by server.listen ({}); the administration needs a port of its own",
                config.server.listen
            );
            found.push(("admin.listen", Problem::new(told)));
        }
        if trusted(&["upstream.url", "admin.listen"]) && config.upstream.url.is_listener(admin) {
            found.push(("upstream.url", a_loop(admin, "admin.listen")));
        }
    }
    let tls = &config.server.tls;
    if trusted(&["server.tls.certificate", "server.tls.key"]) && tls.certificate.is_some() != tls.key.is_some() {
        let (given, missing) = match tls.key {
            Some(_) => ("server.tls.key", "server.tls.certificate"),
            None => ("server.tls.certificate", "server.tls.key"),
        };
        found.push((given, Problem::new(format!("{missing} is missing beside it; expected both or neither"))));
    }
    let upstream = &config.upstream;
    if trusted(&["upstream.url", "upstream.tls_name"])
        && upstream.tls_name.is_some()
        && upstream.url.scheme() == Scheme::Http
    {
        let told = "upstream.url is http, which has no TLS; expected nothing between the quotes, or an https:// there";
        found.push(("upstream.tls_name", Problem::new(told)));
    }
    if trusted(&["upstream.url", "server.listen"]) && config.upstream.url.is_listener(config.server.listen) {
        found.push(("upstream.url", a_loop(config.server.listen, "server.listen")));
    }
    found
}

fn a_loop(listener: SocketAddr, key: &str) -> Problem {
    Problem::new(format!(
        "it leads back to avatar-proxy itself ({key} is {listener}); expected the address of Mattermost"
    ))
}

/// Port 0 is a port that the system chooses, and never twice the same.
fn share_a_socket(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port()
        && one.port() != 0
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_key_has_one_row_that_reads_what_it_shows() {
        let defaults = Config::default();
        let mut seen = HashSet::new();
        for key in KEYS {
            assert!(seen.insert(key.path()), "{} twice", key.path());
            assert!(seen.insert(key.variable()), "{} twice", key.variable());
            let shown = key.show(&defaults);
            let value = toml::de::DeValue::parse(&shown).expect("`show` writes TOML");
            let mut config = defaults.clone();
            assert_eq!(key.read(&mut config, &Raw::of(value.get_ref())), Ok(()), "{} = {shown}", key.path());
            assert_eq!(config, defaults, "{} = {shown}", key.path());
        }
    }

    #[test]
    fn sections_are_not_interleaved() {
        let mut sections: Vec<_> = KEYS.iter().map(|key| key.section).collect();
        sections.dedup();
        assert_eq!(sections.len(), sections.iter().collect::<HashSet<_>>().len());
    }

    #[test]
    fn a_variable_is_named_after_its_key() {
        let variables: Vec<_> = KEYS.iter().map(Key::variable).collect();
        for variable in ["AVATAR_PROXY__CACHE__MAX_ENTRY", "AVATAR_PROXY__SERVER__TLS__KEY"] {
            assert!(variables.contains(&variable.to_owned()), "{variables:?}");
        }
    }
}
