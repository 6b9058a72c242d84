//! Moving sources of each kind against what another reader sees of them, and whatever may be wrong with them.

use super::*;
use crate::render::{Targets, decode};
use crate::source::SourceInfo;
use crate::variant::{Encoded, Geometry, Offer, Variant};
use ::png::{BlendOp, DisposeOp};
use image::codecs::gif::GifDecoder;
use image::{AnimationDecoder, RgbaImage};
use proptest::prelude::*;
use std::io::Cursor;
use std::sync::{Arc, LazyLock};

#[path = "../../../benches/reels/mod.rs"]
mod reels;

const RECIPE: Recipe = Recipe {
    geometry: Geometry::Keep,
    offer: Offer::Moving,
    quality: None,
    background: [255; 3],
    source_may_serve: false,
};
const SMALL: Recipe = Recipe { geometry: Geometry::Scale { width: 32, height: 24 }, ..RECIPE };
const RED: [u8; 4] = [255, 0, 0, 255];
const BLUE: [u8; 4] = [0, 0, 255, 255];
const CLEAR: [u8; 4] = [0; 4];

fn rendered(file: &[u8], recipe: &Recipe, limits: &Limits) -> Result<Variant, MotionError> {
    crate::render::animate(file, recipe, &Targets::default(), limits)
}

fn moving(file: &[u8], recipe: &Recipe) -> Arc<Encoded> {
    match rendered(file, recipe, &Limits::default()).expect("it moves") {
        Variant::Encoded(encoded) => encoded,
        Variant::SourceForNow(_) | Variant::SourceIsBest => panic!("the source may not serve"),
    }
}

fn refused(file: &[u8], limits: &Limits) -> MotionError {
    rendered(file, &RECIPE, limits).expect_err("refused")
}

/// What is seen from which millisecond on, and when it ends.
type Seen = (Vec<(u32, RgbaImage)>, u32);

fn seen(frames: impl Iterator<Item = (RgbaImage, u32)>) -> Seen {
    let mut at = 0;
    let mut shown: Vec<(u32, RgbaImage)> = Vec::new();
    for (frame, delay) in frames {
        let from = at;
        at += if delay <= 10 { 100 } else { delay };
        if shown.last().is_none_or(|(_, last)| *last != frame) {
            shown.push((from, frame));
        }
    }
    (shown, at)
}

/// As another reader has it.
fn gif_seen(file: &[u8]) -> Seen {
    let frames = GifDecoder::new(Cursor::new(file)).expect("a GIF").into_frames();
    seen(frames.map(|frame| {
        let frame = frame.expect("decodes");
        let (milliseconds, parts) = frame.delay().numer_denom_ms();
        (frame.into_buffer(), milliseconds / parts)
    }))
}

/// As we have it: the other reader, image-webp 0.2.4, leaves frames where they are that are to go.
fn own_seen(file: &[u8]) -> Seen {
    let limits = Limits::default();
    let source = film(file, &limits).expect("it moves");
    let mut canvas = Canvas::new(source.width, source.height);
    seen(source.patches.map(|patch| {
        let patch = patch.expect("decodes");
        let whole = canvas.show(&patch);
        let samples = whole.rgba().flatten().collect();
        (RgbaImage::from_raw(whole.width, whole.height, samples).expect("all of them"), patch.delay)
    }))
}

/// The mean difference of two pictures, of which nothing is seen where they are transparent.
fn distance(one: &RgbaImage, other: &RgbaImage) -> f64 {
    assert_eq!(one.dimensions(), other.dimensions());
    let shown = |pixel: &image::Rgba<u8>, n: usize| u32::from(pixel[n]) * u32::from(pixel[3]) / 255;
    let pairs = one.pixels().zip(other.pixels());
    let sum: u32 = pairs
        .map(|(a, b)| (0..3).map(|n| shown(a, n).abs_diff(shown(b, n))).sum::<u32>() + u32::from(a[3].abs_diff(b[3])))
        .sum();
    f64::from(sum) / f64::from(4 * one.width() * one.height())
}

fn outline(file: &[u8]) -> (u16, u32) {
    let outline = crate::render::decode::webp::outline(file, &Limits::default()).expect("a WebP");
    (outline.plays, outline.frames)
}

/// Drawn once for all tests.
static REELS: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(reels::all);
static SOURCES: LazyLock<[(&str, Vec<u8>); 3]> = LazyLock::new(sources);

fn reel(name: &str) -> &'static [u8] {
    &REELS.iter().find(|(each, _)| *each == name).expect("a reel").1
}

