//! The stand-in Mattermost as tests use it: its people as callers, its forms, and what it shows whoever asks it directly.

use crate::client::{Answer, Request};
use crate::pictures::{EDGE, png};
use crate::proxy::Proxy;
use avatar_proxy::demo::{Options, Session, StandIn};
use image::imageops::overlay;
use image::{DynamicImage, Rgb, RgbImage, Rgba, RgbaImage};

/// What Chrome asks for when it asks for a picture.
pub(crate) const BROWSER: &str = "image/avif,image/webp,image/apng,image/*,*/*;q=0.8";

/// Between the parts of a form.
const BOUNDARY: &str = "----WebKitFormBoundary7MA4YWxkTrZu0gW";

/// Two pictures that are so many steps of a channel apart are not the same. Between a picture and what an encoder makes of
/// it lie at most 8, between those of these tests at least 39.
const FAR: u32 = 32;

/// The demo's town.
pub(crate) fn town() -> StandIn {
    StandIn::start(Options::default()).expect("a free port")
}

/// The path of a user's picture.
pub(crate) fn picture_path(town: &StandIn, user: &str) -> String {
    format!("/api/v4/users/{}/image", town.id(user))
}

/// `viewer` asks for a user's picture with a token, and shows what a browser shows.
pub(crate) fn looks_at(town: &StandIn, viewer: &str, user: &str, query: &str) -> Request {
    Request::picture_of(&town.id(user), query).bearer(&town.token(viewer)).accept(BROWSER)
}

/// A user puts a new picture up, with a token.
pub(crate) fn uploads(town: &StandIn, user: &str, picture: &RgbImage) -> Request {
    image_form(&picture_path(town, user), picture).bearer(&town.token(user))
}

/// A form with one picture in it, as the web client posts it.
pub(crate) fn image_form(path: &str, picture: &RgbImage) -> Request {
    form(path, &[("image", Some("avatar.png"), &png(picture))])
}

/// A form of parts: name, file name and content (RFC 7578).
pub(crate) fn form(path: &str, parts: &[(&str, Option<&str>, &[u8])]) -> Request {
    let mut body = Vec::new();
    for (name, file_name, content) in parts {
        let file_name = file_name.map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file_name}\r\n\r\n");
        body.extend_from_slice(&[head.as_bytes(), content, b"\r\n"].concat());
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    Request::new("POST", path).header("Content-Type", &content_type).body(body)
}

/// The cookies of a session, and the proof against cross-site requests.
pub(crate) fn from_the_site(request: Request, session: &Session) -> Request {
    let cookies = format!("MMAUTHTOKEN={}; MMUSERID={}; MMCSRF={}", session.token, session.user_id, session.csrf);
    request.header("Cookie", &cookies).header("X-CSRF-Token", &session.csrf)
}

/// The same request, first through the proxy and then to the stand-in itself.
pub(crate) async fn both(proxy: &Proxy, town: &StandIn, request: &Request) -> (Answer, Answer) {
    (proxy.send(request).await, request.send(town.address()).await)
}

/// How many pictures have been decoded and encoded so far, and how many variants came of it.
pub(crate) async fn work(proxy: &Proxy) -> Work {
    let counters = [
        "avatar_proxy_render_duration_seconds_count{stage=\"decode\"}",
        "avatar_proxy_render_duration_seconds_count{stage=\"resize_encode\"}",
        "avatar_proxy_renders_total{format=\"webp\"}",
        "avatar_proxy_renders_total{format=\"png\"}",
        "avatar_proxy_renders_total{format=\"jpeg\"}",
    ];
    let counted = proxy.metrics(&counters).await;
    Work { decodes: counted[0], encodes: counted[1], renders: counted[2..].iter().sum() }
}

/// What [`work`] counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Work {
    pub(crate) decodes: u64,
    pub(crate) encodes: u64,
    pub(crate) renders: u64,
}

