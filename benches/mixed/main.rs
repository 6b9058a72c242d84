//! Whether work that can wait disturbs what cannot: the tail of requests at a fixed rate, half of what saturates one worker. The
//! server has core 0, the load and the stand-in the other. Rounds are paired; latency counts from the moment a request was
//! due, so a server that falls behind cannot hide it. Parts, all of them when none is named: `misses` (hits alone, and while
//! 32 clients cause misses) and `improver` (hits, and misses, with the improver idle and busy, in turns so short that both
//! find the machine in the same mood). Linux only.

#[expect(dead_code, reason = "the benches of memory and pass-through ask for more")]
#[path = "../binary/mod.rs"]
mod binary;
#[path = "../cores/mod.rs"]
mod cores;
mod stage;

use avatar_proxy::demo::{Options, StandIn};
use binary::Proxy;
use cores::run_on;
use rustix::process::Signal;
use stage::{Asked, Latencies, Stage};
use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// Connections that ask for what is not in memory, beside hits.
const MISSERS: u32 = 32;
const PEOPLE: usize = 1_500;
const ROUNDS: usize = 5;
/// Of each of two in a round.
const TURNS: u32 = 16;

fn main() {
    let arguments = std::env::args().collect::<Vec<_>>();
    let named = |part: &str| arguments.iter().any(|argument| argument == part);
    let round = Duration::from_millis(if named("--test") { 800 } else { 8_000 });
    let all = !named("misses") && !named("improver");
    run_on(1);
    let town = StandIn::start(Options::crowd(PEOPLE)).expect("the stand-in starts");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().event_interval(8).build().expect("a runtime");
    let load = async {
        if all || named("misses") {
            beside_misses(&town, round).await;
        }
        if all || named("improver") {
            beside_improver(&town, round).await;
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, load);
}

/// On core 0.
fn proxy(town: &StandIn, improves: bool) -> Proxy {
    run_on(0);
    let improves = if improves { "true" } else { "false" };
    let settings = [
        ("GRANTS__TTL", "1h"),
        ("RENDER__PERMITS", "1"),
        ("LIMITS__CALLER_MISSES", "0"),
        ("IMPROVE__ENABLED", improves),
        ("IMPROVE__AFTER_HITS", "1"),
    ];
    let proxy = Proxy::start(&town.url(), &settings);
    run_on(1);
    proxy
}

async fn beside_misses(town: &StandIn, round: Duration) {
    let proxy = proxy(town, false);
    let stage = Stage::warmed(town, proxy.address, 1).await;
    let capacity = stage.saturated(Asked::Hits, round / 4).await;
    let rate = capacity / 2.0;
    println!(
        "\nHits beside misses; saturated at {capacity:.0} hits/s, measured at {rate:.0}/s for {round:?} a round\n"
    );
    println!("| round | p50 alone | p99 alone | p50 beside misses | p99 beside misses | misses/s | ratio of p99 |");
    println!("|---|---|---|---|---|---|---|");
    let mut ratios = Vec::new();
    for n in 1..=ROUNDS {
        let alone = stage.paced(Asked::Hits, rate, round).await;
        let (goes_on, missed) = (Rc::new(Cell::new(true)), Rc::new(Cell::new(0)));
        let missers = stage.pressed(Asked::Misses, MISSERS, &goes_on, &missed);
        tokio::time::sleep(round / 10).await;
        let before = missed.get();
        let beside = stage.paced(Asked::Hits, rate, round).await;
        let pace = f64::from(missed.get() - before) / round.as_secs_f64();
        goes_on.set(false);
        for misser in missers {
            misser.await.expect("no panic");
        }
        let ratio = beside.at(0.99) / alone.at(0.99);
        ratios.push(ratio);
        println!("| {n} | {} | {} | {pace:.0} | {ratio:.2} |", row(&alone), row(&beside));
    }
    println!("median ratio of p99: {:.2}", median(&mut ratios));
}

/// Each round has a process without an improver, and one whose improver has more to do than it can get done. They are asked
/// by turns, and while one is asked the other one does nothing; a round's p99 is that of all its turns.
async fn beside_improver(town: &StandIn, round: Duration) {
    println!("\nThe improver idle and busy; {round:?} each\n");
    println!("| round | asked for | rate | p50 idle | p99 idle | p50 busy | p99 busy | ratio of p99 | improver |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut ratios = [Vec::new(), Vec::new()];
    for n in 1..=ROUNDS {
        // In every round: a machine that has become slower since would have more to do than half of what it can.
        let mut rates = Vec::new();
        for asked in [Asked::Hits, Asked::Misses] {
            let proxy = proxy(town, false);
            rates.push(Stage::warmed(town, proxy.address, 1).await.saturated(asked, round / 8).await / 2.0);
        }
        let pair = [false, true].map(|improves| proxy(town, improves));
        let stages = [Stage::warmed(town, pair[0].address, 3).await, Stage::warmed(town, pair[1].address, 3).await];
        let busy = Improver::of(&pair[1]);
        for ((asked, rate), ratios) in [Asked::Hits, Asked::Misses].into_iter().zip(rates).zip(&mut ratios) {
            let mut measured = [Latencies::default(), Latencies::default()];
            let mut spent = Duration::ZERO;
            for turn in 0..2 * TURNS {
                // Idle, busy, busy, idle: neither has the better place.
                let improves = usize::from(matches!(turn % 4, 1 | 2));
                if improves == 0 {
                    busy.hold().await;
                }
                let before = busy.spent();
                measured[improves].add(stages[improves].paced(asked, rate, round / TURNS).await);
                spent += busy.spent().saturating_sub(before);
                busy.resume();
            }
            let [idle, busy] = &measured;
            let ratio = busy.at(0.99) / idle.at(0.99);
            ratios.push(ratio);
            let asked = if asked == Asked::Hits { "hits" } else { "misses" };
            println!(
                "| {n} | {asked} | {rate:.0}/s | {} | {} | {ratio:.2} | {} ms |",
                row(idle),
                row(busy),
                spent.as_millis()
            );
        }
    }
    let [hits, misses] = &mut ratios;
    println!("median ratio of p99: hits {:.2}, misses {:.2}", median(hits), median(misses));
}

/// The thread that improves.
struct Improver<'a> {
    proxy: &'a Proxy,
    thread: PathBuf,
}

impl<'a> Improver<'a> {
    fn of(proxy: &'a Proxy) -> Self {
        let threads = fs::read_dir(format!("/proc/{}/task", proxy.id())).expect("it runs");
        let mut paths = threads.map(|thread| thread.expect("a thread").path());
        let is_improver = |path: &PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "improver\n");
        Self { proxy, thread: paths.find(is_improver).expect("it improves") }
    }

    /// Stops the process between two steps: one that is held up in a step would rest for all the time.
    async fn hold(&self) {
        // Behind the name stands the state: R while it is at a step, S while it rests.
        while self.read("stat").contains(") R ") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.proxy.signal(Signal::STOP);
    }

    fn resume(&self) {
        self.proxy.signal(Signal::CONT);
    }

    /// What it has had of the core.
    fn spent(&self) -> Duration {
        let times = self.read("schedstat");
        Duration::from_nanos(times.split(' ').next().and_then(|spent| spent.parse().ok()).expect("a number"))
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.thread.join(file)).expect("it runs")
    }
}

fn row(latencies: &Latencies) -> String {
    format!("{:.2} ms | {:.2} ms", latencies.at(0.5), latencies.at(0.99))
}

fn median(ratios: &mut [f64]) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}
