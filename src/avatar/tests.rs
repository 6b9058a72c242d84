//! What happens when a codec panics, or every render permit is taken: faults that no picture can be made to cause. And
//! what becomes of variants in idle time, with codecs that say when they are at work.

use super::*;
use crate::identity::{ObjectId, PictureKind, Site};
use crate::render::{self, DecodeError, EncodeError, MotionError, Targets};
use crate::upstream::{self, Gateway};
use crate::variant::Recipe;
use crate::variant::transform::Sizes;
use http::uri::Scheme;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

const PICTURE: &[u8] = include_bytes!("../../benches/pictures/photo-ski-chelsea.png");

/// Answers every request with the picture until the process ends; 304 to its validator.
fn mattermost() -> upstream::Settings {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let authority = listener.local_addr().expect("bound").to_string().parse().expect("an authority");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let lines = BufReader::new(stream.try_clone().expect("a handle")).lines();
            let head = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect::<Vec<_>>();
            let known = head.iter().any(|line| line.eq_ignore_ascii_case("if-none-match: 7"));
            let (status, body) = if known { ("304 Not Modified", &[][..]) } else { ("200 OK", PICTURE) };
            let fields =
                "Content-Type: image/png\r\nEtag: 7\r\nCache-Control: max-age=86400, private\r\nConnection: close";
            let length = body.len();
            // The proxy may hang up first.
            let _ = write!(stream, "HTTP/1.1 {status}\r\n{fields}\r\nContent-Length: {length}\r\n\r\n")
                .and_then(|()| stream.write_all(body));
        }
    });
    upstream::Settings {
        scheme: Scheme::HTTP,
        authority,
        host: None,
        connect_timeout: Duration::from_secs(5),
        head_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        picture_timeout: Duration::from_secs(10),
        passthrough_timeout: Duration::from_secs(5),
        max_picture_requests: 8,
        picture_connections_kept: 8,
        max_connections: 8,
        tls_name: None,
        roots: None,
    }
}

struct Stage {
    upstream: Upstream,
    avatars: Arc<Avatars>,
    telemetry: Arc<Telemetry>,
}

impl Stage {
    fn with(codecs: Codecs, queue: usize) -> Self {
        Self::improving(codecs, queue, None)
    }

    fn improving(codecs: Codecs, queue: usize, improve: Option<ImproveSettings>) -> Self {
        Self::at(codecs, Settings { improve, ..Self::settings(queue) })
    }

    fn settings(queue: usize) -> Settings {
        Settings {
            cache: crate::cache::Settings { sources: 1 << 20, variants: 1 << 20, pixels: 1 << 20, max_entry: 1 << 20 },
            grants: None,
            allowances: allowance::Settings { caller: None, address: None },
            render: render_pool::Settings { permits: 1, queue, queue_timeout: Duration::from_millis(50) },
            targets: Targets::default(),
            improve: None,
            limits: Limits::default(),
            max_source: 1 << 20,
            sources_in_hand: 8 << 20,
        }
    }

    fn at(codecs: Codecs, settings: Settings) -> Self {
        let upstream = Upstream::new(&Gateway::new(mattermost()).expect("plain http")).expect("clients");
        let telemetry = Arc::new(Telemetry::new());
        let mut avatars = Avatars::new(settings, telemetry.clone());
        avatars.codecs = codecs;
        Self { upstream, avatars: Arc::new(avatars), telemetry }
    }

    async fn ask(&self, query: &str) -> Served {
        self.ask_with(query, OfferKind::Webp).await.expect("an answer")
    }

    async fn ask_with(&self, query: &str, offer: OfferKind) -> Result<Served, AvatarError> {
        let object = ObjectId::parse(b"ge45wmpse3g8umtziei4q749th").expect("an id");
        let request = AvatarRequest {
            wish: Wish {
                picture: Some(PictureId { site: Site::of(b"chat.example"), kind: PictureKind::User, object }),
                caller: None,
                must_ask: false,
                max_age: None,
                stamp: None,
                transform: Transform::parse(query, &Sizes::default()).expect("understood").transform,
                offer,
            },
            payer: self.avatars.payer(b"", None),
            upstream: PictureRequest {
                path: "/api/v4/users/x/image".to_owned(),
                query: None,
                headers: HeaderMap::new(),
            },
        };
        self.avatars.serve(&self.upstream, &request).await
    }

