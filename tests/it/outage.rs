//! Upstream is gone: an unexpired grant still serves while nothing newer was heard of the picture, nothing else does.

use crate::client::{ALICE, ALICES_TOKEN, BOB, BOBS_TOKEN, PATIENCE, Request};
use crate::pictures::{RED, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Upstream, answer};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[actix_web::test]
async fn with_upstream_down_a_grant_serves_and_nothing_else_does() {
    let mut upstream = Upstream::showing("100", png(&solid(RED))).await;
    let proxy = Proxy::with(upstream.address, |config| {
        config.grants.ttl = Duration::from_secs(3600);
        config.headers.cache_status = true;
    });
    let look = |query: &str| Request::picture(query);
    for query in ["size=32", "size=16"] {
        assert_eq!(proxy.send(&look(query)).await.status, 200);
    }

    upstream.refuse().await;

    // What is in memory, and what can be made of it.
    for query in ["size=32", "size=16", "size=64", "format=original", "size=32&_=100", "size=32&_=99"] {
        let shown = proxy.send(&look(query)).await;
        assert!(shown.status == 200 && shown.looks(RED), "{query}");
        let status = shown.header("cache-status").expect("it says so");
        assert!(status.starts_with("avatar-proxy; hit"), "{query}: {status}");
        let head = proxy.send(&look(query).method("HEAD")).await;
        assert_eq!((head.status, head.header("etag")), (200, shown.header("etag")), "{query}");
    }
    assert_eq!(proxy.send(&look("size=32").header("If-None-Match", "*")).await.status, 304);
    for refused in [
        Request::picture_of(ALICE, "size=32").cookie(BOBS_TOKEN),
        Request::picture_of(ALICE, "size=32").cookie(ALICES_TOKEN).bearer(BOBS_TOKEN),
        Request::picture_of(BOB, "size=32").cookie(ALICES_TOKEN),
        Request::get("/api/v4/users/me/image?size=32").cookie(ALICES_TOKEN),
        look("size=32").header("Host", "chat.example"),
        look("size=32").header("Cache-Control", "no-cache"),
        look("size=32").header("Origin", "https://chat.example"),
        Request::picture_of(ALICE, "size=32"),
    ] {
        let answer = proxy.send(&refused).await;
        assert_eq!((answer.status, answer.header("etag")), (502, None), "{refused:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert_eq!(proxy.send(&look("size=32")).await.status, 200, "those cost her nothing");
    // Something newer is heard of: now nobody knows what the picture is.
    for query in ["size=32&_=101", "size=32"] {
        assert_eq!(proxy.send(&look(query)).await.status, 502, "{query}");
    }
}

#[actix_web::test]
async fn with_upstream_down_a_grant_ends_with_its_time_and_with_a_logout() {
    for logs_out in [false, true] {
        let mut upstream = Upstream::showing("100", png(&solid(RED))).await;
        let proxy = Proxy::with(upstream.address, |config| {
            config.grants.ttl = if logs_out { Duration::from_secs(3600) } else { Duration::from_secs(1) };
        });
        let look = Request::picture("size=32");
        assert_eq!(proxy.send(&look).await.status, 200);
        upstream.refuse().await;
        assert_eq!(proxy.send(&look).await.status, 200);
        if logs_out {
            let logout = Request::new("POST", "/api/v4/users/logout").cookie(ALICES_TOKEN);
            assert_eq!(proxy.send(&logout).await.status, 502);
            assert_eq!(proxy.send(&look).await.status, 502);
        } else {
            let ends = async { while proxy.send(&look).await.status == 200 {} };
            tokio::time::timeout(PATIENCE, ends).await.expect("it ends");
            assert_eq!(proxy.send(&look).await.status, 502);
        }
    }
}

/// Upstream is there but of no use: the same as gone.
#[actix_web::test]
async fn an_upstream_that_fails_takes_no_grant_and_gives_none() {
    for status in ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "429 Too Many Requests"] {
        let picture = png(&solid(RED));
        let failing = answer(status, &[("Retry-After", "1")], b"busy");
        let upstream =
            Upstream::replying(
                move |n, _| {
                    if n == 0 { crate::upstream::picture_answer("1", &picture) } else { failing.clone() }
                },
            )
            .await;
        let proxy = Proxy::granting(upstream.address);
        assert_eq!(proxy.send(&Request::picture("size=32")).await.status, 200);
        let reload = Request::picture("size=32").header("Cache-Control", "no-cache");
        let told: u16 = status[..3].parse().expect("a status");
        assert_eq!(proxy.send(&reload).await.status, told);
        assert_eq!(proxy.send(&Request::picture("size=32")).await.status, 200, "her grant is as it was: {status}");
        let bobs = Request::picture_of(ALICE, "size=32").cookie(BOBS_TOKEN);
        assert_eq!(proxy.send(&bobs).await.status, told);
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The proxy itself never reads the time of day, so that no step of it can lengthen a grant or end one, but for the `Date`
/// of an answer that it writes itself. The stand-in does: it makes stamps.
#[test]
fn f54_no_time_of_day_is_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 50, "{}", files.len());
    // What is said to be the time of an answer.
    let dates = ["listen/farewell.rs", "listen/http2/message.rs"].map(|file| root.join(file));
    let may = |file: &Path| file.starts_with(root.join("demo")) || dates.iter().any(|date| file == date);
    for file in files.iter().filter(|file| !may(file)) {
        let text = std::fs::read_to_string(file).expect("text");
        for clock in ["SystemTime", "UNIX_EPOCH", "chrono::", "OffsetDateTime"] {
            assert!(!text.contains(clock), "{clock} in {}", file.display());
        }
    }
}
