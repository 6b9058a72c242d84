//! The model test of "no leak": what is shown to whom while rights, sessions and pictures change at random, held against
//! a record of everything that upstream said. It stands on `Avatars` itself: a million steps over real sockets to the
//! proxy would take too long, and those to upstream are real.
//!
//! `AVATAR_PROXY_STEPS` says how many steps.

use crate::dice::Dice;
use crate::pictures::png;
use avatar_proxy::avatar::{self, AvatarRequest, Avatars, PictureBody, Served, Wish, render_pool};
use avatar_proxy::cache;
use avatar_proxy::cache::grants;
use avatar_proxy::caller::{Caller, CallerKey, Credentials};
use avatar_proxy::identity::{ObjectId, PictureId, PictureKind, Site};
use avatar_proxy::render::Limits;
use avatar_proxy::telemetry::Telemetry;
use avatar_proxy::upstream::{self, Gateway, PictureRequest, Upstream};
use avatar_proxy::variant::negotiation::OfferKind;
use avatar_proxy::variant::transform::{Sizes, Transform};
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{self, HeaderMap, HeaderValue};
use image::{Rgb, RgbImage};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const VIEWERS: usize = 6;
const USERS: usize = 5;
/// Who act at the same time.
const ACTORS: usize = 8;
/// As many pictures as there are: each is many a version, of more than one user.
const PICTURES: usize = 40;
/// Short, so that grants end by time too.
const TTL: Duration = Duration::from_millis(25);
/// No request takes longer, and what is older explains nothing any more.
const REMEMBERED: Duration = Duration::from_secs(30);
const HOST: &str = "chat.example";

/// A set of credentials: a viewer, and how many sessions they have had before.
type Session = (usize, usize);

fn token((viewer, session): Session) -> String {
    format!("{viewer:02}{session:024}")
}

/// What upstream would say, and all that it has said.
struct World {
    pictures: Vec<Bytes>,
    sees: [[bool; USERS]; VIEWERS],
    sessions: [usize; VIEWERS],
    /// For each user, the pictures and when each was replaced.
    versions: [Vec<(usize, Option<Instant>)>; USERS],
    said: Record,
}

/// What upstream has said about whom to whom, and when.
#[derive(Default)]
struct Record {
    yes: HashMap<(Session, usize), VecDeque<Instant>>,
    no: HashMap<(Session, usize), VecDeque<Instant>>,
}

impl Record {
    fn note(said: &mut HashMap<(Session, usize), VecDeque<Instant>>, pair: (Session, usize)) {
        let (times, now) = (said.entry(pair).or_default(), Instant::now());
        while times.front().is_some_and(|first| now.duration_since(*first) > REMEMBERED) {
            times.pop_front();
        }
        times.push_back(now);
    }

    fn within(
        said: &HashMap<(Session, usize), VecDeque<Instant>>,
        pair: (Session, usize),
        from: Instant,
        to: Instant,
    ) -> Option<Instant> {
        said.get(&pair)?.iter().copied().find(|time| (from..=to).contains(time))
    }
}

impl World {
    fn new() -> Self {
        let colour = |n: usize| u8::try_from(n * 6).expect("below 256");
        let picture = |n| png(&RgbImage::from_pixel(4, 4, Rgb([colour(n), 255 - colour(n), 90]))).into();
        Self {
            pictures: (0..PICTURES).map(picture).collect(),
            sees: [[true; USERS]; VIEWERS],
            sessions: [0; VIEWERS],
            versions: [(); USERS].map(|()| vec![(0, None)]),
            said: Record::default(),
        }
    }

    fn change(&mut self, user: usize, picture: usize) {
        let last = self.versions[user].last_mut().expect("there is a first");
        last.1 = Some(Instant::now());
        self.versions[user].push((picture, None));
    }

    fn newest(&self, user: usize) -> usize {
        self.versions[user].len() - 1
    }

