//! Build every part once, bind, serve, drain.

use crate::admin::{self, AdminState, NotReady, Readiness, ReadinessSettings};
use crate::avatar::{self, Avatars, Improving};
use crate::caller::CallerKey;
use crate::config::{self, Config, Scheme, UpstreamHost, UpstreamUrl};
use crate::identity::PictureKind;
use crate::listen::{self, Certificate, CertificateError, CertificateFiles, Crowd, Gate, Room, Stage, Wanted};
use crate::overheard::ListenBudget;
use crate::telemetry::{CacheLevel, CacheLevels, Telemetry};
use crate::upstream::{self, Gateway, PingError, Upstream, UpstreamError};
use crate::variant::negotiation;
use crate::variant::transform::{Sizes, SizesError};
use crate::web::{self, Front, Influence, School};
use crate::{allowance, cache, render};
use actix_http::Request;
use actix_web::dev::{Server, ServerHandle, ServiceFactory};
use actix_web::{App, HttpServer};
use http::HeaderValue;
use socket2::{Domain, Socket, Type};
use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;
/// The most threads that actix takes: `server.workers` goes no further, and neither does a machine with more cores.
const WORKERS_AT_MOST: usize = 512;
/// Which part of all connections one address may have, where nothing else is configured.
const SHARE_OF_AN_ADDRESS: usize = 4;
/// How many connections to the back office there may be at once; more wait until one ends.
const BACK_OFFICE: usize = 32;
/// Threads that wait for something beside the workers: the first, two that accept connections, and the back office.
const OTHER_THREADS: usize = 4;
/// What all listeners together may hold of the events that they collect, in bytes.
const ALL_EVENTS: usize = 16 << 20;
/// How often it is looked whether all connections have ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long the last words of tunnels may take when the time to drain is over.
const LAST_WORDS: Duration = Duration::from_millis(500);
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
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
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
    /// Its end; `None` where the listener outlives this process.
    gate: Option<Gate>,
    admin: Option<TcpListener>,
    certificate: Option<Certificate>,
    parts: Parts,
    readiness: Readiness,
    lifecycle: watch::Sender<Stage>,
    room: Room,
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
    stage: watch::Receiver<Stage>,
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
            stage: self.stage.clone(),
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
        let gate = Gate::of(&public)?;
        Ok(Self { gate: Some(gate), ..Self::on(public, config, telemetry)? })
    }

    /// Builds every part and binds the listener of the back office; clients connect to `public`, which listens already and
    /// outlives this process.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn on(public: TcpListener, config: Config, telemetry: Arc<Telemetry>) -> Result<Self, StartError> {
        let certificate = certificate_of(&config)?;
        let admin = config.admin.listen.map(|address| bind("admin.listen", address)).transpose()?;
        let room = room(&config);
        let gateway = Gateway::new(upstream_settings_within(&room, &config))?;
        let avatars = Avatars::new(avatar_settings(&config), telemetry.clone());
        let caller_key = Arc::new(CallerKey::draw().map_err(StartError::Random)?);
        let drawn = getrandom::u64().map_err(StartError::Random)?;
        let hop = HeaderValue::try_from(format!("avatar-proxy;id={drawn:016x}")).expect("hex digits");
        // Each worker builds its own; what stands in the way is to be known before.
        drop(Upstream::new(&gateway)?);
        let readiness = readiness(&gateway, config.server.base_path.prefix());
        let settings = Arc::new(web_settings(&config)?);
        let avatars = Arc::new(avatars);
        let (influence, school) = (Arc::default(), Arc::default());
        let listeners = Arc::new(ListenBudget::new(ALL_EVENTS));
        let (lifecycle, stage) = watch::channel(Stage::Serving);
        let parts =
            Parts { settings, gateway, avatars, telemetry, hop, caller_key, influence, school, listeners, stage };
        Ok(Self { public, gate: None, admin, certificate, parts, readiness, lifecycle, room, config })
    }

    /// Where clients connect.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.public.local_addr()
    }

    /// What is shown to clients that speak HTTPS.
    #[must_use]
    pub fn certificate(&self) -> Option<Certificate> {
        self.certificate.clone()
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
    /// within `server.shutdown_timeout`; what is still going on then is broken off. Tunnels are told goodbye when nothing else
    /// is left, then at the latest. When `stop` has resolved, `at_once` ends the drain early.
    ///
    /// # Errors
    /// The servers fail.
    pub async fn serve(self, stop: impl Future<Output = ()>, at_once: impl Future<Output = ()>) -> io::Result<()> {
        let Self { public, gate, admin, certificate, parts, readiness, lifecycle, room, config } = self;
        let tidying = actix_web::rt::spawn(tidy(parts.avatars.clone()));
        let improving = Improving::begin(parts.avatars.clone())?;
        let admin = admin.map(|listener| start_admin(listener, &parts, readiness.clone())).transpose()?;
        let settings = listen_settings(&config, &parts, &room, certificate);
        let (telemetry, grace) = (parts.telemetry.clone(), config.server.shutdown_timeout);
        // Called on each thread. No application and no router: every request goes to one service, which matches the raw
        // path itself.
        let serve = move || {
            let front = Rc::new(parts.front());
            let telemetry = front.telemetry.clone();
            let answer = move |request: Request| web::handle(front.clone(), request);
            listen::serve(&settings, answer, move |refusal| web::refuse(&telemetry, refusal))
        };
        let public = start_public(public, serve.clone(), &config.server, room.clients)?;
        let handle = public.handle();
        let mut running = actix_web::rt::spawn(public);
        tokio::select! {
            ended = &mut running => return ended.map_err(io::Error::other)?,
            () = stop => {}
        }
        tracing::info!("draining");
        readiness.drain();
        lifecycle.send_replace(Stage::Draining);
        drop(improving);
        let drained = async {
            let deadline = Instant::now() + grace;
            handle.pause().await;
            // The order to stop counts when it is given; its answer would come when actix looks again, up to a second late.
            let let_go = move || drop(handle.stop(true));
            if let Some(gate) = gate {
                // Its panic would be one of actix: there is nothing to do about it that is not done below.
                let _ = actix_web::rt::spawn(gate.close(serve, let_go)).await;
            } else {
                tokio::time::sleep(listen::HANDOVER).await;
                let_go();
            }
            let _ = tokio::time::timeout_at(deadline.into(), only_websockets_are_left(&telemetry)).await;
            lifecycle.send_replace(Stage::Closing);
            let _ = tokio::time::timeout(LAST_WORDS, connections_end(&telemetry)).await;
        };
        tokio::select! {
            () = drained => {}
            () = at_once => {}
        }
        // A server that is let go tells its threads to end.
        running.abort();
        let _ = running.await;
        if let Some(admin) = admin {
            admin.stop(false).await;
        }
        tidying.abort();
        Ok(())
    }
}

