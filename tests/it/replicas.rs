//! Several proxies before one Mattermost, and one that is started anew: a tag names the same bytes everywhere, so a
//! client may meet any of them.

use crate::mattermost::{looks_at, town};
use crate::proxy::Proxy;

const USERS: [&str; 5] = ["nova", "alice", "erin", "frank", "ines"];
const QUERIES: [&str; 7] = [
    "",
    "size=32",
    "size=64&format=webp",
    "size=48&format=png",
    "size=40&format=jpeg&bg=ff8800",
    "w=64&h=24",
    "s=32&q=50",
];

#[actix_web::test]
async fn any_proxy_knows_what_another_gave() {
    let town = town();
    let (one, other) = (Proxy::before(town.address()), Proxy::before(town.address()));
    let mut given = Vec::new();
    for user in USERS {
        for query in QUERIES {
            let request = looks_at(&town, "bob", user, query);
            let answer = one.send(&request).await;
            let tag = answer.header("etag").expect("a tag").to_owned();
            assert_eq!(other.send(&request.clone().header("If-None-Match", &tag)).await.status, 304, "{user} {query}");
            given.push((request, tag, answer.body));
        }
    }
    drop(one);

    let restarted = Proxy::before(town.address());

    for (request, tag, body) in &given {
        for proxy in [&restarted, &other] {
            let answer = proxy.send(request).await;
            assert_eq!((answer.header("etag"), &answer.body), (Some(&**tag), body), "{request:?}");
        }
    }
    for (_, tag, body) in &given {
        assert!(given.iter().all(|(_, other, bytes)| (tag == other) == (body == bytes)), "{tag} names one thing");
    }
}