    /// What a request for a picture is answered with; 304 where it has the version.
    fn answer(&mut self, (viewer, session): Session, user: usize, known: Option<usize>) -> Vec<u8> {
        let pair = ((viewer, session), user);
        let status = if self.sessions[viewer] != session {
            "401 Unauthorized"
        } else if !self.sees[viewer][user] {
            "403 Forbidden"
        } else {
            Record::note(&mut self.said.yes, pair);
            let newest = self.newest(user);
            let fields = format!("Etag: {}\r\nCache-Control: max-age=86400, private", stamp_of(newest));
            if known == Some(newest) {
                return format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n\r\n").into_bytes();
            }
            let body = &self.pictures[self.versions[user][newest].0];
            let length = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n{fields}\r\nContent-Length: {length}\r\n\r\n");
            return [head.as_bytes(), body].concat();
        };
        Record::note(&mut self.said.no, pair);
        format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}").into_bytes()
    }
}

/// The validator of a version: the same for many users.
fn stamp_of(version: usize) -> i64 {
    1000 + i64::try_from(version).expect("few")
}

/// Answers on a thread of its own until the test ends.
fn serve(world: Arc<Mutex<World>>) -> std::net::SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            tell.send(listener.local_addr().expect("bound")).expect("the test waits");
            while let Ok((stream, _)) = listener.accept().await {
                actix_web::rt::spawn(answer_all(stream, world.clone()));
            }
        });
    });
    told.recv().expect("it starts")
}

async fn answer_all(mut stream: TcpStream, world: Arc<Mutex<World>>) {
    let _ = stream.set_nodelay(true);
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        head.extend_from_slice(&buffer[..read]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&head);
        let after = |name: &str| Some(text.split_once(name)?.1.split(['\r', '/', ' ']).next().expect("a first part"));
        let token = after("Bearer ").expect("a token");
        let session = (number(&token[..2]), number(&token[2..]));
        let user = number(after("/users/").expect("a user"));
        let known = after("if-none-match: ").map(|stamp| number(stamp) - 1000);
        let answer = world.lock().expect("never poisoned").answer(session, user, known);
        if stream.write_all(&answer).await.is_err() {
            return;
        }
        head.clear();
    }
}

fn number(digits: &str) -> usize {
    digits.parse().expect("digits")
}

/// A look at a picture, as it was seen from outside.
struct Look {
    session: Session,
    user: usize,
    began: Instant,
    /// Nothing that upstream said before this may be relied upon: since then the session, all rights or this one ended.
    not_before: Instant,
    /// The version that a change through us, or news of one, had brought when the look began.
    at_least: usize,
}

impl World {
    /// Whether upstream said yes to this very session while a grant of that lasts.
    fn allowed(&self, look: &Look, ended: Instant) -> Result<(), String> {
        let pair = (look.session, look.user);
        let since = look.grants_since().max(look.not_before);
        let said = Record::within(&self.said.yes, pair, since, ended);
        said.map(|_| ()).ok_or_else(|| format!("upstream said yes to {pair:?} at no time that counts"))
    }

    /// Whether the user had this picture while a grant that shows it lasts.
    fn had(&self, look: &Look, shown: &[u8]) -> Result<(), String> {
        let since = look.grants_since();
        let versions = self.versions[look.user].iter().enumerate().rev();
        let could_be = versions
            .take_while(|(n, (_, replaced))| *n >= look.at_least && replaced.is_none_or(|replaced| replaced >= since))
            .any(|(_, (picture, _))| self.pictures[*picture] == shown);
        could_be.then_some(()).ok_or_else(|| format!("{:?} was shown what {} had no longer", look.session, look.user))
    }
}

impl Look {
    /// When the oldest grant was asked for that may have been used.
    fn grants_since(&self) -> Instant {
        self.began.checked_sub(TTL).expect("the machine is older")
    }
}

/// How much room there is for pictures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Room {
    /// For all of them.
    Ample,
    /// For a few. News of a picture that was let go while it was being asked about reach nobody: then its change is seen
    /// within the time of a grant.
    Cramped,
}

/// Mistakes of a careless proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mistake {
    None,
    /// Whoever asks is one and the same.
    OneCallerForAll,
    /// What is changed through us is not forgotten.
    Forgetful,
    /// Rights that end through us end nothing.
    Lenient,
    /// A logout ends nothing.
    Unending,
}

