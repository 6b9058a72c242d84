//! The command line: serve (when nothing is named), `check`, `demo`.

use avatar_proxy::cli::{Flags, Task};
use avatar_proxy::config::{Config, Loaded, UpstreamUrl};
use avatar_proxy::demo;
use avatar_proxy::server::Bound;
use avatar_proxy::telemetry::{Telemetry, init_logs};
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

fn main() -> ExitCode {
    let task = Task::parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let done = match task {
        Task::Serve(flags) => load(flags).and_then(|loaded| serve(loaded.config)),
        Task::Check(flags) => load(flags).map(|loaded| print!("{}", loaded.describe())),
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

fn load(flags: Flags) -> Result<Loaded, Box<dyn Error>> {
    Ok(Config::load(&flags.sources())?)
}

fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    let telemetry = Arc::new(Telemetry::new());
    let _log = init_logs(&config.log, &telemetry)?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let bound = Bound::bind(config, telemetry)?;
    let admin = bound.admin_address()?.map(tracing::field::display);
    tracing::info!(listen = %bound.address()?, admin, upstream = %bound.upstream(), "serving");
    run(bound)?;
    tracing::info!("stopped");
    Ok(())
}

/// The proxy before an embedded stand-in for Mattermost, with nothing to set up.
fn run_demo(listen: Option<SocketAddr>) -> Result<(), Box<dyn Error>> {
    let mattermost = demo::StandIn::start(demo::Options::default())?;
    let telemetry = Arc::new(Telemetry::new());
    let config = demo_config(mattermost.address(), listen);
    let _log = init_logs(&config.log, &telemetry)?;
    let bound = match Bound::bind(config.clone(), telemetry.clone()) {
        // The usual port is taken, perhaps by the real thing: any other will do for a look.
        Err(_) if listen.is_none() => Bound::bind(on_any_port(config), telemetry)?,
        bound => bound?,
    };
    println!("Open http://{}/ in a browser.", bound.address()?);
    if let Some(admin) = bound.admin_address()? {
        println!("Metrics are at http://{admin}/metrics. Ctrl-C ends the demo.");
    }
    run(bound)?;
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

fn run(bound: Bound) -> io::Result<()> {
    actix_web::rt::System::new().block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let stop = either(&mut interrupt, &mut terminate);
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        // Counted from the start, so the first signal, which begins the drain, is not the one that ends it.
        let at_once = async {
            either(&mut interrupt, &mut terminate).await;
            either(&mut interrupt, &mut terminate).await;
        };
        bound.serve(stop, at_once).await
    })
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
