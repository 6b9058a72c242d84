//! The requests that are sent both ways, and what upstream says to each: tables, and what is made of them.

use crate::recorder::{Reply, Then};
use std::net::SocketAddr;

/// One request with its answer.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) method: String,
    pub(super) request: Vec<u8>,
    /// What is sent only when the other side has said "go on".
    pub(super) later: Vec<u8>,
    pub(super) reply: Reply,
    pub(super) way: Way,
    upstream: SocketAddr,
}

/// How the proxy stands before upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// Clients come by themselves.
    Plain,
    /// They speak TLS.
    Encrypted,
    /// They come through an outer proxy whose word is believed.
    Behind,
}

/// An ordinary answer, as Go writes them.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Mon, 23 Nov 2026 11:45:04 GMT\r\n\
    Content-Length: 11\r\n\r\n{\"seq\":\"1\"}";
const HOST: &str = "Host: chat.example\r\n";
const DATE: &str = "Date: Mon, 23 Nov 2026 11:45:04 GMT\r\n";
const ID: &str = "ge45wmpse3g8umtziei4q749th";
/// The example of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// All of them, each with a name of its own.
pub(super) fn all(upstream: SocketAddr, way: Way) -> Vec<Case> {
    let families = [
        methods(),
        targets(),
        request_fields(),
        request_bodies(),
        versions(),
        statuses(),
        answer_fields(),
        answer_bodies(),
        upgrades(),
        not_our_pictures(),
    ];
    families.into_iter().flatten().map(|case| Case { way, upstream, ..case }).collect()
}

impl Case {
    fn new(family: &str, name: impl AsRef<[u8]>, method: &str, request: impl Into<Vec<u8>>) -> Self {
        Self {
            name: format!("{family}: {}", name.as_ref().escape_ascii()),
            method: method.to_owned(),
            request: request.into(),
            later: Vec::new(),
            reply: Reply::next(OK),
            way: Way::Plain,
            upstream: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }

    /// What upstream is called where the client gives it no name.
    pub(super) fn upstream(&self) -> String {
        self.upstream.to_string()
    }

    fn answered(self, answer: impl Into<Vec<u8>>) -> Self {
        Self { reply: Reply::next(answer), ..self }
    }

    fn and_then(mut self, then: Then) -> Self {
        self.reply.then = then;
        self
    }
}

/// A GET whose answer matters.
fn asking(family: &str, name: impl AsRef<[u8]>, answer: impl Into<Vec<u8>>) -> Case {
    Case::new(family, name, "GET", format!("GET /api/v4/posts HTTP/1.1\r\n{HOST}\r\n")).answered(answer)
}

fn methods() -> Vec<Case> {
    let plain = [
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "PROPFIND",
        "PROPPATCH",
        "MKCOL",
        "COPY",
        "MOVE",
        "LOCK",
        "UNLOCK",
        "REPORT",
        "SEARCH",
        "PURGE",
        "LINK",
        "M-SEARCH",
        "QUERY",
        "get",
        "Post",
        "X",
        "A!*+-.^_`|~9",
        "A#",
        "A$",
        "A%",
        "A&",
        "A'",
    ];
    let with_body = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "QUERY", "X-ODD", "HEAD"];
    let empty = ["GET", "POST", "PUT", "PATCH", "DELETE"];
    let case = |name: &str, method: &str, rest: &str| {
        let target = if method == "CONNECT" { "chat.example:443" } else { "/api/v4/posts?page=1" };
        Case::new("method", format!("{method} {name}"), method, format!("{method} {target} HTTP/1.1\r\n{HOST}{rest}"))
    };
    let plain = plain.map(|method| case("plain", method, "\r\n"));
    let counted = with_body.map(|method| case("counted", method, "Content-Length: 5\r\n\r\nhello"));
    let chunked =
        with_body.map(|method| case("chunked", method, "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
    let empty = empty.map(|method| case("of nothing", method, "Content-Length: 0\r\n\r\n"));
    plain.into_iter().chain(counted).chain(chunked).chain(empty).collect()
}

fn targets() -> Vec<Case> {
    let long_path = format!("/files/{}", "a".repeat(1500));
    let long_query = format!("/api/v4/posts?q={}", "%20".repeat(2500));
    let respelt = format!("/api/v4/users/{ID}/image");
    let targets = [
        "/",
        "//",
        "/?",
        "/??",
        "/a?b?c",
        "/?a=1&a=2&&=&b",
        "/?a=b=c;d",
        "/a/",
        "/a//b///",
        "//evil.example/x",
        "/%2f/%2F",
        "/%00",
        "/%0d%0a",
        "/%41%zz%",
        "/a%20b/%C3%BC",
        "/;v=1/x;y",
        "/@evil.example",
        "/a:b",
        "/:80/",
        "/a,b!$&'()*+=~_-.",
        "/...",
        "/.well-known/a..b/..hidden",
        "/a%2e%2eb",
        "/%252e%252e/",
        "/?x=../..",
        "/?x=/./",
        "/?q=%22%2F",
        "/?q=[1]{2}|3",
        "/?q=\"x\"",
        "/?q='`^",
        "/?q=\\",
        "/plugins/p/?x=[1]",
        "/?q=a+b%2Bc",
        "/static/x.js?v=1.2.3",
        "/api/v4/users/GE45WMPSE3G8UMTZIEI4Q749TH/image",
        "/api/v4/users/x/image",
        "/api/v4/users/me%2fimage",
        "/../x",
        "/a/../b",
        "/a/./b",
        "/..",
        "/.",
        "/%2e%2e/y",
        "/a/%2E./b",
        "/.%2e",
        "/a\\b",
        "/x#y",
        "/x?y#z?",
        "/\\evil.example/x",
        "http://chat.example/api/v4/x?y=1",
        "http://evil.example/api/v4/x",
        "http://evil.example",
        "https://user@evil.example:1/x",
        &long_path,
        &long_query,
        &format!("{respelt}/"),
        &format!("{respelt}.png"),
        &format!("{respelt};x=1"),
        &format!("{respelt}%00"),
        &format!("/api/v4//users/{ID}/image"),
        &format!("/api/v4/users/{ID}%2fimage"),
    ];
    let mut cases = Vec::new();
    for byte in (0x21..=0x7e).chain([0x7f, 0x80, 0xe9, 0xff]) {
        for (before, after) in [(&b"/a"[..], &b"b/"[..]), (b"/x?a=", b"b")] {
            let target = [before, &[byte], after].concat();
            let request = [b"GET ", &target[..], b" HTTP/1.1\r\n", HOST.as_bytes(), b"\r\n"].concat();
            cases.push(Case::new("a byte in a target", target, "GET", request));
        }
    }
    for target in targets {
        let short = if target.len() < 100 { target.to_owned() } else { format!("{} bytes", target.len()) };
        let request = |method: &str| format!("{method} {target} HTTP/1.1\r\n{HOST}\r\n");
        cases.push(Case::new("target", &short, "GET", request("GET")));
        cases.push(Case::new("target of a DELETE", &short, "DELETE", request("DELETE")));
    }
    cases.push(Case::new("target", "*", "OPTIONS", format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n")));
    cases
}

fn request_fields() -> Vec<Case> {
    let many = (0..60).map(|n| format!("X-Field-{n}: {n}\r\n")).collect::<Vec<_>>().concat();
    let long = format!("X-Long: {}\r\n", "v".repeat(8 << 10));
    let long_name = format!("X-{}: v\r\n", "n".repeat(200));
    let fields: [&[u8]; 67] = [
        b"Accept: text/html\r\nAccept: */*;q=0.1\r\n",
        b"X-A: 1\r\nX-B: 2\r\nX-A: 3\r\nx-a: 1\r\n",
        b"X-Empty:\r\n",
        b"X-Empty: \r\nX-Empty:\t\r\nX-Empty: v\r\n",
        b"X-Latin: caf\xe9 \xff\x80\r\n",
        "X-Utf8: \u{fc}\u{1f600}\r\n".as_bytes(),
        b"X-Tab: a\tb  c\r\n",
        b"X-Tight:v\r\n",
        b"X-Loose: \t v \t \r\n",
        b"X-Quoted: \"a, \\\"b\\\"\", c\r\n",
        b"!#$%&'*+-.^_`|~0: odd\r\n",
        b"X_Under.Score: v\r\n",
        b"1: v\r\n",
        many.as_bytes(),
        long.as_bytes(),
        long_name.as_bytes(),
        b"Cookie: MMAUTHTOKEN=x; theme=dark\r\nCookie: more=1\r\n",
        b"Cookie: a=\"b\"; c=; =d; ;;\r\n",
        b"Authorization: Bearer 8a1xz5ri6bgwmq4m6xo7cnjdhe\r\n",
        b"Authorization: Basic eDp5\r\nAuthorization: token z\r\n",
        b"X-Mattermost-Preauth-Secret: s\r\n",
        b"X-Requested-With: XMLHttpRequest\r\nX-CSRF-Token: t\r\n",
        b"X-Cloud-Token: t\r\nX-RemoteCluster-Id: r\r\n",
        b"If-None-Match: 1234\r\n",
        b"If-None-Match: \"a\", W/\"b\"\r\nIf-None-Match: *\r\n",
        b"If-Match: \"a\"\r\nIf-Unmodified-Since: Mon, 23 Nov 2026 11:45:04 GMT\r\n",
        b"If-Modified-Since: Mon, 23 Nov 2026 11:45:04 GMT\r\n",
        b"Range: bytes=0-1,5-\r\nIf-Range: \"x\"\r\n",
        b"Range: bytes=-5\r\n",
        b"Range: rows=1-2\r\n",
        b"Accept-Encoding: gzip, deflate, br, zstd\r\n",
        b"Accept-Encoding: identity;q=0\r\n",
        b"Accept-Language: de-CH, *;q=0.5\r\nAccept-Charset: utf-8\r\n",
        b"Origin: https://chat.example\r\nAccess-Control-Request-Method: PUT\r\n",
        b"Referer: https://chat.example/a/b?c=d\r\n",
        b"User-Agent: Mozilla/5.0 (X11) (nested (comment))\r\n",
        b"Cache-Control: no-cache, no-store\r\nPragma: no-cache\r\n",
        b"Cache-Control: only-if-cached\r\n",
        b"Via: 1.1 outer (x)\r\nVia: 1.0 other\r\n",
        b"From: a@b.example\r\nDate: Mon, 23 Nov 2026 11:45:04 GMT\r\n",
        b"Max-Forwards: 0\r\n",
        b"Content-Type: text/plain\r\nContent-Language: de\r\nContent-Encoding: gzip\r\n",
        b"X-HTTP-Method-Override: DELETE\r\n",
        b"X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\n",
        b"Sec-Fetch-Mode: cors\r\nSec-CH-UA: \"x\";v=\"1\"\r\nDNT: 1\r\n",
        b"Early-Data: 1\r\nPriority: u=1, i\r\n",
        b"X-Request-Id: mine\r\nTraceparent: 00-ab-cd-01\r\n",
        b"X-Forwarded-For: 10.1.1.1, 10.2.2.2\r\nX-Forwarded-For: 10.3.3.3\r\n",
        b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n",
        b"Forwarded: for=10.1.1.1;proto=https\r\nX-Real-IP: 10.1.1.1\r\n",
        b"X-Real-Ip: 10.1.1.1\r\nX-Real-Ip: 10.2.2.2\r\n",
        b"CDN-Loop: other-cdn; v=1\r\nCDN-Loop: third\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\nKeep-Alive: timeout=5, max=100\r\n",
        b"Connection: Keep-Alive, X-Hop, ,\"x\"\r\nX-Hop: 1\r\nx-hop: 2\r\nX-Hopper: kept\r\n",
        b"Connection: X-Hop\r\nConnection: X-Other\r\nX-Hop: 1\r\nX-Other: 1\r\n",
        b"Connection: Content-Type\r\nContent-Type: text/plain\r\n",
        b"Connection: Cookie\r\nCookie: a=b\r\n",
        b"Connection: close, authorization\r\nAuthorization: Bearer x\r\n",
        b"Connection: X-Forwarded-For\r\nX-Forwarded-For: 1.1.1.1\r\n",
        b"Connection: Host\r\n",
        b"Proxy-Connection: keep-alive\r\n",
        b"Proxy-Authorization: Basic eDp5\r\n",
        b"TE: trailers\r\nConnection: TE\r\n",
        b"TE: gzip, trailers;q=0.5\r\n",
        b"Trailer: X-Checksum\r\n",
        b"Keep-Alive: 300\r\n",
    ];
    let cases = fields.into_iter().map(|lines| {
        let head = [b"GET /api/v4/posts HTTP/1.1\r\n", HOST.as_bytes(), lines, b"\r\n"].concat();
        Case::new("request field", &lines[..lines.len().min(120)], "GET", head)
    });
    let foreign = ["evil.example", "chat.example:80", "CHAT.Example", "[::1]:8065", "127.0.0.1"].map(|host| {
        Case::new("request host", host, "GET", format!("GET /api/v4/posts HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    });
    cases.chain(foreign).collect()
}

/// `body` in chunks of `size`.
fn in_chunks(body: &[u8], size: usize) -> Vec<u8> {
    let chunks = body.chunks(size).map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    [chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat()
}

/// Bytes of every value, in no obvious order.
fn noise(len: u32) -> Vec<u8> {
    (0..len).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn request_bodies() -> Vec<Case> {
    let large = noise(300_000);
    let chunked = "Transfer-Encoding: chunked\r\n";
    let counted = |len: usize| format!("Content-Length: {len}\r\n");
    let table: Vec<(&str, String, Vec<u8>)> = vec![
        ("counted, one byte", counted(1), b"x".to_vec()),
        ("counted, every byte", counted(256), (0..=255).collect()),
        ("counted, large", counted(large.len()), large.clone()),
        ("counted, looks like a request", counted(24), b"GET /evil HTTP/1.1\r\n\r\n  ".to_vec()),
        ("counted, leading zeros", "Content-Length: 0005\r\n".into(), b"hello".to_vec()),
        ("chunked, one", chunked.into(), in_chunks(b"hello", 5)),
        ("chunked, of one byte", chunked.into(), in_chunks(b"hello world", 1)),
        ("chunked, of seven", chunked.into(), in_chunks(&noise(1000), 7)),
        ("chunked, large", chunked.into(), in_chunks(&large, 65_536)),
        ("chunked, of 4093", chunked.into(), in_chunks(&large, 4093)),
        ("chunked, empty", chunked.into(), b"0\r\n\r\n".to_vec()),
        ("chunked, size in capitals", chunked.into(), b"A\r\n0123456789\r\n0\r\n\r\n".to_vec()),
        ("chunked, leading zeros", chunked.into(), b"0005\r\nhello\r\n000\r\n\r\n".to_vec()),
        ("chunked, extensions", chunked.into(), b"5;a=b;c=\"d\"\r\nhello\r\n0;last\r\n\r\n".to_vec()),
        ("chunked, a trailer", chunked.into(), b"5\r\nhello\r\n0\r\nX-Checksum: 1\r\n\r\n".to_vec()),
        ("chunked, a trailer that frames", chunked.into(), b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n".to_vec()),
        ("chunked, name in capitals", "TRANSFER-ENCODING: Chunked\r\n".into(), b"5\r\nhello\r\n0\r\n\r\n".to_vec()),
    ];
    let posts = table.into_iter().map(|(name, framing, body)| {
        let head = format!("POST /api/v4/files HTTP/1.1\r\n{HOST}Content-Type: text/plain\r\n{framing}\r\n");
        Case::new("request body", name, "POST", [head.into_bytes(), body].concat())
    });
    let expecting = [("counted", counted(5), &b"hello"[..]), ("chunked", chunked.into(), b"5\r\nhello\r\n0\r\n\r\n")];
    let expecting = expecting.map(|(name, framing, body)| {
        let head = format!("POST /api/v4/files HTTP/1.1\r\n{HOST}{framing}Expect: 100-continue\r\n\r\n");
        Case { later: body.to_vec(), ..Case::new("request body after a 100", name, "POST", head) }
    });
    posts.chain(expecting).collect()
}

fn versions() -> Vec<Case> {
    let close = format!("HTTP/1.1 200 OK\r\n{DATE}Connection: close\r\n\r\nuntil the end");
    let chunked = format!("HTTP/1.1 200 OK\r\n{DATE}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let old = format!("HTTP/1.0 200 OK\r\n{DATE}\r\nuntil the end");
    let request = |rest: &str| format!("GET /api/v4/posts HTTP/1.0\r\n{rest}\r\n");
    vec![
        Case::new("version", "1.0", "GET", request(HOST)),
        Case::new("version", "1.0, no Host", "GET", request("")),
        Case::new("version", "1.0, kept", "GET", request("Host: x\r\nConnection: keep-alive\r\n")),
        Case::new("version", "1.0, HEAD", "HEAD", request(HOST).replace("GET", "HEAD"))
            .answered(format!("HTTP/1.1 200 OK\r\n{DATE}Content-Length: 5\r\n\r\n")),
        Case::new("version", "1.0, POST", "POST", "POST /x HTTP/1.0\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
        Case::new("version", "1.0, answer until the end", "GET", request(HOST))
            .answered(close.clone())
            .and_then(Then::Close),
        // Upstream would not send chunks to such a client; to a proxy it does.
        Case::new("version", "1.0, answer of 1.0", "GET", request(HOST)).answered(old.clone()).and_then(Then::Close),
        asking("version", "1.1, answer until the end", close).and_then(Then::Close),
        asking("version", "1.1, answer of 1.0", old).and_then(Then::Close),
        asking(
            "version",
            "1.1, counted answer of 1.0",
            format!("HTTP/1.0 200 OK\r\n{DATE}Content-Length: 2\r\n\r\nok"),
        )
        .and_then(Then::Close),
        asking("version", "1.1, chunks", chunked),
    ]
}

fn statuses() -> Vec<Case> {
    let mut cases = Vec::new();
    for status in 200..600 {
        let length = if status == 204 || status == 304 { "" } else { "Content-Length: 2\r\n" };
        let body = if length.is_empty() { "" } else { "ok" };
        let head = format!("HTTP/1.1 {status} Said So\r\n{DATE}X-Id: {status}\r\n{length}\r\n");
        cases.push(asking("status", status.to_string(), head.clone() + body));
        if status % 9 == 0 || [204, 205, 206, 304, 416].contains(&status) {
            let request = format!("HEAD /api/v4/posts HTTP/1.1\r\n{HOST}\r\n");
            cases.push(Case::new("status of a HEAD", status.to_string(), "HEAD", request).answered(head));
        }
    }
    let odd = [
        "HTTP/1.1 200\r\n",
        "HTTP/1.1 200 \r\n",
        "HTTP/1.1 200 \u{e9}t\u{e9}\r\n",
        "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: 1234\r\nContent-Length: 99\r\n",
        "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n",
        "HTTP/1.1 204 No Content\r\nETag: W/\"x\"\r\n",
    ];
    for start in odd {
        let length = if start.contains("304") || start.contains("204") || start.contains("205") {
            ""
        } else {
            "Content-Length: 0\r\n"
        };
        cases.push(asking("status line", start, format!("{start}{DATE}{length}\r\n")));
    }
    for interim in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </x.css>; rel=preload\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 199 Odd\r\n\r\n",
    ] {
        cases.push(asking("status before", interim.trim_end(), format!("{interim}{OK}")));
    }
    cases
}

fn answer_fields() -> Vec<Case> {
    let many = (0..60).map(|n| format!("X-Field-{n}: {n}\r\n")).collect::<Vec<_>>().concat();
    let long = format!("X-Long: {}\r\n", "v".repeat(8 << 10));
    let fields: [&[u8]; 50] = [
        b"Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2; HttpOnly\r\nSet-Cookie: a=3\r\n",
        b"Set-Cookie: a=1\r\nX-Between: 1\r\nset-cookie: b=2\r\nSet-Cookie: a=1\r\n",
        b"Set-Cookie: MMAUTHTOKEN=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT\r\n",
        b"X-A: 1\r\nX-B: 2\r\nX-A: 3\r\n",
        b"X-Empty:\r\nX-Empty: \t\r\n",
        b"X-Latin: caf\xe9 \xff\x80\r\n",
        b"X-Tab: a\tb  c\r\n",
        b"!#$%&'*+-.^_`|~0: odd\r\n",
        many.as_bytes(),
        long.as_bytes(),
        b"Location: /login?redirect=%2F\r\n",
        b"Location: https://sso.example/a?b=c#d\r\n",
        b"Location: //evil.example/\r\n",
        b"Content-Location: /x\r\nRefresh: 0; url=/y\r\n",
        b"WWW-Authenticate: Basic realm=\"x\"\r\nWWW-Authenticate: Bearer\r\n",
        b"Vary: Accept-Encoding\r\nVary: Origin\r\n",
        b"Vary: *\r\n",
        b"ETag: 1234\r\n",
        b"ETag: W/\"x\"\r\nLast-Modified: Mon, 23 Nov 2026 11:45:04 GMT\r\n",
        b"Cache-Control: public, max-age=31536000, immutable\r\nAge: 17\r\nExpires: 0\r\n",
        b"Cache-Control: no-cache\r\nCache-Control: no-store\r\nPragma: no-cache\r\n",
        b"Server: nginx\r\nX-Powered-By: x\r\n",
        b"Via: 1.1 inner\r\n",
        b"X-Request-Id: abc\r\nX-Version-Id: 11.6.0\r\n",
        b"Content-Type: text/html; charset=utf-8\r\n",
        b"Content-Type: multipart/byteranges; boundary=x\r\n",
        b"Content-Type:\r\n",
        b"Content-Disposition: attachment;filename=\"a.png\"; filename*=UTF-8''%C3%A4\r\n",
        b"Content-Range: bytes 2-3/9\r\nAccept-Ranges: bytes\r\n",
        b"Content-Language: de\r\nContent-MD5: x\r\nDigest: y\r\n",
        b"Content-Security-Policy: frame-ancestors 'self'\r\nX-Frame-Options: SAMEORIGIN\r\n",
        b"Strict-Transport-Security: max-age=1\r\nPermissions-Policy:\r\n",
        b"Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n",
        b"Link: </x>; rel=next, </y>; rel=prev\r\n",
        b"Retry-After: 2\r\nX-Ratelimit-Limit: 101\r\nX-RateLimit-Reset: 1\r\n",
        b"Alt-Svc: h3=\":443\"\r\n",
        b"Accept-Patch: x\r\nAllow: GET, POST\r\n",
        b"X-Accel-Redirect: /internal\r\nX-Sendfile: /etc/passwd\r\n",
        b"Cache-Status: x; hit\r\nServer-Timing: a;dur=1\r\n",
        b"Clear-Site-Data: \"*\"\r\nService-Worker-Allowed: /\r\n",
        b"Warning: 199 - \"x\"\r\nNEL: {}\r\n",
        b"X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n",
        b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
        b"Connection: X-Hop\r\nX-Hop: 1\r\nX-Hopper: kept\r\n",
        b"Connection: Set-Cookie\r\nSet-Cookie: a=1\r\n",
        b"Proxy-Authenticate: Basic\r\nProxy-Connection: keep-alive\r\n",
        b"Proxy-Authentication-Info: x\r\nProxy-Status: y\r\n",
        b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
        b"Trailer: X-Checksum\r\nTE: trailers\r\n",
        b"CDN-Loop: inner\r\nForwarded: for=x\r\nX-Forwarded-For: 10.1.1.1\r\n",
    ];
    let dates: [&[u8]; 3] = [b"", b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", b"Date: not a date\r\n"];
    let head = |date: &[u8], lines: &[u8]| {
        let parts = [b"HTTP/1.1 200 OK\r\n", date, lines, b"Content-Length: 2\r\n\r\nok"];
        asking("answer field", [date, &lines[..lines.len().min(120)]].concat(), parts.concat())
    };
    let fields = fields.iter().map(|lines| head(DATE.as_bytes(), lines));
    fields.chain(dates.iter().map(|date| head(date, b""))).collect()
}

fn answer_bodies() -> Vec<Case> {
    let large = noise(300_000);
    let counted = |body: &[u8], more: &str| {
        let head = format!("HTTP/1.1 200 OK\r\n{DATE}{more}Content-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let chunked = |chunks: &[u8]| {
        [format!("HTTP/1.1 200 OK\r\n{DATE}Transfer-Encoding: chunked\r\n\r\n").as_bytes(), chunks].concat()
    };
    let encoded = ["gzip", "br", "zstd", "deflate", "compress", "identity", "gzip, br", "x-odd"].map(|coding| {
        asking(
            "answer encoding",
            coding,
            counted(b"\x1f\x8b\x08 no real one", &format!("Content-Encoding: {coding}\r\n")),
        )
    });
    let head = |name: &str, fields: &str| {
        let request = format!("HEAD /api/v4/files/1 HTTP/1.1\r\n{HOST}\r\n");
        Case::new("answer to a HEAD", name, "HEAD", request).answered(format!("HTTP/1.1 200 OK\r\n{DATE}{fields}\r\n"))
    };
    let bodies = vec![
        asking("answer body", "nothing", counted(b"", "")),
        asking("answer body", "every byte", counted(&(0..=255).collect::<Vec<_>>(), "")),
        asking("answer body", "an answer in an answer", counted(OK.as_bytes(), "")),
        asking("answer body", "large", counted(&large, "")),
        asking("answer body", "one chunk", chunked(&in_chunks(b"hello", 5))),
        asking("answer body", "chunks of one", chunked(&in_chunks(b"hello world", 1))),
        asking("answer body", "chunks, large", chunked(&in_chunks(&large, 65_536))),
        asking("answer body", "no chunk", chunked(b"0\r\n\r\n")),
        asking("answer body", "chunk extensions", chunked(b"5;a=b\r\nhello\r\n0;x\r\n\r\n")),
        asking("answer body", "a trailer", chunked(b"5\r\nhello\r\n0\r\nX-Checksum: 1\r\n\r\n")),
        asking(
            "answer body",
            "until the end, large",
            [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", &large[..]].concat(),
        )
        .and_then(Then::Close),
        head("a length", "Content-Length: 12345\r\n"),
        head("no length", ""),
        head("chunks", "Transfer-Encoding: chunked\r\n"),
        head("nothing", "Content-Length: 0\r\n"),
        head("gzip", "Content-Encoding: gzip\r\nContent-Length: 99\r\n"),
    ];
    let redirects = [301, 302, 303, 307, 308].map(|status| {
        let answer = format!(
            "HTTP/1.1 {status} Go\r\n{DATE}Location: /elsewhere\r\nSet-Cookie: a=1\r\nContent-Length: 0\r\n\r\n"
        );
        asking("answer elsewhere", status.to_string(), answer)
    });
    let ranged = ["bytes=2-4", "bytes=99-"].map(|range| {
        let status = if range == "bytes=2-4" { "206 Partial Content" } else { "416 Range Not Satisfiable" };
        let request = format!("GET /api/v4/files/1 HTTP/1.1\r\n{HOST}Range: {range}\r\nIf-Range: \"x\"\r\n\r\n");
        let answer = format!("HTTP/1.1 {status}\r\n{DATE}Content-Range: bytes 2-4/9\r\nContent-Length: 3\r\n\r\ncde");
        Case::new("answer to a range", range, "GET", request).answered(answer)
    });
    bodies.into_iter().chain(encoded).chain(redirects).chain(ranged).collect()
}

fn upgrades() -> Vec<Case> {
    let switching = |more: &str| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\n{more}\r\n"
        )
    };
    let handshake = |path: &str, more: &str| {
        let fields = format!("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}");
        let request = format!("GET {path} HTTP/1.1\r\n{HOST}Connection: Upgrade\r\n{fields}\r\n");
        Case { later: b"\x81\x85mask over".to_vec(), ..Case::new("upgrade", format!("{path} {more}"), "GET", request) }
    };
    let accepted = [
        handshake("/api/v4/websocket?connection_id=&sequence_number=0", "").answered(switching("")),
        handshake("/plugins/calls/ws", "Origin: https://chat.example\r\n")
            .answered(switching("X-Version-Id: 11.6.0\r\n")),
        handshake("/x", "Sec-WebSocket-Protocol: a, b\r\n").answered(switching("Sec-WebSocket-Protocol: b\r\n")),
        handshake("/x", "Sec-WebSocket-Extensions: permessage-deflate\r\nCookie: MMAUTHTOKEN=x\r\n").answered(
            switching("Sec-WebSocket-Extensions: permessage-deflate\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"),
        ),
    ];
    let refused = ["200 OK", "400 Bad Request", "401 Unauthorized", "403 Forbidden", "426 Upgrade Required", "503 No"]
        .map(|status| {
            let answer = format!("HTTP/1.1 {status}\r\n{DATE}Sec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\r\nno");
            let case = handshake("/refused", &format!("X-Wanted: {status}\r\n"));
            Case { later: Vec::new(), ..case.answered(answer) }
        });
    let others = ["h2c", "TLS/1.0", "websocket, h2c", "foo/2"].map(|to| {
        let fields =
            format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {to}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n");
        Case::new("upgrade to something else", to, "GET", format!("GET /x HTTP/1.1\r\n{HOST}{fields}\r\n"))
    });
    accepted.map(|case| case.and_then(Then::Echo)).into_iter().chain(refused).chain(others).collect()
}

/// Requests on the picture routes that are not for us to answer.
fn not_our_pictures() -> Vec<Case> {
    let png =
        format!("HTTP/1.1 200 OK\r\n{DATE}Content-Type: image/png\r\nETag: 1234\r\nContent-Length: 4\r\n\r\n\x7fPNG");
    let get = |name: &str, query: &str, fields: &str| {
        let request = format!("GET /api/v4/users/{ID}/image{query} HTTP/1.1\r\n{HOST}{fields}\r\n");
        Case::new("picture", name, "GET", request).answered(png.clone())
    };
    let write = |method: &str, path: &str| {
        let request =
            format!("{method} {path} HTTP/1.1\r\n{HOST}Cookie: MMAUTHTOKEN=x\r\nContent-Length: 5\r\n\r\nhello");
        Case::new("picture", format!("{method} {path}"), method, request)
    };
    vec![
        get("nobody asks", "?size=32", "Accept: image/webp\r\n"),
        get("nobody asks, conditionally", "", "If-None-Match: 1234\r\nRange: bytes=0-1\r\n"),
        get("a token in the query", "?access_token=x&size=abc", ""),
        get(
            "another server asks",
            "?_=1",
            "X-RemoteCluster-Id: r\r\nX-RemoteCluster-Token: t\r\nCookie: MMAUTHTOKEN=x\r\n",
        ),
        write("POST", &format!("/api/v4/users/{ID}/image")),
        write("DELETE", &format!("/api/v4/users/{ID}/image")),
        write("POST", &format!("/api/v4/teams/{ID}/image")),
        write("DELETE", &format!("/api/v4/emoji/{ID}")),
        write("PUT", &format!("/api/v4/users/{ID}/patch")),
        write("POST", "/api/v4/users/logout"),
    ]
}
