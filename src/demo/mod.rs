//! A stand-in Mattermost: a server of its own that answers like one as far as picture proxies and their clients see
//! it, and a page that shows what a proxy before it does. The demo runs on it, and so do the integration tests.
//!
//! What it answers is held against recordings of a real server by `tests/stand_in.rs`. A test steers it by
//! [`StandIn`]'s methods: other pictures, lost files, refused viewers, slow or broken answers; and reads what came
//! in. Not imitated: posts, translated error texts, rate limits, a `SiteURL` with a path,
//! CORS, the image proxy, brand images, licences.

mod account;
mod accounts;
mod answers;
mod credentials;
mod crowd;
mod delivery;
mod events;
mod faults;
mod files;
mod frames;
mod ids;
mod illustrations;
mod json;
mod ledger;
mod letters;
mod lists;
mod membership;
mod options;
mod page;
mod pictures;
mod query;
mod residents;
mod revocation;
mod roles;
mod routes;
mod server;
mod sessions;
mod sight;
mod socket;
mod steering;
mod telling;
mod town;
mod transfer;
mod upload;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};

pub use faults::{Fault, Repeat};
pub use illustrations::Style;
pub use ledger::{Counts, Received};
pub use options::{Channel, Emoji, Options, Portrait, Resident, Role, Team};
pub use sessions::Session;
pub use town::PASSWORD;

use server::{Shared, lock};

/// A running stand-in on a thread of its own. Dropping it stops it; nothing of it is left.
///
/// Users are named by username or id. The methods that name one panic when there is no such user: they are for tests,
/// which know whom they built. A change by any of them reaches the stand-in as one at another node of a cluster would:
/// no request passes any proxy, and whoever is to hear of it does.
pub struct StandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
    handle: ServerHandle,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl StandIn {
    /// Starts a stand-in on a free port of 127.0.0.1. It takes connections when this returns.
    ///
    /// # Errors
    ///
    /// When the port cannot be bound or the thread not be started.
    pub fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(options));
        let (started, starting) = mpsc::channel();
        let data = web::Data::from(Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("stand-in".to_owned()).spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let server = listen(listener, data)?;
                // `start` waits for exactly this, so it is there.
                let _ = started.send(server.handle());
                server.await
            })
        })?;
        match starting.recv() {
            Ok(handle) => Ok(Self { address, shared, handle, thread: Some(thread) }),
            Err(_) => Err(join(thread).err().unwrap_or_else(|| io::Error::other("the stand-in did not start"))),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://` and the address, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How long every picture answer waits from now on.
    pub fn delay(&self, delay: Duration) {
        *lock(&self.shared.delay) = delay;
    }

    /// Picture answers wait until [`StandIn::release`]; their requests are noted all the same.
    pub fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// Lists of users wait until [`StandIn::release`], each with what it says already decided.
    pub fn hold_lists(&self) {
        self.shared.held_lists.send_replace(true);
    }

    /// Lets the answers go that wait because of [`StandIn::hold`] or [`StandIn::hold_lists`].
    pub fn release(&self) {
        self.shared.held.send_replace(false);
        self.shared.held_lists.send_replace(false);
    }

    /// Makes picture answers go wrong, after the faults that are already in line.
    pub fn fail(&self, fault: Fault, repeat: Repeat) {
        self.shared.script().add(fault, repeat);
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.shared.script().clear();
    }

    /// What has been answered since the start.
    #[must_use]
    pub fn count(&self) -> Counts {
        self.shared.ledger().counts
    }

    /// The requests as they came in, at most the last 10,000, oldest first.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.ledger().received()
    }

    /// Empties the log of [`StandIn::received`]; the counts stay.
    pub fn forget_received(&self) {
        self.shared.ledger().forget();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.release();
        // The order is given at the call; only its completion would have to be awaited, and the join does that.
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            // Nobody is left to tell, and a drop must not panic.
            let _ = join(thread);
        }
    }
}

fn listen(listener: TcpListener, data: web::Data<Shared>) -> io::Result<actix_web::dev::Server> {
    let server = HttpServer::new(move || App::new().app_data(data.clone()).default_service(web::to(server::serve)))
        .workers(1)
        .worker_max_blocking_threads(2)
        .keep_alive(Duration::from_secs(60))
        .tcp_nodelay(true)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}

fn join(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the stand-in's thread panicked")))
}
