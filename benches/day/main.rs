//! A realistic day of 2,000 users before a real proxy, on real sockets: how often Mattermost is asked for a picture, with
//! what is learned from its lists and without, and how long an old picture is shown after a change. A plain program that
//! prints tables: `cargo bench --bench day`. Without `--bench`, as `cargo test --benches` calls it, the day is short.

mod changes;
mod dice;
mod openings;
mod site;
mod staleness;

use avatar_proxy::config::Config;
use openings::{Day, Outcome, Why};
use site::Site;
use staleness::{Seen, Watch};
use std::time::Duration;

/// How much of everything.
struct Scale {
    people: usize,
    day: Day,
    watchers: usize,
    watch: Watch,
    ttl: Duration,
}

/// What a day is lived with.
struct Way {
    name: &'static str,
    configure: fn(&mut Config),
    mentions: usize,
}

const WAYS: [Way; 4] = [
    Way { name: "learning (the default)", configure: |_| (), mentions: 0 },
    Way { name: "the same, each second opening names somebody", configure: |_| (), mentions: 2 },
    Way { name: "no learning", configure: |config| config.grants.learn = false, mentions: 0 },
    Way { name: "strict", configure: |config| config.grants.ttl = Duration::ZERO, mentions: 0 },
];

fn main() {
    let scale = if std::env::args().any(|argument| argument == "--bench") { Scale::whole() } else { Scale::short() };
    actix_web::rt::System::new().block_on(async {
        tell_days(&scale).await;
        tell_staleness(&scale).await;
    });
}

impl Scale {
    fn whole() -> Self {
        Self {
            people: 2_000,
            day: Day {
                openings: 15,
                lasts: Duration::from_secs(75),
                sockets: 125,
                changes: 18,
                departures: 2,
                mentions: 0,
            },
            watchers: 480,
            watch: Watch { changes: 60, spread: Duration::from_secs(30) },
            ttl: Config::default().grants.ttl,
        }
    }

    fn short() -> Self {
        Self {
            people: 80,
            day: Day { openings: 3, lasts: Duration::from_secs(1), sockets: 4, changes: 6, departures: 1, mentions: 0 },
            watchers: 80,
            watch: Watch { changes: 2, spread: Duration::from_millis(500) },
            ttl: Duration::from_secs(1),
        }
    }
}

async fn tell_days(scale: &Scale) {
    let Scale { people, day, .. } = scale;
    let Day { openings, changes, .. } = day;
    println!(
        "{people} users open {openings} channels each, {changes} pictures change. Of upstream, first fetches aside:\n"
    );
    println!(
        "| | pictures | on a grant | lists | first fetches | 200 | 304 | refused | all, of 1,000 | not listed | event | listed | took |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for Way { name, configure, mentions } in WAYS {
        let site = Site::of(*people, configure);
        let outcome = openings::live(&site, Day { mentions, ..*day }).await;
        println!("{}", row(name, &outcome));
    }
}

fn row(name: &str, outcome: &Outcome) -> String {
    let Outcome { took, asked, people, bodies, not_modified, refusals, lists, from_grants, why } = outcome;
    let bodies = bodies.saturating_sub(*people);
    let all = for_thousand(bodies + not_modified + refusals, *asked);
    let reasons = [Why::NotListed, Why::Event, Why::Listed].map(|reason| why.get(&reason).copied().unwrap_or(0));
    let reasons = reasons.map(|count| for_thousand(count, *asked)).join(" | ");
    let counts =
        [*asked, *from_grants, *lists, *people, bodies, *not_modified, *refusals].map(|count| count.to_string());
    format!("| {name} | {} | {all} | {reasons} | {} s |", counts.join(" | "), took.as_secs())
}

fn for_thousand(part: u64, whole: u64) -> String {
    let tenths = part * 10_000 / whole.max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
}

async fn tell_staleness(scale: &Scale) {
    println!("\n| from a change to the new picture, ms | changes | p50 | p99 | longest |");
    println!("|---|---|---|---|---|");
    let site = || Site::of(scale.watchers, |config| config.grants.ttl = scale.ttl);
    let (with, without) = (site(), site());
    with.listen(0, |_, _| ()).await;
    let (with, without) = tokio::join!(staleness::watch(&with, scale.watch), staleness::watch(&without, scale.watch));
    for (tunnels, paths) in [("one WebSocket", with), ("none", without)] {
        for Seen { path: (change, place), after } in paths {
            let at = |percent: usize| after[(after.len() * percent).div_ceil(100) - 1].as_millis();
            let [median, high, longest] = [50, 99, 100].map(at);
            println!("| {change:?}, {place:?}, {tunnels} | {} | {median} | {high} | {longest} |", after.len());
        }
    }
}
