//! Many who ask at once: the picture is fetched, decoded and rendered once, and each of them has been told by upstream
//! that they may see it.

use crate::client::{ALICE, ALICES_TOKEN, Answer, BOBS_TOKEN, Connection, PATIENCE, Request};
use crate::mattermost::{BROWSER, Work, costing, looks_at, picture_path, shows, town, work};
use crate::pictures::{RED, photo, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, keeping, kept_answer, not_modified, picture_answer, send_and_close};
use avatar_proxy::demo::{Fault, Options, Repeat, StandIn};
use futures_util::future::{join, join_all};
use std::rc::Rc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

const CROWD: u64 = 200;

/// Sends all of them, and lets upstream answer pictures only when all have arrived.
async fn at_once(proxy: &Proxy, town: &StandIn, requests: &[Request]) -> Vec<Answer> {
    town.hold();
    let crowd = u64::try_from(requests.len()).expect("a small number");
    let release = async {
        proxy.has_in_flight(crowd).await;
        town.release();
    };
    join(join_all(requests.iter().map(|request| proxy.send(request))), release).await.0
}

fn of_nova(town: &StandIn, query: &str) -> Request {
    looks_at(town, "alice", "nova", query)
}

#[actix_web::test]
async fn two_hundred_requests_for_one_cold_variant_are_one_body_and_one_render() {
    let town = town();
    let proxy = Proxy::before(town.address());

    let answers = at_once(&proxy, &town, &vec![of_nova(&town, "size=32"); 200]).await;

    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    let count = town.count();
    assert_eq!((count.pictures, count.not_modified), (1, CROWD - 1));
    assert_eq!(work(&proxy).await, Work { decodes: 1, encodes: 1, renders: 1 });
}

#[actix_web::test]
async fn two_hundred_requests_for_five_sizes_are_one_body_and_five_renders() {
    let town = town();
    let proxy = Proxy::before(town.address());
    let sizes = [16, 24, 32, 64, 128];
    let requests = (0..200).map(|n| of_nova(&town, &format!("size={}", sizes[n % 5]))).collect::<Vec<_>>();

    let answers = at_once(&proxy, &town, &requests).await;

    for (n, answer) in answers.iter().enumerate() {
        assert_eq!((answer.status, &answer.body), (200, &answers[n % 5].body));
    }
    assert_eq!(answers[0].dimensions(), (16, 16));
    assert_eq!(town.count().pictures, 1);
    assert_eq!(work(&proxy).await, Work { decodes: 1, encodes: 5, renders: 5 });
}

#[actix_web::test]
async fn two_hundred_callers_of_one_cold_picture_are_asked_about_each() {
    let town = town();
    let proxy = Proxy::before(town.address());
    let tokens = (0..CROWD).map(|_| town.sign_in("alice").token).collect::<Vec<_>>();
    let path = format!("/api/v4/users/{}/image?size=32", town.id("nova"));
    let requests = tokens.iter().map(|token| Request::get(&path).bearer(token).accept(BROWSER)).collect::<Vec<_>>();

    let answers = at_once(&proxy, &town, &requests).await;

    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    let count = town.count();
    assert_eq!((count.pictures, count.not_modified), (1, CROWD - 1));
    let received = town.received();
    let mut asked = received.iter().filter_map(|seen| seen.header("authorization")).collect::<Vec<_>>();
    let mut callers = tokens.iter().map(|token| format!("Bearer {token}")).collect::<Vec<_>>();
    asked.sort_unstable();
    callers.sort_unstable();
    assert_eq!(asked, callers, "each in their own name, once");
}

#[actix_web::test]
async fn who_may_not_see_a_picture_is_refused_however_many_are_shown_it_at_the_same_moment() {
    let town = town();
    let proxy = Proxy::before(town.address());
    let residents = Options::default().residents;
    for (round, resident) in residents.iter().enumerate().filter(|(_, resident)| resident.username != "mallory") {
        let bobs = looks_at(&town, "bob", &resident.username, "size=32");
        let mallorys = looks_at(&town, "mallory", &resident.username, "size=32");
        let either = [&bobs, &mallorys];
        let crowd = (0..6).map(|n| either[(n + round) % 2].clone()).collect::<Vec<_>>();

        let answers = at_once(&proxy, &town, &crowd).await;

        for (n, answer) in answers.iter().enumerate() {
            let refused = (n + round) % 2 == 1;
            assert_eq!(answer.status, if refused { 403 } else { 200 }, "{}", resident.username);
            if refused {
                assert_eq!(answer.json()["id"], "api.context.permissions.app_error");
                assert_eq!(answer.header("etag"), None);
            }
        }
    }
}

