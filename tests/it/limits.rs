//! What is bounded: pictures that would cost more than they are worth, and a start that cannot be.

use crate::client::{ALICE, BOB, BOBS_TOKEN, Request};
use crate::pictures::{RED, moving_gif, photo, png, solid};
use crate::proxy::{Proxy, SHORT};
use crate::upstream::{Upstream, picture_answer, send_and_close};
use avatar_proxy::config::{ByteSize, Config, Rate};
use avatar_proxy::server::{Bound, StartError};
use avatar_proxy::telemetry::Telemetry;
use futures_util::future::join_all;
use png::chunk::IDAT;
use std::borrow::Cow;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// A PNG of which the header claims 2.5 gigapixels.
fn claiming_png() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = png::Encoder::new(&mut bytes, 50_000, 50_000).write_header().expect("a header");
    writer.write_chunk(IDAT, &[0x78, 0x9c, 0x63, 0, 0]).expect("a chunk");
    drop(writer);
    bytes
}

/// A PNG of a few pixels with a colour profile that inflates to 64 MiB.
fn profile_png() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut info = png::Info::with_size(64, 64);
    info.color_type = png::ColorType::Rgb;
    info.icc_profile = Some(Cow::Owned(vec![0; 64 << 20]));
    let encoder = png::Encoder::with_info(&mut bytes, info).expect("a header");
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(&[90; 64 * 64 * 3]).expect("pixels");
    drop(writer);
    bytes
}

/// A PNG of a few pixels with a text that inflates to 64 MiB.
fn text_png() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 64, 64);
    encoder.set_color(png::ColorType::Rgb);
    encoder.add_ztxt_chunk("Comment".to_owned(), " ".repeat(64 << 20)).expect("a keyword");
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(&[90; 64 * 64 * 3]).expect("pixels");
    drop(writer);
    bytes
}

/// A GIF of two small frames on a screen of 65,535 x 65,535.
fn screen_gif() -> Vec<u8> {
    let mut bytes = moving_gif(&[solid(RED), solid(RED)]);
    bytes[6..10].fill(0xff);
    bytes
}

/// A picture that is relayed comes from upstream for as long as its client takes it.
#[actix_web::test]
async fn a_picture_that_is_relayed_has_its_place_until_it_has_come() {
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let upstream = Upstream::scripted(move |n, _, mut stream| {
        let released = released.clone();
        async move {
            let whole = picture_answer("1", &png(&photo(1)));
            if n > 0 {
                return send_and_close(&mut stream, &whole).await;
            }
            let (first, rest) = whole.split_at(whole.len() / 2);
            let _ = stream.write_all(first).await;
            released.notified().await;
            send_and_close(&mut stream, rest).await;
        }
    })
    .await;
    let proxy = Proxy::with(upstream.address, |config| {
        config.upstream.max_picture_requests = 1;
        config.upstream.head_timeout = SHORT;
        config.limits.source = ByteSize::new(1 << 10);
    });
    let mut first = TcpStream::connect(proxy.address).await.expect("the proxy listens");
    first
        .write_all(&Request::picture("size=32").header("Connection", "close").bytes("chat.example"))
        .await
        .expect("taken");
    // Its head has come: it is on its way.
    assert_eq!(first.read_u8().await.expect("an answer"), b'H');
    let second = Request::picture_of(BOB, "size=32").cookie(BOBS_TOKEN);

    let refused = proxy.send(&second).await;

    assert_eq!((refused.status, upstream.seen().len()), (503, 1), "{refused:?}");
    release.notify_one();
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).await.expect("an end");
    assert_eq!(proxy.send(&second).await.status, 200);
}

#[actix_web::test]
async fn f41_bombs_are_relayed_and_the_process_is_fine() {
    for (bomb, name) in [(claiming_png(), "size"), (screen_gif(), "screen")] {
        let upstream = Upstream::answering(picture_answer("1", &bomb)).await;
        let proxy = Proxy::before(upstream.address);

        let requests = (0..50).map(|n| Request::picture(&format!("size={}", 16 + n))).collect::<Vec<_>>();
        let answers = join_all(requests.iter().map(|request| proxy.send(request))).await;

        for answer in answers {
            assert_eq!((answer.status, answer.header("etag")), (200, Some("1")), "{name}");
            assert_eq!(answer.body, bomb, "{name}");
        }
        assert!(proxy.metric("avatar_proxy_faults_total{fault=\"over_limit\"}").await >= 1, "{name}");
        assert_eq!(proxy.metric("avatar_proxy_faults_total{fault=\"decoder_panic\"}").await, 0, "{name}");
        assert_eq!(Request::get("/healthz").send(proxy.admin).await.status, 200, "{name}");
    }
}

