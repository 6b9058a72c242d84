//! Fields on their way: which cross, which stop here, and what upstream is told of where a request came from.

use crate::client::{ALICE, ALICES_TOKEN, Request};
use crate::pictures::{photo, png};
use crate::proxy::Proxy;
use crate::upstream::{Seen, Upstream, answer, picture_answer};
use avatar_proxy::config::UpstreamHost;

const FORWARDING: [&str; 10] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-real-ip",
    "via",
];

/// What upstream is told of where a request came from, in the order of the names.
fn told(seen: &Seen) -> Vec<String> {
    let lines = |name: &&str| seen.all(name).into_iter().map(|value| format!("{name}: {value}")).collect::<Vec<_>>();
    FORWARDING.iter().flat_map(lines).collect()
}

fn trusting(upstream: &Upstream, network: &str) -> Proxy {
    Proxy::with(upstream.address, |config| {
        config.server.trusted_proxies = vec![network.parse().expect("a network")];
    })
}

/// A request of each kind that goes upstream by a way of its own.
fn of_each_kind() -> [Request; 4] {
    let path = format!("/api/v4/users/{ALICE}/image");
    [
        Request::get("/api/v4/users/me"),
        Request::get(&path).cookie(ALICES_TOKEN),
        Request::new("POST", &path).cookie(ALICES_TOKEN).body("x"),
        Request::get("/api/v4/websocket")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
}

#[actix_web::test]
async fn a_stranger_is_not_believed_and_a_trusted_proxy_is() {
    let upstream = Upstream::answering(picture_answer("1", &png(&photo(1)))).await;
    let strangers = [Proxy::before(upstream.address), trusting(&upstream, "10.0.0.0/8")];
    let trusting = [trusting(&upstream, "127.0.0.0/8")];
    let ours = [
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: chat.example",
        "x-forwarded-proto: http",
        "x-real-ip: 127.0.0.1",
    ];
    let spoofed = [
        ("X-Forwarded-For", "203.0.113.7"),
        ("x-forwarded-for", "198.51.100.1, 10.1.1.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Prefix", "/evil"),
        ("X-Forwarded-Ssl", "on"),
        ("X-Forwarded-Server", "evil"),
        ("X-Real-IP", "203.0.113.7"),
        ("Forwarded", "for=203.0.113.7;proto=https"),
    ];
    let kept = [
        "forwarded: for=203.0.113.7;proto=https, for=127.0.0.1",
        "x-forwarded-for: 203.0.113.7, 198.51.100.1, 10.1.1.1, 127.0.0.1",
        "x-forwarded-host: evil.example",
        "x-forwarded-proto: https",
        "x-real-ip: 203.0.113.7",
    ];
    let by_chain = ["x-forwarded-for: 203.0.113.7, 10.1.1.1, 127.0.0.1", ours[1], ours[2], "x-real-ip: 10.1.1.1"];
    for (proxies, given, expected) in [
        (&strangers[..], &[][..], &ours[..]),
        (&strangers, &spoofed, &ours),
        (&trusting, &[], &ours),
        (&trusting, &spoofed, &kept),
        (&trusting, &[("X-Forwarded-For", "203.0.113.7, 10.1.1.1")], &by_chain),
    ] {
        for (proxy, request) in proxies.iter().flat_map(|proxy| of_each_kind().map(|request| (proxy, request))) {
            let request = given.iter().fold(request, |request, (name, value)| request.header(name, value));
            proxy.send(&request.clone().header("Host", "chat.example")).await;
            let seen = upstream.seen().pop().expect("asked");
            // Where a trusted proxy stands, and what it serves, goes with what passes through only.
            let about_proxy =
                |line: &String| ["-port", "-prefix", "-server", "-ssl"].iter().any(|end| line.contains(end));
            let (others, told) = told(&seen).into_iter().partition::<Vec<_>, _>(about_proxy);
            assert_eq!(told, expected, "{request:?}");
            assert!(others.is_empty() || expected == kept, "{others:?}");
        }
    }
}

#[actix_web::test]
async fn via_names_us_where_that_is_wanted() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"ok")).await;
    let silent = Proxy::before(upstream.address);
    let naming = Proxy::with(upstream.address, |config| config.headers.via = true);
    let [passing, _, change, websocket] = of_each_kind();
    for request in [passing, change, websocket] {
        for (proxy, expected) in [(&silent, &["1.0 outer"][..]), (&naming, &["1.0 outer", "1.1 avatar-proxy"])] {
            proxy.send(&request.clone().header("Via", "1.0 outer")).await;
            assert_eq!(upstream.seen().pop().expect("asked").all("via"), expected, "{request:?}");
        }
    }
}

#[actix_web::test]
async fn the_host_is_the_clients_or_the_one_that_is_configured() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"ok")).await;
    let keeping = Proxy::before(upstream.address);
    let fixed = Proxy::with(upstream.address, |config| {
        config.upstream.host = UpstreamHost::Fixed("inner.example:8065".to_owned());
    });
    for request in of_each_kind() {
        for (proxy, expected) in [(&keeping, "Chat.Example:443"), (&fixed, "inner.example:8065")] {
            proxy.send(&request.clone().header("Host", "Chat.Example:443")).await;
            let seen = upstream.seen().pop().expect("asked");
            assert_eq!(seen.all("host"), [expected]);
            assert_eq!(seen.all("x-forwarded-host"), ["Chat.Example:443"]);
        }
    }
}

