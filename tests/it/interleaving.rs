//! F45: pictures, rights and sessions change while they are read. A read begun after a change was answered sees the
//! change; one that was under way sees what was before or what came after, and nothing else.

use crate::client::{Answer, Request};
use crate::dice::Dice;
use crate::mattermost::{BROWSER, Sketch, decoded, looks_at, picture_path, portrait, town, uploads};
use crate::pictures::png;
use crate::proxy::Proxy;
use avatar_proxy::config::ByteSize;
use avatar_proxy::demo::StandIn;
use futures_util::future::{join, join_all};
use std::cell::Cell;

const VIEWERS: [&str; 4] = ["alice", "erin", "gus", "mallory"];
const TARGETS: [&str; 3] = ["nova", "bob", "carol"];
const QUERIES: [&str; 5] = ["", "size=32", "size=24", "size=48&format=jpeg", "format=original"];

/// Room for a few of the pictures only.
fn cramped(town: &StandIn) -> Proxy {
    Proxy::with(town.address(), |config| {
        config.cache.sources = ByteSize::new(12 << 10);
        config.cache.variants = ByteSize::new(8 << 10);
        config.cache.pixels = ByteSize::new(128 << 10);
    })
}

#[actix_web::test]
async fn f45_a_read_begun_after_a_write_was_answered_shows_what_was_written() {
    let town = town();
    let proxy = Proxy::before(town.address());
    let pictures = (0..40).map(portrait).collect::<Vec<_>>();
    let versions = pictures.iter().map(Sketch::of).collect::<Vec<_>>();
    proxy.send(&uploads(&town, "alice", &pictures[0])).await;
    let (begun, answered) = (Cell::new(0), Cell::new(0));
    let writes = async {
        for (version, picture) in pictures.iter().enumerate().skip(1) {
            begun.set(version);
            assert_eq!(proxy.send(&uploads(&town, "alice", picture)).await.status, 200);
            answered.set(version);
        }
    };
    let reads = ["bob", "erin", "alice", "mmadmin", "bob"].iter().zip(QUERIES).map(async |(viewer, query)| {
        while answered.get() + 1 < versions.len() {
            let oldest = answered.get();
            let answer = proxy.send(&looks_at(&town, viewer, "alice", query)).await;
            let newest = begun.get();
            let current = versions[oldest..=newest].iter().any(|version| version.is_shown_by(&answer));
            assert!(current, "{viewer} {query}: not one of {oldest} to {newest}");
        }
    });
    join(writes, join_all(reads)).await;
}

/// What upstream shows whom at a moment.
#[derive(Clone)]
struct Moment {
    /// For each target what may be seen of them: mostly one picture. Under the tag of a lost file upstream knows the old
    /// picture still, and shows another to who has none.
    pictures: [Vec<Sketch>; 3],
    sees: [[bool; 3]; 4],
    tokens: [String; 4],
    signed_in: [bool; 4],
}

/// Who looks at whom, and how.
#[derive(Clone, Copy, Debug)]
struct Look {
    viewer: usize,
    target: usize,
    query: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Upload(u32),
    Reset,
    /// As a plugin does it: no request passes the proxy.
    Show(u32),
    LoseFile,
    Allow(usize),
    Deny(usize),
    Revoke(usize),
}

impl Change {
    fn drawn(dice: &mut Dice) -> Self {
        let (picture, viewer) = (u32::try_from(dice.roll(12)).expect("few"), dice.roll(VIEWERS.len()));
        match dice.roll(9) {
            0..=2 => Self::Upload(picture),
            3 => Self::Reset,
            4 => Self::Show(picture),
            5 => Self::LoseFile,
            6 => Self::Allow(viewer),
            7 => Self::Deny(viewer),
            _ => Self::Revoke(viewer),
        }
    }

    async fn happen(self, proxy: &Proxy, town: &StandIn, target: &str, now: &Moment) {
        match self {
            Self::Upload(n) => {
                assert_eq!(proxy.send(&uploads(town, target, &portrait(n))).await.status, 200);
            }
            Self::Reset => {
                let reset = Request::new("DELETE", &picture_path(town, target)).bearer(&town.token(target));
                assert_eq!(proxy.send(&reset).await.status, 200);
            }
            Self::Show(n) => town.show(target, png(&portrait(n))),
            Self::LoseFile => town.lose_file(target),
            Self::Allow(viewer) => town.allow(VIEWERS[viewer], target),
            Self::Deny(viewer) => town.deny(VIEWERS[viewer], target),
            Self::Revoke(viewer) => town.revoke(&now.tokens[viewer]),
        }
    }
}

