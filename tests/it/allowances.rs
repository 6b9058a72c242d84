//! F40: one token, or one address, cannot make upstream and the renderers work for it without end; who asks for what is
//! in memory pays nothing.

use crate::client::{Answer, Request};
use crate::mattermost::{BROWSER, costing, picture_path, town};
use crate::proxy::Proxy;
use avatar_proxy::config::Rate;
use avatar_proxy::demo::{Options, StandIn};
use std::net::SocketAddr;
use std::time::Duration;

/// So many, and then one an hour: no test waits for it.
fn only(count: u32) -> Rate {
    Rate { count, per: Duration::from_secs(3600) * count }
}

/// A proxy that remembers, with budgets for each token and each address.
fn thrifty(upstream: SocketAddr, caller: Option<Rate>, address: Option<Rate>) -> Proxy {
    Proxy::with(upstream, |config| {
        config.grants.ttl = Duration::from_secs(3600);
        config.limits.caller_misses = caller;
        config.limits.address_misses = address;
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    })
}

/// So many of the town's people.
fn people(count: usize) -> Vec<String> {
    Options::default().residents.into_iter().map(|resident| resident.username).take(count).collect()
}

fn look(town: &StandIn, user: &str, query: &str) -> Request {
    Request::get(&format!("{}?{query}", picture_path(town, user))).accept(BROWSER)
}

/// 429 in Mattermost's shape, with the time after which to come again.
fn check_refused(answer: &Answer) {
    assert_eq!(answer.status, 429);
    let told = answer.json();
    assert_eq!((&told["id"], &told["status_code"]), (&"avatar_proxy.too_many_requests".into(), &429.into()));
    for member in ["message", "detailed_error", "request_id"] {
        assert!(told[member].is_string(), "{member}");
    }
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let seconds = answer.header("retry-after").and_then(|value| value.parse::<u64>().ok()).expect("seconds");
    assert!((1..=3600).contains(&seconds), "{seconds}");
    assert_eq!(answer.header("etag"), None);
}

#[actix_web::test]
async fn f40_a_token_has_one_budget_however_it_is_dressed_and_whatever_else_changes() {
    let town = town();
    let proxy = thrifty(town.address(), Some(only(5)), None);
    let token = town.token("alice");
    let people = people(12);
    for (n, user) in people.iter().enumerate() {
        let request = look(&town, user, &format!("size={}&_={n}&x={n}", 16 + n)).header("X-Ignored", &n.to_string());
        let request = match n % 4 {
            0 => request.cookie(&token),
            1 => request.bearer(&token),
            2 => request.header("Authorization", &format!("Token {token}")),
            _ => request.header("Cookie", &format!("ignored={n}; MMAUTHTOKEN={token}; also={n}")),
        };
        let request = request.header("User-Agent", &format!("Browser/{n}")).header("X-Forwarded-For", "203.0.113.9");
        let (answer, asked) = costing(&proxy, &town, &request).await;
        if n < 5 {
            assert_eq!((answer.status, asked), (200, 1), "{n}");
        } else {
            check_refused(&answer);
            assert_eq!(asked, 0, "{n}");
        }
    }
    // Another token goes on, from the same address.
    for user in &people[..5] {
        assert_eq!(proxy.send(&look(&town, user, "size=32").bearer(&town.token("bob"))).await.status, 200);
    }
    check_refused(&proxy.send(&look(&town, &people[6], "size=32").bearer(&town.token("bob"))).await);
    assert_eq!(proxy.metric("avatar_proxy_refusals_total{reason=\"too_many\"}").await, 8);
}

#[actix_web::test]
async fn f40_what_is_in_memory_costs_nothing_and_what_is_rendered_does() {
    let town = town();
    let proxy = thrifty(town.address(), Some(only(4)), None);
    let look = |query: &str| look(&town, "nova", query).bearer(&town.token("alice"));
    for query in ["size=32", "size=16", "size=64", "size=96"] {
        assert_eq!(proxy.send(&look(query)).await.status, 200, "{query}");
    }
    for _ in 0..50 {
        for query in ["size=32", "size=16", "size=96", "format=original"] {
            let (hit, asked) = costing(&proxy, &town, &look(query)).await;
            assert_eq!((hit.status, asked), (200, 0), "{query}");
        }
        let not_modified = look("size=32").header("If-None-Match", "*");
        assert_eq!(proxy.send(&not_modified).await.status, 304);
    }
    check_refused(&proxy.send(&look("size=128&format=png")).await);
    check_refused(&proxy.send(&look("size=32").header("Cache-Control", "no-cache")).await);
    // And her grant is none the worse for it.
    assert_eq!(costing(&proxy, &town, &look("size=32")).await.1, 0);
    // What does not pass through the pictures' door is not counted.
    let me = Request::get("/api/v4/users/me").bearer(&town.token("alice"));
    assert_eq!(proxy.send(&me).await.status, 200);
}

#[actix_web::test]
async fn f40_an_address_behind_a_trusted_proxy_has_a_budget_whatever_tokens_come_from_it() {
    let town = town();
    let proxy = thrifty(town.address(), None, Some(only(5)));
    let people = people(10);
    for (n, user) in people.iter().enumerate() {
        // Made up, and each another: 401s are paid for by the address.
        let request = look(&town, user, "size=32").bearer(&format!("{n:026}"));
        let answer = proxy.send(&request.header("X-Forwarded-For", "198.51.100.1, 203.0.113.9")).await;
        if n < 5 {
            assert_eq!(answer.status, 401, "{n}");
        } else {
            check_refused(&answer);
        }
    }
    let from =
        |address: &str| look(&town, "nova", "size=32").bearer(&town.token("alice")).header("X-Forwarded-For", address);
    check_refused(&proxy.send(&from("203.0.113.9")).await);
    check_refused(&proxy.send(&from("::ffff:203.0.113.9")).await);
    assert_eq!(proxy.send(&from("203.0.113.10")).await.status, 200);
    // All of a /64 is one client's.
    for n in 0..5 {
        assert_eq!(proxy.send(&from(&format!("2001:db8::{n}")).header("Pragma", "no-cache")).await.status, 200);
    }
    check_refused(&proxy.send(&from("2001:db8::ffff").header("Pragma", "no-cache")).await);
    assert_eq!(proxy.send(&from("2001:db8:0:1::1").header("Pragma", "no-cache")).await.status, 200);
}

/// A client that names an address of its own choice would have as many budgets as it likes.
#[actix_web::test]
async fn f40_what_strangers_say_of_addresses_is_not_believed() {
    let town = town();
    let proxy = Proxy::with(town.address(), |config| {
        config.grants.ttl = Duration::from_secs(3600);
        config.limits.caller_misses = Some(only(3));
        config.limits.address_misses = Some(only(1_000));
    });
    for (n, user) in people(6).iter().enumerate() {
        let request = look(&town, user, "size=32").bearer(&town.token("alice"));
        let answer = proxy.send(&request.header("X-Forwarded-For", &format!("203.0.113.{n}"))).await;
        assert_eq!(answer.status, if n < 3 { 200 } else { 429 }, "{n}");
    }
}
