//! The configuration: what an administrator may set, its defaults, and the one place where every layer meets.
//!
//! [`Config`] is plain data. [`keys`] is the table that drives reading, the environment, [`Loaded::describe`] and the
//! comparison with the shipped `config.toml`; a new key is a field here, a row there and a line in `config.toml`.

mod address;
mod describe;
pub mod keys;
mod load;
mod problem;
mod quantity;
mod raw;
mod setting;

pub use address::{BasePath, Scheme, TlsName, UpstreamHost, UpstreamUrl};
pub use describe::MemoryBound;
pub use load::{FileSource, Loaded, Sources};
pub use problem::{ConfigError, Origin, Problem};
pub use quantity::{ByteSize, Decimal, Rate};
pub use setting::UserAgentFormats;

use crate::telemetry::{LogFormat, LogSettings};
use crate::upstream::Roots;
use crate::variant::Format;
use ipnet::IpNet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// How long a permission may be remembered without a warning.
const GRANT_WITHOUT_A_WARNING: Duration = Duration::from_secs(300);

/// Everything that can be set. Each field is the key of the same name in `config.toml`, where its meaning is written.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[upstream]`
    pub upstream: Upstream,
    /// `[pictures]`
    pub pictures: Pictures,
    /// `[cache]`
    pub cache: Cache,
    /// `[grants]`
    pub grants: Grants,
    /// `[render]`
    pub render: Render,
    /// `[improve]`
    pub improve: Improve,
    /// `[limits]`
    pub limits: Limits,
    /// `[headers]`
    pub headers: Headers,
    /// `[admin]`
    pub admin: Admin,
    /// `[log]`
    pub log: LogSettings,
}

impl Config {
    /// What is allowed and may still not be meant, each to be told at the start and by `check`.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.server.shutdown_timeout < self.upstream.picture_timeout {
            warnings.push(
                "server.shutdown_timeout is below upstream.picture_timeout: a stop may cut pictures off".to_owned(),
            );
        }
        if self.grants.ttl > GRANT_WITHOUT_A_WARNING {
            warnings.push(format!(
                "grants.ttl is {}: somebody who may no longer see a picture may go on seeing it for that long",
                quantity::time_text(self.grants.ttl)
            ));
        }
        if self.upstream.ca_file.is_some() && self.upstream.url.scheme() == Scheme::Http {
            warnings.push("upstream.ca_file is for https, and upstream.url is http".to_owned());
        }
        warnings
    }
}

/// Towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where clients, or the outer proxy, connect.
    pub listen: SocketAddr,
    /// The path of Mattermost's `SiteURL`.
    pub base_path: BasePath,
    /// Threads that answer requests; 0 is one per core.
    pub workers: usize,
    /// Client connections at once; 0 is what the file limit allows.
    pub max_connections: usize,
    /// The same of one client address, of IPv6 one /64; 0 is a quarter of all.
    pub max_connections_per_address: usize,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// How long the head of a request may take.
    pub head_timeout: Duration,
    /// How long the body of a request may pause.
    pub body_idle_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub write_idle_timeout: Duration,
    /// The grace for what is in flight when the process is told to stop.
    pub shutdown_timeout: Duration,
    /// The networks whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `[server.tls]`
    pub tls: Tls,
}

/// The certificate shown to clients; without one they speak plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tls {
    /// The file of the certificate and those that vouch for it.
    pub certificate: Option<PathBuf>,
    /// The file of its private key.
    pub key: Option<PathBuf>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8066)),
            base_path: BasePath::default(),
            workers: 0,
            max_connections: 0,
            max_connections_per_address: 0,
            keep_alive: Duration::from_secs(75),
            head_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(60),
            write_idle_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(30),
            trusted_proxies: Vec::new(),
            tls: Tls::default(),
        }
    }
}

/// Towards Mattermost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Mattermost's address. The default is only the example of `config.toml`: [`Config::load`] wants it named.
    pub url: UpstreamUrl,
    /// The `Host` that is sent.
    pub host: UpstreamHost,
    /// What it is called in TLS, where that is not the host of `url`.
    pub tls_name: Option<TlsName>,
    /// How long connecting may take (Tc).
    pub connect_timeout: Duration,
    /// How long the head of an answer may take (Th).
    pub head_timeout: Duration,
    /// How long a body may pause (Tb).
    pub idle_timeout: Duration,
    /// How long a whole picture may take (Tt).
    pub picture_timeout: Duration,
    /// How long the answer to a request that passes through may take to begin.
    pub passthrough_timeout: Duration,
    /// Picture requests at once.
    pub max_picture_requests: usize,
    /// Connections at once for everything else.
    pub max_connections: usize,
    /// Root certificates beside those of the platform.
    pub ca_file: Option<Roots>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            url: UpstreamUrl::mattermost_on_this_machine(),
            host: UpstreamHost::Keep,
            tls_name: None,
            connect_timeout: Duration::from_secs(3),
            head_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            picture_timeout: Duration::from_secs(20),
            passthrough_timeout: Duration::from_secs(300),
            max_picture_requests: 64,
            // Linux has 28,232 ports for connections to one address.
            max_connections: 16_384,
            ca_file: None,
        }
    }
}

/// Which pictures are ours, and what they may become.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own in config.toml")]
pub struct Pictures {
    /// Users' pictures.
    pub users: bool,
    /// Users' default pictures.
    pub defaults: bool,
    /// Teams' icons.
    pub teams: bool,
    /// Custom emoji.
    pub emoji: bool,
    /// The edges in pixels that sizes are rounded up to, ascending.
    pub sizes: Vec<u32>,
    /// The formats that may be negotiated beside PNG, JPEG and the original.
    pub formats: Vec<Format>,
    /// The formats that a client is known to show by the beginning of its `User-Agent`.
    pub user_agents: Vec<UserAgentFormats>,
    /// Whether what clients say of their screens and their lines is heeded.
    pub client_hints: bool,
    /// How alike an encoding has to look, by SSIMULACRA2: photographs and drawings.
    pub target: Decimal,
    /// The same for letters and other flat pictures.
    pub flat_target: Decimal,
}

