//! The decisions themselves: a million steps over real sockets to the proxy would take too long.

use super::{
    ACTORS, HOST, Mistake, PICTURES, Pace, Promises, REMEMBERED, Room, Session, Steps, USERS, VIEWERS, World, id,
    locked, serve, stamp_of, steps, token,
};
use crate::dice::Dice;
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
use futures_util::future::join_all;
use http::header::{self, HeaderMap, HeaderValue};
use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Pixels a side: nothing is shown of them but themselves.
const EDGE: u32 = 4;
/// Short, so that grants end by time too.
const TTL: Duration = Duration::from_millis(25);

struct Stage {
    world: Arc<Mutex<World>>,
    upstream: Upstream,
    avatars: Avatars,
    key: CallerKey,
    mistake: Mistake,
    room: Room,
    promises: Promises,
    seen: Cell<[u64; 4]>,
}

impl Stage {
    fn new(room: Room, mistake: Mistake) -> Self {
        let world = Arc::new(Mutex::new(World::new(EDGE)));
        let address = serve(world.clone(), Pace::AtOnce);
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
            picture_connections_kept: 64,
            max_connections: 64,
            tls_name: None,
            roots: None,
        };
        let telemetry = Arc::new(Telemetry::new());
        let bytes = room.bytes();
        let settings_of_avatars = avatar::Settings {
            cache: cache::Settings { sources: bytes, variants: bytes, pixels: bytes, max_entry: 1 << 10 },
            grants: Some(grants::Settings { ttl: TTL, memory: 64 << 10 }),
            allowances: avatar_proxy::allowance::Settings { caller: None, address: None },
            render: render_pool::Settings { permits: 2, queue: 256, queue_timeout: REMEMBERED },
            targets: avatar_proxy::render::Targets::default(),
            improve: None,
            limits: Limits::default(),
            max_source: 1 << 20,
            sources_in_hand: 8 << 20,
        };
        Self {
            world,
            upstream: Upstream::new(&Gateway::new(settings).expect("plain http")).expect("clients"),
            avatars: Avatars::new(settings_of_avatars, telemetry),
            key: CallerKey::draw().expect("random numbers"),
            mistake,
            room,
            promises: Promises::new(),
            seen: Cell::default(),
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        locked(&self.world)
    }

    fn caller(&self, session: Session) -> Caller {
        let session = if self.mistake == Mistake::OneCallerForAll { (0, 0) } else { session };
        let bearer = format!("Bearer {}", token(session));
        Credentials::of([("authorization", bearer.as_bytes())]).caller(&self.key, HOST.as_bytes()).expect("a caller")
    }

    /// One step of one actor.
    async fn step(&self, dice: &mut Dice) -> Result<(), String> {
        let (viewer, user) = (dice.roll(VIEWERS), dice.roll(USERS));
        match dice.roll(100) {
            0 => self.world().sees[viewer][user] ^= true,
            1..=2 => self.world().sees[viewer][user] = true,
            3 => {
                self.promises.rights_ended.set(Instant::now());
                self.world().sees[viewer][user] = false;
                if self.mistake != Mistake::Lenient {
                    self.avatars.end_grants();
                }
                // Only now is it answered; whatever was asked before may rely on what was.
                self.promises.rights_ended.set(Instant::now());
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
        self.promises.sign_in_again(viewer, &mut self.world());
        Ok(())
    }

    fn log_out(&self, viewer: usize) {
        let session = self.promises.session(viewer);
        self.world().sessions[viewer] = usize::MAX;
        if self.mistake != Mistake::Unending {
            self.avatars.end_tokens(&self.caller(session).places());
        }
        self.promises.is_over(session, Instant::now());
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
        self.promises.has_at_least(user, version);
    }

    async fn change_heard_of(&self, user: usize, shown: usize) {
        self.world().change(user, shown);
        let version = self.world().newest(user);
        self.avatars.hear(picture(user), stamp_of(version)).await;
        if self.room == Room::Ample {
            self.promises.has_at_least(user, version);
        }
    }

    /// A list of users, which may be long on its way.
    async fn list(&self, viewer: usize, dice: &mut Dice) {
        let session = self.promises.session(viewer);
        let caller = self.caller(session);
        let asked = self.avatars.asking(&caller, Instant::now()).expect("grants are on");
        self.pause(dice).await;
        let told = {
            let mut world = self.world();
            if !world.knows(session) {
                return;
            }
            world.told(session)
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
        let now = self.promises.session(viewer);
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
        let mut look = self.promises.look(session, user, TTL);
        let served = if let Some(recalled) = self.avatars.recall(&wish, look.began).await {
            Served::Picture(recalled)
        } else {
            let request = self.request(wish, session, user);
            self.avatars.serve(&self.upstream, &request).await.map_err(|error| error.to_string())?
        };
        let ended = Instant::now();
        self.promises.look_is_over(&mut look, self.room);
        let mut seen = self.seen.get();
        match served {
            Served::Picture(picture) => {
                seen[usize::from(matches!(picture.outcome.proof, avatar::Proof::Granted(_)))] += 1;
                let world = self.world();
                world.allowed(&look, ended)?;
                match picture.body {
                    PictureBody::Source(source) | PictureBody::StopGap(source) => {
                        world.had(&look, world.named(&source.bytes))?;
                    }
                    // Rendered by the hash of what was fetched: that it may be seen is what counts.
                    PictureBody::Encoded(_) => {}
                }
            }
            Served::Relayed(relayed) => {
                let status = relayed.answer.status.as_u16();
                seen[2 + usize::from(status == 401)] += 1;
                let said = self.world().refused(&look, ended)?;
                if status == 401 {
                    self.promises.is_over(session, said);
                } else {
                    self.promises.was_refused(&look, said);
                }
            }
        }
        self.seen.set(seen);
        Ok(())
    }

    fn request(&self, wish: Wish, session: Session, user: usize) -> AvatarRequest {
        let bearer = HeaderValue::from_str(&format!("Bearer {}", token(session))).expect("letters and digits");
        let headers =
            HeaderMap::from_iter([(header::AUTHORIZATION, bearer), (header::HOST, HeaderValue::from_static(HOST))]);
        let path = format!("/api/v4/users/{}/image", id(user));
        let payer = self.avatars.payer(token(session).as_bytes(), None);
        AvatarRequest { wish, payer, upstream: PictureRequest { path, query: None, headers } }
    }

    /// Lets the actors take so many steps in all; the first violation, if there is one.
    async fn run(&self, steps: usize, seed: u64) -> Result<(), String> {
        let steps = Steps::new(steps);
        join_all((0..ACTORS).map(async |actor| {
            let mut dice = Dice::seeded(seed + u64::try_from(actor).expect("few"));
            while steps.go_on() {
                steps.take_down(self.step(&mut dice).await);
                tokio::task::yield_now().await;
            }
        }))
        .await;
        steps.verdict()
    }
}

fn picture(user: usize) -> PictureId {
    let object = ObjectId::parse(id(user).as_bytes()).expect("26 digits");
    PictureId { site: Site::of(HOST.as_bytes()), kind: PictureKind::User, object }
}

async fn nobody_is_shown_what_upstream_did_not_show_them(room: Room) {
    let stage = Stage::new(room, Mistake::None);
    let began = Instant::now();
    let steps = steps(50_000) / 2;
    let ran = stage.run(steps, 4711).await;
    let seen = stage.seen.get();
    println!("{room:?}, {steps} steps in {:?}: asked, remembered, refused, unknown: {seen:?}", began.elapsed());
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
