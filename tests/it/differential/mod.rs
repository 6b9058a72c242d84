//! The same requests straight to an upstream and through the proxy: what upstream sees and what the client gets are equal
//! but for the differences in `rules`, byte for byte, and each of those is needed.

mod cases;
mod rules;

use crate::client::PATIENCE;
use crate::process::Folder;
use crate::proxy::Proxy;
use crate::recorder::{Recorder, Reply};
use crate::tls::{FIRST, connect, encrypted};
use crate::wire::{Message, Wire};
use cases::{Case, Way};
use rules::{RULES, Rule};
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;

/// What one request led to.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Exchange {
    /// What upstream was asked.
    seen: Vec<Message>,
    /// The answers before the answer.
    interim: Vec<Message>,
    answer: Message,
}

impl Exchange {
    /// The target of the request, as upstream saw it.
    fn target(&self) -> &str {
        self.seen.first().map_or("", Message::second)
    }
}

/// A case and both its exchanges.
struct Pair {
    case: Case,
    straight: Exchange,
    through: Exchange,
}

/// What is left of the difference when every rule but `without` was applied: nothing is as it must be.
fn difference(pair: &Pair, without: Option<&Rule>) -> Option<String> {
    let (mut straight, mut through) = (pair.straight.clone(), pair.through.clone());
    for rule in RULES.iter().filter(|rule| without.is_none_or(|without| without.name != rule.name)) {
        (rule.applies)(&pair.case, &mut straight, &mut through);
    }
    // What the client did is its own affair; what the proxy does has to be right.
    straight.seen.iter_mut().chain([&mut straight.answer]).for_each(|message| message.faults.clear());
    (straight != through).then(|| format!("{}\n  straight {straight:?}\n  through  {through:?}", pair.case.name))
}

/// Sends a case's request and reads what comes of it.
async fn exchange(to: SocketAddr, upstream: &Recorder, case: &Case) -> Exchange {
    let mut wire = Wire::to(to).await;
    wire.send(&case.request).await;
    let mut interim = Vec::new();
    let answer = loop {
        let answer = tokio::time::timeout(PATIENCE, wire.answer(&case.method)).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer in time: {}", case.name));
        // Hanging up without a word is an answer too, and not a good one.
        let Some(answer) = answer else { break Message::default() };
        if !answer.start.contains(" 1") {
            break answer;
        }
        wire.send(&case.later).await;
        if answer.second() == "101" {
            break Message { body: wire.bytes(case.later.len()).await, ..answer };
        }
        interim.push(answer);
    };
    Exchange { seen: upstream.take(), interim, answer }
}

/// Every case, straight and through the proxy.
async fn pairs(way: Way) -> Vec<Pair> {
    let next = Rc::new(RefCell::new(Reply::next("")));
    let says = next.clone();
    let upstream = Recorder::answering(move |_| says.borrow().clone()).await;
    let folder = Folder::new();
    let proxy = Proxy::with(upstream.address, |config| {
        config.server.workers = 1;
        match way {
            Way::Plain => {}
            Way::Encrypted => encrypted(&folder, FIRST)(config),
            Way::Behind => config.server.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")],
        }
    });
    let through = if way == Way::Encrypted { putting_tls_on(proxy.address).await } else { proxy.address };
    let mut pairs = Vec::new();
    for case in cases::all(upstream.address, way) {
        next.replace(case.reply.clone());
        let straight = exchange(upstream.address, &upstream, &case).await;
        let through = exchange(through, &upstream, &case).await;
        pairs.push(Pair { case, straight, through });
    }
    pairs
}

#[actix_web::test]
async fn through_the_proxy_all_is_as_without_it_but_for_the_rules() {
    let pairs = pairs(Way::Plain).await;

    let mut names = HashSet::new();
    assert!(
        pairs.iter().all(|pair| names.insert(&*pair.case.name)),
        "two cases are one: {}",
        pairs[names.len()].case.name
    );
    assert!(pairs.len() >= 300, "{} cases", pairs.len());
    let differences = pairs.iter().filter_map(|pair| difference(pair, None)).collect::<Vec<_>>();
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
    for rule in RULES {
        let needed = pairs.iter().any(|pair| difference(pair, Some(rule)).is_some());
        assert!(needed, "nothing needs the rule about {}: {}", rule.name, rule.reason);
    }
}

/// What clients say over TLS, and what an outer proxy says whose word is believed, is as much theirs.
#[actix_web::test]
async fn all_is_as_without_the_proxy_however_it_is_reached() {
    for way in [Way::Encrypted, Way::Behind] {
        let pairs = pairs(way).await;
        let differences = pairs.iter().filter_map(|pair| difference(pair, None)).collect::<Vec<_>>();
        assert!(differences.is_empty(), "{way:?}: {} differ:\n{}", differences.len(), differences.join("\n"));
        assert!(pairs.len() >= 300, "{} cases", pairs.len());
    }
}

/// Where clients connect who leave TLS with `to` to us.
async fn putting_tls_on(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    actix_web::rt::spawn(async move {
        while let Ok((mut plain, _)) = listener.accept().await {
            actix_web::rt::spawn(async move {
                let mut tls = connect(to, &[]).await;
                // An end without a word is an end.
                let _ = copy_bidirectional(&mut plain, &mut tls).await;
            });
        }
    });
    address
}