/// A GIF of 4 x 2 pixels in red, blue and nothing; each frame as (left, top, width, colour, disposal, hundredths).
fn gif_file(frames: &[(u16, u16, u16, u8, ::gif::DisposalMethod, u16)], repeat: Option<::gif::Repeat>) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = ::gif::Encoder::new(&mut file, 4, 2, &[255, 0, 0, 0, 0, 255, 9, 9, 9]).expect("a header");
    if let Some(repeat) = repeat {
        encoder.set_repeat(repeat).expect("an extension");
    }
    for &(left, top, width, colour, dispose, delay) in frames {
        let buffer = vec![colour; usize::from(width)].into();
        let frame = ::gif::Frame {
            left,
            top,
            width,
            height: 1,
            dispose,
            delay,
            buffer,
            transparent: Some(2),
            ..Default::default()
        };
        encoder.write_frame(&frame).expect("a frame");
    }
    drop(encoder);
    file
}

/// An APNG of 4 x 2 pixels; each frame as (left, width, colour, blend, disposal).
fn png_file(frames: &[(u32, u32, [u8; 4], BlendOp, DisposeOp)], default_is_first: bool) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut file, 4, 2);
    encoder.set_color(::png::ColorType::Rgba);
    encoder.set_animated(u32::try_from(frames.len()).expect("few"), 3).expect("some frames");
    encoder.set_sep_def_img(!default_is_first).expect("an animation");
    encoder.set_frame_delay(1, 20).expect("an animation");
    let mut writer = encoder.write_header().expect("writes");
    if !default_is_first {
        writer.write_image_data(&[7; 32]).expect("writes");
    }
    for &(left, width, colour, blend, disposal) in frames {
        writer.reset_frame_position().expect("an animation");
        writer.set_frame_dimension(width, 2).expect("inside");
        writer.set_frame_position(left, 0).expect("inside");
        writer.set_blend_op(blend).expect("an animation");
        writer.set_dispose_op(disposal).expect("an animation");
        writer.write_image_data(&colour.repeat(usize::try_from(2 * width).expect("small"))).expect("writes");
    }
    writer.finish().expect("writes");
    file
}

/// A chunk of an APNG with a right checksum.
fn png_chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(&kind);
    crc.update(data);
    let length = u32::try_from(data.len()).expect("small").to_be_bytes();
    [&length[..], &kind, data, &crc.sum().to_be_bytes()].concat()
}

/// The chunks of a PNG after its signature, as (kind, data).
fn png_chunks(file: &[u8]) -> Vec<([u8; 4], Vec<u8>)> {
    let mut walk = crate::render::decode::Walk { bytes: file, at: 8 };
    let mut chunks = Vec::new();
    while walk.at < file.len() {
        let length = walk.length(u32::from_be_bytes).expect("whole");
        let kind = walk.array().expect("whole");
        chunks.push((kind, walk.take(length).expect("whole").to_vec()));
        walk.take(4).expect("whole");
    }
    chunks
}

fn png_of(chunks: &[([u8; 4], Vec<u8>)]) -> Vec<u8> {
    let body = chunks.iter().flat_map(|(kind, data)| png_chunk(*kind, data));
    b"\x89PNG\r\n\x1a\n".iter().copied().chain(body).collect()
}

