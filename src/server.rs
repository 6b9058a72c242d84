//! Build every part once, bind, serve, drain.

use crate::admin::{self, AdminState, NotReady, Readiness, ReadinessSettings};
use crate::avatar::{self, Avatars};
use crate::caller::CallerKey;
use crate::config::{self, Config, Scheme, UpstreamHost, UpstreamUrl};
use crate::identity::PictureKind;
use crate::listen::{self, Stage};
use crate::overheard::ListenBudget;
use crate::telemetry::{CacheLevel, CacheLevels, Telemetry};
use crate::upstream::{self, Gateway, Upstream, UpstreamError};
use crate::variant::negotiation;
use crate::variant::transform::{Sizes, SizesError};
use crate::web::{self, Front, Influence, School};
use crate::{allowance, cache, render};
use actix_http::Request;
use actix_web::dev::{Server, ServerHandle};
use actix_web::{App, HttpServer};
use http::HeaderValue;
use socket2::{Domain, Socket, Type};
use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;
/// What all listeners together may hold of the events that they collect, in bytes.
const ALL_EVENTS: usize = 16 << 20;
/// How often the caches are told to let go of what nobody asks for.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("{key}: {address} cannot be bound: {cause}")]
    Bind {
        /// The key of the configuration that names it.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        cause: io::Error,
    },
    /// The list of sizes is none.
    #[error(transparent)]
    Sizes(#[from] SizesError),
    /// The clients to upstream.
    #[error(transparent)]
    Upstream(#[from] upstream::BuildError),
    /// The random number generator of the system.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// The servers.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The proxy with its listeners bound, not yet serving.
pub struct Bound {
    public: TcpListener,
    admin: Option<TcpListener>,
    parts: Parts,
    readiness: Readiness,
    config: Config,
}

/// What is built once; each worker makes its front door of it.
#[derive(Clone)]
struct Parts {
    settings: Arc<web::Settings>,
    gateway: Gateway,
    avatars: Arc<Avatars>,
    telemetry: Arc<Telemetry>,
    hop: HeaderValue,
    caller_key: Arc<CallerKey>,
    influence: Arc<Influence>,
    school: Arc<School>,
    listeners: Arc<ListenBudget>,
}

impl Parts {
    fn front(&self) -> Front {
        Front {
            settings: self.settings.clone(),
            upstream: Upstream::new(&self.gateway).expect("the clients could be built at start"),
            avatars: self.avatars.clone(),
            telemetry: self.telemetry.clone(),
            hop: self.hop.clone(),
            caller_key: self.caller_key.clone(),
            influence: self.influence.clone(),
            school: self.school.clone(),
            listeners: self.listeners.clone(),
            last_site: RefCell::default(),
        }
    }
}

impl Bound {
    /// Builds every part and binds both listeners.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn bind(config: Config, telemetry: Arc<Telemetry>) -> Result<Self, StartError> {
        let public = bind("server.listen", config.server.listen)?;
        let admin = config.admin.listen.map(|address| bind("admin.listen", address)).transpose()?;
        let gateway = Gateway::new(upstream_settings(&config))?;
        let avatars = Avatars::new(avatar_settings(&config), telemetry.clone());
        let caller_key = Arc::new(CallerKey::draw().map_err(StartError::Random)?);
        let drawn = getrandom::u64().map_err(StartError::Random)?;
        let hop = HeaderValue::try_from(format!("avatar-proxy;id={drawn:016x}")).expect("hex digits");
        let readiness = readiness(&Arc::new(Upstream::new(&gateway)?), config.server.base_path.prefix());
        let settings = Arc::new(web_settings(&config)?);
        let avatars = Arc::new(avatars);
        let (influence, school) = (Arc::default(), Arc::default());
        let listeners = Arc::new(ListenBudget::new(ALL_EVENTS));
        let parts = Parts { settings, gateway, avatars, telemetry, hop, caller_key, influence, school, listeners };
        Ok(Self { public, admin, parts, readiness, config })
    }

    /// Where clients connect.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.public.local_addr()
    }

    /// Where upstream is.
    #[must_use]
    pub fn upstream(&self) -> &UpstreamUrl {
        &self.config.upstream.url
    }

    /// Where the back office listens, if it does.
    ///
    /// # Errors
    /// The system does not say.
    pub fn admin_address(&self) -> io::Result<Option<SocketAddr>> {
        self.admin.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// Serves until `stop` resolves, then drains: readiness goes first, the listener closes, what is in flight may end
    /// within `server.shutdown_timeout`. When `stop` has resolved, `at_once` ends the drain early.
    ///
    /// # Errors
    /// The servers fail.
    pub async fn serve(self, stop: impl Future<Output = ()>, at_once: impl Future<Output = ()>) -> io::Result<()> {
        let Self { public, admin, parts, readiness, config } = self;
        let tidying = actix_web::rt::spawn(tidy(parts.avatars.clone()));
        let admin = admin.map(|listener| start_admin(listener, &parts, readiness.clone())).transpose()?;
        let (lifecycle, stage) = watch::channel(Stage::Serving);
        let public = start_public(public, parts, &config, stage)?;
        let handle = public.handle();
        let mut running = actix_web::rt::spawn(public);
        tokio::select! {
            ended = &mut running => return ended.map_err(io::Error::other)?,
            () = stop => {}
        }
        tracing::info!("draining");
        readiness.drain();
        lifecycle.send_replace(Stage::Draining);
        tokio::select! {
            () = handle.stop(true) => running.await.map_err(io::Error::other)??,
            // A server that drains reads no further order; one that is let go tells its workers to end.
            () = at_once => running.abort(),
        }
        if let Some(admin) = admin {
            admin.stop(false).await;
        }
        tidying.abort();
        Ok(())
    }
}

fn start_public(
    listener: TcpListener,
    parts: Parts,
    config: &Config,
    stage: watch::Receiver<Stage>,
) -> io::Result<Server> {
    let server = &config.server;
    let limits = listen::Limits {
        head: server.head_timeout,
        keep_alive: server.keep_alive,
        write_idle: server.write_idle_timeout,
    };
    let settings = listen::Settings { limits, stage, telemetry: parts.telemetry.clone() };
    // No application and no router: every request goes to one service, which matches the raw path itself.
    let serve = move || {
        let front = Rc::new(parts.front());
        listen::serve(&settings, move |request: Request| web::handle(front.clone(), request))
    };
    let mut public = Server::build()
        // actix counts whole seconds; none at all would be no grace.
        .shutdown_timeout(server.shutdown_timeout.as_secs() + u64::from(server.shutdown_timeout.subsec_nanos() > 0))
        .disable_signals();
    if server.workers > 0 {
        public = public.workers(server.workers);
    }
    Ok(public.listen("public", listener, serve)?.run())
}

fn start_admin(listener: TcpListener, parts: &Parts, readiness: Readiness) -> io::Result<ServerHandle> {
    let avatars = parts.avatars.clone();
    let cache_levels: Arc<dyn Fn() -> CacheLevels + Send + Sync> = Arc::new(move || cache_levels(&avatars));
    let state = AdminState { telemetry: parts.telemetry.clone(), cache_levels, readiness };
    let server = HttpServer::new(move || App::new().configure(|service| admin::configure(service, state.clone())))
        .workers(1)
        .disable_signals()
        .listen(listener)?
        .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    Ok(handle)
}

/// The caches do their bookkeeping when they are used; this does it when they are not.
async fn tidy(avatars: Arc<Avatars>) {
    let mut every = actix_web::rt::time::interval(TIDY_EVERY);
    loop {
        every.tick().await;
        avatars.tidy().await;
    }
}

fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // A restart must not wait for the connections of the process before it.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bound().map_err(|cause| StartError::Bind { key, address, cause })
}