    fn faults(&self, fault: &str) -> bool {
        let text = self.telemetry.encode(&crate::telemetry::CacheLevels::default());
        text.contains(&format!("avatar_proxy_faults_total{{fault=\"{fault}\"}} 1\n"))
    }

    fn improvements(&self, outcome: &str) -> bool {
        let text = self.telemetry.encode(&crate::telemetry::CacheLevels::default());
        text.contains(&format!("avatar_proxy_improvements_total{{outcome=\"{outcome}\"}} 1\n"))
    }

    async fn bytes(&self, query: &str) -> Bytes {
        match self.ask(query).await {
            Served::Picture(Picture { body: PictureBody::Encoded(encoded), .. }) => encoded.bytes.clone(),
            _ => panic!("no variant"),
        }
    }
}

/// The original as upstream sent it, with what a browser may do with it.
fn original(served: &Served) -> (&[u8], Keep) {
    match served {
        Served::Relayed(Relayed { answer, keep }) => match &answer.body {
            crate::upstream::AnswerBody::Complete(bytes) => (bytes, *keep),
            crate::upstream::AnswerBody::Partial(..) => panic!("it was read"),
        },
        Served::Picture(picture) => match &picture.body {
            PictureBody::Source(source) => (&source.bytes, Keep::AsUpstreamSays),
            PictureBody::StopGap(source) => (&source.bytes, Keep::StopGap),
            PictureBody::Encoded(_) => panic!("a variant"),
        },
    }
}

fn is_variant(served: &Served) -> bool {
    matches!(served, Served::Picture(Picture { body: PictureBody::Encoded(_), .. }))
}

#[actix_web::test]
async fn f42_a_decoder_that_panics_costs_the_picture_its_transform_and_is_not_asked_again() {
    static DECODES: AtomicUsize = AtomicUsize::new(0);
    let decode: fn(&[u8], &Limits) -> Result<Pixels, DecodeError> = |_, _| {
        DECODES.fetch_add(1, Ordering::Relaxed);
        panic!("a codec bug")
    };
    let mut stage = Stage::with(Codecs { decode, ..Codecs::OURS }, 8);
    assert_eq!(original(&stage.ask("size=32").await), (PICTURE, Keep::AsUpstreamSays));
    assert!(stage.faults("decoder_panic"));
    assert_eq!(original(&stage.ask("size=64").await), (PICTURE, Keep::AsUpstreamSays));
    assert_eq!(DECODES.load(Ordering::Relaxed), 1);

    // The pool and the flights are as good as new.
    let avatars = Arc::get_mut(&mut stage.avatars).expect("nobody else has it");
    avatars.codecs.decode = render::decode;
    avatars.sources = Sources::new(&avatars.settings.cache, Arc::new(|| ()));
    assert!(is_variant(&stage.ask("size=32").await));
}

#[actix_web::test]
async fn f42_an_encoder_that_panics_costs_the_picture_its_transform() {
    let stage = Stage::with(Codecs { render: |_, _, _, _| panic!("a codec bug"), ..Codecs::OURS }, 8);
    assert_eq!(original(&stage.ask("size=32").await), (PICTURE, Keep::StopGap));
    assert!(stage.faults("decoder_panic"));
    // Quarantined: what is known of it stays, and is sent as it came.
    assert_eq!(original(&stage.ask("size=32").await), (PICTURE, Keep::AsUpstreamSays));
}

#[actix_web::test]
async fn f42_an_animation_that_panics_costs_the_picture_its_transform_and_is_not_asked_again() {
    static ANIMATIONS: AtomicUsize = AtomicUsize::new(0);
    let decode: fn(&[u8], &Limits) -> Result<Pixels, DecodeError> = |bytes, limits| {
        let mut pixels = render::decode(bytes, limits)?;
        pixels.info.animated = true;
        Ok(pixels)
    };
    let animate: fn(&[u8], &Recipe, &Targets, &Limits) -> Result<Variant, MotionError> = |_, _, _, _| {
        ANIMATIONS.fetch_add(1, Ordering::Relaxed);
        panic!("a codec bug")
    };
    let stage = Stage::with(Codecs { decode, animate, ..Codecs::OURS }, 8);
    assert_eq!(original(&stage.ask("animated=1").await), (PICTURE, Keep::StopGap));
    assert!(stage.faults("decoder_panic"));
    assert_eq!(original(&stage.ask("animated=1&size=32").await), (PICTURE, Keep::AsUpstreamSays));
    assert_eq!(ANIMATIONS.load(Ordering::Relaxed), 1);
}

