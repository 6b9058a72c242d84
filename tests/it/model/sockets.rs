//! The whole proxy: clients on kept connections, and all that they do goes through it, as far as it is told. What would
//! happen if it were careless is seen by not telling it: then what it should have heeded goes straight to upstream.

use super::{
    ACTORS, HOST, Look, Mistake, PICTURES, Pace, Promises, REFUSAL, Room, Session, Steps, USERS, VIEWERS, World,
    default_of, id, locked, own, serve, stamp_of, steps, token, version_of,
};
use crate::client::{Answer, Connection, Request};
use crate::dice::Dice;
use crate::proxy::Proxy;
use avatar_proxy::config::ByteSize;
use futures_util::future::join_all;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Pixels a side, of which a smaller picture can be made.
const EDGE: u32 = 32;
/// Short, so that grants end by time too.
const TTL: Duration = Duration::from_millis(50);
/// So long that no grant ends by its time before something else has to end it.
const LONG: Duration = Duration::from_secs(20);
/// Somebody who may do anything, and is somebody else each time: what one token may end in a minute is bounded.
const ADMIN: usize = 99;

const LEARNED: &str = "avatar_proxy_lessons_total{outcome=\"learned\"}";
const EVICTED: &str = "avatar_proxy_cache_evictions_total{cache=\"sources\"}";

struct Stage {
    world: Arc<Mutex<World>>,
    upstream: SocketAddr,
    proxy: Proxy,
    room: Room,
    mistake: Mistake,
    /// How long the checker believes that a grant lasts.
    believed_ttl: Duration,
    promises: Promises,
    admins: Cell<usize>,
    /// Which picture each tag of ours stands for.
    tags: RefCell<HashMap<String, usize>>,
    seen: RefCell<Seen>,
}

/// How a look was put.
#[derive(Clone, Copy)]
struct Manner {
    of_me: bool,
    conditional: bool,
    only_head: bool,
}

/// How many looks came to what.
#[derive(Default, Debug)]
struct Seen {
    asked: usize,
    remembered: usize,
    not_modified: usize,
    heads: usize,
    defaults: usize,
    own: usize,
    refused: usize,
    unknown: usize,
}

/// Who acts, and the connections on which.
struct Actor {
    dice: Dice,
    to_proxy: Connection,
    to_upstream: Connection,
}

impl Actor {
    async fn sends(&mut self, request: &Request, through_proxy: bool) -> Answer {
        if through_proxy { self.to_proxy.send(request).await } else { self.to_upstream.send(request).await }
    }
}