fn readiness(upstream: &Arc<Upstream>, base_path: &str) -> Readiness {
    let (upstream, base_path) = (upstream.clone(), base_path.to_owned());
    let ping = move || {
        let (upstream, base_path) = (upstream.clone(), base_path.clone());
        let asked = async move {
            upstream.ping(&base_path).await.map_err(|error| match error {
                UpstreamError::TimedOut => NotReady::TimedOut,
                _ => NotReady::Unreachable,
            })
        };
        Box::pin(asked) as futures_util::future::LocalBoxFuture<'static, _>
    };
    Readiness::new(Box::new(ping), ReadinessSettings::default())
}

fn cache_levels(avatars: &Avatars) -> CacheLevels {
    let usage = avatars.usage();
    let level = |usage: cache::Usage| CacheLevel { weight: usage.weight, entries: usage.entries };
    CacheLevels { sources: level(usage.sources), variants: level(usage.variants), pixels: level(usage.pixels) }
}

fn upstream_settings(config: &Config) -> upstream::Settings {
    let settings = &config.upstream;
    upstream::Settings {
        scheme: match settings.url.scheme() {
            Scheme::Http => http::uri::Scheme::HTTP,
            Scheme::Https => http::uri::Scheme::HTTPS,
        },
        authority: settings.url.authority().clone(),
        host: match &settings.host {
            UpstreamHost::Keep => None,
            UpstreamHost::Fixed(host) => Some(HeaderValue::from_str(host).expect("checked with the configuration")),
        },
        connect_timeout: settings.connect_timeout,
        head_timeout: settings.head_timeout,
        idle_timeout: settings.idle_timeout,
        picture_timeout: settings.picture_timeout,
        passthrough_timeout: settings.passthrough_timeout,
        max_picture_requests: settings.max_picture_requests,
    }
}