/// One small source of each kind.
fn sources() -> [(&'static str, Vec<u8>); 3] {
    use ::gif::DisposalMethod::{Background, Keep, Previous};
    let gif = gif_file(&[(0, 0, 4, 0, Keep, 5), (1, 0, 2, 1, Background, 5), (0, 1, 4, 1, Previous, 5)], None);
    let png = png_file(
        &[
            (0, 4, RED, BlendOp::Source, DisposeOp::None),
            (1, 2, BLUE, BlendOp::Over, DisposeOp::Background),
            (2, 2, [0, 255, 0, 128], BlendOp::Over, DisposeOp::Previous),
        ],
        true,
    );
    let webp = moving(reel("cut-out"), &SMALL).bytes.to_vec();
    [("gif", gif), ("png", png), ("webp", webp)]
}

#[test]
fn what_is_seen_is_what_was_seen() {
    for (name, gif) in &*REELS {
        assert!(own_seen(gif) == gif_seen(gif), "{name}");
        let ours = moving(gif, &RECIPE);
        assert_eq!(ours.format, crate::variant::Format::Webp);
        if *name == "one frame" {
            assert_eq!(&ours.bytes[12..16], b"VP8 ");
            continue;
        }
        let ((want, end), (got, got_end)) = (gif_seen(gif), own_seen(&ours.bytes));
        assert_eq!(end, got_end, "{name}");
        for (at, picture) in &want {
            let (_, shown) = got.iter().rfind(|(from, _)| from <= at).expect("something is seen at once");
            let far = distance(picture, shown);
            assert!(far < 6.0, "{name} at {at} ms: {far}");
        }
        assert!(got.len() <= want.len(), "{name}: {} of {}", got.len(), want.len());
    }
}

#[test]
fn a_moving_picture_takes_less_than_its_gif() {
    let mut shares: Vec<f64> = REELS
        .iter()
        .map(|(_, gif)| {
            #[expect(clippy::cast_precision_loss, reason = "small files")]
            let share = moving(gif, &RECIPE).bytes.len() as f64 / gif.len() as f64;
            share
        })
        .collect();
    shares.sort_by(f64::total_cmp);
    assert!(f64::midpoint(shares[4], shares[5]) <= 0.6, "{shares:?}");
}

#[test]
fn the_source_serves_where_it_is_smaller() {
    let ball = reel("ball");
    let may = Recipe { source_may_serve: true, ..RECIPE };
    assert_eq!(rendered(ball, &may, &Limits::default()), Ok(Variant::SourceIsBest));
    let Ok(Variant::Encoded(ours)) = rendered(reel("pan"), &may, &Limits::default()) else { panic!("it is smaller") };
    assert!(ours.popularity.once_more().is_none(), "nobody waits for a better one");
}

#[test]
fn a_quality_and_the_target_mean_the_same() {
    let (mut all, usual) = ([0; 5], Targets::default());
    for name in ["pan", "cut-out"] {
        let made = |quality, targets: Targets| {
            let recipe = Recipe { quality, ..SMALL };
            let made = crate::render::animate(reel(name), &recipe, &targets, &Limits::default()).expect("it moves");
            made.into_encoded().expect("no source").bytes.clone()
        };
        assert_eq!(made(Some(80), usual), made(None, usual), "{name}");
        for (sum, (asked, target)) in all.iter_mut().zip([(40, 40.0), (60, 60.0), (80, 80.0), (90, 90.0), (95, 95.0)]) {
            let ours = made(None, Targets { photo: target, ..usual });
            assert_eq!(ours, made(Some(asked), Targets { photo: 1.0, flat: 1.0 }), "{name} {asked}");
            *sum += ours.len();
        }
    }
    assert!(all.is_sorted_by(|coarse, fine| coarse < fine), "{all:?}");
}

#[test]
fn frames_are_brought_to_their_size() {
    for (name, file) in REELS.iter().chain(&*SOURCES) {
        for geometry in [
            Geometry::Scale { width: 32, height: 24 },
            Geometry::Crop { width: 32, height: 24 },
            Geometry::Pad { width: 32, height: 24 },
        ] {
            let ours = moving(file, &Recipe { geometry, ..RECIPE });
            let info = decode(&ours.bytes, &Limits::default()).expect("decodes").info;
            let moves = *name != "one frame";
            assert_eq!((info.width, info.height, info.animated), (32, 24, moves), "{name} {geometry:?}");
        }
    }
}

#[test]
fn loops_are_counted_as_webp_counts_them() {
    use ::gif::DisposalMethod::Keep;
    use ::gif::Repeat;
    let frames = [(0, 0, 4, 0, Keep, 5), (0, 0, 4, 1, Keep, 5)];
    for (repeat, plays) in
        [(None, 1), (Some(Repeat::Infinite), 0), (Some(Repeat::Finite(1)), 2), (Some(Repeat::Finite(65_535)), 65_535)]
    {
        assert_eq!(outline(&moving(&gif_file(&frames, repeat), &RECIPE).bytes).0, plays, "{repeat:?}");
    }
    let png = &SOURCES[1].1;
    let once = moving(png, &RECIPE);
    assert_eq!((outline(&once.bytes).0, outline(&moving(&once.bytes, &RECIPE).bytes).0), (3, 3));
}

#[test]
fn times_are_those_that_browsers_keep_to() {
    use ::gif::DisposalMethod::Keep;
    let colours = [(0, 0), (1, 1), (0, 2), (1, 65_535), (0, 7)];
    let frames: Vec<_> = colours.iter().map(|&(colour, delay)| (0, 0, 4, colour, Keep, delay)).collect();
    let (got, end) = own_seen(&moving(&gif_file(&frames, None), &RECIPE).bytes);
    let starts: Vec<u32> = got.iter().map(|(from, _)| *from).collect();
    assert_eq!((starts, end), (vec![0, 100, 200, 220, 655_570], 655_640));
}

#[test]
fn frames_that_look_the_same_are_one() {
    use ::gif::DisposalMethod::Keep;
    let (_, frames) = outline(&moving(reel("long still"), &RECIPE).bytes);
    assert_eq!(frames, 4);
    // Longer than one frame of WebP can be.
    let frames: Vec<_> = (0..40).map(|n| (0, 0, 4, u8::from(n == 39), Keep, 65_535)).collect();
    let ours = moving(&gif_file(&frames, None), &RECIPE);
    assert!((2..=5).contains(&outline(&ours.bytes).1));
    assert_eq!(own_seen(&ours.bytes).1, 40 * 655_350);
    // A picture that never changes is a still.
    let still = moving(&gif_file(&[(0, 0, 4, 0, Keep, 5); 7], None), &RECIPE);
    assert!(!decode(&still.bytes, &Limits::default()).expect("decodes").info.animated);
}

#[test]
fn an_apng_is_composed_as_it_says() {
    use BlendOp::{Over, Source};
    let check = |frames: &[(u32, u32, [u8; 4], BlendOp, DisposeOp)], default_is_first: bool, want: &[[[u8; 4]; 4]]| {
        let (got, _) = own_seen(&moving(&png_file(frames, default_is_first), &RECIPE).bytes);
        let got: Vec<Vec<[u8; 4]>> = got
            .iter()
            .map(|(_, picture)| picture.rows().next().expect("a row").map(|pixel| pixel.0).collect())
            .collect();
        assert_eq!(got.len(), want.len(), "{got:?}");
        for (got, want) in got.iter().zip(want) {
            let near = |a: &[u8; 4], b: &[u8; 4]| {
                a[3].abs_diff(b[3]) < 4 && (b[3] == 0 || a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) < 4))
            };
            assert!(got.iter().zip(want).all(|(got, want)| near(got, want)), "{got:?} is not {want:?}");
        }
    };
    let whole = (0, 4, RED, Source, DisposeOp::None);
    for (disposal, left) in [(DisposeOp::None, BLUE), (DisposeOp::Background, CLEAR), (DisposeOp::Previous, RED)] {
        check(
            &[whole, (1, 1, BLUE, Source, disposal), (3, 1, BLUE, Source, DisposeOp::None)],
            true,
            &[[RED; 4], [RED, BLUE, RED, RED], [RED, left, RED, BLUE]],
        );
    }
    check(
        &[whole, (0, 2, CLEAR, Over, DisposeOp::None), (2, 2, CLEAR, Source, DisposeOp::None)],
        false,
        &[[RED; 4], [RED, RED, CLEAR, CLEAR]],
    );
}

