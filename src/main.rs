//! The command line: serve (when nothing is named), `check`, `explain`, `demo`.

use avatar_proxy::cli::{Flags, Task};
use avatar_proxy::config::{Config, Loaded, Sources, UpstreamUrl};
use avatar_proxy::demo;
use avatar_proxy::explain::{Question, explain};
use avatar_proxy::reload::{Reload, again_aside};
use avatar_proxy::server::{Bound, certificate_of};
use avatar_proxy::telemetry::{Telemetry, init_logs};
use listenfd::ListenFd;
use sd_notify::NotifyState;
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A request that passes through allocates some sixty times.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 3 (`mi_option_e` in its `mimalloc.h`), which its bindings do not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// How long what was freed is kept before the system has it back, in milliseconds, as it was in mimalloc 2. A second, of
/// mimalloc 3, keeps a tenth more memory under a load of renders and saves no time that could be measured.
const PURGED_AFTER: std::ffi::c_long = 10;

#[expect(unsafe_code, reason = "mimalloc is C")]
fn give_memory_back_soon() {
    // SAFETY: no other thread runs yet. What the environment says (`MIMALLOC_PURGE_DELAY`) stays.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGED_AFTER) };
}

fn main() -> ExitCode {
    give_memory_back_soon();
    let task = Task::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let done = match task {
        Task::Serve(flags) => serve(flags.sources()),
        Task::Check(flags) => load(&flags.sources()).map(|loaded| print!("{}", loaded.describe())),
        Task::Explain(flags, question) => explain_by(flags, &question).map(|told| print!("{told}")),
        Task::Demo { listen } => run_demo(listen),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("avatar-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The configuration, and what only its files can tell.
fn load(sources: &Sources) -> Result<Loaded, Box<dyn Error>> {
    let loaded = Config::load(sources)?;
    certificate_of(&loaded.config).map_err(|error| match loaded.origin(error.key) {
        Some(origin) => format!("{origin}: {error}"),
        None => error.to_string(),
    })?;
    Ok(loaded)
}

/// By the configuration that would serve; but whoever looks at a picture need not have a Mattermost, nor read its key.
fn explain_by(flags: Flags, question: &Question) -> Result<String, Box<dyn Error>> {
    explain(question, &Config::load_without_upstream(&flags.sources())?.config)
}

fn serve(sources: Sources) -> Result<(), Box<dyn Error>> {
    let config = load(&sources)?.config;
    let telemetry = Arc::new(Telemetry::new());
    let (_log, level) = init_logs(&config.log, &telemetry)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let running = config.clone();
    let bound = match ListenFd::from_env().take_tcp_listener(0)? {
        Some(held) => Bound::on(held, config, telemetry)?,
        None => Bound::bind(config, telemetry)?,
    };
    let (listen, admin, upstream) = (bound.address()?, bound.admin_address()?, bound.upstream().to_string());
    let reload = Reload { sources, running, level, certificate: bound.certificate() };
    run(bound, Some(reload), || {
        tracing::info!(%listen, admin = admin.map(tracing::field::display), upstream, "serving");
    })?;
    tracing::info!("stopped");
    Ok(())
}

/// The proxy before an embedded stand-in for Mattermost, with nothing to set up.
fn run_demo(listen: Option<SocketAddr>) -> Result<(), Box<dyn Error>> {
    let mattermost = demo::StandIn::start(demo::Options::default())?;
    let telemetry = Arc::new(Telemetry::new());
    let config = demo_config(mattermost.address(), listen);
    let (_log, _) = init_logs(&config.log, &telemetry)?;
    let bound = match Bound::bind(config.clone(), telemetry.clone()) {
        // The usual port is taken, perhaps by the real thing: any other will do for a look.
        Err(_) if listen.is_none() => Bound::bind(on_any_port(config), telemetry)?,
        bound => bound?,
    };
    let (address, admin) = (bound.address()?, bound.admin_address()?);
    run(bound, None, || {
        println!("Open http://{address}/ in a browser.");
        if let Some(admin) = admin {
            println!("Metrics are at http://{admin}/metrics. Ctrl-C ends the demo.");
        }
    })?;
    Ok(())
}

/// The defaults, the headers that tell what the cache did, which the page shows, and metrics beside those of the real thing.
fn demo_config(mattermost: SocketAddr, listen: Option<SocketAddr>) -> Config {
    let mut config = Config::default();
    config.upstream.url = UpstreamUrl::parse(&format!("http://{mattermost}")).expect("an address makes a URL");
    config.server.listen = listen.unwrap_or(config.server.listen);
    config.admin.listen = Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
    config.headers.cache_status = true;
    config.headers.server_timing = true;
    config.log.requests = false;
    config
}

fn on_any_port(mut config: Config) -> Config {
    config.server.listen.set_port(0);
    config
}

/// Serves until a signal says otherwise; `announce` is called when signals are heeded.
fn run(bound: Bound, reload: Option<Reload>, announce: impl FnOnce()) -> io::Result<()> {
    actix_web::rt::System::new().block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let reloads = reload.map(|reload| signal(SignalKind::hangup()).map(|hangup| (reload, hangup))).transpose()?;
        let reloads = reloads
            .map(|(reload, hangup)| actix_web::rt::spawn(reload_when_told(Arc::new(Mutex::new(reload)), hangup)));
        let stop = async {
            either(&mut interrupt, &mut terminate).await;
            // From here on nobody is told that all is ready.
            if let Some(reloads) = reloads {
                reloads.abort();
            }
            tell_systemd(&[NotifyState::Stopping]);
        };
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        // Counted from the start, so the first signal, which begins the drain, is not the one that ends it.
        let at_once = async {
            either(&mut interrupt, &mut terminate).await;
            either(&mut interrupt, &mut terminate).await;
        };
        // The listener is there: whoever connects now is only not answered yet.
        announce();
        tell_systemd(&[NotifyState::Ready]);
        bound.serve(stop, at_once).await
    })
}

async fn reload_when_told(reload: Arc<Mutex<Reload>>, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell_systemd(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "no clock for systemd"),
        }
        if let Err(error) = again_aside(&reload).await {
            tracing::error!(%error, "nothing was read again");
        }
        tell_systemd(&[NotifyState::Ready]);
    }
}

/// Where it is not systemd that started the process, nobody is told.
fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told");
    }
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    /// Of all options it is the one that is a second until it is set.
    #[test]
    #[expect(unsafe_code, reason = "mimalloc is C")]
    fn the_option_is_the_delay_of_purges() {
        // SAFETY: the call takes any option, at any time.
        let delays = (0..40).filter(|&option| unsafe { libmimalloc_sys::mi_option_get(option) } == 1000);
        assert_eq!(delays.collect::<Vec<_>>(), [super::PURGE_DELAY]);
    }
}
