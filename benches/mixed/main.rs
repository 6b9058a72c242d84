//! Whether work that can wait disturbs what cannot: the tail of requests at a fixed rate, half of what saturates one worker. The
//! server has core 0, the load and the stand-in the other. Rounds are paired; latency counts from the moment a request was
//! due, so a server that falls behind cannot hide it. Parts, all of them when none is named: `misses` (hits alone, and while
//! 32 clients cause misses) and `improver` (hits, and misses, with the improver idle and busy). Linux only.

#[expect(dead_code, reason = "the benches of memory and pass-through ask for more")]
#[path = "../binary/mod.rs"]
mod binary;
#[path = "../cores/mod.rs"]
mod cores;
mod stage;

use avatar_proxy::demo::{Options, StandIn};
use binary::Proxy;
use cores::run_on;
use stage::{Asked, Latencies, Stage};
use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::time::Duration;

/// Connections that ask for what is not in memory, beside hits.
const MISSERS: u32 = 32;
const PEOPLE: usize = 1_500;
const ROUNDS: usize = 5;

fn main() {
    let arguments = std::env::args().collect::<Vec<_>>();
    let named = |part: &str| arguments.iter().any(|argument| argument == part);
    let round = Duration::from_millis(if named("--test") { 200 } else { 4_000 });
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

/// Each half of a round has a process of its own: one without an improver, and one whose improver has more to do than it can
/// get done.
async fn beside_improver(town: &StandIn, round: Duration) {
    let mut rates = Vec::new();
    for asked in [Asked::Hits, Asked::Misses] {
        let proxy = proxy(town, false);
        rates.push(Stage::warmed(town, proxy.address, 1).await.saturated(asked, round / 4).await / 2.0);
    }
    println!("\nThe improver idle and busy; {:.0} hits/s, then {:.0} misses/s, {round:?} each\n", rates[0], rates[1]);
    println!(
        "| round | hits idle: p50 | p99 | busy: p50 | p99 | ratio | misses idle: p50 | p99 | busy: p50 | p99 | ratio | improver |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut ratios = [Vec::new(), Vec::new()];
    for n in 1..=ROUNDS {
        let mut measured = Vec::new();
        let mut spent = 0;
        // Whoever comes first may find the machine in another mood.
        for improves in [n % 2 == 0, n % 2 == 1] {
            let proxy = proxy(town, improves);
            let stage = Stage::warmed(town, proxy.address, 3).await;
            let hits = stage.paced(Asked::Hits, rates[0], round).await;
            let misses = stage.paced(Asked::Misses, rates[1], round).await;
            spent += improver(&proxy).unwrap_or_default();
            measured.push((improves, hits, misses));
        }
        measured.sort_by_key(|(improves, ..)| *improves);
        let [(_, hits, misses), (_, hits_busy, misses_busy)] = &measured[..] else { unreachable!("two halves") };
        let pairs = [(hits, hits_busy), (misses, misses_busy)];
        let columns = pairs.iter().zip(&mut ratios).map(|((idle, busy), ratios)| {
            let ratio = busy.at(0.99) / idle.at(0.99);
            ratios.push(ratio);
            format!("{} | {} | {ratio:.2} | ", row(idle), row(busy))
        });
        println!("| {n} | {}{} ms |", columns.collect::<String>(), spent * 10);
    }
    let [hits, misses] = &mut ratios;
    println!("median ratio of p99: hits {:.2}, misses {:.2}", median(hits), median(misses));
}

/// What the thread that improves has had of the core, in ticks of 10 ms; `None` where there is none.
fn improver(proxy: &Proxy) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{}/task", proxy.id())).expect("it runs");
    threads.flatten().find_map(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        // Behind the name: state, then the fields 4 to 52 of proc(5); 14 and 15 are the times.
        let mut times = rest.split_whitespace().skip(11).map_while(|field| field.parse::<u64>().ok());
        name.ends_with("(improver").then(|| Some(times.next()? + times.next()?))?
    })
}

fn row(latencies: &Latencies) -> String {
    format!("{:.2} ms | {:.2} ms", latencies.at(0.5), latencies.at(0.99))
}

fn median(ratios: &mut [f64]) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}
