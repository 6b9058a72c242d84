//! A real proxy on a port of its own, started and stopped by the test that uses it.

use crate::client::{Answer, Request};
use avatar_proxy::config::{Config, UpstreamUrl};
use avatar_proxy::server::Bound;
use avatar_proxy::telemetry::Telemetry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// The time-outs of an impatient proxy.
pub(crate) const SHORT: Duration = Duration::from_millis(400);

/// A running proxy; dropping it stops it at once.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    at_once: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Proxy {
    /// A proxy before `upstream`, as patient as a busy machine needs it to be.
    pub(crate) fn before(upstream: SocketAddr) -> Self {
        Self::with(upstream, |_| ())
    }

    /// A proxy before `upstream` that remembers what upstream allowed for as long as it may, so that no test depends on
    /// the clock.
    pub(crate) fn granting(upstream: SocketAddr) -> Self {
        Self::with(upstream, |config| config.grants.ttl = Duration::from_secs(3600))
    }

    /// A proxy before `upstream` that gives up soon, but on connecting.
    pub(crate) fn impatient(upstream: SocketAddr) -> Self {
        Self::with(upstream, |config| {
            config.upstream.head_timeout = SHORT;
            config.upstream.idle_timeout = SHORT;
            config.upstream.picture_timeout = 4 * SHORT;
        })
    }

    /// A proxy before `upstream`, configured further by the test.
    pub(crate) fn with(upstream: SocketAddr, configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.upstream.url = UpstreamUrl::parse(&format!("http://{upstream}")).expect("an address makes a URL");
        config.server.listen = "127.0.0.1:0".parse().expect("an address");
        config.admin.listen = Some(config.server.listen);
        config.server.workers = 2;
        config.server.shutdown_timeout = Duration::from_secs(5);
        // Strict, and as generous as it gets, unless the test says otherwise.
        config.grants.ttl = Duration::ZERO;
        config.limits.caller_misses = None;
        // So that what a picture is sent as does not depend on how often it was asked for.
        config.improve.enabled = false;
        configure(&mut config);
        let bound = Bound::bind(config, Arc::new(Telemetry::new())).expect("the proxy binds");
        let address = bound.address().expect("bound");
        let admin = bound.admin_address().expect("bound").expect("configured");
        let (stop, stopped) = oneshot::channel();
        let (at_once, at_once_asked) = oneshot::channel();
        // A sender that is dropped asks for nothing.
        let asked = |receiver: oneshot::Receiver<()>| async move {
            if receiver.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let serve = move || actix_web::rt::System::new().block_on(bound.serve(asked(stopped), asked(at_once_asked)));
        let thread = std::thread::Builder::new().name("proxy".into()).spawn(serve).expect("a thread");
        Self { address, admin, stop: Some(stop), at_once: Some(at_once), thread: Some(thread) }
    }

    pub(crate) async fn send(&self, request: &Request) -> Answer {
        request.send(self.address).await
    }

    /// The value of a counter by its full name with labels; 0 when it has never been counted.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        self.metrics(&[name]).await[0]
    }

    /// The values of several counters at one moment.
    pub(crate) async fn metrics(&self, names: &[&str]) -> Vec<u64> {
        let text = Request::get("/metrics").send(self.admin).await.body;
        let text = std::str::from_utf8(&text).expect("text");
        let value = |name: &&str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.map_or(0, |value| value.parse().expect("a whole number"))
        };
        names.iter().map(value).collect()
    }

    /// Waits until so many requests are being answered at once.
    pub(crate) async fn has_in_flight(&self, requests: u64) {
        while self.metric("avatar_proxy_in_flight_requests").await < requests {
            tokio::task::yield_now().await;
        }
    }

    /// Asks the proxy to stop and drain.
    pub(crate) fn begin_stop(&mut self) {
        let _ = self.stop.take().expect("asked once").send(());
    }

    /// Asks the proxy to end its drain.
    pub(crate) fn stop_at_once(&mut self) {
        let _ = self.at_once.take().expect("asked once").send(());
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> std::io::Result<()> {
        self.thread.take().expect("waited for once").join().expect("no panic")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for asked in [self.stop.take(), self.at_once.take()].into_iter().flatten() {
            let _ = asked.send(());
        }
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("the proxy does not panic").expect("the proxy ends well");
            }
        }
    }
}
