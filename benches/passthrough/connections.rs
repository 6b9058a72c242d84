//! What many connections cost that say nothing: `WebSocket`s, and clients that may come back.

use crate::client::{self, Client, SMALL};
use crate::peer::{Peer, Peers};
use crate::report::{Figure, Verdict};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What a WebSocket may take, in bytes.
const EACH: u64 = 24 << 10;
/// What a connection may take that has asked once, in bytes.
const EACH_IDLE: u64 = 10_000;
/// How long a fresh request may take beside the idle ones.
const FRESH: Duration = Duration::from_millis(50);
/// How many of those are made.
const FRESH_REQUESTS: usize = 200;
/// Until what was begun has settled.
const SETTLES: Duration = Duration::from_millis(500);
/// Until it is believed of a connection that nobody will ask soon.
const REST: Duration = Duration::from_secs(4);

/// Opens so many `WebSocket`s through each.
pub(crate) async fn websockets(upstream: SocketAddr, count: u32) -> Figure {
    println!("\n{count} idle WebSockets:\n");
    println!("| | memory before | with them | each |");
    println!("|---|---|---|---|");
    let peers = Peers::start(upstream);
    let mut ours = 0;
    for (name, peer) in peers.each() {
        let handshake = client::handshake();
        // What is allocated once is not theirs.
        Client::connect(peer.address).await.expect("it listens").upgrade(&handshake).await.expect("upgraded");
        let before = peer.memory();
        let mut sockets = Vec::new();
        for _ in 0..count {
            let mut socket = Client::connect(peer.address).await.expect("it listens");
            socket.upgrade(&handshake).await.expect("upgraded");
            sockets.push(socket);
        }
        tokio::time::sleep(SETTLES).await;
        ours = row(name, before, peer, count);
        all_are_open(&sockets);
    }
    Figure {
        what: "memory of an idle WebSocket",
        measured: kib(ours),
        wanted: format!("<= {}", kib(EACH)),
        verdict: Verdict::of(Some(ours <= EACH)),
    }
}

/// Keeps so many connections that have asked once, and asks on fresh ones.
pub(crate) async fn idle(upstream: SocketAddr, count: u32) -> [Figure; 2] {
    println!("\n{count} idle connections:\n");
    println!("| | memory before | with them | each | fresh request, p50 | longest of {FRESH_REQUESTS} |");
    println!("|---|---|---|---|---|---|");
    let peers = Peers::start(upstream);
    let request = client::get(SMALL);
    let (mut longest, mut each) = (Duration::ZERO, 0);
    for (name, peer) in peers.each() {
        ask_anew(peer, &request).await;
        let before = peer.memory();
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = Client::connect(peer.address).await.expect("it listens");
            client.ask(&request).await.expect("an answer");
            clients.push(client);
        }
        tokio::time::sleep(REST).await;
        let mut took = Vec::new();
        for _ in 0..FRESH_REQUESTS {
            took.push(ask_anew(peer, &request).await);
        }
        took.sort_unstable();
        longest = took[FRESH_REQUESTS - 1];
        let with = peer.memory();
        each = with.saturating_sub(before) / u64::from(count);
        println!(
            "| {name} | {} | {} | {} | {} µs | {} µs |",
            kib(before),
            kib(with),
            kib(each),
            took[FRESH_REQUESTS / 2].as_micros(),
            longest.as_micros(),
        );
        all_are_open(&clients);
    }
    [
        Figure {
            what: "fresh request beside idle connections",
            measured: format!("{} µs at most", longest.as_micros()),
            wanted: format!("< {} ms", FRESH.as_millis()),
            verdict: Verdict::of(Some(longest < FRESH)),
        },
        Figure {
            what: "memory of an idle connection",
            measured: kib(each),
            wanted: format!("<= {}", kib(EACH_IDLE)),
            verdict: Verdict::of(Some(each <= EACH_IDLE)),
        },
    ]
}

async fn ask_anew(peer: &Peer, request: &[u8]) -> Duration {
    let asked = Instant::now();
    let mut client = Client::connect(peer.address).await.expect("it listens");
    client.ask(request).await.expect("an answer");
    asked.elapsed()
}

/// Prints how much memory has grown, and says by how much for each.
fn row(name: &str, before: u64, peer: &Peer, count: u32) -> u64 {
    let with = peer.memory();
    let each = with.saturating_sub(before) / u64::from(count);
    println!("| {name} | {} | {} | {} |", kib(before), kib(with), kib(each));
    each
}

/// One that was closed meanwhile has an end to be read.
fn all_are_open(clients: &[Client]) {
    for client in clients {
        let read = client.stream.try_read(&mut [0]);
        assert!(read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "a connection was closed");
    }
}

fn kib(bytes: u64) -> String {
    format!("{}.{} KiB", bytes >> 10, ((bytes & 1023) * 10) >> 10)
}
