//! Pictures drawn by code: portraits, the bots' default picture, a team icon, emoji. The same seed always draws the
//! same bytes.

use std::f32::consts::{PI, TAU};

use bytes::Bytes;
use image::codecs::gif::{GifEncoder, Repeat};
use image::codecs::png::{self as png_codec, CompressionType, PngEncoder};
use image::imageops::FilterType;
use image::{Delay, DynamicImage, Frame, Rgb, RgbImage, Rgba, RgbaImage};

use super::letters::EDGE;

/// A style of generated portrait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// A friendly face before two colours.
    Face,
    /// Hills under an evening sky.
    Hills,
    /// Quarter circles on a grid.
    Arcs,
    /// A symmetric pattern of squares.
    Identicon,
}

type Color = [f32; 3];

const WHITE: Color = [1.0; 3];
const INK: Color = [0.13, 0.14, 0.2];

/// Draws a portrait, 128x128, truecolour.
pub(super) fn portrait(style: Style, seed: u32) -> Bytes {
    let mut dice = Dice(seed.wrapping_mul(2_654_435_761) | 1);
    let picture = match style {
        Style::Face => face(&mut dice),
        Style::Hills => hills(&mut dice),
        Style::Arcs => arcs(&mut dice),
        Style::Identicon => identicon(&mut dice),
    };
    encode_png(&picture.into())
}

/// As Mattermost stores pictures: PNG at the best compression, without alpha where there is none.
pub(super) fn encode_png(picture: &DynamicImage) -> Bytes {
    let mut bytes = Vec::new();
    picture
        .write_with_encoder(PngEncoder::new_with_quality(
            &mut bytes,
            CompressionType::Best,
            png_codec::FilterType::Adaptive,
        ))
        .expect("writing a small PNG to memory cannot fail");
    bytes.into()
}

/// The default picture of a bot: 256x256, a palette with a transparent entry, the shape of Mattermost's.
pub(super) fn bot_picture() -> Bytes {
    const SIDE: u32 = 256;
    const SHADES: u8 = 12;
    const PATTERN: [[f32; 2]; 2] = [[0.0, 0.5], [0.75, 0.25]];
    let index = |column: u32, row: u32| {
        let (x, y) = (span(column, SIDE), span(row, SIDE));
        let head = rounded_box(x - 0.5, y - 0.56, 0.3, 0.22, 0.09) < 0.0;
        let ears = rounded_box((x - 0.5).abs() - 0.335, y - 0.56, 0.03, 0.08, 0.03) < 0.0;
        let antenna = rounded_box(x - 0.5, y - 0.27, 0.014, 0.08, 0.01) < 0.0 || circle(x - 0.5, y - 0.18, 0.045);
        let eyes = circle((x - 0.5).abs() - 0.13, y - 0.52, 0.055);
        let mouth = rounded_box(x - 0.5, y - 0.67, 0.13, 0.022, 0.02) < 0.0;
        // Few shades, mixed by a pattern: what a palette does to a gradient.
        let [dither_row, dither_column] = [row, column].map(|place| usize::from(place % 2 == 1));
        let shade = cell(y * f32::from(SHADES - 1) + PATTERN[dither_row][dither_column]);
        match () {
            () if !circle(x - 0.5, y - 0.5, 0.495) => 0,
            () if eyes || mouth => 1,
            () if head || ears || antenna => 2,
            () => 3 + u8::try_from(shade).expect("below 16"),
        }
    };
    let pixels: Vec<u8> = (0..SIDE).flat_map(|row| (0..SIDE).map(move |column| index(column, row))).collect();
    let mut palette = vec![[0; 3], [20, 28, 66], [226, 232, 255]];
    palette.extend(
        (0..=SHADES)
            .map(|shade| mix([0.34, 0.5, 1.0], [0.16, 0.2, 0.66], f32::from(shade) / f32::from(SHADES)).map(byte)),
    );
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIDE, SIDE);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette.concat());
    encoder.set_trns([0].as_slice());
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&pixels))
        .expect("writing a small PNG to memory cannot fail");
    bytes.into()
}