impl Default for Pictures {
    fn default() -> Self {
        Self {
            users: true,
            defaults: true,
            teams: true,
            emoji: true,
            sizes: vec![16, 20, 24, 32, 40, 48, 64, 72, 96, 128, 192, 256],
            formats: vec![Format::Avif, Format::Webp],
            user_agents: vec![UserAgentFormats {
                prefix: "Mattermost Mobile/".to_owned(),
                formats: vec![Format::Webp],
            }],
            client_hints: false,
            target: Decimal::whole(80),
            flat_target: Decimal::whole(90),
        }
    }
}

/// The budgets of the caches, weighed with keys and overhead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Upstream's bytes.
    pub sources: ByteSize,
    /// Encoded pictures.
    pub variants: ByteSize,
    /// Decoded pictures, kept for a moment so that several sizes asked for at once decode once.
    pub pixels: ByteSize,
    /// The largest entry of a cache.
    pub max_entry: ByteSize,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            sources: ByteSize::mebibytes(64),
            variants: ByteSize::mebibytes(64),
            pixels: ByteSize::mebibytes(4),
            max_entry: ByteSize::mebibytes(1),
        }
    }
}

/// Permissions remembered: upstream has shown this picture to this caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// How long one counts; zero asks upstream every time.
    pub ttl: Duration,
    /// Whether lists of users that pass through grant what they show.
    pub learn: bool,
    /// Whether events that pass through end freshness and grants.
    pub listen: bool,
    /// What they may take.
    pub memory: ByteSize,
}

impl Default for Grants {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(30), learn: true, listen: true, memory: ByteSize::mebibytes(32) }
    }
}

/// The gate to the CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Render {
    /// Renders at once; 0 is one per core.
    pub permits: usize,
    /// Renders that may wait.
    pub queue: usize,
    /// How long a render may wait.
    pub queue_timeout: Duration,
}

impl Default for Render {
    fn default() -> Self {
        Self { permits: 0, queue: 256, queue_timeout: Duration::from_secs(2) }
    }
}

/// Better encodings in idle time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Improve {
    /// Whether there are any.
    pub enabled: bool,
    /// How often a picture is asked for again before it is encoded anew.
    pub after_hits: u32,
    /// The share of one core that may be spent, while the rest of the process leaves a quarter of all cores idle; at 1 it is
    /// spent however busy that is.
    pub cpu_share: Decimal,
}

impl Default for Improve {
    fn default() -> Self {
        Self { enabled: true, after_hits: 2, cpu_share: Decimal::hundredths(25) }
    }
}

/// What one picture may cost before it is relayed as it came, and how many may be fetched or rendered for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The source's bytes.
    pub source: ByteSize,
    /// The longest edge in pixels.
    pub edge: u32,
    /// Width times height.
    pub pixels: u64,
    /// What a decoder may allocate.
    pub decoder_memory: ByteSize,
    /// The frames of a moving picture.
    pub frames: u32,
    /// Width times height times frames of a moving picture.
    pub frame_pixels: u64,
    /// What rendering all frames of a moving picture may take of a processor's time.
    pub animation_time: Duration,
    /// Renders and upstream picture requests for one token; `None` for no limit.
    pub caller_misses: Option<Rate>,
    /// The same for one client address, of IPv6 one /64.
    pub address_misses: Option<Rate>,
}

impl Default for Limits {
    fn default() -> Self {
        let a_minute = Duration::from_secs(60);
        Self {
            source: ByteSize::mebibytes(10),
            edge: 4096,
            pixels: 8_000_000,
            decoder_memory: ByteSize::mebibytes(32),
            frames: 500,
            frame_pixels: 32_000_000,
            animation_time: Duration::from_secs(2),
            caller_misses: Some(Rate { count: 600, per: a_minute }),
            address_misses: Some(Rate { count: 6000, per: a_minute }),
        }
    }
}

/// Fields that are only added where somebody wants them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Headers {
    /// `Cache-Status` (RFC 9211).
    pub cache_status: bool,
    /// `Server-Timing`.
    pub server_timing: bool,
    /// `Via` (RFC 9110 section 7.6.3), in requests that pass through.
    pub via: bool,
}

/// The back office.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Its listener; `None` for none.
    pub listen: Option<SocketAddr>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9090))) }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: LevelFilter::INFO, format: LogFormat::Human, requests: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That `change` to the default configuration leads to one warning, which begins with `told`.
    fn check(change: fn(&mut Config), told: Option<&str>) {
        let mut config = Config::default();
        change(&mut config);
        let warnings = config.warnings();
        assert_eq!(warnings.len(), usize::from(told.is_some()), "{warnings:?}");
        assert!(warnings.iter().zip(told).all(|(warning, told)| warning.starts_with(told)), "{warnings:?}");
    }

    #[test]
    fn what_may_not_be_meant_is_told() {
        check(|_| (), None);
        check(
            |config| config.server.shutdown_timeout = Duration::from_secs(19),
            Some("server.shutdown_timeout is below"),
        );
        check(|config| config.grants.ttl = Duration::from_secs(300), None);
        check(|config| config.grants.ttl = Duration::from_secs(301), Some("grants.ttl is 301s: somebody"));
        check(|config| config.grants.ttl = Duration::from_secs(3600), Some("grants.ttl is 1h: somebody"));
        check(|config| config.upstream.ca_file = Some(Roots::default()), Some("upstream.ca_file is for https"));
    }
}