#[actix_web::test]
async fn f41_what_inflates_beside_the_pixels_is_not_read() {
    for (name, bomb) in [("profile", profile_png()), ("text", text_png())] {
        assert!(bomb.len() < 1 << 20, "{name}: {} bytes", bomb.len());
        let upstream = Upstream::showing("1", bomb).await;
        let proxy = Proxy::with(upstream.address, |config| config.limits.decoder_memory = ByteSize::mebibytes(1));

        let answer = proxy.send(&Request::picture("size=32&format=webp")).await;

        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/webp")), "{name}");
        assert_eq!(answer.dimensions(), (32, 32), "{name}");
    }
}

#[actix_web::test]
async fn limits_on_edge_and_pixels_are_kept() {
    let picture = png(&photo(1));
    let upstream = Upstream::showing("1", picture.clone()).await;
    let narrow = Proxy::with(upstream.address, |config| config.limits.edge = 127);
    let few = Proxy::with(upstream.address, |config| config.limits.pixels = 128 * 128 - 1);
    let enough = Proxy::with(upstream.address, |config| {
        (config.limits.edge, config.limits.pixels) = (128, 128 * 128);
    });

    for proxy in [narrow, few] {
        assert_eq!(proxy.send(&Request::picture("size=32")).await.body, picture);
    }
    assert_eq!(enough.send(&Request::picture("size=32")).await.dimensions(), (32, 32));
}

/// Behind a proxy that nobody declared, everybody has one address: its budget would be spent by all of them together.
#[actix_web::test]
async fn f40_an_address_pays_where_it_is_known_to_be_the_clients() {
    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let rate = Rate { count: 2, per: Duration::from_secs(3600) };
    let statuses = async |trusted: bool, clients: [Option<&str>; 5]| {
        let proxy = Proxy::with(upstream.address, |config| {
            config.limits.address_misses = Some(rate);
            if trusted {
                config.server.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
            }
        });
        let mut statuses = Vec::new();
        for (n, client) in clients.into_iter().enumerate() {
            // Each with a token of its own, of which none has spent anything.
            let look = Request::picture_of(ALICE, "size=32").cookie(&format!("{n:026}"));
            let look = client.into_iter().fold(look, |look, client| look.header("X-Forwarded-For", client));
            statuses.push(proxy.send(&look).await.status);
        }
        statuses
    };
    let (one, other) = (Some("203.0.113.7"), Some("203.0.113.8"));
    for (trusted, clients, expected) in [
        (false, [None; 5], [200; 5]),
        // What nobody vouches for is no address.
        (false, [one; 5], [200; 5]),
        (true, [one, one, one, other, one], [200, 200, 429, 200, 429]),
        (true, [None; 5], [200, 200, 429, 429, 429]),
        // What the client wrote itself stands before what the proxy wrote.
        (true, [Some("203.0.113.8, 203.0.113.7"), one, one, other, other], [200, 200, 429, 200, 200]),
    ] {
        assert_eq!(statuses(trusted, clients).await, expected, "{trusted} {clients:?}");
    }
}

#[actix_web::test]
async fn f52_a_taken_port_is_named_with_its_key() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = holder.local_addr().expect("bound");
    let free: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    for (listen, admin, expected) in [(taken, Some(free), "server.listen"), (free, Some(taken), "admin.listen")] {
        let mut config = Config::default();
        (config.server.listen, config.admin.listen) = (listen, admin);

        let error = Bound::bind(config, Arc::new(Telemetry::new())).err().expect("the port is taken");

        assert!(matches!(error, StartError::Bind { key, address, .. } if key == expected && address == taken));
        assert!(error.to_string().starts_with(&format!("{expected}: {taken} cannot be bound: ")), "{error}");
    }
}