/// The icon of the demo's team: sails on the sea.
pub(super) fn team_icon() -> Bytes {
    let picture = paint(|x, y| {
        let wave = 0.72 + 0.025 * (x * TAU * 2.0).sin();
        let sail = x > 0.53 && y > 0.2 && y < 0.62 && x - 0.53 < (y - 0.2) * 0.72;
        let jib = x < 0.49 && y > 0.3 && y < 0.62 && 0.49 - x < (y - 0.3) * 0.62;
        let hull = y > 0.66 && y < 0.78 && (x - 0.51).abs() < 0.34 - (y - 0.66) * 0.9;
        match () {
            () if y > wave => mix([0.02, 0.42, 0.62], [0.01, 0.22, 0.4], (y - wave) / (1.0 - wave)),
            () if hull => [0.93, 0.33, 0.24],
            () if sail => WHITE,
            () if jib => [1.0, 0.85, 0.45],
            () => mix([0.36, 0.72, 0.95], [0.8, 0.93, 0.98], y / wave),
        }
    });
    encode_png(&picture.into())
}

/// A static custom emoji: a smile with transparent corners, 64x64.
pub(super) fn still_emoji() -> Bytes {
    let large = RgbaImage::from_fn(256, 256, |x, y| {
        let (x, y) = (span(x, 256) - 0.5, span(y, 256) - 0.5);
        let radius = x.hypot(y);
        let eyes = circle(x.abs() - 0.16, y + 0.1, 0.06);
        let smile = (radius - 0.28).abs() < 0.035 && y > 0.06;
        match () {
            () if eyes || smile => Rgba([74, 46, 8, 255]),
            // Outside the circle the same colour, only clear: no dark rim when it is scaled.
            () => Rgba([255, byte(0.82 - 0.25 * (y + 0.5)), 61, if radius < 0.48 { 255 } else { 0 }]),
        }
    });
    let picture = image::imageops::resize(&large, 64, 64, FilterType::Triangle);
    encode_png(&picture.into())
}

/// A moving custom emoji: eight dots turning, 64x64, twelve frames.
pub(super) fn moving_emoji() -> Bytes {
    const FRAMES: u8 = 12;
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 10);
    encoder.set_repeat(Repeat::Infinite).expect("writing to memory cannot fail");
    for number in 0..FRAMES {
        let turn = TAU * f32::from(number) / f32::from(FRAMES) / 8.0;
        let picture = RgbaImage::from_fn(64, 64, |x, y| {
            let (x, y) = (span(x, 64) - 0.5, span(y, 64) - 0.5);
            let dot = (0..8_u8).find(|dot| {
                let angle = turn + TAU * f32::from(*dot) / 8.0;
                circle(x - 0.36 * angle.cos(), y - 0.36 * angle.sin(), 0.1)
            });
            dot.map_or(Rgba([0; 4]), |dot| {
                let [red, green, blue] = hue(f32::from(dot) / 8.0, 0.75, 0.55).map(byte);
                Rgba([red, green, blue, 255])
            })
        });
        let frame = Frame::from_parts(picture, 0, 0, Delay::from_numer_denom_ms(80, 1));
        encoder.encode_frame(frame).expect("writing a small GIF to memory cannot fail");
    }
    drop(encoder);
    bytes.into()
}

fn face(dice: &mut Dice) -> RgbImage {
    let base = dice.unit();
    let (sky, ground) = (hue(base, 0.7, 0.78), hue(base + 0.12, 0.65, 0.6));
    let skin =
        dice.pick(&[[1.0, 0.86, 0.74], [0.96, 0.77, 0.6], [0.84, 0.6, 0.42], [0.62, 0.41, 0.27], [0.42, 0.27, 0.18]]);
    let hair = dice.pick(&[[0.16, 0.11, 0.09], [0.45, 0.26, 0.12], [0.9, 0.72, 0.36], [0.62, 0.22, 0.14], [0.72; 3]]);
    let shirt = hue(base + 0.5, 0.6, 0.5);
    let (fringe, long, glasses) = (0.05 + 0.1 * dice.unit(), dice.unit() < 0.5, dice.unit() < 0.35);
    let smile = 0.06 + 0.05 * dice.unit();
    paint(|x, y| {
        let side = (x - 0.5).abs();
        let head = ellipse(x - 0.5, y - 0.46, 0.21, 0.25);
        let eye = circle(side - 0.085, y - 0.46, 0.022);
        let rim = ((side - 0.085).hypot(y - 0.46) - 0.06).abs() < 0.011;
        let mouth = ((x - 0.5).hypot((y - 0.53) * 0.9) - smile).abs() < 0.012 && y > 0.55;
        let behind = ellipse(x - 0.5, y - 0.42, 0.27, 0.29) && (y < 0.46 || long && y < 0.74);
        match () {
            () if head && (eye || mouth || glasses && rim) => INK,
            () if glasses && side < 0.03 && (y - 0.455).abs() < 0.01 => INK,
            () if head && y < 0.3 + fringe * (1.0 - side * 2.0) => hair,
            () if head => skin,
            () if side < 0.075 && y > 0.6 && y < 0.8 => mix(skin, INK, 0.14),
            () if ellipse(x - 0.5, y - 1.02, 0.36, 0.27) => shirt,
            () if behind => mix(hair, INK, 0.2),
            () => mix(sky, ground, y),
        }
    })
}

