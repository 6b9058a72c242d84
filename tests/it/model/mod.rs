//! The model tests of "no leak": what is shown to whom while rights, sessions and pictures change at random, held against
//! a record of everything that upstream said. `avatars` puts the questions to `Avatars` itself, a million of them where
//! that is wanted; `sockets` to the whole proxy, as clients do. Upstream is asked over real sockets by both.
//!
//! `AVATAR_PROXY_STEPS` says how many steps.

mod avatars;
mod sockets;

use crate::dice::Dice;
use crate::learning::record;
use crate::pictures::png;
use crate::upstream::{Kept, Seen, kept_answer};
use bytes::Bytes;
use image::{Rgb, RgbImage};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

const VIEWERS: usize = 6;
const USERS: usize = 5;
/// Each user has a picture and a default picture.
const SUBJECTS: usize = 2 * USERS;
/// Who act at the same time.
const ACTORS: usize = 8;
/// As many pictures as there are: each is many a version, of more than one user.
const PICTURES: usize = 40;
/// No request takes longer, and what is older explains nothing any more.
const REMEMBERED: Duration = Duration::from_secs(30);
const HOST: &str = "chat.example";
/// Upstream's word for all that it refuses.
const REFUSAL: &[u8] = b"{}";

/// A set of credentials: a viewer, and how many sessions they have had before.
type Session = (usize, usize);

/// Who asks, and what for: a user's picture, or beyond those the default picture.
type Pair = (Session, usize);

fn token((viewer, session): Session) -> String {
    format!("{viewer:02}{session:024}")
}

/// The id of a user.
fn id(user: usize) -> String {
    format!("{user:026}")
}

/// The user that a viewer is.
const fn own(viewer: usize) -> usize {
    viewer % USERS
}

/// The default picture of a user.
const fn default_of(user: usize) -> usize {
    USERS + user
}

/// What upstream would say, and all that it has said.
struct World {
    pictures: Vec<Bytes>,
    sees: [[bool; USERS]; VIEWERS],
    sessions: [usize; VIEWERS],
    /// For each subject, the pictures and when each was replaced.
    versions: [Vec<(usize, Option<Instant>)>; SUBJECTS],
    said: Record,
    dice: Dice,
}

/// What upstream has said about whom to whom, and when.
#[derive(Default)]
struct Record {
    yes: HashMap<Pair, VecDeque<Instant>>,
    no: HashMap<Pair, VecDeque<Instant>>,
}

impl Record {
    fn note(said: &mut HashMap<Pair, VecDeque<Instant>>, pair: Pair) {
        let (times, now) = (said.entry(pair).or_default(), Instant::now());
        while times.front().is_some_and(|first| now.duration_since(*first) > REMEMBERED) {
            times.pop_front();
        }
        times.push_back(now);
    }

    fn within(said: &HashMap<Pair, VecDeque<Instant>>, pair: Pair, from: Instant, to: Instant) -> Option<Instant> {
        said.get(&pair)?.iter().copied().find(|time| (from..=to).contains(time))
    }
}

impl World {
    /// Pictures of so many pixels a side, each of a colour of its own.
    fn new(edge: u32) -> Self {
        let picture = |n| png(&RgbImage::from_pixel(edge, edge, Rgb(colour(n)))).into();
        Self {
            pictures: (0..PICTURES).map(picture).collect(),
            sees: [[true; USERS]; VIEWERS],
            sessions: [0; VIEWERS],
            versions: [(); SUBJECTS].map(|()| vec![(0, None)]),
            said: Record::default(),
            dice: Dice::seeded(815),
        }
    }

    fn change(&mut self, subject: usize, picture: usize) {
        let last = self.versions[subject].last_mut().expect("there is a first");
        last.1 = Some(Instant::now());
        self.versions[subject].push((picture, None));
    }

    fn newest(&self, subject: usize) -> usize {
        self.versions[subject].len() - 1
    }

