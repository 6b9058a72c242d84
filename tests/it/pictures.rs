//! Generated pictures: solid colours, letters, noise that behaves like a photo, and a moving one, in every format that
//! the proxy decodes.

use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ExtendedColorType, Frame, ImageFormat, Rgb, RgbImage};
use std::io::Cursor;

pub(crate) const RED: [u8; 3] = [200, 30, 40];
pub(crate) const BLUE: [u8; 3] = [30, 60, 200];

/// The edge of a picture as Mattermost stores it.
pub(crate) const EDGE: u32 = 128;

/// One colour all over.
pub(crate) fn solid(colour: [u8; 3]) -> RgbImage {
    RgbImage::from_pixel(EDGE, EDGE, Rgb(colour))
}

/// A white bar on a colour: as few colours and sharp edges as Mattermost's letters have.
pub(crate) fn letter(colour: [u8; 3]) -> RgbImage {
    let bar = |x: u32, y: u32| (56..72).contains(&x) && (24..104).contains(&y);
    RgbImage::from_fn(EDGE, EDGE, |x, y| Rgb(if bar(x, y) { [255; 3] } else { colour }))
}

/// Smooth light with grain, another one for each `seed`: long as a PNG, short as anything lossy.
pub(crate) fn photo(seed: u32) -> RgbImage {
    let mut noise = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    RgbImage::from_fn(EDGE, EDGE, |x, y| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [.., grain] = noise.to_be_bytes().map(|byte| byte % 16);
        let light = |value: u32| u8::try_from(value % 224).expect("below 224") + grain;
        Rgb([light(x + seed), light(y + seed), light(x / 2 + y / 2)])
    })
}

pub(crate) fn png(picture: &RgbImage) -> Vec<u8> {
    encoded(picture, ImageFormat::Png)
}

pub(crate) fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 95)
        .encode(picture, picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .expect("a picture encodes");
    bytes
}

pub(crate) fn gif(picture: &RgbImage) -> Vec<u8> {
    moving_gif(std::slice::from_ref(picture))
}

/// Lossless: it is what the `image` crate writes.
pub(crate) fn webp(picture: &RgbImage) -> Vec<u8> {
    encoded(picture, ImageFormat::WebP)
}

/// One frame for each picture.
pub(crate) fn moving_gif(pictures: &[RgbImage]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let frames = pictures.iter().map(|picture| Frame::new(DynamicImage::ImageRgb8(picture.clone()).into_rgba8()));
    GifEncoder::new_with_speed(&mut bytes, 30).encode_frames(frames).expect("frames encode");
    bytes
}

fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("a picture encodes");
    bytes.into_inner()
}
