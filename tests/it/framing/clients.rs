//! Hostile clients: what becomes of the first request, and of what follows it on its connection.

use super::{asks, named, next_answer, somebody_else};
use crate::proxy::Proxy;
use crate::recorder::Recorder;
use crate::wire::Wire;
use End::{Closed, Kept};

/// What becomes of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The next request on it is answered.
    Kept,
    /// It ends after the last answer.
    Closed,
}

/// Name, bytes, the statuses that are answered, what upstream is asked, what becomes of the connection.
type Case = (&'static str, Vec<u8>, &'static [u16], &'static [&'static str], End);

const HELLO: &[&str] = &["POST /x Counted hello"];
const CHUNKED: &[&str] = &["POST /x Chunked hello"];
const PLAIN: &[&str] = &["GET /x"];

/// A GET with these lines in its head, and what follows it.
fn get(lines: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET /x HTTP/1.1\r\nHost: a\r\n", lines.as_ref()].concat()
}

/// An upload with these lines in its head, and what follows it.
fn post(lines: impl AsRef<[u8]>) -> Vec<u8> {
    [b"POST /x HTTP/1.1\r\nHost: a\r\n", lines.as_ref()].concat()
}

/// A chunked upload of these bytes.
fn chunks(chunks: impl AsRef<[u8]>) -> Vec<u8> {
    post([b"Transfer-Encoding: chunked\r\n\r\n", chunks.as_ref()].concat())
}

fn lengths() -> Vec<Case> {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let refused = |name, lines: &[u8]| -> Case {
        (name, post([lines, b"\r\n\r\nhello", smuggled.as_bytes()].concat()), &[400], &[], Closed)
    };
    vec![
        refused("twice the same length", b"Content-Length: 5\r\nContent-Length: 5"),
        refused("two lengths", b"Content-Length: 5\r\nContent-Length: 6"),
        refused("a length of nothing and one", b"Content-Length: 0\r\nContent-Length: 5"),
        refused("a list of lengths", b"Content-Length: 5, 5"),
        refused("a length with a plus", b"Content-Length: +5"),
        refused("a negative length", b"Content-Length: -5"),
        refused("a length of base sixteen", b"Content-Length: 0x5"),
        refused("two numbers", b"Content-Length: 5 5"),
        refused("a length with a parameter", b"Content-Length: 5;a"),
        refused("a fraction", b"Content-Length: 5.0"),
        refused("an exponent", b"Content-Length: 1e1"),
        refused("an underscore", b"Content-Length: 0_5"),
        refused("quotes", b"Content-Length: \"5\""),
        refused("no number", b"Content-Length:"),
        refused("a length of 2^64", b"Content-Length: 18446744073709551616"),
        refused("a length of 2^64 + 5", b"Content-Length: 18446744073709551621"),
        refused("foreign digits", "Content-Length: \u{665}".as_bytes()),
        refused("obs-text before a length", b"Content-Length: \xa05"),
        refused("a vertical tab after a length", b"Content-Length: 5\x0b"),
        refused("a blank before the colon", b"Content-Length : 5"),
        refused("a tab before the colon", b"Content-Length\t: 5"),
        refused("a folded length", b"Content-Length:\r\n 5"),
        refused("NUL in the name", b"Content\0-Length: 5"),
        ("blanks around a length", post("Content-Length: \t 5 \t\r\n\r\nhello"), &[200], HELLO, Kept),
        ("zeros before a length", post("Content-Length: 005\r\n\r\nhello"), &[200], HELLO, Kept),
        ("length of a GET", get("Content-Length: 5\r\n\r\nhello"), &[200], &["GET /x Counted hello"], Kept),
        (
            "another name",
            post("Content_Length: 5\r\n\r\nhello, all\r\n\r\n"),
            &[200, 400],
            &["POST /x Counted "],
            Closed,
        ),
        (
            "bytes after nothing",
            post("Content-Length: 0\r\n\r\nhello, all\r\n\r\n"),
            &[200, 400],
            &["POST /x Counted "],
            Closed,
        ),
        ("no length", post("\r\nhello, all\r\n\r\n"), &[200, 400], &["POST /x Counted "], Closed),
        (
            "a request for a body",
            post(format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len())),
            &[200],
            &["POST /x Counted GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"],
            Kept,
        ),
    ]
}