#[actix_web::test]
async fn f42_a_source_that_panicked_is_not_sent_to_who_cannot_show_it() {
    let decode: fn(&[u8], &Limits) -> Result<Pixels, DecodeError> = |bytes, limits| {
        let mut pixels = render::decode(bytes, limits)?;
        pixels.info.format = SourceFormat::Webp;
        Ok(pixels)
    };
    let stage = Stage::with(Codecs { decode, render: |_, _, _, _| panic!("a codec bug"), ..Codecs::OURS }, 8);
    assert_eq!(original(&stage.ask("size=32").await), (PICTURE, Keep::StopGap));
    // Quarantined by now.
    assert_eq!(original(&stage.ask("size=32").await), (PICTURE, Keep::AsUpstreamSays));
    for _ in 0..2 {
        let refused = stage.ask_with("size=32", OfferKind::Basic).await.err();
        assert!(matches!(refused, Some(AvatarError::Overloaded)), "{refused:?}");
    }
}

#[actix_web::test]
async fn that_there_was_no_thread_to_decode_with_is_not_held_against_a_picture() {
    static DECODES: AtomicUsize = AtomicUsize::new(0);
    let decode: fn(&[u8], &Limits) -> Result<Pixels, DecodeError> = |bytes, limits| {
        if DECODES.fetch_add(1, Ordering::Relaxed) == 0 {
            Err(DecodeError::NoThread)
        } else {
            render::decode(bytes, limits)
        }
    };
    let stage = Stage::with(Codecs { decode, ..Codecs::OURS }, 8);
    assert_eq!(original(&stage.ask("size=32").await), (PICTURE, Keep::StopGap));
    assert!(!stage.faults("retried") && !stage.faults("broken_picture"));
    assert!(is_variant(&stage.ask("size=32").await));
}

/// Who waits for a permit has no pixels: they would be bounded by nothing but the queue.
#[actix_web::test]
async fn f41_pixels_are_decoded_under_the_permit_that_renders_them() {
    static IN_HAND: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    static EXAMINED: AtomicBool = AtomicBool::new(false);
    let decode: fn(&[u8], &Limits) -> Result<Pixels, DecodeError> = |bytes, limits| {
        if EXAMINED.swap(true, Ordering::AcqRel) {
            MOST.fetch_max(1 + IN_HAND.fetch_add(1, Ordering::AcqRel), Ordering::AcqRel);
        }
        render::decode(bytes, limits)
    };
    let render: fn(&Pixels, &Recipe, &Targets, usize) -> Result<Variant, EncodeError> = |_, _, _, _| {
        IN_HAND.fetch_sub(1, Ordering::AcqRel);
        Ok(better())
    };
    let mut settings = Stage::settings(64);
    settings.render.queue_timeout = Duration::from_secs(60);
    // Pixels that no cache shares.
    settings.cache.pixels = 1;
    let stage = Stage::at(Codecs { decode, render, ..Codecs::OURS }, settings);
    let sizes = ["size=16", "size=20", "size=24", "size=32", "size=40", "size=48", "size=64", "size=72"];
    let answers = futures_util::future::join_all(sizes.map(|size| stage.ask(size))).await;
    assert!(answers.iter().all(is_variant));
    assert_eq!((MOST.load(Ordering::Acquire), IN_HAND.load(Ordering::Acquire)), (1, 0));
}

#[actix_web::test]
async fn f41_a_source_that_finds_no_room_is_relayed_for_this_once() {
    let mut settings = Stage::settings(8);
    (settings.cache.sources, settings.sources_in_hand) = (4, PICTURE.len() as u64 - 4);
    let stage = Stage::at(Codecs::OURS, settings);
    let Served::Relayed(relayed) = stage.ask("size=32").await else { panic!("there is no room for it") };
    assert_eq!(relayed.keep, Keep::StopGap);
    assert!(matches!(relayed.answer.body, crate::upstream::AnswerBody::Partial(..)));
    assert!(stage.faults("no_room"));

    settings.sources_in_hand += 1;
    let stage = Stage::at(Codecs::OURS, settings);
    assert!(is_variant(&stage.ask("size=32").await));
    assert!(is_variant(&stage.ask("size=64").await), "the room was given back");
}