impl Stage {
    fn new(room: Room, mistake: Mistake, ttl: Duration, believed_ttl: Duration) -> Self {
        let world = Arc::new(Mutex::new(World::new(EDGE)));
        let upstream = serve(world.clone(), Pace::Dawdling);
        let proxy = Proxy::with(upstream, |config| {
            config.grants.ttl = ttl;
            let bytes = ByteSize::new(room.bytes());
            (config.cache.sources, config.cache.variants, config.cache.pixels) = (bytes, bytes, bytes);
        });
        Self {
            world,
            upstream,
            proxy,
            room,
            mistake,
            believed_ttl,
            promises: Promises::new(),
            admins: Cell::default(),
            tags: RefCell::default(),
            seen: RefCell::default(),
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        locked(&self.world)
    }

    /// Lets the actors take so many steps in all; the first violation, if there is one.
    async fn run(&self, steps: usize, seed: u64) -> Result<(), String> {
        let steps = Steps::new(steps);
        join_all((0..ACTORS).map(async |actor| {
            let mut actor = Actor {
                dice: Dice::seeded(seed + u64::try_from(actor).expect("few")),
                to_proxy: Connection::to(self.proxy.address).await,
                to_upstream: Connection::to(self.upstream).await,
            };
            while steps.go_on() {
                steps.take_down(self.step(&mut actor).await);
            }
        }))
        .await;
        steps.verdict()
    }

    /// One step of one actor.
    async fn step(&self, actor: &mut Actor) -> Result<(), String> {
        let (viewer, user) = (actor.dice.roll(VIEWERS), actor.dice.roll(USERS));
        match actor.dice.roll(100) {
            0 => self.world().sees[viewer][user] ^= true,
            1..=2 => self.world().sees[viewer][user] = true,
            3 => self.leave(actor, viewer, user).await?,
            4 => self.log_out(actor, viewer).await?,
            5 => self.world().sessions[viewer] = usize::MAX,
            6..=8 => self.upload(actor, user).await?,
            9 => self.rename(actor, user).await?,
            10 => self.world().change(user, actor.dice.roll(PICTURES)),
            11 => self.world().change(default_of(user), actor.dice.roll(PICTURES)),
            12..=16 => self.list(actor, viewer).await?,
            _ => return self.look(actor, viewer, user).await,
        }
        self.promises.sign_in_again(viewer, &mut self.world());
        Ok(())
    }

    fn admin(&self) -> Session {
        self.admins.set(self.admins.get() + 1);
        (ADMIN, self.admins.get())
    }

    /// A viewer leaves the team in which they saw a user.
    async fn leave(&self, actor: &mut Actor, viewer: usize, user: usize) -> Result<(), String> {
        let sent = Instant::now();
        let target = format!("/api/v4/teams/{}/members/{}", id(user), id(viewer));
        let request = by(self.admin(), Request::new("DELETE", &target));
        let answer = actor.sends(&request, self.mistake != Mistake::Lenient).await;
        expect_one_of(&answer, &[200])?;
        let ended = &self.promises.rights_ended;
        ended.set(ended.get().max(sent));
        Ok(())
    }

    async fn log_out(&self, actor: &mut Actor, viewer: usize) -> Result<(), String> {
        let session = self.promises.session(viewer);
        let request = by(session, Request::new("POST", "/api/v4/users/logout"));
        if self.mistake == Mistake::Unending {
            // Upstream may hang up, and the client that is not told of that is not part of the stage.
            self.world().sessions[viewer] = usize::MAX;
        } else {
            expect_one_of(&actor.sends(&request, true).await, &[200, 401, 502])?;
        }
        self.promises.is_over(session, Instant::now());
        Ok(())
    }

    async fn upload(&self, actor: &mut Actor, user: usize) -> Result<(), String> {
        let method = actor.dice.pick(&["POST", "DELETE"]);
        let request = Request::new(method, &format!("/api/v4/users/{}/image", id(user)));
        self.change(actor, user, request).await
    }

    /// The default picture shows the name.
    async fn rename(&self, actor: &mut Actor, user: usize) -> Result<(), String> {
        let request = Request::new("PUT", &format!("/api/v4/users/{}/patch", id(user)));
        self.change(actor, default_of(user), request).await
    }

    async fn change(&self, actor: &mut Actor, subject: usize, request: Request) -> Result<(), String> {
        let before = self.world().newest(subject);
        if self.mistake == Mistake::Forgetful {
            let picture = actor.dice.roll(PICTURES);
            self.world().change(subject, picture);
        } else {
            let answer = actor.sends(&by(self.admin(), request), true).await;
            expect_one_of(&answer, &[200, 502])?;
        }
        // Whichever came first, this change was no earlier.
        self.promises.has_at_least(subject, before + 1);
        Ok(())
    }

    /// A list of users, whose answer teaches.
    async fn list(&self, actor: &mut Actor, viewer: usize) -> Result<(), String> {
        let request = self.as_seen_by_proxy(self.promises.session(viewer), Request::get("/api/v4/users?per_page=200"));
        expect_one_of(&actor.sends(&request, true).await, &[200, 401])
    }

    fn as_seen_by_proxy(&self, session: Session, request: Request) -> Request {
        by(if self.mistake == Mistake::OneCallerForAll { self.promises.session(0) } else { session }, request)
    }

    async fn look(&self, actor: &mut Actor, viewer: usize, user: usize) -> Result<(), String> {
        let dice = &mut actor.dice;
        // Sometimes with the session before.
        let now = self.promises.session(viewer);
        let session = if dice.roll(12) == 0 { (viewer, now.1.saturating_sub(1)) } else { now };
        let (subject, path, of_me) = match dice.roll(20) {
            0 => (own(viewer), "me/image".to_owned(), true),
            1..=3 => (default_of(user), format!("{}/image/default", id(user)), false),
            _ => (user, format!("{}/image", id(user)), false),
        };
        let method = if dice.roll(8) == 0 { "HEAD" } else { "GET" };
        let size = dice.pick(&["", "size=16&format=png&", "format=original&"]);
        let news = if dice.roll(10) == 0 { stamp_of(self.world().newest(subject)) } else { 0 };
        let mut request = Request::new(method, &format!("/api/v4/users/{path}?{size}_={news}"));
        let condition = self.condition(subject, dice);
        if let Some(condition) = &condition {
            request = request.header("If-None-Match", condition);
        }
        let field = dice.pick(&[("Cache-Control", "no-cache"), ("Origin", "https://elsewhere.example")]);
        let must_ask = dice.roll(20) == 0;
        if must_ask {
            request = request.header(field.0, field.1);
        }
        let ttl = if must_ask || of_me { Duration::ZERO } else { self.believed_ttl };
        let mut look = self.promises.look(session, subject, ttl);
        let answer = actor.to_proxy.send(&self.as_seen_by_proxy(session, request)).await;
        self.promises.look_is_over(&mut look, self.room);
        let manner = Manner { of_me, conditional: condition.is_some(), only_head: method == "HEAD" };
        self.check(&look, &answer, manner).map_err(|why| {
            let Answer { status, headers, .. } = &answer;
            let asked = format!("{method} {path}?{size}_={news}, condition {condition:?}, must ask: {must_ask}");
            format!("{why} ({asked}; {status} {headers:?})")
        })?;
        let mut seen = self.seen.borrow_mut();
        seen.heads += usize::from(method == "HEAD" && answer.status == 200);
        seen.defaults += usize::from(subject >= USERS && answer.status == 200);
        seen.own += usize::from(of_me && answer.status == 200);
        Ok(())
    }

    /// What a client says that it has.
    fn condition(&self, subject: usize, dice: &mut Dice) -> Option<String> {
        match dice.roll(10) {
            0 => Some("*".to_owned()),
            1 => Some(stamp_of(self.world().newest(subject)).to_string()),
            2 | 3 => {
                let mut tags = self.tags.borrow().keys().cloned().collect::<Vec<_>>();
                tags.sort_unstable();
                (!tags.is_empty()).then(|| tags[dice.roll(tags.len())].clone())
            }
            _ => None,
        }
    }

    fn check(&self, look: &Look, answer: &Answer, manner: Manner) -> Result<(), String> {
        let (ended, Manner { of_me, conditional, only_head }) = (Instant::now(), manner);
        let (world, mut seen) = (self.world(), self.seen.borrow_mut());
        match answer.status {
            200 | 304 if answer.status == 200 || conditional => {
                let from_memory = answer.header("age").is_some();
                *(if from_memory { &mut seen.remembered } else { &mut seen.asked }) += 1;
                seen.not_modified += usize::from(answer.status == 304);
                world.allowed(look, ended)?;
                let tag = answer.header("etag").ok_or("a picture without a tag")?;
                if only_head || answer.status == 304 {
                    self.was_named(&world, look, tag)
                } else {
                    self.was_shown(&world, look, tag, answer)
                }
            }
            401 | 403 => {
                *(if answer.status == 401 { &mut seen.unknown } else { &mut seen.refused }) += 1;
                let said = world.refused(look, ended)?;
                match answer.status {
                    401 => self.promises.is_over(look.session, said),
                    // Whom `me` means is between the caller and upstream.
                    _ if of_me => {}
                    _ => self.promises.was_refused(look, said),
                }
                let tells = answer.header("etag").is_some() || !(only_head || answer.body == REFUSAL);
                if tells { Err(format!("a refusal that tells something: {answer:?}")) } else { Ok(()) }
            }
            other => Err(format!("nobody said {other}: {answer:?}")),
        }
    }

    /// A picture was shown, under a tag that stands for it alone.
    fn was_shown(&self, world: &World, look: &Look, tag: &str, answer: &Answer) -> Result<(), String> {
        let shown = world.named(&answer.body).ok_or("bytes that are no picture")?;
        world.had(look, Some(shown))?;
        let stands_for = if tag.starts_with('"') {
            *self.tags.borrow_mut().entry(tag.to_owned()).or_insert(shown)
        } else {
            world.versions[look.subject][version_of(tag)].0
        };
        if stands_for == shown { Ok(()) } else { Err(format!("{tag} stands for two pictures")) }
    }

    /// A picture was named by its tag alone.
    fn was_named(&self, world: &World, look: &Look, tag: &str) -> Result<(), String> {
        if tag.starts_with('"') {
            // What nobody has been shown yet cannot be told.
            return self.tags.borrow().get(tag).map_or(Ok(()), |picture| world.had(look, Some(*picture)));
        }
        let version = version_of(tag);
        let could_be = world.current(look).any(|current| current == version);
        if could_be { Ok(()) } else { world.had(look, None).map_err(|why| format!("{why}; named: {version}")) }
    }
}

/// The sessions of a viewer are browsers' and the apps' in turn.
fn by(session: Session, request: Request) -> Request {
    let request = request.header("Host", HOST);
    if session.1.is_multiple_of(2) { request.bearer(&token(session)) } else { request.cookie(&token(session)) }
}

fn expect_one_of(answer: &Answer, statuses: &[u16]) -> Result<(), String> {
    if statuses.contains(&answer.status) { Ok(()) } else { Err(format!("none of {statuses:?}: {answer:?}")) }
}

async fn nobody_is_shown_what_upstream_did_not_show_them(room: Room) {
    let stage = Stage::new(room, Mistake::None, TTL, TTL);
    let (began, steps) = (Instant::now(), steps(12_000) / 2);
    let ran = stage.run(steps, 4711).await;
    let (seen, longest) = (stage.seen.take(), stage.promises.longest.get());
    println!("{room:?}, {steps} steps in {:?}, the longest {longest:?}: {seen:?}", began.elapsed());
    assert_eq!(ran, Ok(()));
    // Each kind of answer was there, or nothing has been shown.
    let Seen { asked, remembered, not_modified, heads, defaults, own, refused, unknown } = seen;
    let counts = [asked, remembered, not_modified, heads, defaults, own, refused, unknown];
    assert!(counts.iter().all(|count| *count > 20), "{seen:?}");
    assert!(stage.proxy.metric(LEARNED).await > 20);
    assert!(room == Room::Ample || stage.proxy.metric(EVICTED).await > 20);
}

#[actix_web::test]
async fn whatever_happens_no_client_is_shown_what_upstream_did_not_show_them() {
    nobody_is_shown_what_upstream_did_not_show_them(Room::Ample).await;
}

#[actix_web::test]
async fn and_neither_is_one_when_most_is_let_go_at_once() {
    nobody_is_shown_what_upstream_did_not_show_them(Room::Cramped).await;
}

#[actix_web::test]
async fn the_model_finds_a_proxy_that_is_not_told() {
    let run = async |mistake| Stage::new(Room::Ample, mistake, LONG, LONG).run(10_000, 4711).await;
    assert_eq!(run(Mistake::None).await, Ok(()), "grants that last are no mistake");
    for mistake in [Mistake::OneCallerForAll, Mistake::Forgetful, Mistake::Lenient, Mistake::Unending] {
        let found = run(mistake).await.expect_err("a mistake");
        println!("{mistake:?}: {found}");
    }
}

#[actix_web::test]
async fn the_model_finds_grants_that_last_too_long() {
    let found = Stage::new(Room::Ample, Mistake::None, LONG, TTL).run(10_000, 4711).await;
    println!("{}", found.expect_err("grants that last too long"));
}