fn hills(dice: &mut Dice) -> RgbImage {
    let base = dice.unit();
    let (top, bottom) = (hue(base, 0.55, 0.42), hue(base + 0.1, 0.85, 0.78));
    let sun = (0.25 + 0.5 * dice.unit(), 0.34 + 0.12 * dice.unit(), 0.1 + 0.05 * dice.unit());
    let ridges: Vec<(f32, f32, f32)> =
        (0..4_u8).map(|row| (0.5 + 0.13 * f32::from(row), 1.0 + 2.0 * dice.unit(), TAU * dice.unit())).collect();
    paint(|x, y| {
        let covered = ridges.iter().zip(0..4_u8).rev().find(|((height, waves, phase), _)| {
            y > height + 0.05 * (x * PI * waves + phase).sin() + 0.02 * (x * TAU * waves * 1.7 + phase).cos()
        });
        match covered {
            Some((_, row)) => hue(base + 0.05 + 0.02 * f32::from(row), 0.45, 0.44 - 0.09 * f32::from(row)),
            None if circle(x - sun.0, y - sun.1, sun.2) => mix(bottom, WHITE, 0.7),
            None => mix(top, bottom, (y * 1.5).min(1.0)),
        }
    })
}

fn arcs(dice: &mut Dice) -> RgbImage {
    let base = dice.unit();
    let colors = [hue(base, 0.6, 0.3), hue(base + 0.08, 0.7, 0.55), hue(base + 0.5, 0.75, 0.6), [0.97, 0.94, 0.88]];
    let tiles: Vec<(Color, Color, u32)> =
        (0..16).map(|_| (dice.pick(&colors), dice.pick(&colors), dice.below(4))).collect();
    paint(|x, y| {
        let (column, row) = ((x * 4.0).floor().min(3.0), (y * 4.0).floor().min(3.0));
        let (ground, shape, corner) = tiles[cell(row * 4.0 + column)];
        let (mut u, mut v) = (x * 4.0 - column, y * 4.0 - row);
        if corner & 1 == 1 {
            u = 1.0 - u;
        }
        if corner & 2 == 2 {
            v = 1.0 - v;
        }
        if u.hypot(v) < 1.0 { shape } else { ground }
    })
}

fn identicon(dice: &mut Dice) -> RgbImage {
    let base = dice.unit();
    let (ground, ink) = (hue(base, 0.35, 0.93), hue(base, 0.6, 0.48));
    let filled: Vec<bool> = (0..15).map(|_| dice.unit() < 0.52).collect();
    paint(|x, y| {
        let (column, row) = ((x * 6.0 - 0.5).floor(), (y * 6.0 - 0.5).floor());
        let inside = (0.0..5.0).contains(&column) && (0.0..5.0).contains(&row);
        let half = 2.0 - (column - 2.0).abs();
        if inside && filled[cell(row * 3.0 + half)] { ink } else { ground }
    })
}

/// A small generator of well-mixed numbers (xorshift); what it draws is decoration.
struct Dice(u32);