/// Renders wait while this is true; whether one does.
static HELD: Mutex<bool> = Mutex::new(true);
static RELEASED: Condvar = Condvar::new();
static RENDERING: AtomicBool = AtomicBool::new(false);

#[actix_web::test]
async fn f44_with_all_permits_taken_the_original_is_sent_for_this_once() {
    let render: fn(&Pixels, &Recipe, &Targets, usize) -> Result<Variant, EncodeError> =
        |pixels, recipe, targets, source_len| {
            RENDERING.store(true, Ordering::Release);
            let held = HELD.lock().expect("never poisoned");
            drop(RELEASED.wait_while(held, |held| *held).expect("never poisoned"));
            render::render(pixels, recipe, targets, source_len)
        };
    let stage = Rc::new(Stage::with(Codecs { render, ..Codecs::OURS }, 8));
    let first = actix_web::rt::spawn({
        let stage = stage.clone();
        async move { is_variant(&stage.ask("size=32").await) }
    });
    while !RENDERING.load(Ordering::Acquire) {
        tokio::task::yield_now().await;
    }
    assert_eq!(original(&stage.ask("size=64").await), (PICTURE, Keep::StopGap));
    assert!(stage.faults("queue_timeout"));
    *HELD.lock().expect("never poisoned") = false;
    RELEASED.notify_all();
    assert!(first.await.expect("no panic"));
    assert!(is_variant(&stage.ask("size=64").await));
}

const WORTH_IT: ImproveSettings = ImproveSettings { after_hits: 2, cpu_share: 1.0 };

/// What the improved variants of the tests below are.
const BETTER: &[u8] = b"fewer bytes that look the same";

fn better() -> Variant {
    Variant::Encoded(Arc::new(Encoded::new(BETTER, Format::Webp)))
}

#[actix_web::test]
async fn what_is_asked_for_again_is_improved_once() {
    let improve = |_: &Pixels, _: &Recipe, _: &Targets, _: usize, _: &dyn Fn() -> bool| Ok(Some(better()));
    let stage = Stage::improving(Codecs { improve, ..Codecs::OURS }, 8, Some(WORTH_IT));
    let first = stage.bytes("size=32").await;
    assert_eq!(stage.bytes("size=32").await, first);
    assert_eq!(stage.avatars.waiting_for_improvement(), 0, "asked for once more only");
    assert_eq!(stage.bytes("size=32").await, first);
    let _improving = Improving::begin(stage.avatars.clone()).expect("a thread");
    while stage.bytes("size=32").await != BETTER {
        tokio::task::yield_now().await;
    }
    while !stage.improvements("replaced") {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        assert_eq!(stage.bytes("size=32").await, BETTER);
    }
    assert_eq!(stage.avatars.waiting_for_improvement(), 0);
    assert!(stage.improvements("replaced"), "never twice");
}

/// Whether searches are held back, one lock for each of the tests below.
type Gate = (Mutex<bool>, Condvar);

const fn closed() -> Gate {
    (Mutex::new(true), Condvar::new())
}

fn wait_at(gate: &Gate) {
    let held = gate.0.lock().expect("never poisoned");
    drop(gate.1.wait_while(held, |held| *held).expect("never poisoned"));
}

fn open(gate: &Gate) {
    *gate.0.lock().expect("never poisoned") = false;
    gate.1.notify_all();
}

/// Asks for a picture all the time while a better one is looked for, and after: it is looked for once.
async fn check_once(improve: Codecs, searches: &AtomicUsize, gate: &Gate, outcome: &str) {
    let stage = Stage::improving(improve, 8, Some(WORTH_IT));
    for _ in 0..3 {
        stage.ask("size=32").await;
    }
    let _improving = Improving::begin(stage.avatars.clone()).expect("a thread");
    while searches.load(Ordering::Acquire) == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..70 {
        stage.ask("size=32").await;
        assert_eq!(stage.avatars.waiting_for_improvement(), 0, "{outcome}");
    }
    open(gate);
    while !stage.improvements(outcome) {
        tokio::task::yield_now().await;
    }
    for _ in 0..70 {
        stage.ask("size=32").await;
        assert_eq!(stage.avatars.waiting_for_improvement(), 0, "{outcome}");
    }
    assert_eq!(searches.load(Ordering::Acquire), 1, "{outcome}");
    assert!(stage.improvements(outcome), "{outcome}");
}

