//! What a small request costs: each in turn answers as many as it can, and the CPU time that it took is divided by them.

use crate::client::Client;
use crate::peer::{Peer, Peers};
use crate::report::{Figure, Verdict, median};
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// As many as nginx keeps connections to upstream.
const CONNECTIONS: usize = 32;

/// Rounds of this length, in pairs.
#[derive(Clone, Copy)]
pub(crate) struct Rounds {
    pub(crate) pairs: usize,
    pub(crate) each: Duration,
}

/// How one of them did.
struct Round {
    answered: u32,
    /// CPU time for one request.
    cost: Duration,
    /// The part of the time in which it had work.
    busy: f64,
}

/// Measures `request` through both; our requests for a CPU second are to be `target` of nginx's.
pub(crate) async fn compare(
    upstream: SocketAddr,
    name: &'static str,
    request: Vec<u8>,
    target: f64,
    rounds: Rounds,
) -> Figure {
    let request: Rc<[u8]> = request.into();
    let peers = Peers::start(upstream);
    for (_, peer) in peers.each() {
        round(peer, &request, rounds.each / 4).await;
    }
    println!("\n{name}, {CONNECTIONS} connections:\n");
    println!("| round | nginx, µs of CPU | busy | requests/s | avatar-proxy, µs of CPU | busy | requests/s | ratio |");
    println!("|---|---|---|---|---|---|---|---|");
    let (mut ratios, mut costs) = (Vec::new(), Vec::new());
    for n in 1..=rounds.pairs {
        // Each goes first as often as the other.
        let (theirs, ours) = if n % 2 == 0 {
            let ours = round(&peers.ours, &request, rounds.each).await;
            (beside(&peers, &request, rounds.each).await, ours)
        } else {
            let theirs = beside(&peers, &request, rounds.each).await;
            (theirs, round(&peers.ours, &request, rounds.each).await)
        };
        let ratio = theirs.as_ref().map(|theirs| theirs.cost.as_secs_f64() / ours.cost.as_secs_f64());
        println!(
            "| {n} | {} | {} | {} |",
            theirs.map_or_else(|| "- | - | -".to_owned(), |theirs| theirs.row(rounds.each)),
            ours.row(rounds.each),
            ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
        );
        ratios.extend(ratio);
        costs.push(ours.cost.as_secs_f64());
    }
    let pace = 1.0 / median(&mut costs).expect("at least one round");
    let ratio = median(&mut ratios);
    let ratio_text = ratio.map_or_else(String::new, |ratio| format!(", {ratio:.2} x nginx's"));
    Figure {
        what: name,
        measured: format!("{pace:.0} requests/CPU second{ratio_text}"),
        wanted: format!(">= {target} x nginx's"),
        verdict: Verdict::of(ratio.map(|ratio| ratio >= target)),
    }
}

async fn beside(peers: &Peers, request: &Rc<[u8]>, time: Duration) -> Option<Round> {
    match &peers.nginx {
        Some(nginx) => Some(round(nginx, request, time).await),
        None => None,
    }
}

/// Every connection asks as fast as it is answered.
async fn round(peer: &Peer, request: &Rc<[u8]>, time: Duration) -> Round {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = Client::connect(peer.address).await.expect("it listens");
        client.ask(request).await.expect("an answer");
        clients.push(client);
    }
    let answered = Rc::new(Cell::new(0_u32));
    let (start, before) = (Instant::now(), peer.cpu());
    let tasks = clients.into_iter().map(|mut client| {
        let (request, answered) = (request.clone(), answered.clone());
        tokio::task::spawn_local(async move {
            while start.elapsed() < time {
                client.ask(&request).await.expect("an answer");
                answered.set(answered.get() + 1);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
    let (spent, took) = (peer.cpu().saturating_sub(before), start.elapsed());
    Round { answered: answered.get(), cost: spent / answered.get(), busy: spent.as_secs_f64() / took.as_secs_f64() }
}

impl Round {
    fn row(&self, time: Duration) -> String {
        let pace = f64::from(self.answered) / time.as_secs_f64();
        format!("{:.2} | {:.0} % | {pace:.0}", self.cost.as_secs_f64() * 1e6, self.busy * 100.0)
    }
}
