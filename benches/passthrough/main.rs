//! Pass-through beside nginx: what a small request and a long body cost in CPU time, what connections cost in memory, how
//! much later an answer comes, and whether a restart is noticed. The proxies have core 0, the load and a cheap upstream
//! core 1. Without nginx the proxy alone is measured. A plain program that prints tables, for Linux:
//! `cargo bench --bench passthrough [-- requests streams websockets latency idle drain]`. Without `--bench`, as
//! `cargo test --benches` calls it, everything is short.

#[path = "../binary/mod.rs"]
mod binary;
mod client;
mod connections;
#[path = "../cores/mod.rs"]
mod cores;
mod drain;
mod latency;
mod message;
mod peer;
mod report;
mod requests;
mod streams;
mod upstream;

use cores::run_on;
use report::Figure;
use requests::Rounds;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Duration;

/// The core of what is measured.
pub(crate) const PEER: usize = 0;
/// The core of everything else.
pub(crate) const LOAD: usize = 1;
/// Files that are open beside those of the connections.
const OTHER_FILES: u64 = 200;

/// How much of everything.
struct Scale {
    rounds: Rounds,
    stream: usize,
    streams: usize,
    websockets: u32,
    turns: usize,
    idle: u32,
    restarts: u32,
}

impl Scale {
    const WHOLE: Self = Self {
        rounds: Rounds { pairs: 32, each: Duration::from_millis(500) },
        stream: 1 << 30,
        streams: 3,
        websockets: 5_000,
        turns: 10,
        idle: 10_000,
        restarts: 20,
    };
    const SHORT: Self = Self {
        rounds: Rounds { pairs: 1, each: Duration::from_millis(50) },
        stream: 4 << 20,
        streams: 1,
        websockets: 20,
        turns: 1,
        idle: 20,
        restarts: 1,
    };
}

fn main() {
    let (flags, chosen): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let scale = if flags.iter().any(|flag| flag == "--bench") { Scale::WHOLE } else { Scale::SHORT };
    if !peer::has_nginx() {
        println!("nginx is not installed: the proxy alone is measured.");
    }
    run_on(LOAD);
    let files = raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let is_chosen = |part: &str| chosen.is_empty() || chosen.iter().any(|each| each == part);
    let figures = tokio::task::LocalSet::new().block_on(&runtime, measure(&scale, files, is_chosen));
    report::summary(&figures);
}

/// As many open files as the system lets us have, and what we start.
fn raise_file_limit() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
    maximum.unwrap_or(u64::MAX)
}

async fn measure(scale: &Scale, files: u64, is_chosen: impl Fn(&str) -> bool) -> Vec<Figure> {
    let upstream = upstream::start().await.expect("a free port");
    let mut figures = Vec::new();
    if is_chosen("requests") {
        let small = client::get(client::SMALL);
        figures.push(requests::compare(upstream, "small GET", small, 0.8, scale.rounds).await);
        figures.push(requests::compare(upstream, "small POST", client::report(), 0.8, scale.rounds).await);
    }
    if is_chosen("streams") {
        figures.extend(streams::compare(upstream, scale.stream, scale.streams).await);
    }
    // Upstream is in this process, and a proxy has two ends as well.
    if is_chosen("websockets") && files_allow(files, u64::from(scale.websockets) * 2) {
        figures.push(connections::websockets(upstream, scale.websockets).await);
    }
    if is_chosen("latency") {
        figures.push(latency::compare(upstream, scale.turns).await);
    }
    if is_chosen("idle") && files_allow(files, u64::from(scale.idle)) {
        figures.extend(connections::idle(upstream, scale.idle).await);
    }
    if is_chosen("drain") {
        figures.push(drain::restarts(upstream, scale.restarts).await);
    }
    figures
}

fn files_allow(files: u64, needed: u64) -> bool {
    let enough = files >= needed + OTHER_FILES;
    if !enough {
        println!("\nNot measured: it takes {needed} open files, and the hard limit is {files}.");
    }
    enough
}