#[actix_web::test]
async fn a_picture_that_changes_under_a_crowd_is_fetched_once_more() {
    let town = town();
    let proxy = Proxy::before(town.address());
    proxy.send(&of_nova(&town, "size=32")).await;
    town.show("nova", png(&photo(3)));
    let bodies = town.count().pictures;

    let answers = at_once(&proxy, &town, &vec![of_nova(&town, "size=32"); 20]).await;

    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    // Each asked with the old validator and was sent the new picture; only the first had to be decoded.
    assert_eq!(town.count().pictures, bodies + 20);
    assert_eq!(work(&proxy).await, Work { decodes: 2, encodes: 2, renders: 2 });
}

#[actix_web::test]
async fn two_hundred_requests_of_one_caller_for_one_cold_picture_are_one_question() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let sizes = [16, 24, 32, 64, 128];
    let requests = (0..200).map(|n| of_nova(&town, &format!("size={}", sizes[n % 5]))).collect::<Vec<_>>();

    let answers = at_once(&proxy, &town, &requests).await;

    for (n, answer) in answers.iter().enumerate() {
        assert_eq!((answer.status, &answer.body), (200, &answers[n % 5].body));
    }
    let count = town.count();
    assert_eq!((count.picture_requests, count.pictures), (1, 1));
    assert_eq!(work(&proxy).await, Work { decodes: 1, encodes: 5, renders: 5 });
}

#[actix_web::test]
async fn two_hundred_callers_of_one_cold_picture_are_one_body_and_then_nothing() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let path = format!("{}?size=32", picture_path(&town, "nova"));
    let requests = (0..CROWD)
        .map(|_| Request::get(&path).bearer(&town.sign_in("alice").token).accept(BROWSER))
        .collect::<Vec<_>>();

    let answers = at_once(&proxy, &town, &requests).await;

    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    let count = town.count();
    assert_eq!(count.pictures, 1);
    assert!(count.not_modified < CROWD, "{}", count.not_modified);
    assert_eq!(work(&proxy).await, Work { decodes: 1, encodes: 1, renders: 1 });
    for request in &requests {
        assert_eq!(costing(&proxy, &town, request).await.1, 0);
    }
}

#[actix_web::test]
async fn a_changed_picture_costs_a_caller_with_many_requests_one_body() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    proxy.send(&of_nova(&town, "size=32")).await;
    town.show("nova", png(&photo(3)));
    let stamp = of_nova(&town, "").send(town.address()).await.header("etag").expect("a tag").to_owned();
    let bodies = town.count().pictures;

    let answers = at_once(&proxy, &town, &vec![of_nova(&town, &format!("size=32&_={stamp}")); 20]).await;

    assert!(answers.iter().all(|answer| answer.status == 200 && shows(answer, &photo(3))));
    assert_eq!(town.count().pictures, bodies + 1);
}

#[actix_web::test]
async fn emoji_are_asked_for_once_by_each_caller() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let path = format!("/api/v4/emoji/{}/image?size=20", Options::default().emoji[0].id);
    let of = |viewer: &str| Request::get(&path).bearer(&town.token(viewer)).accept(BROWSER);
    let requests = (0..40).map(|n| of(["alice", "bob"][n % 2])).collect::<Vec<_>>();

    let answers = at_once(&proxy, &town, &requests).await;

    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    assert_eq!(town.count().pictures, 2);
}