struct Stage {
    world: Arc<Mutex<World>>,
    upstream: Upstream,
    avatars: Avatars,
    key: CallerKey,
    mistake: Mistake,
    room: Room,
    /// What looks may rely on from now on.
    sessions: RefCell<[(usize, Instant); VIEWERS]>,
    rights_ended: Cell<Instant>,
    refused: RefCell<HashMap<(Session, usize), Instant>>,
    at_least: RefCell<[usize; USERS]>,
    seen: Cell<[u64; 4]>,
}

impl Stage {
    fn new(room: Room, mistake: Mistake) -> Self {
        let world = Arc::new(Mutex::new(World::new()));
        let address = serve(world.clone());
        let settings = upstream::Settings {
            scheme: http::uri::Scheme::HTTP,
            authority: address.to_string().parse().expect("an authority"),
            host: None,
            connect_timeout: REMEMBERED,
            head_timeout: REMEMBERED,
            idle_timeout: REMEMBERED,
            picture_timeout: REMEMBERED,
            passthrough_timeout: REMEMBERED,
            max_picture_requests: 64,
            max_connections: 64,
            roots: None,
        };
        let telemetry = Arc::new(Telemetry::new());
        let bytes = if room == Room::Ample { 4 << 20 } else { 4 << 10 };
        let settings_of_avatars = avatar::Settings {
            cache: cache::Settings { sources: bytes, variants: bytes, pixels: bytes, max_entry: 1 << 10 },
            grants: Some(grants::Settings { ttl: TTL, memory: 64 << 10 }),
            allowances: avatar_proxy::allowance::Settings { caller: None, address: None },
            render: render_pool::Settings { permits: 2, queue: 256, queue_timeout: REMEMBERED },
            limits: Limits::default(),
            max_source: 1 << 20,
        };
        let now = Instant::now();
        Self {
            world,
            upstream: Upstream::new(&Gateway::new(settings).expect("plain http")).expect("clients"),
            avatars: Avatars::new(settings_of_avatars, telemetry).expect("random numbers"),
            key: CallerKey::draw().expect("random numbers"),
            mistake,
            room,
            sessions: RefCell::new([(0, now); VIEWERS]),
            rights_ended: Cell::new(now),
            refused: RefCell::default(),
            at_least: RefCell::default(),
            seen: Cell::default(),
        }
    }

    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().expect("never poisoned")
    }

    fn caller(&self, session: Session) -> Caller {
        let session = if self.mistake == Mistake::OneCallerForAll { (0, 0) } else { session };
        let bearer = format!("Bearer {}", token(session));
        Credentials::of([("authorization", bearer.as_bytes())]).caller(&self.key, HOST.as_bytes()).expect("a caller")
    }

    fn session(&self, viewer: usize) -> Session {
        (viewer, self.sessions.borrow()[viewer].0)
    }

    /// One step of one actor.
    async fn step(&self, dice: &mut Dice) -> Result<(), String> {
        let (viewer, user) = (dice.roll(VIEWERS), dice.roll(USERS));
        match dice.roll(100) {
            0 => self.world().sees[viewer][user] ^= true,
            1..=2 => self.world().sees[viewer][user] = true,
            3 => {
                self.rights_ended.set(Instant::now());
                self.world().sees[viewer][user] = false;
                if self.mistake != Mistake::Lenient {
                    self.avatars.end_grants();
                }
                // Only now is it answered; whatever was asked before may rely on what was.
                self.rights_ended.set(Instant::now());
            }
            4 => self.log_out(viewer),
            5 => self.world().sessions[viewer] = usize::MAX,
            6..=8 => self.upload(user, dice.roll(PICTURES)).await,
            9..=10 => self.world().change(user, dice.roll(PICTURES)),
            11..=12 => self.change_heard_of(user, dice.roll(PICTURES)).await,
            13..=16 => self.list(viewer, dice).await,
            17 if dice.roll(20) == 0 => self.avatars.forget_all(),
            17 if dice.roll(20) == 0 => self.avatars.hear(picture(user), i64::MAX).await,
            _ => return self.look(viewer, user, dice).await,
        }
        if self.world().sessions[viewer] == usize::MAX {
            self.sign_in(viewer);
        }
        Ok(())
    }

    fn log_out(&self, viewer: usize) {
        let session = self.session(viewer);
        self.world().sessions[viewer] = usize::MAX;
        if self.mistake != Mistake::Unending {
            self.avatars.end_tokens(&self.caller(session).places());
        }
        // From here on the old session's requests are looked at as closely as any.
        self.refused.borrow_mut().extend((0..USERS).map(|user| ((session, user), Instant::now())));
    }

    fn sign_in(&self, viewer: usize) {
        let mut sessions = self.sessions.borrow_mut();
        sessions[viewer] = (sessions[viewer].0 + 1, Instant::now());
        self.world().sessions[viewer] = sessions[viewer].0;
    }

    async fn upload(&self, user: usize, shown: usize) {
        let forget = || {
            if self.mistake != Mistake::Forgetful {
                self.avatars.forget(picture(user));
            }
        };
        forget();
        tokio::task::yield_now().await;
        self.world().change(user, shown);
        let version = self.world().newest(user);
        tokio::task::yield_now().await;
        forget();
        self.has_at_least(user, version);
    }

    async fn change_heard_of(&self, user: usize, shown: usize) {
        self.world().change(user, shown);
        let version = self.world().newest(user);
        self.avatars.hear(picture(user), stamp_of(version)).await;
        if self.room == Room::Ample {
            self.has_at_least(user, version);
        }
    }

    fn has_at_least(&self, user: usize, version: usize) {
        let mut at_least = self.at_least.borrow_mut();
        at_least[user] = at_least[user].max(version);
    }

    /// A list of users, which may be long on its way.
    async fn list(&self, viewer: usize, dice: &mut Dice) {
        let session = self.session(viewer);
        let caller = self.caller(session);
        let asked = self.avatars.asking(&caller, Instant::now()).expect("grants are on");
        self.pause(dice).await;
        let told = {
            let mut world = self.world();
            if world.sessions[viewer] != session.1 {
                return;
            }
            let told = (0..USERS).filter(|user| world.sees[viewer][*user]);
            let told = told.map(|user| (user, stamp_of(world.newest(user)))).collect::<Vec<_>>();
            for (user, _) in &told {
                Record::note(&mut world.said.yes, (session, *user));
            }
            told
        };
        self.pause(dice).await;
        for (user, stamp) in told {
            let PictureId { site, object, .. } = picture(user);
            self.avatars.learn(site, &caller, &asked, object, stamp).await;
        }
    }

    async fn pause(&self, dice: &mut Dice) {
        for _ in 0..dice.roll(30) {
            tokio::task::yield_now().await;
        }
    }

    async fn look(&self, viewer: usize, user: usize, dice: &mut Dice) -> Result<(), String> {
        // Sometimes with the session before.
        let now = self.session(viewer);
        let session = if dice.roll(12) == 0 { (viewer, now.1.saturating_sub(1)) } else { now };
        let query = if dice.roll(10) > 0 { "format=original" } else { "format=jpeg" };
        let wish = Wish {
            picture: Some(picture(user)),
            caller: Some(self.caller(session)),
            max_age: None,
            must_ask: dice.roll(25) == 0,
            stamp: (dice.roll(10) == 0).then(|| stamp_of(self.world().newest(user))),
            transform: Transform::parse(query, &Sizes::default()).expect("understood").transform,
            offer: OfferKind::Original,
        };
        let began = Instant::now();
        let refused = self.refused.borrow().get(&(session, user)).copied();
        let ended = self.rights_ended.get();
        let not_before = refused.map_or(ended, |refused| refused.max(ended));
        let look = Look { session, user, began, not_before, at_least: self.at_least.borrow()[user] };
        let served = if let Some(recalled) = self.avatars.recall(&wish, began).await {
            Served::Picture(recalled)
        } else {
            let request = self.request(wish, session, user);
            self.avatars.serve(&self.upstream, &request).await.map_err(|error| error.to_string())?
        };
        let ended = Instant::now();
        let mut seen = self.seen.get();
        match served {
            Served::Picture(picture) => {
                seen[usize::from(matches!(picture.outcome.proof, avatar::Proof::Granted(_)))] += 1;
                let world = self.world();
                world.allowed(&look, ended)?;
                match picture.body {
                    PictureBody::Source(source) | PictureBody::StopGap(source) => world.had(&look, &source.bytes)?,
                    // Rendered by the hash of what was fetched: that it may be seen is what counts.
                    PictureBody::Encoded(_) => {}
                }
            }
            Served::Relayed(relayed) => {
                let status = relayed.answer.status.as_u16();
                seen[2 + usize::from(status == 401)] += 1;
                let said = Record::within(&self.world().said.no, (session, user), began, ended);
                let said = said.ok_or_else(|| format!("a {status} that upstream did not say"))?;
                self.refused.borrow_mut().insert((session, user), said);
            }
        }
        self.seen.set(seen);
        Ok(())
    }

    fn request(&self, wish: Wish, session: Session, user: usize) -> AvatarRequest {
        let bearer = HeaderValue::from_str(&format!("Bearer {}", token(session))).expect("letters and digits");
        let headers =
            HeaderMap::from_iter([(header::AUTHORIZATION, bearer), (header::HOST, HeaderValue::from_static(HOST))]);
        let path = format!("/api/v4/users/{user:026}/image");
        let payer = self.avatars.payer(token(session).as_bytes(), None);
        AvatarRequest { wish, payer, upstream: PictureRequest { path, query: None, headers } }
    }

    /// Lets the actors take so many steps in all; the first violation, if there is one.
    async fn run(&self, steps: usize, seed: u64) -> Result<(), String> {
        let left = Cell::new(steps);
        let violation = RefCell::new(None);
        join_all((0..ACTORS).map(async |actor| {
            let mut dice = Dice::seeded(seed + u64::try_from(actor).expect("few"));
            while left.get() > 0 && violation.borrow().is_none() {
                left.set(left.get() - 1);
                if let Err(found) = self.step(&mut dice).await {
                    *violation.borrow_mut() = Some(format!("step {}: {found}", steps - left.get()));
                }
                tokio::task::yield_now().await;
            }
        }))
        .await;
        violation.into_inner().map_or(Ok(()), Err)
    }
}