/// The rows of a picture of four bytes a pixel as PNG stores them, each after the number of its filter: in one pass or in
/// the seven of Adam7.
fn png_data(width: u32, height: u32, pixels: &[u8], interlaced: bool) -> Vec<u8> {
    const PASSES: [[u32; 4]; 7] =
        [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];
    let passes = if interlaced { &PASSES[..] } else { &[[0, 0, 1, 1]] };
    let mut rows = Vec::new();
    for &[left, top, across, down] in passes.iter().filter(|[left, ..]| *left < width) {
        for y in (top..height).step_by(down as usize) {
            rows.push(0);
            for x in (left..width).step_by(across as usize) {
                rows.extend_from_slice(&pixels[4 * (y * width + x) as usize..][..4]);
            }
        }
    }
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut zlib, &rows).expect("into memory");
    zlib.finish().expect("into memory")
}

/// An APNG of frames (left, top, width, height) on a canvas as large as the first, no two pixels beside each other alike; with
/// a default picture that is none of them, or not.
fn noisy_png(frames: &[[u32; 4]], own_default: bool, interlaced: bool) -> Vec<u8> {
    let pixels = |n: u32, width: u32, height: u32| -> Vec<u8> {
        let noise = |i: u32| (i + 977 * n).wrapping_mul(0x9e37_79b1).to_le_bytes();
        (0..width * height).flat_map(|i| [noise(i)[2], noise(i)[3], noise(i)[1], 255 - (i % 3) as u8 * 60]).collect()
    };
    let data = |n, width, height| png_data(width, height, &pixels(n, width, height), interlaced);
    let [_, _, width, height] = frames[0];
    let count = u32::try_from(frames.len()).expect("few");
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 6, 0, 0, u8::from(interlaced)]].concat();
    let mut chunks = vec![(*b"IHDR", head), (*b"acTL", [count.to_be_bytes(), [0; 4]].concat())];
    if own_default {
        chunks.push((*b"IDAT", data(99, width, height)));
    }
    let mut sequence = 0_u32..;
    let mut number = || sequence.next().expect("few").to_be_bytes();
    for (n, &[left, top, width, height]) in (0..).zip(frames) {
        let place = [width, height, left, top].map(u32::to_be_bytes).concat();
        chunks.push((*b"fcTL", [&number()[..], &place, &[0, 1, 0, 20, 0, 1]].concat()));
        let data = data(n, width, height);
        let is_default = n == 0 && !own_default;
        chunks.push(if is_default { (*b"IDAT", data) } else { (*b"fdAT", [&number()[..], &data].concat()) });
    }
    chunks.push((*b"IEND", Vec::new()));
    png_of(&chunks)
}

