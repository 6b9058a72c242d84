//! Ten GIFs as people make them for emoji, made here: what is drawn is our own, the photographs are those of
//! `benches/pictures`.

use gif::{DisposalMethod, Encoder, Frame, Repeat};
use image::{Rgb, RgbImage, Rgba, RgbaImage};
use std::f64::consts::TAU;

const EDGE: u32 = 96;
const CLEAR: [u8; 4] = [0; 4];
const WHITE: [u8; 4] = [255; 4];
const INK: [u8; 4] = [40, 44, 52, 255];
const PHOTOS: [&[u8]; 3] = [
    include_bytes!("../pictures/photo-ski-astronaut.png"),
    include_bytes!("../pictures/photo-ski-chelsea.png"),
    include_bytes!("../pictures/photo-ski-coffee.png"),
];

/// Each by name. All but "one frame" move.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("shapes", shapes()),
        ("ball", ball()),
        ("gradient", gradient()),
        ("pan", pan()),
        ("blink", blink()),
        ("cut-out", cut_out()),
        ("marker", marker()),
        ("interlaced", interlaced()),
        ("one frame", one_frame()),
        ("long still", long_still()),
    ]
}

/// A ring of discs that turns, every frame whole.
fn shapes() -> Vec<u8> {
    let colours = [[230, 60, 60, 255], [60, 160, 230, 255], [250, 200, 40, 255], [70, 190, 90, 255]];
    let frames = (0..16).map(|n| {
        let mut picture = RgbaImage::from_pixel(EDGE, EDGE, Rgba(WHITE));
        for (k, colour) in (0..).zip(colours) {
            let turn = TAU * (f64::from(n) / 16.0 + f64::from(k) / 4.0);
            disc(&mut picture, 48.0 + 28.0 * turn.cos(), 48.0 + 28.0 * turn.sin(), 14.0, colour);
        }
        whole(&picture, 6)
    });
    file(EDGE, frames.collect(), Repeat::Infinite)
}

/// A ball that bounces, of which every frame but the first paints the part that changed.
fn ball() -> Vec<u8> {
    let picture = |n: i32| {
        let mut picture = RgbaImage::from_pixel(EDGE, EDGE, Rgba([210, 235, 255, 255]));
        let phase = f64::from(n) / 12.0 - 1.0;
        disc(&mut picture, 48.0, 24.0 + 52.0 * phase * phase, 16.0, [240, 90, 40, 255]);
        disc(&mut picture, 43.0, 19.0 + 52.0 * phase * phase, 4.0, [255, 180, 140, 255]);
        picture
    };
    let mut frames = vec![whole(&picture(0), 4)];
    frames.extend((1..24).map(|n| changed(&picture(n - 1), &picture(n), 4)));
    file(EDGE, frames, Repeat::Infinite)
}

/// Colours that run through the rainbow, each frame with colours of its own.
fn gradient() -> Vec<u8> {
    let frames = (0..12).map(|n| {
        let wave = |at: u32, shift: f64| byte(128.0 + 127.0 * (TAU * (f64::from(at) / 192.0 + shift)).sin());
        let turn = f64::from(n) / 12.0;
        photo_frame(&RgbImage::from_fn(EDGE, EDGE, |x, y| {
            Rgb([wave(x + y, turn), wave(x, turn + 0.33), wave(y, turn + 0.67)])
        }))
    });
    file(EDGE, frames.collect(), Repeat::Infinite)
}

/// A window that moves over a photograph.
fn pan() -> Vec<u8> {
    let picture = photo(0);
    let window = |n: u32| image::imageops::crop_imm(&picture, 2 * n, n, EDGE, EDGE).to_image();
    file(EDGE, (0..16).map(|n| photo_frame(&window(n))).collect(), Repeat::Infinite)
}

/// Bars of writing that come and go, played three times in all.
fn blink() -> Vec<u8> {
    let picture = |seen: bool| {
        let mut picture = RgbaImage::from_pixel(EDGE, EDGE, Rgba(INK));
        let lines = [(10, 26), (30, 60), (10, 40), (46, 80)];
        for (row, (from, to)) in (0..).zip(lines).filter(|_| seen) {
            for x in (from..to).filter(|x| x % 8 < 6) {
                for y in 0..10 {
                    picture.put_pixel(x, 16 + 18 * row + y, Rgba([120, 230, 140, 255]));
                }
            }
        }
        picture
    };
    file(EDGE, vec![whole(&picture(true), 50), changed(&picture(true), &picture(false), 50)], Repeat::Finite(2))
}

/// A spinner on nothing, each frame of which goes before the next comes.
fn cut_out() -> Vec<u8> {
    let frames = (0..12).map(|n| {
        let mut picture = RgbaImage::from_pixel(EDGE, EDGE, Rgba(CLEAR));
        for k in 0..8 {
            let turn = TAU * (f64::from(n) / 12.0 + f64::from(k) / 12.0);
            let shade = byte(60.0 + 20.0 * f64::from(k));
            disc(&mut picture, 48.0 + 32.0 * turn.cos(), 48.0 + 32.0 * turn.sin(), 7.0, [shade, 90, 220, 255]);
        }
        Frame { dispose: DisposalMethod::Background, ..whole(&picture, 5) }
    });
    file(EDGE, frames.collect(), Repeat::Infinite)
}

/// A mark that wanders over a photograph, which comes back behind it.
fn marker() -> Vec<u8> {
    let mut frames = vec![photo_frame(&photo(1))];
    frames.extend((0..10).map(|n| {
        let mut mark = RgbaImage::from_pixel(24, 24, Rgba(CLEAR));
        disc(&mut mark, 12.0, 12.0, 11.0, [250, 40, 60, 255]);
        disc(&mut mark, 12.0, 12.0, 6.0, WHITE);
        Frame { left: 8 * n, top: 6 * n, dispose: DisposalMethod::Previous, ..whole(&mark, 8) }
    }));
    file(128, frames, Repeat::Infinite)
}