fn picture(user: usize) -> PictureId {
    let object = ObjectId::parse(format!("{user:026}").as_bytes()).expect("26 digits");
    PictureId { site: Site::of(HOST.as_bytes()), kind: PictureKind::User, object }
}

fn steps() -> usize {
    std::env::var("AVATAR_PROXY_STEPS").map_or(50_000, |steps| steps.parse().expect("a number"))
}

async fn nobody_is_shown_what_upstream_did_not_show_them(room: Room) {
    let stage = Stage::new(room, Mistake::None);
    let began = Instant::now();
    let ran = stage.run(steps() / 2, 4711).await;
    let seen = stage.seen.get();
    println!("{room:?}, {} steps in {:?}: asked, remembered, refused, unknown: {seen:?}", steps() / 2, began.elapsed());
    assert_eq!(ran, Ok(()));
    // Each kind of answer was there, or nothing has been shown.
    assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
}

#[actix_web::test]
async fn whatever_happens_nobody_is_shown_what_upstream_did_not_show_them() {
    nobody_is_shown_what_upstream_did_not_show_them(Room::Ample).await;
}

#[actix_web::test]
async fn and_neither_are_they_when_most_is_let_go_at_once() {
    nobody_is_shown_what_upstream_did_not_show_them(Room::Cramped).await;
}

#[actix_web::test]
async fn the_model_finds_what_a_careless_proxy_would_do() {
    for mistake in [Mistake::OneCallerForAll, Mistake::Forgetful, Mistake::Lenient, Mistake::Unending] {
        let found = Stage::new(Room::Ample, mistake).run(50_000, 4711).await;
        assert!(found.is_err(), "{mistake:?} is not found");
    }
}