#[actix_web::test]
async fn nobody_is_named_in_via_but_who_named_himself() {
    let upstream = Upstream::answering(answer("200 OK", &[("Via", "1.1 inner")], b"ok")).await;
    let proxy = Proxy::before(upstream.address);
    for given in [&[][..], &["1.0 outer, 1.1 other"], &["1.0 outer", "1.1 other"]] {
        let request = given.iter().fold(Request::get("/x"), |request, via| request.header("Via", via));
        assert_eq!(proxy.send(&request).await.all("via"), ["1.1 inner"]);
        assert_eq!(upstream.seen().pop().expect("asked").all("via"), given);
    }
}

/// RFC 9110 section 7.6.1, both ways.
#[actix_web::test]
async fn what_belongs_to_a_connection_stops_at_its_end() {
    let fields = [
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "trailers, deflate;q=0.5"),
        ("Trailer", "X-Sum"),
        ("Upgrade", "h2c"),
        ("X-Hop", "1"),
        ("X-Hop", "2"),
    ];
    let crossing = [("x-own", "1"), ("x-empty", ""), ("x-own", "2")];
    let named = ("Connection", "close, X-Hop, , x-absent,Upgrade,TE");
    let back = [&[("Proxy-Authenticate", "Basic"), named][..], &fields, &crossing].concat();
    let upstream = Upstream::answering(answer("200 OK", &back, b"ok")).await;
    let proxy = Proxy::before(upstream.address);
    let sent = [&[("Proxy-Authorization", "Basic x"), named][..], &fields, &crossing].concat();
    let request = sent.iter().fold(Request::get("/x"), |request, (name, value)| request.header(name, value));

    let got = proxy.send(&request).await;

    let seen = upstream.seen().pop().expect("asked");
    for (name, _) in &sent[..sent.len() - crossing.len()] {
        assert!(seen.all(name).is_empty(), "{name} went upstream");
    }
    for (name, _) in back.iter().filter(|(name, _)| !["Connection", "x-own", "x-empty"].contains(name)) {
        assert!(got.all(name).is_empty(), "{name} came down");
    }
    assert_eq!((seen.all("x-own"), seen.all("x-empty")), (vec!["1", "2"], vec![""]));
    assert_eq!((got.all("x-own"), got.all("x-empty")), (vec!["1", "2"], vec![""]));
    // The client asked for the end of its own connection.
    assert_eq!(got.header("connection"), Some("close"));
}

#[actix_web::test]
async fn f36_connection_may_name_no_credential_and_no_forwarding_field() {
    let upstream = Upstream::answering(answer("200 OK", &[], b"ok")).await;
    let proxy = Proxy::before(upstream.address);
    for named in [
        "Authorization",
        "cookie",
        "Host",
        "Origin",
        "X-CSRF-Token",
        "X-Requested-With",
        "X-Cloud-Token",
        "X-RemoteCluster-Id",
        "X-RemoteCluster-Token",
        "X-Mattermost-Preauth-Secret",
        "Forwarded",
        "X-Real-IP",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "keep-alive,Upgrade ,\tX-forwarded-HOST",
    ] {
        for request in of_each_kind() {
            let answer = proxy.send(&request.header("Connection", named)).await;
            assert_eq!(answer.status, 400, "{named}");
            assert_eq!(answer.json()["id"], "avatar_proxy.header.connection", "{named}");
        }
    }
    assert!(upstream.seen().is_empty());
}

/// Every byte that may stand in a value, and long ones: neither side of the proxy reads them.
#[actix_web::test]
async fn values_cross_byte_for_byte() {
    let every = (0x21..=0xff).filter(|byte| *byte != 0x7f).collect::<Vec<u8>>();
    let every = [&every[..], b" \t ", &every, b"\xff"].concat();
    let head = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Bytes: ", &every[..], b"\r\n\r\n"].concat();
    let upstream = Upstream::answering(head).await;
    let proxy = Proxy::before(upstream.address);
    for path in ["/x".to_owned(), format!("/api/v4/users/{ALICE}/image")] {
        let mut stream = tokio::net::TcpStream::connect(proxy.address).await.expect("the proxy listens");
        let head = format!("POST {path} HTTP/1.1\r\nHost: chat.example\r\nX-Bytes: ");
        let request = [head.as_bytes(), &every, b"\r\nConnection: close\r\n\r\n"].concat();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &request).await.expect("taken");
        let mut got = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut got).await.expect("an answer");

        let holds = |head: &[u8]| {
            let line = [b"x-bytes: ", &every[..], b"\r\n"].concat();
            head.windows(line.len())
                .any(|window| window[..7].eq_ignore_ascii_case(b"x-bytes") && window[7..] == line[7..])
        };
        assert!(holds(&upstream.seen().pop().expect("asked").raw), "{path}");
        assert!(holds(&got), "{path}: {:?}", String::from_utf8_lossy(&got));
    }
}

/// What actix has not answered is upstream's to answer (`recordings`: `file-post-expect-other`).
#[actix_web::test]
async fn an_expectation_that_is_not_ours_goes_upstream() {
    let upstream = Upstream::answering(answer("417 Expectation Failed", &[], b"")).await;
    let proxy = Proxy::before(upstream.address);
    for (expected, crosses) in [("tea", true), ("100-continue", false), ("tea, 100-Continue", false)] {
        let request = Request::new("POST", "/api/v4/files").header("Expect", expected).body("x");
        let mut stream = tokio::net::TcpStream::connect(proxy.address).await.expect("the proxy listens");
        tokio::io::AsyncWriteExt::write_all(&mut stream, &request.bytes("chat.example")).await.expect("taken");
        if !crosses {
            let mut interim = [0; 25];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut interim).await.expect("an interim answer");
            assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        assert_eq!(crate::client::read_answer(&mut stream, "POST").await.status, 417);
        let seen = upstream.seen().pop().expect("asked");
        assert_eq!(seen.header("expect"), crosses.then_some(expected));
    }
}