    /// The answer to a request; `None` where upstream dies of it.
    fn answer(&mut self, seen: &Seen) -> Option<Vec<u8>> {
        let path = seen.target().strip_prefix("/api/v4/").expect("a route of Mattermost's");
        let path = path.split('?').next().unwrap_or_default().split('/').collect::<Vec<_>>();
        let session = presented(seen);
        Some(match (seen.method(), &path[..]) {
            ("GET", ["users", "me", "image"]) => self.show(session, own(session.0), None),
            ("GET", ["users", user, "image", "default"]) => self.show(session, default_of(number(user)), None),
            ("GET", ["users", user, "image"]) => {
                let known = seen.header("if-none-match").map(version_of);
                self.show(session, number(user), known)
            }
            ("GET", ["users"]) => self.list(session),
            ("POST" | "DELETE", ["users", user, "image"]) => self.write(number(user))?,
            ("PUT", ["users", user, "patch"]) => self.write(default_of(number(user)))?,
            ("POST", ["users", "logout"]) => self.log_out(session)?,
            ("DELETE", ["teams", user, "members", viewer]) => {
                self.sees[number(viewer)][number(user)] = false;
                json("200 OK", REFUSAL)
            }
            other => panic!("nobody asks {other:?}"),
        })
    }

    fn knows(&self, (viewer, session): Session) -> bool {
        self.sessions[viewer] == session
    }

    /// What a request for a picture is answered with; 304 where it has the version.
    fn show(&mut self, session: Session, subject: usize, known: Option<usize>) -> Vec<u8> {
        let pair = (session, subject);
        let status = if !self.knows(session) {
            "401 Unauthorized"
        } else if !self.sees[session.0][subject % USERS] {
            "403 Forbidden"
        } else {
            Record::note(&mut self.said.yes, pair);
            let newest = self.newest(subject);
            let lifetime = ("Cache-Control", "max-age=86400, private");
            let stamp = stamp_of(newest).to_string();
            if known == Some(newest) {
                return kept_answer("304 Not Modified", &[("Etag", &stamp), lifetime], b"");
            }
            let body = &self.pictures[self.versions[subject][newest].0];
            let fields = [("Content-Type", "image/png"), lifetime, ("Etag", &stamp)];
            // Default pictures have no validator.
            let fields = if subject < USERS { &fields[..] } else { &fields[..2] };
            return kept_answer("200 OK", fields, body);
        };
        Record::note(&mut self.said.no, pair);
        json(status, REFUSAL)
    }

    /// The users that a session's viewer sees now, and their stamps.
    fn told(&mut self, session: Session) -> Vec<(usize, i64)> {
        let told = (0..USERS).filter(|user| self.sees[session.0][*user]).collect::<Vec<_>>();
        for user in &told {
            Record::note(&mut self.said.yes, (session, *user));
        }
        told.into_iter().map(|user| (user, stamp_of(self.newest(user)))).collect()
    }

    fn list(&mut self, session: Session) -> Vec<u8> {
        if !self.knows(session) {
            return json("401 Unauthorized", REFUSAL);
        }
        let records = self.told(session).into_iter().map(|(user, stamp)| {
            let mut record = record(&id(user));
            record["last_picture_update"] = stamp.into();
            record
        });
        json("200 OK", records.collect::<Value>().to_string().as_bytes())
    }

    /// A change that succeeds, now and then without a word of it.
    fn write(&mut self, subject: usize) -> Option<Vec<u8>> {
        let picture = self.dice.roll(PICTURES);
        self.change(subject, picture);
        self.survives().then(|| json("200 OK", REFUSAL))
    }

    fn log_out(&mut self, session: Session) -> Option<Vec<u8>> {
        if !self.knows(session) {
            return Some(json("401 Unauthorized", REFUSAL));
        }
        self.sessions[session.0] = usize::MAX;
        self.survives().then(|| json("200 OK", REFUSAL))
    }

    fn survives(&mut self) -> bool {
        self.dice.roll(6) > 0
    }

    /// Which picture these bytes are, or were made of.
    fn named(&self, bytes: &[u8]) -> Option<usize> {
        self.pictures.iter().position(|picture| picture == bytes).or_else(|| {
            let shown = image::load_from_memory(bytes).ok()?.to_rgb8().get_pixel(0, 0).0;
            (0..PICTURES).find(|n| colour(*n).iter().zip(shown).all(|(own, shown)| own.abs_diff(shown) <= 2))
        })
    }
}

/// No two of the pictures have colours that an encoder could confuse.
fn colour(n: usize) -> [u8; 3] {
    let red = u8::try_from(n * 6).expect("below 256");
    [red, 255 - red, 90]
}

fn json(status: &str, body: &[u8]) -> Vec<u8> {
    kept_answer(status, &[("Content-Type", "application/json")], body)
}

/// The validator of a version: the same for many users.
fn stamp_of(version: usize) -> i64 {
    1000 + i64::try_from(version).expect("few")
}

