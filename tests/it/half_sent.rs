//! Lists that take their time: what was decided before a right ended grants nothing when its last byte comes after it,
//! and of what never comes to its end nothing is learned.

use crate::client::{ALICE, ALICES_TOKEN, Answer, BOBS_TOKEN, PATIENCE, Request, read_answer};
use crate::learning::{LEARNED, UNREADABLE, gzipped, has_learned, record};
use crate::pictures::{RED, png, solid};
use crate::proxy::Proxy;
use crate::upstream::{Seen, Upstream, answer, not_modified, picture_answer, send_and_close};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

/// How the end of a list is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Counted,
    Chunked,
    Gzipped,
}

const FRAMINGS: [Framing; 3] = [Framing::Counted, Framing::Chunked, Framing::Gzipped];

impl Framing {
    /// A list of users with Alice in it, in two parts.
    fn list(self) -> [Vec<u8>; 2] {
        // The first half is full records too.
        let records = [record(ALICE), record("cccccccccccccccccccccccccc"), record("dddddddddddddddddddddddddd")];
        let plain = json!(records).to_string().into_bytes();
        let body = if self == Self::Gzipped { gzipped(&plain) } else { plain };
        let framing = match self {
            Self::Counted => format!("Content-Length: {}", body.len()),
            Self::Chunked => "Transfer-Encoding: chunked".to_owned(),
            Self::Gzipped => format!("Content-Encoding: gzip\r\nContent-Length: {}", body.len()),
        };
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{framing}\r\nConnection: close\r\n\r\n");
        let parts = body.split_at(body.len() / 2);
        let [first, rest] = if self == Self::Chunked {
            let chunk = |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
            [chunk(parts.0), [&chunk(parts.1)[..], b"0\r\n\r\n"].concat()]
        } else {
            [parts.0.to_vec(), parts.1.to_vec()]
        };
        [[head.as_bytes(), &first].concat(), rest]
    }
}

/// What becomes of a list of which half has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The rest comes.
    Completed,
    /// Upstream hangs up.
    Closed,
    /// Upstream resets the connection.
    Reset,
}

/// An upstream that shows Alice's picture to everybody until they have logged out, and sends half of each list; the rest
/// when it is told to.
struct Stage {
    upstream: Upstream,
    proxy: Proxy,
    goes_on: Rc<Notify>,
    fate: Rc<Cell<Fate>>,
    callers: Cell<usize>,
}

impl Stage {
    async fn of(framing: Framing) -> Self {
        let (goes_on, fate) = (Rc::new(Notify::new()), Rc::new(Cell::new(Fate::Completed)));
        let (told, decided) = (goes_on.clone(), fate.clone());
        let logged_out = Rc::new(RefCell::new(Vec::new()));
        let picture = png(&solid(RED));
        let upstream = Upstream::scripted(move |_, seen, mut stream| {
            let (told, fate, logged_out, picture) =
                (told.clone(), decided.clone(), logged_out.clone(), picture.clone());
            async move {
                if seen.target() == "/api/v4/users" {
                    let [first, rest] = framing.list();
                    let _ = stream.write_all(&first).await;
                    told.notified().await;
                    match fate.get() {
                        Fate::Completed => send_and_close(&mut stream, &rest).await,
                        Fate::Closed => {}
                        Fate::Reset => stream.set_zero_linger().expect("a socket"),
                    }
                    return;
                }
                let reply = match seen.target() {
                    "/api/v4/users/logout" => {
                        logged_out.borrow_mut().push(token_of(&seen));
                        answer("200 OK", &[], b"{}")
                    }
                    _ if logged_out.borrow().contains(&token_of(&seen)) => answer("401 Unauthorized", &[], b"{}"),
                    target if target.ends_with("/image") && seen.header("if-none-match") == Some("7") => {
                        not_modified("7")
                    }
                    target if target.ends_with("/image") => picture_answer("7", &picture),
                    _ => {
                        answer("200 OK", &[("Content-Type", "application/json")], record(ALICE).to_string().as_bytes())
                    }
                };
                send_and_close(&mut stream, &reply).await;
            }
        })
        .await;
        let proxy = Proxy::granting(upstream.address);
        assert_eq!(proxy.send(&Request::picture("size=32")).await.status, 200);
        Self { upstream, proxy, goes_on, fate, callers: Cell::new(0) }
    }

    /// The token of somebody who was never there.
    fn caller(&self) -> String {
        self.callers.set(self.callers.get() + 1);
        format!("{:026}", self.callers.get())
    }

    /// Asks for a list, and waits until the beginning of it has come through.
    async fn half_a_list(&self, token: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.proxy.address).await.expect("the proxy listens");
        let request = Request::get("/api/v4/users").bearer(token).bytes(&self.proxy.address.to_string());
        client.write_all(&request).await.expect("taken");
        let begins = async {
            let mut seen = [0; 4096];
            loop {
                let len = client.peek(&mut seen).await.expect("it goes on");
                let head = seen[..len].windows(4).position(|four| four == b"\r\n\r\n");
                if head.is_some_and(|head| len > head + 4) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, begins).await.expect("half a list in time");
        client
    }

    /// Lets the list go on, and reads all that comes of it.
    async fn rest_of_list(&self, mut client: TcpStream, fate: Fate) -> Answer {
        self.fate.set(fate);
        self.goes_on.notify_one();
        read_answer(&mut client, "GET").await
    }