impl Dice {
    fn roll(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    fn below(&mut self, sides: u32) -> u32 {
        (self.roll() >> 8) % sides
    }

    /// From 0 up to 1.
    fn unit(&mut self) -> f32 {
        f32::from(u16::try_from(self.roll() >> 16).expect("half of 32 bits")) / 65_536.0
    }

    fn pick(&mut self, colors: &[Color]) -> Color {
        let sides = u32::try_from(colors.len()).expect("a handful of colours");
        colors[usize::try_from(self.below(sides)).expect("a place among a handful")]
    }
}

/// Fills a square with `color(x, y)` of the unit square; four samples a pixel smooth the edges.
fn paint(color: impl Fn(f32, f32) -> Color) -> RgbImage {
    RgbImage::from_fn(EDGE, EDGE, |x, y| {
        let mut sum = [0.0; 3];
        for (dx, dy) in [(-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25)] {
            let sample = color(span(x, EDGE) + dx / 128.0, span(y, EDGE) + dy / 128.0);
            for (channel, part) in sum.iter_mut().zip(sample) {
                *channel += part / 4.0;
            }
        }
        Rgb(sum.map(byte))
    })
}

/// The middle of pixel `place` of `edge`, as a part of the whole.
fn span(place: u32, edge: u32) -> f32 {
    let exact = |number: u32| f32::from(u16::try_from(number).expect("pictures here are at most 256 wide"));
    (exact(place) + 0.5) / exact(edge)
}

fn circle(x: f32, y: f32, radius: f32) -> bool {
    x.hypot(y) < radius
}

fn ellipse(x: f32, y: f32, width: f32, height: f32) -> bool {
    (x / width).hypot(y / height) < 1.0
}

/// The distance to a box with round corners, negative inside.
fn rounded_box(x: f32, y: f32, width: f32, height: f32, corner: f32) -> f32 {
    let (x, y) = (x.abs() - width + corner, y.abs() - height + corner);
    x.max(0.0).hypot(y.max(0.0)) + x.max(y).min(0.0) - corner
}

fn mix(one: Color, other: Color, part: f32) -> Color {
    let part = part.clamp(0.0, 1.0);
    [0, 1, 2].map(|channel| one[channel] + (other[channel] - one[channel]) * part)
}

/// HSL to RGB; `turn` is the hue in turns, whole turns do not count.
fn hue(turn: f32, saturation: f32, lightness: f32) -> Color {
    let reach = saturation * lightness.min(1.0 - lightness);
    [0.0, 8.0, 4.0].map(|offset| {
        let place = (offset + turn.rem_euclid(1.0) * 12.0) % 12.0;
        lightness - reach * (place - 3.0).min(9.0 - place).clamp(-1.0, 1.0)
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what a byte holds")]
fn byte(part: f32) -> u8 {
    (part.clamp(0.0, 1.0) * 255.0).round() as u8
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number between 0 and 15")]
fn cell(place: f32) -> usize {
    place.clamp(0.0, 15.0) as usize
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{AnimationDecoder, ImageFormat};

    use super::*;

    #[test]
    fn portraits_are_128_px_and_repeat_by_seed() {
        for style in [Style::Face, Style::Hills, Style::Arcs, Style::Identicon] {
            let bytes = portrait(style, 7);
            let picture = image::load_from_memory(&bytes).expect("a PNG");
            assert_eq!((picture.width(), picture.color()), (EDGE, image::ColorType::Rgb8), "{style:?}");
            assert_eq!(bytes, portrait(style, 7), "{style:?}");
            assert_ne!(bytes, portrait(style, 8), "{style:?}");
        }
    }

    #[test]
    fn the_bot_picture_has_a_palette_with_transparency() {
        let bytes = bot_picture();
        let reader = png::Decoder::new(Cursor::new(&bytes)).read_info().expect("a PNG");
        let info = reader.info();
        assert_eq!((info.width, info.height, info.color_type), (256, 256, png::ColorType::Indexed));
        assert!(info.trns.is_some());
    }

    #[test]
    fn emoji_and_icon_decode() {
        let still = image::load_from_memory_with_format(&still_emoji(), ImageFormat::Png).expect("a PNG");
        assert_eq!((still.width(), still.color()), (64, image::ColorType::Rgba8));
        let moving = image::codecs::gif::GifDecoder::new(Cursor::new(moving_emoji())).expect("a GIF");
        assert_eq!(moving.into_frames().count(), 12);
        assert_eq!(image::load_from_memory(&team_icon()).expect("a PNG").width(), EDGE);
    }
}