fn avatar_settings(config: &Config) -> avatar::Settings {
    let (cache, grants, render, limits) = (&config.cache, &config.grants, &config.render, &config.limits);
    avatar::Settings {
        cache: cache::Settings {
            sources: cache.sources.bytes(),
            variants: cache.variants.bytes(),
            pixels: cache.pixels.bytes(),
            max_entry: cache.max_entry.bytes(),
        },
        grants: (!grants.ttl.is_zero())
            .then(|| cache::grants::Settings { ttl: grants.ttl, memory: grants.memory.bytes() }),
        allowances: allowance::Settings {
            caller: limits.caller_misses.map(rate),
            address: limits.address_misses.map(rate),
        },
        render: avatar::render_pool::Settings {
            permits: render.permits,
            queue: render.queue,
            queue_timeout: render.queue_timeout,
        },
        limits: render::Limits {
            edge: limits.edge,
            pixels: limits.pixels,
            decoder_memory: limits.decoder_memory.bytes(),
        },
        max_source: limits.source.bytes(),
    }
}

const fn rate(rate: config::Rate) -> allowance::Rate {
    allowance::Rate { count: rate.count, per: rate.per }
}

const fn is_ours(kind: PictureKind, pictures: &config::Pictures) -> bool {
    match kind {
        PictureKind::User => pictures.users,
        PictureKind::Default => pictures.defaults,
        PictureKind::Team => pictures.teams,
        PictureKind::Emoji => pictures.emoji,
    }
}

fn web_settings(config: &Config) -> Result<web::Settings, SizesError> {
    let pictures = &config.pictures;
    Ok(web::Settings {
        base_path: config.server.base_path.prefix().to_owned(),
        trusted_proxies: config.server.trusted_proxies.clone(),
        pictures: PictureKind::ALL.into_iter().filter(|kind| is_ours(*kind, pictures)).collect(),
        sizes: Sizes::new(pictures.sizes.clone())?,
        negotiation: negotiation::Settings {
            formats: pictures.formats.clone(),
            user_agents: pictures.user_agents.iter().map(|row| (row.prefix.clone(), row.formats.clone())).collect(),
        },
        learn: config.grants.learn,
        listen: config.grants.listen,
        cache_status: config.headers.cache_status,
        server_timing: config.headers.server_timing,
        log_requests: config.log.requests,
        body_idle_timeout: config.server.body_idle_timeout,
    })
}
