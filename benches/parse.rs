//! What a request costs before anything is looked up: its query, its `Accept`, its `If-None-Match`.

use avatar_proxy::variant::negotiation::{Settings, negotiate};
use avatar_proxy::variant::query::forwarded_query;
use avatar_proxy::variant::transform::{RequestedFormat, Sizes, Transform};
use avatar_proxy::variant::validators::names_etag;
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

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
            bencher.iter(|| names_etag([black_box(field.as_bytes())], ETAG));
        });
    }
    group.finish();
}

criterion_group!(benches, query, accept, if_none_match);
criterion_main!(benches);
