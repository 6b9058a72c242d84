//! F41, F43: pictures made to use up memory, against the program itself: what it takes at most is what `check` says, and no
//! picture makes it ask for more than there is.

use crate::client::{ALICES_TOKEN, Request};
use crate::pictures::{RED, moving_gif, photo, png, solid};
use crate::process::{Folder, PROGRAM, Process};
use crate::upstream::{Upstream, answer, picture_answer};
use futures_util::future::join_all;
use image::{Rgb, RgbImage};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A small budget for everything, so that a few hundred pictures are too many.
fn small(source: &str) -> String {
    format!(
        r#"
[cache]
sources = "1MiB"
variants = "1MiB"
pixels = "1MiB"
[grants]
memory = "1MiB"
[improve]
enabled = false
[render]
permits = 2
queue = 256
queue_timeout = "60s"
[upstream]
max_picture_requests = 512
head_timeout = "60s"
picture_timeout = "120s"
[limits]
source = "{source}"
pixels = 524288
decoder_memory = "4MiB"
frame_pixels = 524288
caller_misses = "0"
address_misses = "0"
"#
    )
}

/// What `check` says that it takes at most, in MiB.
fn bound(config: &Path) -> u64 {
    let mut check = Command::new(PROGRAM);
    check.env("AVATAR_PROXY__UPSTREAM__URL", "http://127.0.0.1:1").arg("--config").arg(config).arg("check");
    let said = String::from_utf8(check.output().expect("it runs").stdout).expect("text");
    let line = said.lines().find(|line| line.starts_with("# memory at most")).expect("it says so");
    let (sum, _) = line.rsplit_once("MiB, and ").expect("a sum");
    sum.rsplit(' ').next().and_then(|sum| sum.parse().ok()).expect("a whole number of MiB")
}

/// The picture of which a request to upstream is.
fn number(target: &str) -> usize {
    let id = target.strip_prefix("/api/v4/users/").and_then(|rest| rest.get(..26)).expect("a picture");
    id.parse().expect("an id of digits")
}

fn look(n: usize) -> Request {
    Request::picture_of(&format!("{n:026}"), "size=32").cookie(ALICES_TOKEN)
}

/// A file of its own for each number, of the same pixels.
fn marked(picture: &[u8], number: usize) -> Vec<u8> {
    let (before, end) = picture.split_at(picture.len() - 12);
    [before, b"\0\0\0\x08tEXt", &format!("{number:08}").into_bytes(), &[0; 4], end].concat()
}

/// Sends a request and waits, for however long, until its answer begins; the rest is left where it is.
async fn begun(to: SocketAddr, request: &Request) -> TcpStream {
    let mut client = TcpStream::connect(to).await.expect("it listens");
    client.write_all(&request.bytes("chat.example")).await.expect("taken");
    let mut status = [0; 12];
    client.read_exact(&mut status).await.expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 200");
    client
}