#[test]
fn an_interlaced_apng_is_seen_like_any_other() {
    for (canvas_width, canvas_height) in [(19, 13), (8, 8), (5, 3), (2, 9), (1, 1)] {
        let inside = |left: u32, top: u32, width: u32, height: u32| {
            let (left, top) = (left.min(canvas_width - 1), top.min(canvas_height - 1));
            [left, top, width.min(canvas_width - left), height.min(canvas_height - top)]
        };
        let frames = [
            [0, 0, canvas_width, canvas_height],
            inside(3, 2, 9, 7),
            inside(1, 1, 1, 1),
            inside(0, 5, 4, 3),
            inside(2, 0, 3, 90),
        ];
        for own_default in [false, true] {
            let [plain, woven] = [false, true].map(|interlaced| noisy_png(&frames, own_default, interlaced));
            assert!(own_seen(&plain) == own_seen(&woven), "{canvas_width} x {canvas_height} {own_default}");
            assert!(own_seen(&woven).0.len() > 1 || canvas_width == 1);
            for end in (0..woven.len()).step_by(16) {
                let cut = rendered(&woven[..end], &RECIPE, &Limits::default());
                assert!(matches!(cut, Err(MotionError::Decode(_))), "{end} of {}: {cut:?}", woven.len());
            }
        }
    }
}

#[test]
fn what_is_left_alone() {
    let check = |name: &str, file: &[u8], want: fn(&MotionError) -> bool| {
        let left = rendered(file, &RECIPE, &Limits::default());
        assert!(left.as_ref().is_err_and(want), "{name}: {left:?}");
    };
    let is_broken: fn(&MotionError) -> bool = |error| matches!(error, MotionError::Decode(DecodeError::Broken(_)));
    let [_, (_, png), (_, webp)] = &*SOURCES;
    let chunks = png_chunks(png);
    let altered = |kind: &[u8; 4], nth: usize, at: usize, byte: u8| {
        let mut chunks = chunks.clone();
        let chunk = chunks.iter_mut().filter(|(each, _)| each == kind).nth(nth).expect("such a chunk");
        chunk.1[at] = byte;
        png_of(&chunks)
    };
    check("a number out of sequence", &altered(b"fcTL", 1, 3, 9), is_broken);
    check("data out of sequence", &altered(b"fdAT", 0, 3, 9), is_broken);
    check("too wide a frame", &altered(b"fcTL", 1, 7, 99), is_broken);
    check("too far a frame", &altered(b"fcTL", 1, 15, 99), is_broken);
    check("no height", &altered(b"fcTL", 1, 11, 0), is_broken);
    check("an unknown blend", &altered(b"fcTL", 1, 25, 9), is_broken);
    check("an unknown disposal", &altered(b"fcTL", 1, 24, 9), is_broken);
    check("more frames announced", &altered(b"acTL", 0, 3, 9), is_broken);
    check("fewer frames announced", &altered(b"acTL", 0, 3, 2), is_broken);
    check("a number beyond the format's", &altered(b"acTL", 0, 0, 255), is_broken);
    check("no animation", &png_of(&chunks[..1]), is_broken);
    check("a still jpeg", b"\xff\xd8\xff", |error| *error == MotionError::Decode(DecodeError::Unsupported));

    let last = |chunk: &[u8]| webp.windows(4).rposition(|kind| kind == chunk).expect("such a chunk");
    let (frame, picture) = (last(b"ANMF"), last(b"VP8 "));
    for (name, at, byte) in [
        ("a frame outside to the right", frame + 8, 99),
        ("a frame outside below", frame + 11, 99),
        ("a frame of another size", frame + 14, 1),
        ("a frame larger than its canvas", frame + 15, 99),
        ("a chunk longer than its frame", picture + 5, 255),
        ("a frame without a picture", picture, b'X'),
    ] {
        let mut webp = webp.clone();
        webp[at] = byte;
        check(name, &webp, is_broken);
    }
}

