//! What a long body costs, down and up, and whether any of it stays in memory.

use crate::client::{self, Client};
use crate::peer::{Peer, Peers};
use crate::report::{Figure, Verdict, median};
use crate::upstream::DOWN;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Our bytes for a CPU second, of nginx's.
const PACE: f64 = 0.7;
/// How much memory a stream may take, in bytes.
const GROWTH: u64 = 16 << 20;
/// How much is written at once.
const BLOCK: usize = 256 << 10;

#[derive(Clone, Copy)]
enum Way {
    Down,
    Up,
}

/// Sends `length` bytes each way, `pairs` times through both.
pub(crate) async fn compare(upstream: SocketAddr, length: usize, pairs: usize) -> Vec<Figure> {
    println!("\n{} MiB in one body:\n", length >> 20);
    println!("| way | round | nginx, s of CPU | avatar-proxy, s of CPU | ratio |");
    println!("|---|---|---|---|---|");
    let mut figures = Vec::new();
    for (way, pace, growth) in
        [(Way::Down, "bytes down", "memory of a stream down"), (Way::Up, "bytes up", "memory of a stream up")]
    {
        let peers = Peers::start(upstream);
        for (_, peer) in peers.each() {
            small(peer).await;
        }
        let before = peers.ours.resident();
        let (mut ratios, mut costs) = (Vec::new(), Vec::new());
        for n in 1..=pairs {
            let theirs = match &peers.nginx {
                Some(nginx) => Some(way.cost(nginx, length).await),
                None => None,
            };
            let ours = way.cost(&peers.ours, length).await.as_secs_f64();
            let ratio = theirs.map(|theirs| theirs.as_secs_f64() / ours);
            println!(
                "| {} | {n} | {} | {ours:.3} | {} |",
                way.name(),
                theirs.map_or_else(|| "-".to_owned(), |theirs| format!("{:.3}", theirs.as_secs_f64())),
                ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            );
            ratios.extend(ratio);
            costs.push(ours);
        }
        let mib = f64::from(u32::try_from(length >> 20).expect("some GiB at most"));
        let speed = mib / median(&mut costs).expect("at least one round");
        let ratio = median(&mut ratios);
        figures.push(Figure {
            what: pace,
            measured: format!(
                "{speed:.0} MiB/CPU second{}",
                ratio.map_or_else(String::new, |ratio| format!(", {ratio:.2} x nginx's"))
            ),
            wanted: format!(">= {PACE} x nginx's"),
            verdict: Verdict::of(ratio.map(|ratio| ratio >= PACE)),
        });
        let grown = peers.ours.peak().saturating_sub(before);
        figures.push(Figure {
            what: growth,
            measured: format!("{} KiB at its peak", grown >> 10),
            wanted: format!("<= {} MiB", GROWTH >> 20),
            verdict: Verdict::of(Some(grown <= GROWTH)),
        });
    }
    figures
}

/// A few requests, so that what is allocated once is there.
async fn small(peer: &Peer) {
    for _ in 0..100 {
        let mut client = Client::connect(peer.address).await.expect("it listens");
        client.ask(&client::report()).await.expect("an answer");
    }
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
        }
    }

    /// The CPU time that `length` bytes cost.
    async fn cost(self, peer: &Peer, length: usize) -> Duration {
        let mut client = Client::connect(peer.address).await.expect("it listens");
        let before = peer.cpu();
        match self {
            Self::Down => client.ask(&client::get(&format!("{DOWN}{length}"))).await,
            Self::Up => {
                client.stream.write_all(&client::post("/api/v4/files", length)).await.expect("taken");
                let block = vec![b'x'; BLOCK.min(length)];
                let mut left = length;
                while left > 0 {
                    let part = &block[..block.len().min(left)];
                    client.stream.write_all(part).await.expect("taken");
                    left -= part.len();
                }
                client.answer().await
            }
        }
        .expect("a whole answer");
        peer.cpu().saturating_sub(before)
    }
}