/// A refusal of the one who asks first is nobody else's.
#[actix_web::test]
async fn the_refusal_of_whoever_asked_first_is_not_shared() {
    let town = town();
    let proxy = Proxy::granting(town.address());
    let (mallorys, alices) = (looks_at(&town, "mallory", "nova", "size=32"), of_nova(&town, "size=32"));
    for first in [&mallorys, &alices] {
        town.hold();
        let rest = async {
            proxy.has_in_flight(1).await;
            let release = async {
                proxy.has_in_flight(21).await;
                town.release();
            };
            let others = (0..20).map(|n| if n % 2 == 0 { &alices } else { &mallorys });
            join(join_all(others.map(|request| proxy.send(request))), release).await.0
        };
        let (pilot, others) = join(proxy.send(first), rest).await;
        let status = |refused: bool| if refused { 403 } else { 200 };
        assert_eq!(pilot.status, status(std::ptr::eq(first, &raw const mallorys)));
        for (n, answer) in others.iter().enumerate() {
            assert_eq!(answer.status, status(n % 2 == 1), "{n}");
        }
        // Cold again for the other order.
        proxy.send(&Request::new("DELETE", &picture_path(&town, "nova")).bearer(&town.token("nova"))).await;
    }
}

/// F24: whoever waits is served though the one who asked for all is gone, with or without a head of an answer.
#[actix_web::test]
async fn f24_when_the_one_who_asks_for_all_leaves_the_others_go_on() {
    for named in [false, true] {
        let picture = png(&solid(RED));
        let go_on = Rc::new(Notify::new());
        let wait = go_on.clone();
        let upstream = Upstream::scripted(move |_, seen, mut stream| {
            let (picture, wait) = (picture.clone(), wait.clone());
            async move {
                let whole = picture_answer("1", &picture);
                let (head, rest) = whole.split_at(if named { whole.len() - 10 } else { 0 });
                let _ = stream.write_all(head).await;
                if seen.header("cookie").is_some_and(|cookie| cookie.contains(ALICES_TOKEN)) {
                    wait.notified().await;
                }
                send_and_close(&mut stream, rest).await;
            }
        })
        .await;
        let proxy = Proxy::granting(upstream.address);
        let mut leader = TcpStream::connect(proxy.address).await.expect("the proxy listens");
        leader.write_all(&Request::picture("size=32").bytes("chat.example")).await.expect("taken");
        upstream.has_seen(1).await;
        let alices = (0..5).map(|_| Request::picture("size=32"));
        let bobs = (0..5).map(|_| Request::picture_of(ALICE, "size=32").cookie(BOBS_TOKEN));
        let all = alices.chain(bobs).map(|request| request.header("Host", "chat.example")).collect::<Vec<_>>();
        let leaves = async {
            // Whoever has a validator to ask with has been answered already.
            proxy.has_in_flight(if named { 6 } else { 11 }).await;
            leader.set_zero_linger().expect("a socket");
            drop(leader);
            // Nobody waits any longer for what nobody reads: the answer is let through, or a new one has been asked for.
            go_on.notify_waiters();
            go_on.notify_one();
        };
        let served = join(join_all(all.iter().map(|request| proxy.send(request))), leaves);
        let (answers, ()) = tokio::time::timeout(PATIENCE, served).await.expect("they go on");
        assert!(answers.iter().all(|answer| answer.status == 200 && answer.looks(RED)), "named: {named}");
    }
}

/// Whoever was told by a 304 that it is the picture under way still needs it when its fetch breaks off.
#[actix_web::test]
async fn when_the_body_of_the_one_who_asks_for_all_breaks_off_the_others_are_shown_the_picture() {
    let picture = png(&solid(RED));
    let breaks_off = Rc::new(Notify::new());
    let broken = breaks_off.clone();
    let upstream = Upstream::scripted(move |n, seen, mut stream| {
        let (picture, broken) = (picture.clone(), broken.clone());
        async move {
            let whole = picture_answer("1", &picture);
            match (n, seen.header("if-none-match")) {
                (0, _) => {
                    let _ = stream.write_all(&whole[..whole.len() - 10]).await;
                    broken.notified().await;
                }
                (_, Some("1")) => send_and_close(&mut stream, &not_modified("1")).await,
                _ => send_and_close(&mut stream, &whole).await,
            }
        }
    })
    .await;
    let proxy = Proxy::granting(upstream.address);
    let tokens = [BOBS_TOKEN, "0thers0thers0thers0thers00", "0thers0thers0thers0thers01"];
    let others = tokens.map(|token| Request::picture_of(ALICE, "size=32").cookie(token));
    let alices = Request::picture("size=32");

    let waiters = async {
        upstream.has_seen(1).await;
        let release = async {
            upstream.has_seen(4).await;
            breaks_off.notify_one();
        };
        join(join_all(others.iter().map(|request| proxy.send(request))), release).await.0
    };
    let (leader, others) = join(proxy.send(&alices), waiters).await;

    assert_eq!(leader.status, 502);
    for other in others {
        assert!(other.status == 200 && is_small(&other) && other.looks(RED));
    }
    assert!(upstream.seen()[1..4].iter().all(|seen| seen.header("if-none-match") == Some("1")));
}