impl Moment {
    async fn first(town: &StandIn) -> Self {
        let mut first = Self {
            pictures: [const { Vec::new() }; 3],
            sees: [[true; 3], [true; 3], [false; 3], [false; 3]],
            tokens: VIEWERS.map(|viewer| town.token(viewer)),
            signed_in: [true; 4],
        };
        for (target, name) in TARGETS.iter().enumerate() {
            first.pictures[target].push(direct(town, name).await);
        }
        first
    }

    async fn after(&self, town: &StandIn, change: Change, target: usize) -> Self {
        let mut after = self.clone();
        match change {
            Change::Upload(_) | Change::Reset | Change::Show(_) => {
                after.pictures[target] = vec![direct(town, TARGETS[target]).await];
            }
            Change::LoseFile => after.pictures[target].push(direct(town, TARGETS[target]).await),
            Change::Allow(viewer) => after.sees[viewer][target] = true,
            Change::Deny(viewer) => after.sees[viewer][target] = false,
            Change::Revoke(viewer) => after.signed_in[viewer] = false,
        }
        after
    }

    fn request(&self, town: &StandIn, look: Look) -> Request {
        let request = Request::picture_of(&town.id(TARGETS[look.target]), look.query).accept(BROWSER);
        request.bearer(&self.tokens[look.viewer])
    }

    /// Whether the answer is right if the look was cast at this moment.
    fn explains(&self, look: Look, answer: &Answer) -> bool {
        match (self.signed_in[look.viewer], self.sees[look.viewer][look.target]) {
            (false, _) => answer.status == 401,
            (true, false) => answer.status == 403,
            (true, true) => {
                answer.status == 200 && self.pictures[look.target].iter().any(|picture| picture.is_shown_by(answer))
            }
        }
    }
}

/// What upstream itself shows of a user now.
async fn direct(town: &StandIn, user: &str) -> Sketch {
    let shown = Request::get(&picture_path(town, user)).bearer(&town.token("mmadmin")).send(town.address()).await;
    Sketch::of(&decoded(&shown.body))
}

fn looks(dice: &mut Dice, target: usize) -> [Look; 3] {
    [(); 3].map(|()| Look { viewer: dice.roll(VIEWERS.len()), target, query: dice.pick(&QUERIES) })
}

#[actix_web::test]
async fn f45_thousands_of_random_steps_show_nobody_anything_but_the_picture_of_the_moment() {
    let town = town();
    let proxy = cramped(&town);
    let mut dice = Dice::seeded(45);
    let mut now = Moment::first(&town).await;
    for step in 0..300 {
        let (change, target) = (Change::drawn(&mut dice), dice.roll(TARGETS.len()));
        let said = format!("step {step}: {change:?} of {}", TARGETS[target]);
        let meanwhile = looks(&mut dice, target);
        let reads = join_all(
            meanwhile.map(|look| now.request(&town, look)).into_iter().map(async |request| proxy.send(&request).await),
        );
        let ((), read) = join(change.happen(&proxy, &town, TARGETS[target], &now), reads).await;
        let mut after = now.after(&town, change, target).await;
        for (look, answer) in meanwhile.into_iter().zip(&read) {
            let explained = now.explains(look, answer) || after.explains(look, answer);
            assert!(explained, "{said}: {} for {look:?} meanwhile", answer.status);
        }
        for look in looks(&mut dice, target) {
            let answer = proxy.send(&after.request(&town, look)).await;
            assert!(after.explains(look, &answer), "{said}: {} for {look:?} after it", answer.status);
        }
        if let Change::Revoke(viewer) = change {
            after.tokens[viewer] = town.sign_in(VIEWERS[viewer]).token;
            after.signed_in[viewer] = true;
        }
        now = after;
    }
    let evicted =
        ["sources", "variants"].map(|cache| format!("avatar_proxy_cache_evictions_total{{cache=\"{cache}\"}}"));
    for name in evicted {
        assert!(proxy.metric(&name).await > 0, "{name}");
    }
}