/// Four quarters of four colours: no two of the 256 can be taken for each other.
pub(crate) fn portrait(n: u32) -> RgbImage {
    const COLOURS: [[u8; 3]; 4] = [[200, 40, 40], [40, 160, 60], [40, 60, 200], [230, 200, 90]];
    RgbImage::from_fn(EDGE, EDGE, |x, y| {
        let quarter = u32::from(x >= EDGE / 2) + 2 * u32::from(y >= EDGE / 2);
        let colour = usize::try_from((n >> (2 * quarter)) & 3).expect("two bits");
        Rgb(COLOURS[colour])
    })
}

/// The pixels of a picture in any format, on white.
pub(crate) fn decoded(bytes: &[u8]) -> RgbImage {
    if bytes.starts_with(&[0xff, 0xd8]) {
        // Not by `image`, whose decoder loses rows of flat pictures: see the manifest.
        let mut decoder = jpeg_decoder::Decoder::new(bytes);
        let samples = decoder.decode().expect("a picture");
        let info = decoder.info().expect("a decoded picture");
        return RgbImage::from_raw(info.width.into(), info.height.into(), samples)
            .expect("three samples for each pixel");
    }
    let picture = image::load_from_memory(bytes).expect("a picture");
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let picture = picture.into_rgba8();
    let mut on_white = RgbaImage::from_pixel(picture.width(), picture.height(), Rgba([255; 4]));
    overlay(&mut on_white, &picture, 0, 0);
    DynamicImage::from(on_white).into_rgb8()
}

/// A picture by the mean colours of a grid of 4 x 4 cells: shapes and colours, and neither grain nor what an encoder does
/// to an edge.
#[derive(Clone, Debug)]
pub(crate) struct Sketch([[u32; 3]; 16]);

impl Sketch {
    pub(crate) fn of(picture: &RgbImage) -> Self {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let (mut sums, mut counts) = ([[0; 3]; 16], [0; 16]);
        for (n, samples) in picture.as_raw().chunks_exact(3).enumerate() {
            let cell = 4 * (n / width * 4 / height) + n % width * 4 / width;
            counts[cell] += 1;
            for (sum, sample) in sums[cell].iter_mut().zip(samples) {
                *sum += u32::from(*sample);
            }
        }
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum = sum.map(|sum| sum / count);
        }
        Self(sums)
    }

    /// How far the cells that differ most are apart, in steps of a channel.
    fn distance(&self, other: &Self) -> u32 {
        let apart = |(one, other): (&[u32; 3], &[u32; 3])| {
            one.iter().zip(other).map(|(one, other)| one.abs_diff(*other)).sum::<u32>() / 3
        };
        self.0.iter().zip(&other.0).map(apart).max().expect("a grid")
    }

    /// Whether an answer shows this picture, in whatever size and format.
    pub(crate) fn is_shown_by(&self, answer: &Answer) -> bool {
        self.distance(&Self::of(&decoded(&answer.body))) < FAR
    }
}

/// Whether an answer shows a picture, in whatever size and format.
pub(crate) fn shows(answer: &Answer, picture: &RgbImage) -> bool {
    Sketch::of(picture).is_shown_by(answer)
}

/// What is answered, and how many pictures upstream was asked for meanwhile.
pub(crate) async fn costing(proxy: &Proxy, town: &StandIn, request: &Request) -> (Answer, u64) {
    let before = town.count().picture_requests;
    let answer = proxy.send(request).await;
    (answer, town.count().picture_requests - before)
}

/// Sends a request that upstream has to be asked for once, so that a grant is there.
pub(crate) async fn earns_grant(proxy: &Proxy, town: &StandIn, request: &Request) -> Answer {
    let (first, asked) = costing(proxy, town, request).await;
    assert_eq!((first.status, asked), (200, 1), "{request:?}");
    let (again, asked) = costing(proxy, town, request).await;
    assert_eq!((again.status, asked), (200, 0), "{request:?}");
    again
}