/// Nobody waits for a `WebSocket` to end by itself: its client comes back at once when it is told, to whoever listens now.
async fn only_websockets_are_left(telemetry: &Telemetry) {
    while telemetry.open_connections() > telemetry.open_websockets() {
        tokio::time::sleep(LOOK).await;
    }
}

async fn connections_end(telemetry: &Telemetry) {
    while telemetry.open_connections() > 0 {
        tokio::time::sleep(LOOK).await;
    }
}

fn start_public<S, T>(
    listener: TcpListener,
    serve: S,
    server: &config::Server,
    connections: usize,
) -> io::Result<Server>
where
    S: Fn() -> T + Clone + Send + 'static,
    T: ServiceFactory<TcpStream, Config = ()>,
{
    let workers = workers(server);
    let public = Server::build()
        .workers(workers)
        .max_concurrent_connections((connections / workers).max(1))
        // actix counts whole seconds; it is not asked to wait, and must not end before we do.
        .shutdown_timeout(server.shutdown_timeout.as_secs() + 10)
        .disable_signals();
    Ok(public.listen("public", listener, serve)?.run())
}

/// How many threads serve.
fn workers(server: &config::Server) -> usize {
    let workers = match server.workers {
        0 => std::thread::available_parallelism().map_or(1, NonZero::get),
        workers => workers,
    };
    workers.min(WORKERS_AT_MOST)
}

/// How many connections there may be at once.
fn room(config: &Config) -> Room {
    let wanted = Wanted {
        clients: config.server.max_connections,
        upstream: config.upstream.max_connections,
        pictures: config.upstream.max_picture_requests,
        workers: workers(&config.server),
        others: OTHER_THREADS,
        back_office: BACK_OFFICE,
    };
    Room::within(listen::raise_file_limit(), &wanted)
}

/// What is configured, as far as there is room for it.
fn upstream_settings_within(room: &Room, config: &Config) -> upstream::Settings {
    upstream::Settings {
        max_connections: room.upstream,
        max_picture_requests: room.pictures,
        picture_connections_kept: room.pictures_kept,
        ..upstream_settings(config)
    }
}

/// The certificate that `config` names.
///
/// # Errors
/// A file is not what it should be.
pub fn certificate_of(config: &Config) -> Result<Option<Certificate>, CertificateError> {
    let config::Tls { certificate, key } = config.server.tls.clone();
    // Both or neither: the configuration was checked.
    let files = certificate.zip(key).map(|(certificate, key)| CertificateFiles { certificate, key });
    files.map(Certificate::load).transpose()
}