fn codings() -> Vec<Case> {
    let refused = |name, lines: &[u8]| -> Case {
        let body = b"\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        (name, post([lines, body].concat()), &[400], &[], Closed)
    };
    let hello = "\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    vec![
        refused("a length and chunks", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
        refused("chunks and a length", b"Transfer-Encoding: chunked\r\nContent-Length: 5"),
        refused("chunks and no length", b"Transfer-Encoding: chunked\r\nContent-Length: 0"),
        refused("identity", b"Transfer-Encoding: identity"),
        refused("identity and a length", b"Transfer-Encoding: identity\r\nContent-Length: 5"),
        refused("gzip", b"Transfer-Encoding: gzip"),
        refused("gzip, chunked", b"Transfer-Encoding: gzip, chunked"),
        refused("chunked, gzip", b"Transfer-Encoding: chunked, gzip"),
        refused("chunked, chunked", b"Transfer-Encoding: chunked, chunked"),
        refused("chunked, identity", b"Transfer-Encoding: chunked, identity"),
        refused("chunked and a comma", b"Transfer-Encoding: chunked,"),
        refused("a comma and chunked", b"Transfer-Encoding: ,chunked"),
        refused("xchunked", b"Transfer-Encoding: xchunked"),
        refused("chunked-no", b"Transfer-Encoding: chunked-no"),
        refused("a parameter", b"Transfer-Encoding: chunked;q=1"),
        refused("quotes", b"Transfer-Encoding: \"chunked\""),
        refused("a blank within", b"Transfer-Encoding: chu nked"),
        refused("no coding", b"Transfer-Encoding:"),
        refused("two lines", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        refused("two lines, the second is identity", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        refused("two lines, the first is identity", b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
        refused("a vertical tab before", b"Transfer-Encoding: \x0bchunked"),
        refused("a vertical tab after", b"Transfer-Encoding: chunked\x0b"),
        refused("obs-text before", b"Transfer-Encoding: \xa0chunked"),
        refused("NUL after", b"Transfer-Encoding: chunked\0"),
        refused("a blank before the colon", b"Transfer-Encoding : chunked"),
        refused("a tab before the colon", b"Transfer-Encoding\t: chunked"),
        refused("a blank before the name", b" Transfer-Encoding: chunked"),
        refused("folded into another", b"X: y\r\n Transfer-Encoding: chunked"),
        refused("a folded coding", b"Transfer-Encoding:\r\n chunked"),
        refused("a folded list", b"Transfer-Encoding: chunked\r\n\t, identity"),
        refused("behind a bare CR", b"X: y\rTransfer-Encoding: chunked"),
        refused("behind a bare CR, with a length", b"Content-Length: 5\rTransfer-Encoding: chunked"),
        refused("behind a bare LF, with a length", b"Content-Length: 5\nTransfer-Encoding: chunked"),
        ("behind a bare LF", post(format!("X: y\nTransfer-Encoding: chunked{hello}")), &[200], CHUNKED, Kept),
        ("in capitals", post(format!("TRANSFER-ENCODING: CHUNKED{hello}")), &[200], CHUNKED, Kept),
        ("blanks around", post(format!("Transfer-Encoding: \t chunked \t{hello}")), &[200], CHUNKED, Kept),
        (
            "another name",
            post(format!("Transfer_Encoding: chunked{hello}")),
            &[200, 400],
            &["POST /x Counted "],
            Closed,
        ),
        (
            "named by Connection",
            post(format!("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked{hello}")),
            &[200],
            CHUNKED,
            Kept,
        ),
        (
            "a length named by Connection",
            post("Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello"),
            &[200],
            HELLO,
            Kept,
        ),
        ("a GET in chunks", get(format!("Transfer-Encoding: chunked{hello}")), &[200], &["GET /x Chunked hello"], Kept),
        (
            "chunks of 1.0",
            b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec(),
            &[400],
            &[],
            Closed,
        ),
        ("no length of 1.0", b"POST /x HTTP/1.0\r\nHost: a\r\n\r\nhello".to_vec(), &[400], &[], Closed),
    ]
}

fn chunk_forms() -> Vec<Case> {
    // The head is good: upstream may have it before the body turns out bad, and hears that it broke off. The client hears
    // nothing: actix drops the handler with the connection.
    let broken = |name, body: &[u8]| -> Case {
        (name, chunks([body, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat()), &[], &[], Closed)
    };
    let taken = |name, body: &str| -> Case { (name, chunks(body), &[200], CHUNKED, Kept) };
    let extension = "e".repeat(100_000);
    // Read and dropped as it comes.
    let trailer = format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", "t".repeat(1_000_000));
    vec![
        taken("one chunk", "5\r\nhello\r\n0\r\n\r\n"),
        taken("chunks of one", "1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n"),
        taken("zeros before a size", "0000000005\r\nhello\r\n0000\r\n\r\n"),
        taken("an extension", "5;a=b\r\nhello\r\n0;c\r\n\r\n"),
        taken("a quoted extension", "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n"),
        taken("an extension of 100 kB", &format!("5;{extension}\r\nhello\r\n0\r\n\r\n")),
        taken("a trailer", "5\r\nhello\r\n0\r\nX: y\r\n\r\n"),
        taken("a trailer that frames", "5\r\nhello\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: gzip\r\n\r\n"),
        broken("a size that ends with LF", b"5\nhello\r\n0\r\n\r\n"),
        broken("a size that ends with CR", b"5\rhello\r\n0\r\n\r\n"),
        broken("a blank before a size", b" 5\r\nhello\r\n0\r\n\r\n"),
        broken("a size of 0x5", b"0x5\r\nhello\r\n0\r\n\r\n"),
        broken("a size with a plus", b"+5\r\nhello\r\n0\r\n\r\n"),
        broken("a negative size", b"-5\r\nhello\r\n0\r\n\r\n"),
        broken("an underscore", b"0_5\r\nhello\r\n0\r\n\r\n"),
        broken("no size", b"\r\nhello\r\n0\r\n\r\n"),
        broken("no digit", b"g\r\nhello\r\n0\r\n\r\n"),
        broken("two sizes", b"5 5\r\nhello\r\n0\r\n\r\n"),
        broken("a size of 2^64", b"10000000000000000\r\nhello\r\n0\r\n\r\n"),
        broken("NUL after a size", b"5\0\r\nhello\r\n0\r\n\r\n"),
        broken("a chunk that is too long", b"5\r\nhello!\r\n0\r\n\r\n"),
        broken("a chunk without an end", b"5\r\nhello0\r\n\r\n"),
        broken("a chunk that ends with LF", b"5\r\nhello\n0\r\n\r\n"),
        broken("a chunk that ends with CR", b"5\r\nhello\r0\r\n\r\n"),
        broken("LF in an extension", b"5;a\nhello\r\n0\r\n\r\n"),
        broken("CR in an extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
        broken("NUL in an extension", b"5;a\0b\r\nhello\r\n0\r\n\r\n"),
        broken("a bad second chunk", b"5\r\nhello\r\nx\r\n"),
        broken("a last chunk that ends with LF", b"5\r\nhello\r\n0\n\r\n"),
        taken("a trailer of 1 MB", &trailer),
    ]
}

fn hosts() -> Vec<Case> {
    let host = |host: &str| format!("GET /x HTTP/1.1\r\n{host}\r\n").into_bytes();
    vec![
        ("no Host", host(""), &[400], &[], Closed),
        ("two Hosts", host("Host: a\r\nHost: b\r\n"), &[400], &[], Closed),
        ("one Host twice", host("Host: a\r\nhost: a\r\n"), &[400], &[], Closed),
        ("a Host behind a bare LF", host("X: y\nHost: a\r\nHost: b\r\n"), &[400], &[], Closed),
        ("a folded Host", host("Host: a\r\n b\r\n"), &[400], &[], Closed),
        ("a blank before the Host", host(" Host: a\r\n"), &[400], &[], Closed),
        ("a blank before the colon", host("Host : a\r\n"), &[400], &[], Closed),
    ]
}

fn lines() -> Vec<Case> {
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n").into_bytes();
    let field = |field: &[u8]| get([field, b"\r\n\r\n"].concat());
    let many = (0..200).map(|n| format!("X-{n}: {n}\r\n")).collect::<Vec<_>>().concat();
    let long = format!("X: {}\r\n\r\n", "v".repeat(200_000));
    let named = |length: usize| format!("{}: y", "n".repeat(length)).into_bytes();
    vec![
        ("HTTP/0.9", b"GET /x\r\n\r\n".to_vec(), &[400], &[], Closed),
        ("HTTP/0.9 that says so", line("GET /x HTTP/0.9"), &[400], &[], Closed),
        ("HTTP/1.2", line("GET /x HTTP/1.2"), &[400], &[], Closed),
        ("HTTP/1.9", line("GET /x HTTP/1.9"), &[400], &[], Closed),
        ("HTTP/2.0", line("GET /x HTTP/2.0"), &[400], &[], Closed),
        ("HTTP/11", line("GET /x HTTP/11"), &[400], &[], Closed),
        ("HTTP/1.10", line("GET /x HTTP/1.10"), &[400], &[], Closed),
        ("HTTP/01.1", line("GET /x HTTP/01.1"), &[400], &[], Closed),
        ("http/1.1", line("GET /x http/1.1"), &[400], &[], Closed),
        ("HTTP/1.1 and a blank", line("GET /x HTTP/1.1 "), &[400], &[], Closed),
        (
            "the preface of HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
            &[400],
            &[],
            Closed,
        ),
        ("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n".to_vec(), &[400], &[], Closed),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec(), &[400], &[], Closed),
        ("an answer", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(), &[400], &[], Closed),
        ("no method", line(" /x HTTP/1.1"), &[400], &[], Closed),
        ("no target", line("GET  HTTP/1.1"), &[400], &[], Closed),
        ("a blank too many", line("GET  /x HTTP/1.1"), &[400], &[], Closed),
        ("a blank in the target", line("GET /x y HTTP/1.1"), &[400], &[], Closed),
        ("a tab for a blank", line("GET\t/x\tHTTP/1.1"), &[400], &[], Closed),
        ("CR in the target", line("GET /x\ry HTTP/1.1"), &[400], &[], Closed),
        ("NUL in the target", line("GET /x\0y HTTP/1.1"), &[400], &[], Closed),
        ("NUL in the method", line("G\0T /x HTTP/1.1"), &[400], &[], Closed),
        ("a target without a slash", line("GET x HTTP/1.1"), &[400], &[], Kept),
        ("a target that is an authority", line("GET chat.example:80 HTTP/1.1"), &[400], &[], Kept),
        ("empty lines first", [b"\r\n\r\n", &*line("GET /x HTTP/1.1")].concat(), &[200], PLAIN, Kept),
        ("lines that end with LF", b"GET /x HTTP/1.1\nHost: a\n\n".to_vec(), &[200], PLAIN, Kept),
        ("a head that ends with CR", b"GET /x HTTP/1.1\r\nHost: a\r\r\n\r\n".to_vec(), &[400], &[], Closed),
        ("CR in a value", field(b"X: a\rb"), &[400], &[], Closed),
        ("NUL in a value", field(b"X: a\0b"), &[400], &[], Closed),
        ("ESC in a value", field(b"X: a\x1bb"), &[400], &[], Closed),
        ("DEL in a value", field(b"X: a\x7fb"), &[400], &[], Closed),
        ("CR in a name", field(b"X\rY: a"), &[400], &[], Closed),
        ("a blank in a name", field(b"X Y: a"), &[400], &[], Closed),
        ("obs-text in a name", field(b"X\xe9: a"), &[400], &[], Closed),
        ("a quotation mark in a name", field(b"X\"Y: a"), &[400], &[], Closed),
        ("a delimiter in a name", field(b"X(Y): a"), &[400], &[], Closed),
        ("no name", field(b": a"), &[400], &[], Closed),
        ("no colon", field(b"X"), &[400], &[], Closed),
        ("a folded value", field(b"X: a\r\n b"), &[400], &[], Closed),
        ("a line of blanks", field(b"X: a\r\n  "), &[400], &[], Closed),
        ("200 fields", get(many + "\r\n"), &[431], &[], Closed),
        ("a head of 200 kB", get(long), &[431], &[], Closed),
        ("a name of 65,535 bytes", field(&named(65_535)), &[200], PLAIN, Kept),
        ("a name of 65,536 bytes", field(&named(65_536)), &[431], &[], Closed),
        ("a name of 100 kB behind others", field(&[&b"X: y\r\n"[..], &named(100_000)].concat()), &[431], &[], Closed),
        ("a target of 65,535 bytes", line(&format!("GET /{} HTTP/1.1", "x".repeat(65_534))), &[400], &[], Closed),
        // RFC 9112 section 9.6.
        (
            "the last request, and one more",
            get("Connection: close\r\n\r\nGET /more HTTP/1.1\r\nHost: a\r\n\r\n"),
            &[200],
            &["GET /x"],
            Closed,
        ),
        ("what is no request after one", get("\r\nhello, all\r\n\r\n"), &[200, 400], PLAIN, Closed),
        (
            "CONNECT and more",
            [&line("CONNECT a:1 HTTP/1.1")[..], &line("GET /smuggled HTTP/1.1")].concat(),
            &[405],
            &[],
            Closed,
        ),
    ]
}

fn upgrades() -> Vec<Case> {
    let early = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let upgrade = |lines: &str| get(format!("{lines}{key}\r\n{early}"));
    let both = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    vec![
        ("early bytes, and no upgrade", upgrade(both), &[200], PLAIN, Closed),
        ("an upgrade that Connection does not name", upgrade("Upgrade: websocket\r\n"), &[400], &[], Closed),
        (
            "an upgrade of 1.0",
            format!("GET /x HTTP/1.0\r\nHost: a\r\n{both}{key}\r\n{early}").into(),
            &[400],
            &[],
            Closed,
        ),
        ("an upgrade with a length", upgrade(&format!("{both}Content-Length: 5\r\n")), &[400], &[], Closed),
        ("an upgrade in chunks", upgrade(&format!("{both}Transfer-Encoding: chunked\r\n")), &[400], &[], Closed),
        ("an upgrade of a POST", post(format!("{both}{key}\r\n{early}")), &[400], &[], Closed),
        ("two upgrades", upgrade(&format!("{both}Upgrade: h2c\r\n")), &[200], PLAIN, Closed),
        ("another upgrade", get("Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"), &[200], PLAIN, Closed),
    ]
}

/// Requests that we refuse by ourselves although their framing is good: their bodies are no requests.
fn refusals() -> Vec<Case> {
    let body = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let refused = |name, line: &str, fields: &str| -> Case {
        let head = format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
        (name, (head + body).into_bytes(), &[400], &[], Closed)
    };
    vec![
        refused("a path that is refused", "POST /../x", ""),
        refused("a field that is refused", "POST /x", "Connection: Cookie\r\n"),
        refused(
            "a query that is refused",
            "GET /api/v4/users/ge45wmpse3g8umtziei4q749th/image?size=x",
            "Cookie: MMAUTHTOKEN=8a1xz5ri6bgwmq4m6xo7cnjdhe\r\n",
        ),
    ]
}

/// Sends a case's bytes and holds what comes of it against the table.
async fn check(proxy: &Proxy, upstream: &Recorder, (name, bytes, statuses, asked, expected): Case) -> Option<String> {
    let mut wire = Wire::to(proxy.address).await;
    wire.send(&bytes).await;
    let (mut answered, mut others) = (Vec::new(), Vec::new());
    for n in 0..statuses.len() {
        let method = asked.get(n).and_then(|gist| gist.split(' ').next()).unwrap_or("GET");
        let Some(answer) = next_answer(&mut wire, method).await else { break };
        if let Some(id) = answer.all("x-id").first() {
            let own = asked.get(n).is_some_and(|gist| gist.split(' ').nth(1) == Some(id))
                && (method == "HEAD" || answer.body == id.as_bytes());
            others.extend((!own).then(|| (*id).to_owned()));
        }
        others.extend(answer.faults.iter().cloned());
        answered.push(answer.second().parse::<u16>().expect("a status"));
    }
    let end = match asks(&mut wire, "/next").await {
        Some(id) => {
            others.extend((id != "/next").then_some(id));
            Kept
        }
        None => Closed,
    };
    let mut seen = somebody_else(proxy.address, upstream, "/other").await;
    seen.retain(|request| request.second() != "/next");
    // One that broke off was never whole: upstream cannot take it for a request.
    seen.retain(|request| !request.faults.iter().any(|fault| fault.starts_with("cut off")));
    let faults = seen.iter().flat_map(|request| &request.faults).collect::<Vec<_>>();
    let gists = seen.iter().map(crate::wire::Message::gist).collect::<Vec<_>>();
    let came = (&*answered, gists.iter().map(|gist| &**gist).collect::<Vec<_>>(), end);
    let right = came == (statuses, asked.to_vec(), expected) && faults.is_empty() && others.is_empty();
    (!right).then(|| format!("{name}: {came:?}, faults {faults:?}, others' answers {others:?}"))
}

/// Each is refused, or framed anew, once, as the table says.
async fn check_all(cases: Vec<Case>) {
    let upstream = Recorder::answering(named).await;
    let proxy = Proxy::with(upstream.address, |config| config.server.workers = 1);
    let mut wrong = Vec::new();
    for case in cases {
        wrong.extend(check(&proxy, &upstream, case).await);
    }
    assert!(wrong.is_empty(), "{} otherwise:\n{}", wrong.len(), wrong.join("\n"));
}

#[actix_web::test]
async fn a_length_is_one_number_or_none() {
    check_all(lengths()).await;
}

#[actix_web::test]
async fn a_coding_is_chunked_and_nothing_else() {
    check_all(codings()).await;
}

#[actix_web::test]
async fn chunks_are_read_by_the_letter() {
    check_all(chunk_forms()).await;
}

#[actix_web::test]
async fn a_request_has_one_host() {
    check_all(hosts()).await;
}

#[actix_web::test]
async fn a_line_ends_where_it_ends() {
    check_all(lines()).await;
}

#[actix_web::test]
async fn no_byte_goes_before_an_upgrade() {
    check_all(upgrades()).await;
}

#[actix_web::test]
async fn the_body_of_a_refused_request_is_no_request() {
    check_all(refusals()).await;
}

#[test]
fn there_are_at_least_sixty_of_them() {
    let families = [lengths(), codings(), chunk_forms(), hosts(), lines(), upgrades(), refusals()];
    let count = families.iter().map(Vec::len).sum::<usize>();
    assert!(count >= 60, "{count} cases");
}