#[actix_web::test]
async fn what_is_asked_for_while_it_is_improved_is_improved_once_whatever_comes_of_it() {
    {
        static SEARCHES: AtomicUsize = AtomicUsize::new(0);
        static GATE: Gate = closed();
        let improve = |_: &Pixels, _: &Recipe, _: &Targets, _: usize, _: &dyn Fn() -> bool| {
            SEARCHES.fetch_add(1, Ordering::Release);
            wait_at(&GATE);
            Ok(Some(better()))
        };
        check_once(Codecs { improve, ..Codecs::OURS }, &SEARCHES, &GATE, "replaced").await;
    }
    {
        static SEARCHES: AtomicUsize = AtomicUsize::new(0);
        static GATE: Gate = closed();
        let improve = |pixels: &Pixels, recipe: &Recipe, targets: &Targets, source_len: usize, _: &dyn Fn() -> bool| {
            SEARCHES.fetch_add(1, Ordering::Release);
            wait_at(&GATE);
            render::render(pixels, recipe, targets, source_len).map(Some)
        };
        check_once(Codecs { improve, ..Codecs::OURS }, &SEARCHES, &GATE, "kept").await;
    }
    {
        static SEARCHES: AtomicUsize = AtomicUsize::new(0);
        static GATE: Gate = closed();
        let improve = |_: &Pixels, _: &Recipe, _: &Targets, _: usize, _: &dyn Fn() -> bool| {
            SEARCHES.fetch_add(1, Ordering::Release);
            wait_at(&GATE);
            Err(EncodeError("no".to_owned()))
        };
        check_once(Codecs { improve, ..Codecs::OURS }, &SEARCHES, &GATE, "failed").await;
    }
}

#[actix_web::test]
async fn where_the_source_is_smaller_at_first_a_better_one_is_looked_for_all_the_same() {
    let render = |_: &Pixels, _: &Recipe, _: &Targets, _: usize| Ok(Variant::SourceForNow(Arc::default()));
    let improve = |_: &Pixels, _: &Recipe, _: &Targets, _: usize, _: &dyn Fn() -> bool| Ok(Some(better()));
    let stage = Stage::improving(Codecs { render, improve, ..Codecs::OURS }, 8, Some(WORTH_IT));
    for _ in 0..3 {
        assert_eq!(original(&stage.ask("size=32").await), (PICTURE, Keep::AsUpstreamSays));
    }
    let _improving = Improving::begin(stage.avatars.clone()).expect("a thread");
    while !is_variant(&stage.ask("size=32").await) {
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.bytes("size=32").await, BETTER);
    while !stage.improvements("replaced") {
        tokio::task::yield_now().await;
    }
}

#[actix_web::test]
async fn where_the_source_is_best_it_is_looked_at_once() {
    static SEARCHES: AtomicUsize = AtomicUsize::new(0);
    static GATE: Gate = closed();
    let render = |_: &Pixels, _: &Recipe, _: &Targets, _: usize| Ok(Variant::SourceForNow(Arc::default()));
    let improve = |_: &Pixels, _: &Recipe, _: &Targets, _: usize, _: &dyn Fn() -> bool| {
        SEARCHES.fetch_add(1, Ordering::Release);
        wait_at(&GATE);
        Ok(Some(Variant::SourceIsBest))
    };
    check_once(Codecs { render, improve, ..Codecs::OURS }, &SEARCHES, &GATE, "kept").await;
}

