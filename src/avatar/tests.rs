//! What happens when a codec panics, or every render permit is taken: faults that no picture can be made to cause.

use super::*;
use crate::identity::{ObjectId, PictureKind, Site};
use crate::render::{DecodeError, EncodeError};
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
        max_connections: 8,
        roots: None,
    }
}

struct Stage {
    upstream: Upstream,
    avatars: Avatars,
    telemetry: Arc<Telemetry>,
}

impl Stage {
    fn with(codecs: Codecs, queue: usize) -> Self {
        let upstream = Upstream::new(&Gateway::new(mattermost()).expect("plain http")).expect("clients");
        let telemetry = Arc::new(Telemetry::new());
        let settings = Settings {
            cache: crate::cache::Settings { sources: 1 << 20, variants: 1 << 20, pixels: 1 << 20, max_entry: 1 << 20 },
            grants: None,
            allowances: allowance::Settings { caller: None, address: None },
            render: render_pool::Settings { permits: 1, queue, queue_timeout: Duration::from_millis(50) },
            limits: Limits::default(),
            max_source: 1 << 20,
        };
        let mut avatars = Avatars::new(settings, telemetry.clone());
        avatars.codecs = codecs;
        Self { upstream, avatars, telemetry }
    }

    async fn ask(&self, query: &str) -> Served {
        let object = ObjectId::parse(b"ge45wmpse3g8umtziei4q749th").expect("an id");
        let request = AvatarRequest {
            wish: Wish {
                picture: Some(PictureId { site: Site::of(b"chat.example"), kind: PictureKind::User, object }),
                caller: None,
                must_ask: false,
                max_age: None,
                stamp: None,
                transform: Transform::parse(query, &Sizes::default()).expect("understood").transform,
                offer: OfferKind::Webp,
            },
            payer: self.avatars.payer(b"", None),
            upstream: PictureRequest {
                path: "/api/v4/users/x/image".to_owned(),
                query: None,
                headers: HeaderMap::new(),
            },
        };
        self.avatars.serve(&self.upstream, &request).await.expect("an answer")
    }

    fn faults(&self, fault: &str) -> bool {
        let text = self.telemetry.encode(&crate::telemetry::CacheLevels::default());
        text.contains(&format!("avatar_proxy_faults_total{{fault=\"{fault}\"}} 1\n"))
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
    let mut stage = Stage::with(Codecs { decode, render: render::render }, 8);
    assert_eq!(original(&stage.ask("size=32").await), (PICTURE, Keep::AsUpstreamSays));
    assert!(stage.faults("decoder_panic"));
    assert_eq!(original(&stage.ask("size=64").await), (PICTURE, Keep::AsUpstreamSays));
    assert_eq!(DECODES.load(Ordering::Relaxed), 1);

    // The pool and the flights are as good as new.
    stage.avatars.codecs.decode = render::decode;
    stage.avatars.sources = Sources::new(&stage.avatars.settings.cache, Arc::new(|| ()));
    assert!(is_variant(&stage.ask("size=32").await));
}

#[actix_web::test]
async fn f42_an_encoder_that_panics_costs_the_picture_its_transform() {
    let stage = Stage::with(Codecs { decode: render::decode, render: |_, _, _| panic!("a codec bug") }, 8);
    assert_eq!(original(&stage.ask("size=32").await), (PICTURE, Keep::StopGap));
    assert!(stage.faults("decoder_panic"));
    // Quarantined: what is known of it stays, and is sent as it came.
    assert_eq!(original(&stage.ask("size=32").await), (PICTURE, Keep::AsUpstreamSays));
}

/// Renders wait while this is true; whether one does.
static HELD: Mutex<bool> = Mutex::new(true);
static RELEASED: Condvar = Condvar::new();
static RENDERING: AtomicBool = AtomicBool::new(false);

#[actix_web::test]
async fn f44_with_all_permits_taken_the_original_is_sent_for_this_once() {
    let render: fn(&Pixels, &Recipe, usize) -> Result<Variant, EncodeError> = |pixels, recipe, source_len| {
        RENDERING.store(true, Ordering::Release);
        let held = HELD.lock().expect("never poisoned");
        drop(RELEASED.wait_while(held, |held| *held).expect("never poisoned"));
        render::render(pixels, recipe, source_len)
    };
    let stage = Rc::new(Stage::with(Codecs { decode: render::decode, render }, 8));
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