fn version_of(stamp: &str) -> usize {
    number(stamp) - 1000
}

/// The session that a request is made with.
fn presented(seen: &Seen) -> Session {
    let bearer = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let cookie = seen.header("cookie").and_then(|value| value.strip_prefix("MMAUTHTOKEN="));
    let token = bearer.or(cookie).expect("a token");
    (number(&token[..2]), number(&token[2..]))
}

fn number(digits: &str) -> usize {
    digits.parse().expect("digits")
}

/// How soon upstream answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    AtOnce,
    /// Now and then it thinks before it decides, or pauses in the middle of an answer.
    Dawdling,
}

/// Answers on a thread of its own until the test ends.
fn serve(world: Arc<Mutex<World>>, pace: Pace) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            tell.send(listener.local_addr().expect("bound")).expect("the test waits");
            while let Ok((stream, from)) = listener.accept().await {
                let dice = Dice::seeded(from.port().into());
                actix_web::rt::spawn(answer_all(Kept::new(stream), world.clone(), pace, dice));
            }
        });
    });
    told.recv().expect("it starts")
}

async fn answer_all(mut connection: Kept, world: Arc<Mutex<World>>, pace: Pace, mut dice: Dice) {
    while let Some(seen) = connection.next().await {
        pause(pace, &mut dice).await;
        let Some(answer) = world.lock().expect("never poisoned").answer(&seen) else { return };
        let (first, rest) = answer.split_at(if pace == Pace::Dawdling { dice.roll(answer.len()) } else { 0 });
        connection.send(first).await;
        pause(pace, &mut dice).await;
        connection.send(rest).await;
    }
}

