//! What the clients that people use get for the requests they send today, and what it costs.

use crate::client::Request;
use crate::mattermost::{BROWSER, both, decoded, shows, town};
use crate::proxy::Proxy;
use avatar_proxy::demo::{Options, StandIn};

/// Name, `Accept`, `User-Agent`, whether it is sent WebP, and what the answer varies by.
type Client = (&'static str, Option<&'static str>, &'static str, bool, &'static str);

const CLIENTS: [Client; 8] = [
    ("Chrome", Some(BROWSER), "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0.0.0 Safari/537.36", true, "Accept"),
    (
        "Firefox",
        Some("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"),
        "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0",
        true,
        "Accept",
    ),
    (
        "Safari",
        Some("image/webp,image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5"),
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/18.5 Safari/605.1.15",
        true,
        "Accept",
    ),
    ("desktop", Some(BROWSER), "Mozilla/5.0 Chrome/140.0.0.0 Electron/38.1.0 Mattermost/6.0.0", true, "Accept"),
    (
        "iOS app",
        Some("image/*,*/*;q=0.8"),
        "Mattermost Mobile/2.43.0+700 (iOS; 18.6; iPhone)",
        true,
        "Accept, User-Agent",
    ),
    ("Android app", None, "Mattermost Mobile/2.43.0+700 (Android; 16; Pixel)", true, "Accept, User-Agent"),
    ("bot", Some("*/*"), "python-requests/2.32.4", false, "Accept, User-Agent"),
    ("script", None, "curl/8.14.1", false, "Accept, User-Agent"),
];

/// The request of a client that was never changed for the proxy.
fn stock(town: &StandIn, user: &str, (_, accept, agent, ..): Client) -> Request {
    let request = Request::picture_of(&town.id(user), "_=1700000000000").cookie(&town.token("bob"));
    let request = request.header("User-Agent", agent);
    if let Some(accept) = accept { request.accept(accept) } else { request }
}

#[actix_web::test]
async fn each_client_gets_the_best_that_it_is_known_to_show() {
    let town = town();
    let proxy = Proxy::before(town.address());
    for client @ (name, _, _, webp, vary) in CLIENTS {
        let (answer, original) = both(&proxy, &town, &stock(&town, "nova", client)).await;
        let kind = answer.header("content-type").expect("a type");
        let expected = if webp { &["image/webp"][..] } else { &["image/png", "image/jpeg"] };
        assert!(expected.contains(&kind), "{name}: {kind}");
        assert_eq!((answer.header("vary"), answer.dimensions()), (Some(vary), original.dimensions()), "{name}");
        assert!(shows(&answer, &decoded(&original.body)), "{name}");
        assert!(!webp || answer.body.len() * 3 < original.body.len(), "{name}: {}", answer.body.len());
    }
}

#[actix_web::test]
async fn nobody_is_sent_more_than_upstream_would_have_sent() {
    let town = town();
    let proxy = Proxy::before(town.address());
    for resident in Options::default().residents {
        for client @ (name, ..) in [CLIENTS[0], CLIENTS[6]] {
            let (answer, original) = both(&proxy, &town, &stock(&town, &resident.username, client)).await;
            let (sent, whole) = (answer.body.len(), original.body.len());
            assert_eq!((answer.status, answer.dimensions()), (200, original.dimensions()));
            assert!(sent <= whole, "{} for {name}: {sent} of {whole}", resident.username);
            assert!(shows(&answer, &decoded(&original.body)), "{} for {name}", resident.username);
        }
    }
}