/// Many at once, each another file: what of one is decoded is of no use to any other.
#[actix_web::test]
async fn f41_bombs_of_distinct_content_stay_within_what_check_says() {
    let folder = Folder::new();
    let config = folder.put("config.toml", small("1MiB"));
    let bomb = png(&RgbImage::from_fn(720, 720, |x, _| Rgb([200, u8::from(x > 500), 40])));
    let upstream = Upstream::replying(move |_, seen| picture_answer("1", &marked(&bomb, number(seen.target())))).await;
    let process = Process::start(Process::command(PROGRAM, upstream.address).arg("--config").arg(&config));

    let requests: Vec<_> = (0..180).map(look).collect();
    let bombs = join_all(requests.iter().map(|request| begun(process.address, request)));
    let (mut waits, admin) = (Vec::new(), process.admin);
    let health = async {
        loop {
            let asked = Instant::now();
            assert_eq!(Request::get("/healthz").send(admin).await.status, 200);
            waits.push(asked.elapsed());
            // Nothing is waited for here: this is the pace, as asking without a pause would be a flood of its own.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! { _ = bombs => {}, () = health => unreachable!("it never ends") };

    let (peak, bound) = (process.peak_memory() >> 20, bound(&config));
    assert!(peak <= bound, "{peak} MiB of {bound}");
    // The middle one: others may be at work on this machine.
    waits.sort();
    assert!(waits[waits.len() / 2] < Duration::from_millis(100), "{waits:?}");
}

#[actix_web::test]
async fn f41_sources_that_clients_do_not_take_stay_within_what_check_says() {
    let folder = Folder::new();
    let config = folder.put("config.toml", small("4MiB"));
    // Nothing that is decoded here, almost as long as a source may be.
    let upstream = Upstream::replying(|_, seen| {
        let mut tiff = b"II*\0".to_vec();
        tiff.resize(4_000_000, 7);
        tiff.extend(number(seen.target()).to_le_bytes());
        answer("200 OK", &[("Content-Type", "image/tiff"), ("Etag", "1")], &tiff)
    })
    .await;
    let process = Process::start(Process::command(PROGRAM, upstream.address).arg("--config").arg(&config));

    let mut clients = Vec::new();
    for n in 0..150 {
        clients.push(begun(process.address, &look(n)).await);
    }

    let (peak, bound) = (process.peak_memory() >> 20, bound(&config));
    assert!(peak <= bound, "{peak} MiB of {bound}");
    drop(clients);
    assert_eq!(look(200).send(process.address).await.body.len(), 4_000_008);
}

/// One for each way to ask for more memory than there is.
fn absurd() -> Vec<(&'static str, Vec<u8>)> {
    let small = png(&photo(1));
    let huge_header = |width: u32, height: u32, interlaced: u8| {
        let mut file = small.clone();
        file[16..20].copy_from_slice(&width.to_be_bytes());
        file[20..24].copy_from_slice(&height.to_be_bytes());
        file[28] = interlaced;
        let sum = crc(&file[12..29]);
        file[29..33].copy_from_slice(&sum.to_be_bytes());
        file
    };
    // The header that a decoder goes by, and behind the data another one.
    let mut two_headers = huge_header(100_000, 1 << 30, 0);
    let end = two_headers.len() - 12;
    two_headers.splice(end..end, small[8..33].iter().copied());

    let mut screen = moving_gif(&[solid(RED), solid(RED)]);
    screen[6..10].fill(0xff);

    let mut jpeg = crate::pictures::jpeg(&photo(1));
    let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).expect("a start of frame");
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);

    let mut lossless = crate::pictures::webp(&photo(1));
    lossless[21..25].copy_from_slice(&0x0fff_fffe_u32.to_le_bytes());
    // A canvas of 16 x 16, and a key frame of 16,383 x 16,383 in it.
    let key_frame = [&[0x10, 0, 0, 0x9d, 0x01, 0x2a, 0xff, 0x3f, 0xff, 0x3f][..], &vec![0; 1 << 16]].concat();
    let canvas = [0, 0, 0, 0, 15, 0, 0, 15, 0, 0];
    let length = |bytes: usize| u32::try_from(bytes).expect("small").to_le_bytes();
    let chunks = [b"VP8X", &length(10)[..], &canvas, b"VP8 ", &length(key_frame.len()), &key_frame].concat();
    let lossy = [b"RIFF", &length(4 + chunks.len())[..], b"WEBP", &chunks].concat();

    vec![
        ("a wide PNG", huge_header(i32::MAX.unsigned_abs(), 1, 0)),
        ("a large PNG", huge_header(i32::MAX.unsigned_abs(), i32::MAX.unsigned_abs(), 0)),
        ("a large interlaced PNG", huge_header(1 << 20, 1 << 20, 1)),
        ("a PNG of two headers", two_headers),
        ("a large GIF", screen),
        ("a large JPEG", jpeg),
        ("a large lossless WebP", lossless),
        ("a WebP larger than its canvas", lossy),
    ]
}

/// The checksum of a chunk (W3C PNG, annex D).
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

#[actix_web::test]
async fn f43_no_picture_makes_the_process_ask_for_more_than_there_is() {
    let (files, good) = (absurd(), png(&photo(7)));
    let served: Vec<_> = files.iter().map(|(_, file)| file.clone()).chain([good]).collect();
    let upstream = Upstream::replying(move |_, seen| picture_answer("1", &served[number(seen.target())])).await;
    let process = Process::start(&mut Process::command(PROGRAM, upstream.address));
    let before = process.peak_memory();
    for (n, (name, file)) in files.iter().enumerate() {
        let answer = look(n).send(process.address).await;
        assert_eq!((answer.status, answer.body == *file), (200, true), "{name}");
    }
    let more = process.peak_memory() - before;
    assert!(more < 64 << 20, "{more} bytes");
    // It is the same process.
    assert_eq!(look(files.len()).send(process.address).await.dimensions(), (32, 32));
    assert_eq!(Request::get("/healthz").send(process.admin).await.status, 200);
}

/// What a test cannot bring about and no limit rules out for good: a supervisor starts another one.
#[actix_web::test]
async fn f43_a_process_that_aborts_is_what_the_unit_starts_anew() {
    let unit = include_str!("../../deploy/avatar-proxy.service");
    let says = |line: &str| unit.lines().any(|each| each == line);
    // Ended by a signal, or with another code than 0 (systemd.service(5)), and however often.
    assert!(says("Restart=on-failure") && says("RestartSec=1s") && says("StartLimitIntervalSec=0"));

    let upstream = Upstream::showing("1", png(&photo(1))).await;
    let mut process = Process::start(&mut Process::command(PROGRAM, upstream.address));
    let address = process.address.to_string();
    for signal in ["ABRT", "KILL"] {
        process.signal(signal);
        assert!(!process.ended().await.success(), "{signal}");
        process =
            Process::start(Process::command(PROGRAM, upstream.address).env("AVATAR_PROXY__SERVER__LISTEN", &address));
        assert_eq!(Request::picture("size=32").send(process.address).await.status, 200, "{signal}");
    }
}