#[actix_web::test]
async fn nothing_is_improved_while_there_is_no_permit_to_spare() {
    static RELEASED: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    static TRIED: AtomicBool = AtomicBool::new(false);
    let improve = |_: &Pixels, _: &Recipe, _: &Targets, _: usize, _: &dyn Fn() -> bool| {
        TRIED.store(true, Ordering::Release);
        Ok(Some(better()))
    };
    let stage = Stage::improving(Codecs { improve, ..Codecs::OURS }, 8, Some(WORTH_IT));
    for _ in 0..3 {
        stage.bytes("size=32").await;
    }
    let busy = {
        let avatars = stage.avatars.clone();
        actix_web::rt::spawn(async move {
            let wait = || {
                let released = RELEASED.0.lock().expect("no panic");
                drop(RELEASED.1.wait_while(released, |released| !*released).expect("no panic"));
            };
            avatars.pool.run(wait).await.map(|_| ())
        })
    };
    while !stage.avatars.pool.is_pressed() {
        tokio::task::yield_now().await;
    }
    let _improving = Improving::begin(stage.avatars.clone()).expect("a thread");
    while stage.avatars.waiting_for_improvement() > 0 {
        tokio::task::yield_now().await;
    }
    // It has taken up its work, and would have done it long since.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!TRIED.load(Ordering::Acquire));
    *RELEASED.0.lock().expect("no panic") = true;
    RELEASED.1.notify_all();
    busy.await.expect("no panic").expect("done");
    while !stage.improvements("replaced") {
        tokio::task::yield_now().await;
    }
}

#[actix_web::test]
async fn an_improvement_ends_with_the_process() {
    static AT_WORK: AtomicBool = AtomicBool::new(false);
    static ENDED: AtomicBool = AtomicBool::new(false);
    let improve = |_: &Pixels, _: &Recipe, _: &Targets, _: usize, go_on: &dyn Fn() -> bool| {
        AT_WORK.store(true, Ordering::Release);
        while go_on() {}
        ENDED.store(true, Ordering::Release);
        Ok(None)
    };
    let stage = Stage::improving(Codecs { improve, ..Codecs::OURS }, 8, Some(WORTH_IT));
    for _ in 0..3 {
        stage.bytes("size=32").await;
    }
    let improving = Improving::begin(stage.avatars.clone()).expect("a thread");
    while !AT_WORK.load(Ordering::Acquire) {
        tokio::task::yield_now().await;
    }
    drop(improving);
    while !ENDED.load(Ordering::Acquire) {
        tokio::task::yield_now().await;
    }
}

#[actix_web::test]
async fn a_codec_that_panics_in_idle_time_takes_nothing_along() {
    let improve = |_: &Pixels, _: &Recipe, _: &Targets, _: usize, _: &dyn Fn() -> bool| panic!("a codec bug");
    let stage = Stage::improving(Codecs { improve, ..Codecs::OURS }, 8, Some(WORTH_IT));
    let first = stage.bytes("size=32").await;
    for _ in 0..2 {
        stage.bytes("size=32").await;
    }
    let _improving = Improving::begin(stage.avatars.clone()).expect("a thread");
    while !stage.improvements("failed") {
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.bytes("size=32").await, first);
}

#[actix_web::test]
async fn the_most_wanted_come_first_and_few_may_wait() {
    let stage = Stage::improving(Codecs::OURS, 8, Some(WORTH_IT));
    let improver = stage.avatars.improver.as_ref().expect("configured");
    let recipe = |n: u16| {
        let [high, low] = n.to_be_bytes();
        Recipe {
            geometry: crate::variant::Geometry::Keep,
            offer: crate::variant::Offer::Webp,
            quality: None,
            background: [0, high, low],
            source_may_serve: false,
        }
    };
    let source = ContentHash::of(b"a picture");
    let all: Vec<_> = (0..300_u16)
        .map(|n| {
            let first = Variant::Encoded(Arc::new(Encoded::new(&n.to_be_bytes(), Format::Webp)));
            // The later ones are asked for more often.
            for _ in 0..2 + n {
                improver.asked_again(source, recipe(n), &first);
            }
            first
        })
        .collect();
    assert_eq!(improver.waiting(), 256);
    let order: Vec<_> = std::iter::from_fn(|| improver.most_wanted()).map(|(_, first)| first).collect();
    let times: Vec<_> = order.iter().filter_map(|first| Some(first.popularity()?.times())).collect();
    assert!(times.is_sorted_by(|before, after| before >= after), "{times:?}");
    assert_eq!((times[0], times.len()), (301, 256));
    improver.asked_again(source, recipe(0), &all[0]);
    drop((order, all));
    assert!(improver.most_wanted().is_none(), "what is gone from memory is not improved");
}