fn start_admin(listener: TcpListener, parts: &Parts, readiness: Readiness) -> io::Result<ServerHandle> {
    let avatars = parts.avatars.clone();
    let cache_levels: Arc<dyn Fn() -> CacheLevels + Send + Sync> = Arc::new(move || cache_levels(&avatars));
    let state = AdminState { telemetry: parts.telemetry.clone(), cache_levels, readiness };
    let server = HttpServer::new(move || App::new().configure(|service| admin::configure(service, state.clone())))
        .workers(1)
        .max_connections(BACK_OFFICE)
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

fn readiness(gateway: &Gateway, base_path: &str) -> Readiness {
    let (gateway, base_path) = (gateway.clone(), base_path.to_owned());
    let ping = move || {
        let (gateway, base_path) = (gateway.clone(), base_path.clone());
        let asked = async move {
            gateway.ping(&base_path).await.map_err(|error| match error {
                PingError::Status(status) => NotReady::Status(status),
                PingError::Upstream(UpstreamError::TimedOut) => NotReady::TimedOut,
                PingError::Upstream(_) => NotReady::Unreachable,
            })
        };
        Box::pin(asked) as futures_util::future::LocalBoxFuture<'static, _>
    };
    Readiness::new(Box::new(ping), ReadinessSettings::default())
}

fn cache_levels(avatars: &Avatars) -> CacheLevels {
    let usage = avatars.usage();
    let level = |usage: cache::Usage| CacheLevel { weight: usage.weight, entries: usage.entries };
    CacheLevels {
        sources: level(usage.sources),
        variants: level(usage.variants),
        pixels: level(usage.pixels),
        waiting_for_improvement: avatars.waiting_for_improvement() as u64,
    }
}

fn listen_settings(config: &Config, parts: &Parts, room: &Room, certificate: Option<Certificate>) -> listen::Settings {
    let server = &config.server;
    let limits = listen::Limits {
        head: server.head_timeout,
        keep_alive: server.keep_alive,
        write_idle: server.write_idle_timeout,
    };
    let per_address = match server.max_connections_per_address {
        0 => room.clients / SHARE_OF_AN_ADDRESS,
        configured => configured,
    };
    let trusted = server.trusted_proxies.clone();
    let exempt = move |peer| web::is_near(peer) || trusted.iter().any(|network| network.contains(&peer));
    let crowd = Crowd::new(per_address.max(1), exempt.clone());
    // Each may take a connection to upstream.
    let streams = Crowd::new((room.upstream / SHARE_OF_AN_ADDRESS).max(1), exempt);
    let (stage, telemetry) = (parts.stage.clone(), parts.telemetry.clone());
    listen::Settings { limits, stage, telemetry, crowd, streams, certificate }
}

pub(crate) fn upstream_settings(config: &Config) -> upstream::Settings {
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
        tls_name: settings.tls_name.as_ref().map(|name| name.as_str().to_owned()),
        connect_timeout: settings.connect_timeout,
        head_timeout: settings.head_timeout,
        idle_timeout: settings.idle_timeout,
        picture_timeout: settings.picture_timeout,
        passthrough_timeout: settings.passthrough_timeout,
        max_picture_requests: settings.max_picture_requests,
        picture_connections_kept: settings.max_picture_requests,
        max_connections: settings.max_connections,
        roots: settings.ca_file.clone(),
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
        targets: targets(config),
        improve: config.improve.enabled.then(|| avatar::ImproveSettings {
            after_hits: config.improve.after_hits,
            cpu_share: config.improve.cpu_share.value(),
        }),
        limits: render_limits(config),
        max_source: limits.source.bytes(),
        sources_in_hand: config::MemoryBound::of(config).sources_in_hand().bytes(),
    }
}

pub(crate) fn render_limits(config: &Config) -> render::Limits {
    let limits = &config.limits;
    render::Limits {
        edge: limits.edge,
        pixels: limits.pixels,
        decoder_memory: limits.decoder_memory.bytes(),
        frames: limits.frames,
        frame_pixels: limits.frame_pixels,
        animation_time: limits.animation_time,
    }
}

pub(crate) fn negotiated_by(config: &Config) -> negotiation::Settings {
    let rows = config.pictures.user_agents.iter();
    let user_agents = rows.map(|row| (row.prefix.clone(), row.formats.clone())).collect();
    negotiation::Settings { formats: config.pictures.formats.clone(), user_agents }
}

pub(crate) fn targets(config: &Config) -> render::Targets {
    render::Targets { photo: config.pictures.target.value(), flat: config.pictures.flat_target.value() }
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
        negotiation: negotiated_by(config),
        client_hints: pictures.client_hints,
        learn: config.grants.learn,
        listen: config.grants.listen,
        cache_status: config.headers.cache_status,
        server_timing: config.headers.server_timing,
        via: config.headers.via,
        log_requests: config.log.requests,
        encrypted: config.server.tls.certificate.is_some(),
        body_idle_timeout: config.server.body_idle_timeout,
    })
}
