//! Who may see whom changes all day: at every moment the proxy shows a picture to those whom Mattermost would show it,
//! and to nobody else, whatever was fetched for whom before and whatever tags a caller has heard of.

use crate::client::{Answer, Request};
use crate::dice::Dice;
use crate::mattermost::{BROWSER, decoded, picture_path, shows, town};
use crate::proxy::Proxy;
use avatar_proxy::demo::StandIn;
use std::collections::BTreeSet;

const VIEWERS: [&str; 5] = ["mmadmin", "alice", "gus", "mallory", "robo"];
const TARGETS: [&str; 4] = ["nova", "bob", "carol", "robo"];
const QUERIES: [&str; 4] = ["", "?size=32", "?size=64&format=png", "?format=original"];

/// The viewers with the token each holds, which may have ended.
struct Callers<'a> {
    town: &'a StandIn,
    tokens: Vec<String>,
}

impl Callers<'_> {
    /// Something that changes who may see whom.
    fn change(&mut self, dice: &mut Dice) {
        let viewer = dice.roll(VIEWERS.len());
        let (name, target) = (VIEWERS[viewer], dice.pick(&TARGETS));
        match dice.roll(4) {
            0 => self.town.allow(name, target),
            1 => self.town.deny(name, target),
            2 => self.town.revoke(&self.tokens[viewer]),
            _ => self.tokens[viewer] = self.town.sign_in(name).token,
        }
    }
}

/// What a caller who wants to find out more than they are told may send.
fn condition(dice: &mut Dice, tags: &BTreeSet<String>) -> Option<String> {
    let quoted = tags.iter().filter(|tag| tag.starts_with('"')).cloned().collect::<Vec<_>>();
    let bare = tags.iter().filter(|tag| !tag.starts_with('"')).collect::<Vec<_>>();
    match dice.roll(4) {
        0 if !quoted.is_empty() => Some(quoted.join(", ")),
        1 if !bare.is_empty() => Some(dice.pick(&bare).clone()),
        2 => Some("*".to_owned()),
        _ => None,
    }
}

#[actix_web::test]
async fn a_picture_is_shown_only_while_upstream_allows_it() {
    let town = town();
    let proxy = Proxy::before(town.address());
    let mut dice = Dice::seeded(4);
    let mut callers = Callers { town: &town, tokens: VIEWERS.map(|viewer| town.token(viewer)).to_vec() };
    let (mut tags, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for step in 0..1500 {
        if dice.roll(4) == 0 {
            callers.change(&mut dice);
        }
        let (method, query) = (dice.pick(&["GET", "GET", "HEAD"]), dice.pick(&QUERIES));
        let (token, path) =
            (callers.tokens[dice.roll(VIEWERS.len())].clone(), picture_path(&town, dice.pick(&TARGETS)));
        let condition = condition(&mut dice, &tags);
        let direct = Request::get(&path).bearer(&token).send(town.address()).await;
        let mut request = Request::new(method, &format!("{path}{query}")).accept(BROWSER);
        request = if dice.roll(2) == 0 { request.bearer(&token) } else { request.cookie(&token) };
        if let Some(condition) = &condition {
            request = request.header("If-None-Match", condition);
        }

        let answer = proxy.send(&request).await;

        seen.insert(answer.status);
        tags.extend(answer.header("etag").map(str::to_owned));
        let said = format!("step {step}: {} for {request:?}, {} directly", answer.status, direct.status);
        if direct.status == 200 {
            assert!(answer.status == 200 || (answer.status == 304 && condition.is_some()), "{said}");
            assert!(answer.body.is_empty() || shows(&answer, &decoded(&direct.body)), "{said}");
            assert_eq!(answer.body.is_empty(), answer.status == 304 || method == "HEAD", "{said}");
        } else {
            assert!(refuses_alike(&answer, &direct, method), "{said}");
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [200, 304, 401, 403]);
}

/// Whether a refusal is Mattermost's own, and tells nothing of the picture.
fn refuses_alike(answer: &Answer, direct: &Answer, method: &str) -> bool {
    let tells_nothing = answer.header("etag").is_none() && answer.header("content-security-policy").is_none();
    let same_words = method == "HEAD" || answer.json()["id"] == direct.json()["id"];
    answer.status == direct.status && tells_nothing && same_words
}