    /// Waits until whatever may have been learned before has been: answers are read one after the other.
    async fn has_read_all(&self) {
        let lessons = self.proxy.metric(LEARNED).await;
        let me = Request::get("/api/v4/users/me").bearer(&self.caller());
        assert_eq!(self.proxy.send(&me).await.status, 200);
        has_learned(&self.proxy, lessons + 1).await;
    }

    /// Looks at Alice: what is answered, and how many questions that costs.
    async fn look(&self, token: &str) -> (Answer, usize) {
        let before = self.upstream.seen().len();
        let answer = self.proxy.send(&Request::picture_of(ALICE, "size=32").bearer(token)).await;
        (answer, self.upstream.seen().len() - before)
    }
}

fn token_of(seen: &Seen) -> String {
    seen.header("authorization").or(seen.header("cookie")).expect("credentials").to_owned()
}

#[actix_web::test]
async fn a_list_of_which_half_has_come_when_its_reader_logs_out_grants_nothing() {
    for framing in FRAMINGS {
        let stage = Stage::of(framing).await;
        for logs_out in [false, true] {
            let token = stage.caller();
            let learned = stage.proxy.metric(LEARNED).await;
            let list = stage.half_a_list(&token).await;
            if logs_out {
                let logout = Request::new("POST", "/api/v4/users/logout").bearer(&token);
                assert_eq!(stage.proxy.send(&logout).await.status, 200);
            }
            assert_eq!(stage.proxy.metric(LEARNED).await, learned, "{framing:?}: not before its end");

            let list = stage.rest_of_list(list, Fate::Completed).await;

            assert!(list.status == 200 && list.complete, "{framing:?}");
            // It is a lesson like any other, and what it teaches is void.
            has_learned(&stage.proxy, learned + 1).await;
            let (look, asked) = stage.look(&token).await;
            let expected = if logs_out { (401, 1) } else { (200, 0) };
            assert_eq!((look.status, asked), expected, "{framing:?}, logs out: {logs_out}");
        }
    }
}

#[actix_web::test]
async fn a_list_that_breaks_off_half_way_teaches_nothing() {
    for framing in FRAMINGS {
        let stage = Stage::of(framing).await;
        for fate in [Fate::Closed, Fate::Reset] {
            let token = stage.caller();
            let list = stage.half_a_list(&token).await;
            let list = stage.rest_of_list(list, fate).await;
            assert!(!list.complete, "{framing:?}, {fate:?}: what broke off does not look whole");
            stage.has_read_all().await;
            let (look, asked) = stage.look(&token).await;
            assert_eq!((look.status, asked), (200, 1), "{framing:?}, {fate:?}");
        }
        assert_eq!(stage.proxy.metric(UNREADABLE).await, 0, "{framing:?}: it is not even read");
    }
}

#[actix_web::test]
async fn a_list_whose_reader_leaves_half_way_teaches_nothing() {
    for framing in FRAMINGS {
        let stage = Stage::of(framing).await;
        let token = stage.caller();
        let list = stage.half_a_list(&token).await;
        list.set_zero_linger().expect("a socket");
        drop(list);
        let gone = async {
            while stage.proxy.metric("avatar_proxy_in_flight_requests").await > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("it is let go");
        stage.goes_on.notify_one();
        stage.has_read_all().await;
        let (look, asked) = stage.look(&token).await;
        assert_eq!((look.status, asked), (200, 1), "{framing:?}");
    }
}

/// The same where it is the reader who takes its time: upstream has long said all of it.
#[actix_web::test]
async fn a_long_list_that_is_read_slowly_while_its_reader_logs_out_grants_nothing() {
    let records = (0..9_000).map(|n| record(&format!("{n:026}"))).chain([record(ALICE)]);
    let list = records.collect::<Value>().to_string();
    let picture = png(&solid(RED));
    let upstream = Upstream::replying(move |_, seen| match seen.target() {
        "/api/v4/users" => answer("200 OK", &[("Content-Type", "application/json")], list.as_bytes()),
        "/api/v4/users/logout" => answer("200 OK", &[], b"{}"),
        _ if token_of(seen).contains(BOBS_TOKEN) => picture_answer("7", &picture),
        _ => answer("401 Unauthorized", &[], b"{}"),
    })
    .await;
    let proxy = Proxy::granting(upstream.address);
    let look = |token: &str| Request::picture_of(ALICE, "size=32").cookie(token);
    assert_eq!(proxy.send(&look(BOBS_TOKEN)).await.status, 200);
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8 << 10).expect("a socket");
    let mut reader = socket.connect(proxy.address).await.expect("the proxy listens");
    let request = Request::get("/api/v4/users").cookie(ALICES_TOKEN).bytes(&proxy.address.to_string());
    reader.write_all(&request).await.expect("taken");
    reader.readable().await.expect("it begins");

    let logout = Request::new("POST", "/api/v4/users/logout").cookie(ALICES_TOKEN);
    assert_eq!(proxy.send(&logout).await.status, 200);
    assert_eq!(proxy.metric(LEARNED).await, 0, "it is not read to its end");
    let list = read_answer(&mut reader, "GET").await;

    assert!(list.status == 200 && list.complete && list.body.len() > 2 << 20);
    has_learned(&proxy, 1).await;
    assert_eq!(proxy.send(&look(ALICES_TOKEN)).await.status, 401);
    assert_eq!(upstream.seen().len(), 4, "she is asked about");
}
