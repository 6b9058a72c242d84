//! What a request costs before anything is looked up: its query, its `Accept`, its `If-None-Match`, its credentials.

use avatar_proxy::cache::{Grants, grants};
use avatar_proxy::caller::{CallerKey, Credentials};
use avatar_proxy::identity::{ObjectId, PictureId, PictureKind, Site};
use avatar_proxy::telemetry::{Answered, Outcome, ProofKind, Route, Telemetry};
use avatar_proxy::upstream::Fields;
use avatar_proxy::upstream::headers::picture_request;
use avatar_proxy::variant::negotiation::{Settings, negotiate};
use avatar_proxy::variant::query::forwarded_query;
use avatar_proxy::variant::transform::{RequestedFormat, Sizes, Transform};
use avatar_proxy::variant::validators::names_etag;
use criterion::{Criterion, criterion_group, criterion_main};
use http::StatusCode;
use std::hint::black_box;
use std::time::{Duration, Instant};

fn query(criterion: &mut Criterion) {
    let sizes = Sizes::default();
    let mut group = criterion.benchmark_group("query");
    for (name, raw) in [
        ("none", ""),
        ("stock", "_=1712345678901"),
        ("size", "size=64&_=1712345678901"),
        ("full", "w=64&h=48&dpr=1.5&fit=contain&format=webp&q=80&bg=ff8000&_=1712345678901"),
        ("escaped", "%73ize=%36%34&_=1712345678901&unknown=%41%42"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| Transform::parse(black_box(raw), &sizes));
        });
    }
    group.bench_function("forwarded", |bencher| {
        bencher.iter(|| forwarded_query(black_box("size=64&_=1712345678901")));
    });
    group.finish();
}

fn accept(criterion: &mut Criterion) {
    const AGENT: &[u8] = b"Mattermost Mobile/2.43.0+700 (iOS; 18.6; iPhone)";
    let settings = Settings::default();
    let junk = "image/x;q=0.1,".repeat(585);
    let mut group = criterion.benchmark_group("accept");
    for (name, accept) in [
        ("chrome", "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"),
        ("firefox", "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"),
        (
            "safari",
            "image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,image/png,image/svg+xml,\
             image/*;q=0.8,*/*;q=0.5",
        ),
        ("ios_app", "image/*,*/*;q=0.8"),
        ("junk_8k", &junk),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| negotiate(RequestedFormat::Auto, [black_box(accept.as_bytes())], Some(AGENT), &settings));
        });
    }
    group.finish();
}

fn if_none_match(criterion: &mut Criterion) {
    const ETAG: &str = "\"af1349b9f5f9a1a6a0404dea36dcc949\"";
    let list = format!("\"d41d8cd98f00b204e9800998ecf8427e\", W/\"x,y\", W/{ETAG}");
    let mut group = criterion.benchmark_group("if_none_match");
    for (name, field) in [("one", ETAG), ("list", &list), ("bare", "1712345678901"), ("any", "*")] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| names_etag([black_box(field.as_bytes())], ETAG.as_bytes()));
        });
    }
    group.finish();
}

/// From a client's header to the fixed list that our own fetch is made with.
fn credentials(criterion: &mut Criterion) {
    const SESSION: &str = "MMAUTHTOKEN=8a1xz5ri6bgwmq4m6xo7cnjdhe; MMUSERID=ge45wmpse3g8umtziei4q749th";
    let crowded = format!("{}{SESSION}", "theme=0123456789abcdef; ".repeat(170));
    let mut group = criterion.benchmark_group("credentials");
    for (name, field, value) in [
        ("browser", "cookie", &*format!("rl_page_init_referrer=x; {SESSION}; MMCSRF=n9o3ksfsz7ywxpyq1pxfjh5g1r")),
        ("mobile", "authorization", "Bearer 8a1xz5ri6bgwmq4m6xo7cnjdhe"),
        ("cookies_4k", "cookie", &crowded),
    ] {
        let header = [
            ("accept-language", &b"en-GB,en;q=0.9,de;q=0.8"[..]),
            ("user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101"),
            (field, value.as_bytes()),
        ];
        let header = Fields::from_iter(header);
        group.bench_function(name, |bencher| {
            bencher.iter(|| picture_request(black_box(&header), b"chat.example.com"));
        });
    }
    group.finish();
}

/// From a client's header to the digest that stands for who asks, and to the place of a grant.
fn caller(criterion: &mut Criterion) {
    let key = CallerKey::draw().expect("random numbers");
    let grants = Grants::new(grants::Settings { ttl: Duration::from_secs(30), memory: 32 << 20 });
    let object = ObjectId::parse(b"ge45wmpse3g8umtziei4q749th").expect("an id");
    let picture = PictureId { site: Site::of(b"chat.example"), kind: PictureKind::User, object };
    let cookie = "rl_page_init_referrer=x; MMAUTHTOKEN=8a1xz5ri6bgwmq4m6xo7cnjdhe; MMCSRF=n9o3ksfsz7ywxpyq1pxfjh5g1r";
    let fields = [("host", "chat.example"), ("accept", "image/webp"), ("cookie", cookie)];
    let fields = fields.map(|(name, value)| (name, value.as_bytes()));
    let caller = Credentials::of(fields).caller(&key, b"chat.example").expect("a caller");
    let mut group = criterion.benchmark_group("caller");
    group.bench_function("digest", |bencher| {
        bencher.iter(|| Credentials::of(black_box(fields)).caller(&key, b"chat.example"));
    });
    grants.allow(&caller, &grants.asking_for(&caller, picture, Instant::now()));
    let now = Instant::now();
    group.bench_function("grant", |bencher| bencher.iter(|| grants.covers(black_box(&caller), picture, now)));
    group.finish();
}

/// What counting a hit costs.
fn recorder(criterion: &mut Criterion) {
    let telemetry = Telemetry::new();
    criterion.bench_function("recorder/hit", |bencher| {
        bencher.iter(|| {
            telemetry.request_begins();
            telemetry.request_ends();
            telemetry.answered(&Answered {
                route: Route::UserPicture,
                outcome: Outcome::Hit,
                status: Some(StatusCode::OK),
                bytes_sent: 1_000,
                duration: Duration::from_micros(7),
            });
            telemetry.picture_shown(ProofKind::Grant);
            telemetry.upstream_bytes(Route::UserPicture, 0);
            telemetry.original_bytes(28_000);
        });
    });
}

criterion_group!(benches, query, accept, if_none_match, credentials, caller, recorder);
criterion_main!(benches);
