//! How much later a small answer comes: one connection each, few requests a second, in turn.

use crate::client::{self, Client, SMALL};
use crate::peer::Peers;
use crate::report::{Figure, Verdict};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};

/// What we may add, of what nginx adds.
const ADDED: u32 = 2;
/// Between two requests.
const GAP: Duration = Duration::from_millis(2);
/// How many follow each other before the next one's turn.
const TURN: usize = 100;

/// Measures upstream alone and through both, so many turns each.
pub(crate) async fn compare(upstream: SocketAddr, turns: usize) -> Figure {
    let peers = Peers::start(upstream);
    let request = client::get(SMALL);
    let mut ways = Vec::new();
    for (name, address) in
        [("direct", upstream)].into_iter().chain(peers.each().map(|(name, peer)| (name, peer.address)))
    {
        let client = Client::connect(address).await.expect("it listens");
        ways.push((name, client, Vec::new()));
    }
    let mut pace = interval(GAP);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..turns {
        for (_, client, took) in &mut ways {
            for n in 0..=TURN {
                pace.tick().await;
                let asked = Instant::now();
                client.ask(&request).await.expect("an answer");
                // The first of a turn finds its caches cold.
                if n > 0 {
                    took.push(asked.elapsed());
                }
            }
        }
    }
    println!("\nA small request each {} ms on one connection:\n", GAP.as_millis());
    println!("| | p50, µs | p99, µs | added to the median, µs |");
    println!("|---|---|---|---|");
    let mut added = Vec::new();
    let mut direct = None;
    for (name, _, mut took) in ways {
        took.sort_unstable();
        let (half, high) = (took[took.len() / 2], took[took.len() * 99 / 100]);
        let direct = *direct.get_or_insert(half);
        added.push(half.saturating_sub(direct));
        println!(
            "| {name} | {} | {} | {} |",
            half.as_micros(),
            high.as_micros(),
            half.saturating_sub(direct).as_micros()
        );
    }
    let ours = *added.last().expect("ours is there always");
    let theirs = peers.nginx.as_ref().map(|_| added[1]);
    Figure {
        what: "added median latency",
        measured: format!(
            "{} µs{}",
            ours.as_micros(),
            theirs.map_or_else(String::new, |theirs| format!(", nginx {} µs", theirs.as_micros()))
        ),
        wanted: format!("<= {ADDED} x nginx's"),
        verdict: Verdict::of(theirs.map(|theirs| ours <= theirs * ADDED)),
    }
}
