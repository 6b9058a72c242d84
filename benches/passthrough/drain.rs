//! Restarts under load, before a client that repeats what it may repeat: what was refused, and what went out on a kept
//! connection that closed before a byte came back (RFC 9112 section 9.3.1). Whatever else goes wrong is a failure.

use crate::binary::Proxy;
use crate::client::{self, Broken, Client, SMALL};
use crate::report::{Figure, Verdict};
use crate::upstream::SLOW;
use crate::{PEER, run_on};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How many ask all the time.
const CLIENTS: usize = 16;
/// How long each process may serve.
const SERVES: Duration = Duration::from_millis(300);
/// Between two attempts to connect.
const TRIES_AFTER: Duration = Duration::from_millis(2);
/// When whoever is refused gives up.
const GIVES_UP: Duration = Duration::from_secs(30);

/// What the clients met.
#[derive(Default)]
struct Count {
    answered: Cell<u32>,
    refused: Cell<u32>,
    repeated: Cell<u32>,
    /// A connection that had just been made closed before the answer.
    fresh: Cell<u32>,
    /// An answer broke off.
    broken: Cell<u32>,
}

/// Restarts the proxy so many times on one address.
pub(crate) async fn restarts(upstream: SocketAddr, times: u32) -> Figure {
    let url = format!("http://{upstream}");
    let (over, (said, address)) = (Arc::new(AtomicBool::new(false)), std::sync::mpsc::channel());
    let restarting = thread::spawn({
        let over = over.clone();
        move || {
            run_on(PEER);
            let mut proxy = Proxy::start(&url, &[]);
            said.send(proxy.address).expect("somebody waits for it");
            let mut longest = Duration::ZERO;
            for _ in 0..times {
                thread::sleep(SERVES);
                let told = Instant::now();
                let address = proxy.address;
                assert!(proxy.stop().success(), "it ends well");
                longest = longest.max(told.elapsed());
                proxy = Proxy::start_at(address, &url, &[]);
            }
            thread::sleep(SERVES);
            over.store(true, Ordering::Release);
            (proxy, longest)
        }
    });
    let address = address.recv().expect("it starts");
    let count = Rc::new(Count::default());
    let clients = (0..CLIENTS).map(|n| {
        // Half of them wait for an answer when the order to stop comes.
        let request = client::get(if n % 2 == 0 { SMALL } else { SLOW });
        tokio::task::spawn_local(ask_on(address, request, count.clone(), over.clone()))
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no panic");
    }
    let (_proxy, longest) = restarting.join().expect("no panic");
    let Count { answered, refused, repeated, fresh, broken } = &*count;
    println!("\n{times} restarts under the load of {CLIENTS} clients:\n");
    println!(
        "| answered | connections refused | repeated | closed a fresh connection | broke off an answer | longest drain |"
    );
    println!("|---|---|---|---|---|---|");
    println!(
        "| {} | {} | {} | {} | {} | {} ms |",
        answered.get(),
        refused.get(),
        repeated.get(),
        fresh.get(),
        broken.get(),
        longest.as_millis()
    );
    let failed = fresh.get() + broken.get();
    Figure {
        what: "failed requests over restarts",
        measured: format!("{failed} of {}", answered.get() + failed),
        wanted: "0".to_owned(),
        verdict: Verdict::of(Some(failed == 0)),
    }
}

async fn ask_on(address: SocketAddr, request: Vec<u8>, count: Rc<Count>, over: Arc<AtomicBool>) {
    let (mut kept, mut deadline) = (None, Instant::now() + GIVES_UP);
    while !over.load(Ordering::Acquire) {
        let is_fresh = kept.is_none();
        let mut client = match kept.take() {
            Some(client) => client,
            None => match Client::connect(address).await {
                Ok(client) => client,
                Err(error) => {
                    assert!(Instant::now() < deadline, "nobody listens: {error}");
                    add(&count.refused);
                    tokio::time::sleep(TRIES_AFTER).await;
                    continue;
                }
            },
        };
        deadline = Instant::now() + GIVES_UP;
        match client.ask(&request).await {
            Ok(()) => {
                add(&count.answered);
                kept = Some(client);
            }
            Err(Broken::BeforeTheAnswer) if !is_fresh => add(&count.repeated),
            Err(Broken::BeforeTheAnswer) => add(&count.fresh),
            Err(Broken::InTheAnswer) => add(&count.broken),
        }
    }
}

fn add(count: &Cell<u32>) {
    count.set(count.get() + 1);
}
