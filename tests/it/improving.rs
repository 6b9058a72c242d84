//! What is asked for again becomes smaller, under a tag of its own, and nobody is told of a tag that is not his bytes.

use crate::client::Request;
use crate::proxy::Proxy;
use crate::upstream::Upstream;
use avatar_proxy::config::{Config, Decimal};
use std::time::Duration;

const PHOTO: &[u8] = include_bytes!("../../benches/pictures/photo-ski-chelsea.png");
const WEBP: &str = "image/webp";
const REPLACED: &str = r#"avatar_proxy_improvements_total{outcome="replaced"}"#;
const KEPT: &str = r#"avatar_proxy_improvements_total{outcome="kept"}"#;

fn improving(config: &mut Config) {
    config.grants.ttl = Duration::from_secs(3600);
    config.improve.enabled = true;
    config.improve.cpu_share = Decimal::whole(1);
}

#[actix_web::test]
async fn what_is_asked_for_again_becomes_smaller_under_a_tag_of_its_own() {
    let upstream = Upstream::showing("1712345678901", PHOTO.to_vec()).await;
    let (one, other) = (Proxy::with(upstream.address, improving), Proxy::with(upstream.address, improving));
    let request = Request::picture("size=64").accept(WEBP);
    let tag = |answer: &crate::client::Answer| answer.header("etag").expect("a tag").to_owned();
    let mut ends = Vec::new();
    for proxy in [&one, &other] {
        let first = proxy.send(&request).await;
        for _ in 0..2 {
            let again = proxy.send(&request.clone().header("If-None-Match", &tag(&first))).await;
            assert_eq!(again.status, 304);
        }
        while proxy.metrics(&[REPLACED, KEPT]).await.iter().sum::<u64>() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(proxy.metric(REPLACED).await, 1, "the first answer to this picture is not the best");
        let better = proxy.send(&request.clone().header("If-None-Match", &tag(&first))).await;
        assert_eq!(better.status, 200);
        assert!(better.body.len() < first.body.len(), "{} {}", better.body.len(), first.body.len());
        assert_ne!(tag(&better), tag(&first));
        let known = proxy.send(&request.clone().header("If-None-Match", &tag(&better))).await;
        assert_eq!(known.status, 304);
        for _ in 0..20 {
            assert_eq!(proxy.send(&request).await.body, better.body);
        }
        assert_eq!(proxy.metric(REPLACED).await, 1, "once");
        ends.push((tag(&better), better.body));
    }
    assert_eq!(ends[0], ends[1], "two processes come to the same bytes");
}

#[actix_web::test]
async fn what_is_asked_for_once_or_not_to_be_improved_stays() {
    let upstream = Upstream::showing("1712345678901", PHOTO.to_vec()).await;
    let off = Proxy::with(upstream.address, |config| {
        improving(config);
        config.improve.enabled = false;
    });
    let rarely = Proxy::with(upstream.address, |config| {
        improving(config);
        config.improve.after_hits = 100;
    });
    let request = Request::picture("size=64").accept(WEBP);
    for proxy in [&off, &rarely] {
        let first = proxy.send(&request).await;
        for _ in 0..50 {
            assert_eq!(proxy.send(&request).await.body, first.body);
        }
        assert_eq!(proxy.metric("avatar_proxy_improvements_waiting").await, 0);
        assert_eq!(proxy.metric(REPLACED).await, 0);
    }
}
