//! Many who ask at once: the picture is fetched, decoded and rendered once, and each of them has been told by upstream
//! that they may see it.

use crate::client::{Answer, Request};
use crate::mattermost::{BROWSER, Work, looks_at, town, work};
use crate::pictures::{photo, png};
use crate::proxy::Proxy;
use avatar_proxy::demo::{Options, StandIn};
use futures_util::future::{join, join_all};

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