#[test]
fn limits_are_held_before_anything_is_decoded() {
    use ::gif::DisposalMethod::Keep;
    let over = |what| MotionError::Decode(DecodeError::OverLimit(what));
    for (name, file) in &*SOURCES {
        let frames = Limits { frames: 2, ..Limits::default() };
        assert_eq!(refused(file, &frames), over("frames"), "{name}");
        let pixels = Limits { frame_pixels: 23, ..Limits::default() };
        assert_eq!(refused(file, &pixels), over("frame pixels"), "{name}");
        let time = Limits { animation_time: Duration::ZERO, ..Limits::default() };
        assert_eq!(refused(file, &time), over("animation time"), "{name}");
    }
    let mut screen = gif_file(&[(0, 0, 4, 0, Keep, 5), (0, 0, 4, 1, Keep, 5)], None);
    let check = |screen: &mut [u8], width: u16, height: u16, what| {
        screen[6..8].copy_from_slice(&width.to_le_bytes());
        screen[8..10].copy_from_slice(&height.to_le_bytes());
        assert_eq!(refused(screen, &Limits::default()), over(what), "{width} x {height}");
    };
    check(&mut screen, 65_535, 65_535, "edge");
    check(&mut screen, 4000, 4000, "pixels");
    check(&mut screen, 1200, 1200, "decoder memory");
    screen[6..10].copy_from_slice(&[4, 0, 2, 0]);
    // A frame larger than its screen: 65,535 x 65,535, behind the screen, its colours and the first frame.
    let second = screen.windows(1).rposition(|byte| byte == b",").expect("a frame");
    screen[second + 5..second + 9].fill(0xff);
    assert_eq!(refused(&screen, &Limits::default()), over("edge"));
}

#[test]
fn f41_a_hundred_thousand_frames_are_counted_and_not_decoded() {
    use ::gif::DisposalMethod::Keep;
    let one = gif_file(&[(0, 0, 4, 0, Keep, 0)], None);
    let (head, frame) = one[..one.len() - 1].split_at(13 + 12);
    let bomb = [head, &frame.repeat(100_000), b";"].concat();
    assert!(bomb.len() < 4 << 20, "{}", bomb.len());
    assert_eq!(refused(&bomb, &Limits::default()), MotionError::Decode(DecodeError::OverLimit("frames")));
    let first = decode(&bomb, &Limits::default()).expect("its first frame is as good as any");
    assert!(matches!(first.info, SourceInfo { width: 4, height: 2, animated: true, .. }));
}

#[test]
fn what_is_cut_off_is_refused() {
    for (name, file) in SOURCES.iter().chain(&*REELS) {
        for end in (0..file.len()).step_by(64) {
            let cut = rendered(&file[..end], &SMALL, &Limits::default());
            assert!(matches!(cut, Err(MotionError::Decode(_))), "{name} at {end} of {}: {cut:?}", file.len());
        }
    }
}

#[test]
fn the_same_source_gives_the_same_bytes() {
    let files = &*REELS;
    let once: Vec<_> = files.iter().map(|(_, file)| moving(file, &SMALL).bytes.clone()).collect();
    std::thread::scope(|scope| {
        for turn in 0..4 {
            let once = &once;
            scope.spawn(move || {
                for n in 0..files.len() {
                    let n = (n * 3 + turn) % files.len();
                    assert_eq!(moving(&files[n].1, &SMALL).bytes, once[n], "{}", files[n].0);
                }
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn no_damage_panics_and_what_is_made_decodes(
        which in 0_usize..3,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let (_, mut file) = SOURCES[which].clone();
        for (place, byte) in damage {
            let place = place.index(file.len());
            file[place] = byte;
        }
        let limits = Limits { frames: 20, frame_pixels: 100_000, ..Limits::default() };
        if let Ok(Variant::Encoded(ours)) = rendered(&file, &SMALL, &limits) {
            let info = decode(&ours.bytes, &Limits::default()).expect("what is made decodes").info;
            prop_assert_eq!((info.width, info.height), (32, 24));
        }
    }
}