async fn pause(pace: Pace, dice: &mut Dice) {
    if pace == Pace::Dawdling && dice.roll(8) == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A look at a picture, as it was seen from outside.
struct Look {
    session: Session,
    subject: usize,
    began: Instant,
    /// When the oldest grant was asked for that may have been used.
    grants_since: Instant,
    /// When the oldest picture was replaced that may be shown.
    pictures_since: Instant,
    /// Nothing that upstream said before this may be relied upon: since then the session, all rights or this one ended.
    not_before: Instant,
    /// The version that a change through us, or news of one, had brought when the look began.
    at_least: usize,
}

impl World {
    /// Whether upstream said yes to this very session while a grant of that lasts.
    fn allowed(&self, look: &Look, ended: Instant) -> Result<(), String> {
        let pair = (look.session, look.subject);
        let since = look.grants_since.max(look.not_before);
        let said = Record::within(&self.said.yes, pair, since, ended);
        said.map(|_| ()).ok_or_else(|| format!("upstream said yes to {pair:?} at no time that counts"))
    }

    /// Whether upstream said no to this very look.
    fn refused(&self, look: &Look, ended: Instant) -> Result<Instant, String> {
        let pair = (look.session, look.subject);
        let said = Record::within(&self.said.no, pair, look.began, ended);
        said.ok_or_else(|| format!("upstream did not refuse {pair:?}"))
    }

    /// Whether the user had this picture while a grant that shows it lasts.
    fn had(&self, look: &Look, shown: Option<usize>) -> Result<(), String> {
        let versions = &self.versions[look.subject];
        if self.current(look).any(|version| Some(versions[version].0) == shown) {
            return Ok(());
        }
        let last = versions.iter().rposition(|(picture, _)| Some(*picture) == shown);
        let ago = last.and_then(|last| versions[last].1).map(|replaced| look.began.duration_since(replaced));
        let Look { session, subject, at_least, .. } = look;
        Err(format!("{session:?} was shown version {last:?} of {subject}, over for {ago:?}, with {at_least} known"))
    }

    /// The versions that a look may have met.
    fn current(&self, look: &Look) -> impl Iterator<Item = usize> {
        let (at_least, since) = (look.at_least, look.pictures_since);
        let versions = self.versions[look.subject].iter().enumerate().rev();
        versions
            .take_while(move |(n, (_, replaced))| *n >= at_least && replaced.is_none_or(|replaced| replaced >= since))
            .map(|(n, _)| n)
    }
}

/// What looks may rely on from now on.
struct Promises {
    sessions: RefCell<[usize; VIEWERS]>,
    rights_ended: Cell<Instant>,
    refused: RefCell<HashMap<Pair, Instant>>,
    at_least: RefCell<[usize; SUBJECTS]>,
    /// When the looks under way began, and how long the longest took that are over.
    under_way: RefCell<Vec<Instant>>,
    longest: Cell<Duration>,
}

impl Promises {
    fn new() -> Self {
        Self {
            sessions: RefCell::default(),
            rights_ended: Cell::new(Instant::now()),
            refused: RefCell::default(),
            at_least: RefCell::default(),
            under_way: RefCell::default(),
            longest: Cell::default(),
        }
    }

    /// The viewer's session of the moment.
    fn session(&self, viewer: usize) -> Session {
        (viewer, self.sessions.borrow()[viewer])
    }

    /// A look that begins now, and may be answered by a grant of `ttl`.
    fn look(&self, session: Session, subject: usize, ttl: Duration) -> Look {
        let began = Instant::now();
        let refused = self.refused.borrow().get(&(session, subject)).copied();
        let ended = self.rights_ended.get();
        self.under_way.borrow_mut().push(began);
        let grants_since = began.checked_sub(ttl).expect("the machine is older");
        Look {
            session,
            subject,
            began,
            grants_since,
            pictures_since: grants_since,
            not_before: refused.map_or(ended, |refused| refused.max(ended)),
            at_least: self.at_least.borrow()[subject],
        }
    }

    /// A look that may use grants, where there is little room, may meet a picture that was replaced while another look
    /// asked for it.
    fn look_is_over(&self, look: &mut Look, room: Room) {
        let mut under_way = self.under_way.borrow_mut();
        let longest = under_way.iter().map(Instant::elapsed).max().unwrap_or_default().max(self.longest.get());
        under_way.retain(|began| *began != look.began);
        self.longest.set(self.longest.get().max(look.began.elapsed()));
        if room == Room::Cramped && look.grants_since < look.began {
            look.pictures_since = look.grants_since.checked_sub(longest).expect("the machine is older");
        }
    }

    /// A viewer whose session has ended signs in again.
    fn sign_in_again(&self, viewer: usize, world: &mut World) {
        if world.sessions[viewer] == usize::MAX {
            let mut sessions = self.sessions.borrow_mut();
            sessions[viewer] += 1;
            world.sessions[viewer] = sessions[viewer];
        }
    }

    /// The session is known to have ended. From here on its requests are looked at as closely as any.
    fn is_over(&self, session: Session, since: Instant) {
        self.refused.borrow_mut().extend((0..SUBJECTS).map(|subject| ((session, subject), since)));
    }

    fn was_refused(&self, look: &Look, said: Instant) {
        self.refused.borrow_mut().insert((look.session, look.subject), said);
    }

    fn has_at_least(&self, subject: usize, version: usize) {
        let mut at_least = self.at_least.borrow_mut();
        at_least[subject] = at_least[subject].max(version);
    }
}

/// How much room there is for pictures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Room {
    /// For all of them.
    Ample,
    /// For a few. News of a picture that was let go while it was being asked about reach nobody: then its change is seen
    /// within the time of a grant and of that question.
    Cramped,
}

impl Room {
    /// For each cache, in bytes.
    const fn bytes(self) -> u64 {
        match self {
            Self::Ample => 4 << 20,
            Self::Cramped => 4 << 10,
        }
    }
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

fn locked(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().expect("never poisoned")
}

/// So many steps in all, by all actors.
struct Steps {
    left: Cell<usize>,
    taken: Cell<usize>,
    violation: RefCell<Option<String>>,
}

impl Steps {
    fn new(steps: usize) -> Self {
        Self { left: Cell::new(steps), taken: Cell::new(0), violation: RefCell::default() }
    }

    /// Whether there is another step, which is then taken.
    fn go_on(&self) -> bool {
        let goes_on = self.left.get() > 0 && self.violation.borrow().is_none();
        if goes_on {
            self.left.set(self.left.get() - 1);
            self.taken.set(self.taken.get() + 1);
        }
        goes_on
    }

    fn take_down(&self, step: Result<(), String>) {
        if let Err(found) = step {
            *self.violation.borrow_mut() = Some(format!("step {}: {found}", self.taken.get()));
        }
    }

    /// The first violation, if there was one.
    fn verdict(self) -> Result<(), String> {
        self.violation.into_inner().map_or(Ok(()), Err)
    }
}

/// How many steps: as many as the environment says, or these.
fn steps(usual: usize) -> usize {
    std::env::var("AVATAR_PROXY_STEPS").map_or(usual, |steps| steps.parse().expect("a number"))
}