/// Whether it is the variant that was asked for.
fn is_small(answer: &Answer) -> bool {
    answer.header("content-type").is_some_and(|kind| kind.starts_with("image/")) && answer.dimensions() == (32, 32)
}

/// Nothing that went wrong for one is another's answer.
#[actix_web::test]
async fn f09_failures_of_whoever_asked_for_all_are_not_shared() {
    let town = town();
    for fault in [
        Fault::Status(503, Vec::new(), "busy".into()),
        Fault::Status(429, Vec::new(), "limit".into()),
        Fault::Status(302, vec![("Location".to_owned(), "/login".to_owned())], "".into()),
        Fault::Html,
        Fault::NoValidator,
        Fault::Aborted(100),
    ] {
        let proxy = Proxy::granting(town.address());
        town.fail(fault.clone(), Repeat::Times(1));
        let requests = ["alice", "bob", "erin", "carol"].map(|viewer| looks_at(&town, viewer, "nova", "size=32"));
        let answers = at_once(&proxy, &town, &requests).await;
        let shown = answers.iter().filter(|answer| answer.status == 200 && is_small(answer)).count();
        assert!(shown >= 3, "{shown} after {fault:?}");
        let again = join_all(requests.iter().map(|request| proxy.send(request))).await;
        assert!(again.iter().all(|answer| answer.status == 200 && is_small(answer)), "{fault:?}");
        town.clear_faults();
    }
}

/// Alice may see every picture, nobody else any; each has a validator.
async fn quick_upstream(picture: Vec<u8>) -> std::net::SocketAddr {
    let fields = [("Etag", "7"), ("Cache-Control", "max-age=86400, private"), ("Content-Type", "image/png")];
    keeping(move |seen| {
        let alices = seen.header("cookie").is_some_and(|cookie| cookie.contains(ALICES_TOKEN));
        match (alices, seen.header("if-none-match") == Some("7")) {
            (true, false) => kept_answer("200 OK", &fields, &picture),
            (true, true) => kept_answer("304 Not Modified", &fields[..2], b""),
            (false, _) => kept_answer(
                "403 Forbidden",
                &[("Content-Type", "application/json")],
                b"{\"id\":\"api.context.permissions.app_error\"}",
            ),
        }
    })
    .await
}

/// 10,000 by default; `AVATAR_PROXY_RACES` says how many.
#[actix_web::test]
async fn an_allowed_and_a_refused_caller_who_race_for_a_cold_picture_get_what_is_theirs() {
    let races = std::env::var("AVATAR_PROXY_RACES").map_or(10_000, |races| races.parse().expect("a number"));
    let upstream = quick_upstream(png(&solid(RED))).await;
    let proxy = Proxy::granting(upstream);
    let (mut alice, mut bob) = (Connection::to(proxy.address).await, Connection::to(proxy.address).await);
    for race in 0..races {
        let path = format!("/api/v4/users/{race:026}/image?size=32");
        let (alices, bobs) = (Request::get(&path).cookie(ALICES_TOKEN), Request::get(&path).cookie(BOBS_TOKEN));
        let (shown, refused) = if race % 2 == 0 {
            join(alice.send(&alices), bob.send(&bobs)).await
        } else {
            let (refused, shown) = join(bob.send(&bobs), alice.send(&alices)).await;
            (shown, refused)
        };
        assert_eq!((shown.status, refused.status), (200, 403), "race {race}");
        assert!(refused.header("etag").is_none() && refused.json()["id"] == "api.context.permissions.app_error");
        // Hers is kept by now, and his request is refused still.
        let late = bob.send(&bobs.header("If-None-Match", shown.header("etag").expect("a tag"))).await;
        assert_eq!(late.status, 403, "after race {race}");
    }
}