/// A photograph that brightens and darkens in the colours of an old screen, dithered, its rows out of order.
fn interlaced() -> Vec<u8> {
    const THRESHOLDS: [[i32; 4]; 4] = [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]];
    let picture = photo(2);
    let level = |sample: u8, x: u32, y: u32, light: i32| {
        let threshold = THRESHOLDS[(y % 4) as usize][(x % 4) as usize];
        let sample = (i32::from(sample) + light).clamp(0, 255);
        u8::try_from((sample * 5 + 16 * threshold) / 255).expect("below six").min(5)
    };
    let palette = (0..216_u8).flat_map(|n| [51 * (n / 36), 51 * (n / 6 % 6), 51 * (n % 6)]).collect::<Vec<_>>();
    let frames = (0..8).map(|n: i32| {
        let light = 8 * (4 - (n - 4).abs());
        let indices = picture.enumerate_pixels().map(|(x, y, pixel)| {
            let [r, g, b] = pixel.0.map(|sample| level(sample, x, y, light));
            36 * r + 6 * g + b
        });
        // The rows in the four passes of section E.
        let rows = indices.collect::<Vec<_>>();
        let order =
            (0..128).step_by(8).chain((4..128).step_by(8)).chain((2..128).step_by(4)).chain((1..128).step_by(2));
        let passes = order.flat_map(|y: usize| rows[128 * y..128 * (y + 1)].iter().copied()).collect::<Vec<_>>();
        Frame { interlaced: true, delay: 8, ..Frame::from_palette_pixels(128, 128, passes, palette.clone(), None) }
    });
    file(128, frames.collect(), Repeat::Infinite)
}

fn one_frame() -> Vec<u8> {
    file(128, vec![photo_frame(&photo(1))], Repeat::Infinite)
}

/// Forty frames of which two differ.
fn long_still() -> Vec<u8> {
    let mut open = RgbaImage::from_pixel(EDGE, EDGE, Rgba(CLEAR));
    disc(&mut open, 48.0, 48.0, 44.0, [250, 205, 60, 255]);
    let mut shut = open.clone();
    for x in [32.0, 64.0] {
        disc(&mut open, x, 40.0, 6.0, INK);
        disc(&mut shut, x, 40.0, 2.0, INK);
    }
    let frames = (0..40).map(|n| whole(if n % 20 == 19 { &shut } else { &open }, 10));
    file(EDGE, frames.collect(), Repeat::Infinite)
}

fn photo(n: usize) -> RgbImage {
    image::load_from_memory(PHOTOS[n]).expect("a picture of ours").into_rgb8()
}

fn disc(picture: &mut RgbaImage, x: f64, y: f64, radius: f64, colour: [u8; 4]) {
    for (px, py, pixel) in picture.enumerate_pixels_mut() {
        if (f64::from(px) - x).hypot(f64::from(py) - y) <= radius {
            *pixel = Rgba(colour);
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped to a byte")]
fn byte(value: f64) -> u8 {
    value.clamp(0.0, 255.0) as u8
}

fn short(edge: u32) -> u16 {
    u16::try_from(edge).expect("an edge of ours")
}

/// A frame of the exact colours of a drawing.
fn whole(picture: &RgbaImage, delay: u16) -> Frame<'static> {
    let mut colours: Vec<[u8; 4]> = picture.pixels().map(|pixel| pixel.0).collect();
    colours.sort_unstable();
    colours.dedup();
    let at = |colour: [u8; 4]| u8::try_from(colours.binary_search(&colour).expect("seen")).expect("few colours");
    let indices = picture.pixels().map(|pixel| at(pixel.0)).collect::<Vec<_>>();
    let palette = colours.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect::<Vec<_>>();
    let transparent = colours.binary_search(&CLEAR).ok().map(|at| u8::try_from(at).expect("few colours"));
    let (width, height) = (short(picture.width()), short(picture.height()));
    Frame { delay, ..Frame::from_palette_pixels(width, height, indices, palette, transparent) }
}

/// A frame of the smallest rectangle that differs.
fn changed(before: &RgbaImage, after: &RgbaImage, delay: u16) -> Frame<'static> {
    let differs = after.enumerate_pixels().filter(|(x, y, pixel)| before.get_pixel(*x, *y) != *pixel);
    let (x, y): (Vec<u32>, Vec<u32>) = differs.map(|(x, y, _)| (x, y)).unzip();
    let ends = |edge: &[u32]| edge.iter().min().copied().zip(edge.iter().max().copied()).unwrap_or_default();
    let ((left, right), (top, bottom)) = (ends(&x), ends(&y));
    let part = image::imageops::crop_imm(after, left, top, right - left + 1, bottom - top + 1).to_image();
    Frame { left: short(left), top: short(top), ..whole(&part, delay) }
}

/// A frame with the colours that suit a photograph.
fn photo_frame(picture: &RgbImage) -> Frame<'static> {
    let (width, height) = (short(picture.width()), short(picture.height()));
    Frame { delay: 8, ..Frame::from_rgb_speed(width, height, picture, 10) }
}

fn file(edge: u32, frames: Vec<Frame<'_>>, repeat: Repeat) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, short(edge), short(edge), &[]).expect("a header");
    encoder.set_repeat(repeat).expect("an extension");
    for frame in frames {
        encoder.write_frame(&frame).expect("a frame");
    }
    drop(encoder);
    file
}
