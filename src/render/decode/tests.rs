//! Every kind of source, whole, cut off, damaged and oversized. The files are made here, by encoders or by hand.

use super::*;
use image::codecs::gif::GifEncoder;
use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, ExtendedColorType, Frame, ImageFormat, RgbaImage};
use jpeg_encoder::{ColorType as JpegColour, Encoder as JpegEncoder, SamplingFactor};
use proptest::prelude::*;

const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLUE: [u8; 3] = [0, 0, 255];
const WHITE: [u8; 3] = [255; 3];

/// Four areas: red and green above, blue and white below; `alpha` is that of the red one.
fn quarters(width: u32, height: u32, alpha: u8) -> RgbaImage {
    RgbaImage::from_fn(width, height, |x, y| {
        let (pixel, alpha) = match (2 * x < width, 2 * y < height) {
            (true, true) => (RED, alpha),
            (false, true) => (GREEN, 255),
            (true, false) => (BLUE, 255),
            (false, false) => (WHITE, 255),
        };
        image::Rgba([pixel[0], pixel[1], pixel[2], alpha])
    })
}

fn written(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut file, format).expect("encodes");
    file.into_inner()
}

fn png_file(alpha: u8) -> Vec<u8> {
    written(&quarters(40, 24, alpha).into(), ImageFormat::Png)
}

/// A JPEG of the quarters whose EXIF block asks for `orientation`.
fn jpeg_file(orientation: u8, progressive: bool) -> Vec<u8> {
    let samples = DynamicImage::from(quarters(40, 24, 255)).into_rgb8().into_raw();
    let mut file = Vec::new();
    let mut encoder = JpegEncoder::new(&mut file, 95);
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    encoder.set_progressive(progressive);
    encoder.add_exif_metadata(&exif(orientation)).expect("a small block");
    encoder.encode(&samples, 40, 24, JpegColour::Rgb).expect("encodes");
    file
}

/// A TIFF header and one directory with one entry, the orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let entry = [0x12, 0x01, 0x03, 0, 1, 0, 0, 0, orientation, 0, 0, 0];
    [&b"II*\0\x08\0\0\0\x01\0"[..], &entry, &[0; 4]].concat()
}

fn gif_file(frames: usize) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = GifEncoder::new(&mut file);
    encoder.encode_frames((0..frames).map(|_| Frame::new(quarters(40, 24, 255)))).expect("encodes");
    drop(encoder);
    file
}

/// One red frame of 2 x 2 pixels at (1, 1) on a screen of 4 x 4.
fn small_frame_gif() -> Vec<u8> {
    let head = b"GIF89a\x04\0\x04\0\x80\0\0\xff\0\0\0\0\xff";
    let frame = b"\x2c\x01\0\x01\0\x02\0\x02\0\0\x02";
    // Codes of three bits, from the low end: clear, 0, 0, clear, 0, 0, end.
    let codes = [4_u32, 0, 0, 4, 0, 0, 5].iter().enumerate().fold(0, |bits, (i, code)| bits | code << (3 * i));
    let [a, b, c, _] = codes.to_le_bytes();
    [&head[..], frame, &[3, a, b, c, 0, 0x3b]].concat()
}

fn lossless_webp(picture: &RgbaImage) -> Vec<u8> {
    let mut file = Vec::new();
    let (width, height) = picture.dimensions();
    WebPEncoder::new_lossless(&mut file).encode(picture, width, height, ExtendedColorType::Rgba8).expect("encodes");
    file
}

fn lossy_webp() -> Vec<u8> {
    use crate::variant::{Format, Geometry, Offer, Recipe};
    let noise = |i: u32| i.wrapping_mul(0x9e37_79b1).to_le_bytes().into_iter().skip(1);
    let pixels = super::super::Pixels {
        info: SourceInfo { format: SourceFormat::Png, width: 40, height: 24, has_alpha: false, animated: false },
        raster: Raster::opaque(40, 24, (0..40 * 24).flat_map(noise).collect()),
        content: None,
    };
    let recipe = Recipe {
        geometry: Geometry::Keep,
        offer: Offer::Only(Format::Webp),
        quality: Some(80),
        background: [255; 3],
        source_may_serve: false,
    };
    match super::super::render(&pixels, &recipe, &crate::render::Targets::default(), 0).expect("encodes") {
        crate::variant::Variant::Encoded(encoded) => encoded.bytes.to_vec(),
        crate::variant::Variant::SourceForNow(_) | crate::variant::Variant::SourceIsBest => {
            unreachable!("the source may not serve")
        }
    }
}

/// A RIFF file of `chunks`.
fn riff(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    for (kind, data) in chunks {
        body.extend_from_slice(*kind);
        body.extend_from_slice(&u32::try_from(data.len()).expect("small").to_le_bytes());
        body.extend_from_slice(data);
        if data.len() % 2 == 1 {
            body.push(0);
        }
    }
    [b"RIFF", &u32::try_from(body.len()).expect("small").to_le_bytes()[..], &body].concat()
}

/// An animation of `frames` frames, each of the quarters, with an EXIF block.
fn moving_webp(frames: usize, orientation: u8) -> Vec<u8> {
    let still = lossless_webp(&quarters(40, 24, 9))[12..].to_vec();
    let frame = [&[0; 6][..], &[39, 0, 0, 23, 0, 0, 50, 0, 0, 2], &still].concat();
    let mut chunks: Vec<(&[u8; 4], Vec<u8>)> =
        vec![(b"VP8X", vec![0x1a, 0, 0, 0, 39, 0, 0, 23, 0, 0]), (b"ANIM", vec![0; 6])];
    chunks.extend((0..frames).map(|_| (b"ANMF", frame.clone())));
    chunks.push((b"EXIF", exif(orientation)));
    riff(&chunks)
}

/// The quarters in 16 bits, interlaced, with the rows in stored blocks.
fn interlaced_png() -> Vec<u8> {
    const PASSES: [(u32, u32, u32, u32); 7] =
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];
    let picture = quarters(10, 6, 77);
    let mut rows = Vec::new();
    for (left, top, across, down) in PASSES {
        for y in (top..6).step_by(usize::try_from(down).expect("small")) {
            rows.push(0);
            for x in (left..10).step_by(usize::try_from(across).expect("small")) {
                rows.extend(picture.get_pixel(x, y).0.iter().flat_map(|&sample| [sample, 0x33]));
            }
        }
    }
    let (a, b) = rows.iter().fold((1_u32, 0_u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    let length = u16::try_from(rows.len()).expect("one stored block");
    let mut data = vec![0x78, 0x01, 0x01];
    data.extend(length.to_le_bytes());
    data.extend((!length).to_le_bytes());
    data.extend(rows);
    data.extend((b << 16 | a).to_be_bytes());
    let mut info = ::png::Info::with_size(10, 6);
    info.color_type = ::png::ColorType::Rgba;
    info.bit_depth = ::png::BitDepth::Sixteen;
    info.interlaced = true;
    let mut file = Vec::new();
    let mut writer = ::png::Encoder::with_info(&mut file, info).expect("valid").write_header().expect("writes");
    writer.write_chunk(::png::chunk::IDAT, &data).expect("writes");
    drop(writer);
    file
}

/// A PNG of `colour` and `depth` whose rows are all `row`.
fn plain_png(colour: ::png::ColorType, depth: ::png::BitDepth, row: &[u8], trns: Option<&'static [u8]>) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut file, 4, 3);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == ::png::ColorType::Indexed {
        encoder.set_palette(&[255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255][..]);
    }
    if let Some(trns) = trns {
        encoder.set_trns(trns);
    }
    let mut writer = encoder.write_header().expect("writes");
    writer.write_image_data(&row.repeat(3)).expect("writes");
    drop(writer);
    file
}

fn moving_png(frames: u32) -> Vec<u8> {
    let picture = quarters(40, 24, 255);
    let mut file = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut file, 40, 24);
    encoder.set_color(::png::ColorType::Rgba);
    encoder.set_animated(frames, 0).expect("some frames");
    let mut writer = encoder.write_header().expect("writes");
    for _ in 0..frames {
        writer.write_image_data(&picture).expect("writes");
    }
    drop(writer);
    file
}

/// One of each kind, as (name, file).
fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("png", png_file(9)),
        ("interlaced png", interlaced_png()),
        ("moving png", moving_png(3)),
        ("jpeg", jpeg_file(6, false)),
        ("progressive jpeg", jpeg_file(1, true)),
        ("gif", gif_file(1)),
        ("moving gif", gif_file(3)),
        ("small gif", small_frame_gif()),
        ("lossless webp", lossless_webp(&quarters(40, 24, 9))),
        ("lossy webp", lossy_webp()),
        ("moving webp", moving_webp(2, 1)),
    ]
}

fn decoded(file: &[u8]) -> Pixels {
    decode(file, &Limits::default()).expect("decodes")
}

fn at(pixels: &Pixels, x: u32, y: u32) -> [u8; 4] {
    pixels.raster.rgba().nth(usize::try_from(y * pixels.raster.width + x).expect("small")).expect("inside")
}

fn opaque([r, g, b]: [u8; 3]) -> [u8; 4] {
    [r, g, b, 255]
}

#[test]
fn a_picture_of_countless_scans_is_left_alone() {
    let file = jpeg_file(1, true);
    let scan = file.windows(2).position(|marker| marker == [0xff, 0xda]).expect("a scan");
    // A scan of nothing: its header without data behind it.
    let empty = [&[0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0][..]; 65].concat();
    let many = [&file[..scan], &empty, &file[scan..]].concat();
    assert_eq!(decode(&many, &Limits::default()).map(drop), Err(DecodeError::OverLimit("scans")));
}

#[test]
fn every_kind_is_recognised_by_its_bytes() {
    let check = |name: &str, file: &[u8], format, alpha, animated| {
        let pixels = decoded(file);
        let info = SourceInfo { format, width: 40, height: 24, has_alpha: alpha, animated };
        assert_eq!(pixels.info, info, "{name}");
    };
    check("png", &png_file(255), SourceFormat::Png, false, false);
    check("png with alpha", &png_file(254), SourceFormat::Png, true, false);
    check("moving png of one frame", &moving_png(1), SourceFormat::Png, false, false);
    check("moving png", &moving_png(2), SourceFormat::Png, false, true);
    check("jpeg", &jpeg_file(1, false), SourceFormat::Jpeg, false, false);
    check("gif", &gif_file(1), SourceFormat::Gif, false, false);
    check("moving gif", &gif_file(2), SourceFormat::Gif, false, true);
    check("webp", &lossless_webp(&quarters(40, 24, 255)), SourceFormat::Webp, false, false);
    check("webp with alpha", &lossless_webp(&quarters(40, 24, 9)), SourceFormat::Webp, true, false);
    check("lossy webp", &lossy_webp(), SourceFormat::Webp, false, false);
    check("moving webp", &moving_webp(2, 1), SourceFormat::Webp, true, true);
    check("moving webp of one frame", &moving_webp(1, 1), SourceFormat::Webp, true, false);
}

#[test]
fn lossless_sources_keep_their_pixels() {
    let want = quarters(40, 24, 9).into_raw();
    for (name, file) in
        [("png", png_file(9)), ("webp", lossless_webp(&quarters(40, 24, 9))), ("moving", moving_webp(2, 1))]
    {
        assert_eq!(decoded(&file).raster.samples, want, "{name}");
    }
    assert_eq!(decoded(&interlaced_png()).raster.samples, quarters(10, 6, 77).into_raw());
    assert_eq!(decoded(&moving_png(2)).raster.rgba().flatten().collect::<Vec<_>>(), quarters(40, 24, 255).into_raw());
    let gif: Vec<u8> = decoded(&gif_file(2)).raster.rgba().flatten().collect();
    assert!(gif.iter().zip(quarters(40, 24, 255).as_raw()).all(|(a, b)| a.abs_diff(*b) < 4));
}

#[test]
fn every_colour_type_of_png() {
    use ::png::{BitDepth, ColorType};
    let check = |colour, depth, row: &[u8], trns, want: [[u8; 4]; 2]| {
        let pixels = decoded(&plain_png(colour, depth, row, trns));
        assert_eq!([at(&pixels, 0, 0), at(&pixels, 3, 2)], want, "{colour:?} {depth:?} {trns:?}");
        assert_eq!(pixels.info.has_alpha, want.iter().any(|pixel| pixel[3] < 255), "{colour:?} {depth:?} {trns:?}");
    };
    let (black, white) = ([0, 0, 0, 255], [255; 4]);
    check(ColorType::Grayscale, BitDepth::One, &[0b0001_0000], None, [black, white]);
    check(ColorType::Grayscale, BitDepth::Two, &[0b0000_0011], None, [black, white]);
    check(ColorType::Grayscale, BitDepth::Four, &[0x0f, 0xff], None, [black, white]);
    check(ColorType::Grayscale, BitDepth::Eight, &[0, 1, 2, 255], Some(&[0, 0]), [[0; 4], white]);
    check(ColorType::Grayscale, BitDepth::Sixteen, &[0, 9, 0, 0, 0, 0, 255, 255], None, [black, white]);
    check(ColorType::GrayscaleAlpha, BitDepth::Eight, &[0, 255, 1, 1, 2, 2, 7, 8], None, [black, [7, 7, 7, 8]]);
    let wide = [0, 0, 255, 255, 1, 1, 1, 1, 2, 2, 2, 2, 7, 0, 8, 0];
    check(ColorType::GrayscaleAlpha, BitDepth::Sixteen, &wide, None, [black, [7, 7, 7, 8]]);
    let row = [1, 2, 3, 0, 0, 0, 0, 0, 0, 4, 5, 6];
    check(ColorType::Rgb, BitDepth::Eight, &row, None, [[1, 2, 3, 255], [4, 5, 6, 255]]);
    check(ColorType::Rgb, BitDepth::Eight, &row, Some(&[0, 4, 0, 5, 0, 6]), [[1, 2, 3, 255], [4, 5, 6, 0]]);
    let row: Vec<u8> = row.iter().flat_map(|&sample| [sample, 0x80]).collect();
    check(ColorType::Rgb, BitDepth::Sixteen, &row, None, [[1, 2, 3, 255], [4, 5, 6, 255]]);
    check(ColorType::Indexed, BitDepth::One, &[0b0001_0000], None, [opaque(RED), opaque(GREEN)]);
    check(ColorType::Indexed, BitDepth::Two, &[0b0000_0011], None, [opaque(RED), opaque(WHITE)]);
    check(ColorType::Indexed, BitDepth::Four, &[0x01, 0x12], None, [opaque(RED), opaque(BLUE)]);
    check(ColorType::Indexed, BitDepth::Eight, &[0, 1, 1, 2], Some(&[50]), [[255, 0, 0, 50], opaque(BLUE)]);
}

#[test]
fn greyscale_jpeg_decodes_and_four_components_are_left_alone() {
    let mut grey = Vec::new();
    JpegEncoder::new(&mut grey, 95).encode(&[90; 40 * 24], 40, 24, JpegColour::Luma).expect("encodes");
    assert!(at(&decoded(&grey), 39, 23)[..3].iter().all(|sample| sample.abs_diff(90) < 3));
    for colour in [JpegColour::Cmyk, JpegColour::CmykAsYcck] {
        let mut four = Vec::new();
        JpegEncoder::new(&mut four, 95).encode(&[90; 40 * 24 * 4], 40, 24, colour).expect("encodes");
        assert_eq!(decode(&four, &Limits::default()), Err(DecodeError::Unsupported));
    }
}

#[test]
fn the_last_rows_of_a_flat_jpeg_are_there() {
    for (side, progressive) in [(8, false), (16, false), (48, false), (128, false), (128, true)] {
        for sampling in [SamplingFactor::F_1_1, SamplingFactor::F_2_2] {
            let mut file = Vec::new();
            let mut encoder = JpegEncoder::new(&mut file, 90);
            encoder.set_sampling_factor(sampling);
            encoder.set_progressive(progressive);
            encoder.set_optimized_huffman_tables(true);
            let samples = [200, 30, 30].repeat(usize::from(side) * usize::from(side));
            encoder.encode(&samples, side, side, JpegColour::Rgb).expect("encodes");
            let pixels = decoded(&file);
            let far =
                pixels.raster.rgba().find(|[r, g, b, _]| r.abs_diff(200).max(g.abs_diff(30)).max(b.abs_diff(30)) > 8);
            assert_eq!(far, None, "{side} {progressive} {sampling:?}");
        }
    }
}

#[test]
fn a_colour_profile_is_applied_whatever_carries_it() {
    let p3 = moxcms::ColorProfile::new_display_p3().encode().expect("a profile of the library's own");
    let png = |profile: &[u8]| {
        let mut info = ::png::Info::with_size(40, 24);
        info.color_type = ::png::ColorType::Rgba;
        info.icc_profile = Some(profile.to_vec().into());
        let mut file = Vec::new();
        let mut writer = ::png::Encoder::with_info(&mut file, info).expect("valid").write_header().expect("writes");
        writer.write_image_data(&quarters(40, 24, 9)).expect("writes");
        drop(writer);
        file
    };
    let jpeg = |profile: &[u8]| {
        let mut file = Vec::new();
        let mut encoder = JpegEncoder::new(&mut file, 95);
        encoder.set_sampling_factor(SamplingFactor::F_1_1);
        encoder.add_icc_profile(profile).expect("a small block");
        let samples = DynamicImage::from(quarters(40, 24, 255)).into_rgb8().into_raw();
        encoder.encode(&samples, 40, 24, JpegColour::Rgb).expect("encodes");
        file
    };
    let webp = |profile: &[u8]| {
        let still = lossless_webp(&quarters(40, 24, 9));
        let picture = (b"VP8L", still[20..].to_vec());
        riff(&[(b"VP8X", vec![0x30, 0, 0, 0, 39, 0, 0, 23, 0, 0]), (b"ICCP", profile.to_vec()), picture])
    };
    // Pure green of P3 is beyond sRGB: the nearest there is has no red or blue. White and what shows through stay.
    let check = |name: &str, file: &[u8], converted: bool| {
        let pixels = decoded(file);
        let [r, g, b, _] = at(&pixels, 39, 0);
        assert!(r < 8 && g > 247 && b < 8, "{name}: {:?}", [r, g, b]);
        assert!(at(&pixels, 39, 23)[..3].iter().all(|sample| *sample > 250), "{name}");
        let [r, g, b, _] = at(&pixels, 5, 5);
        assert!(r > 247 && g < 8 && b < 8, "{name}: {:?}", [r, g, b]);
        let plain = decoded(&png_file(9)).raster.samples;
        let same = pixels.raster.samples.iter().zip(&plain).all(|(a, b)| a == b);
        assert!(converted || name == "jpeg" || same, "{name}");
    };
    // Colours in the middle are what moves.
    let grey_red = |profile: &[u8]| {
        let mut info = ::png::Info::with_size(1, 1);
        info.color_type = ::png::ColorType::Rgb;
        info.icc_profile = Some(profile.to_vec().into());
        let mut file = Vec::new();
        let mut writer = ::png::Encoder::with_info(&mut file, info).expect("valid").write_header().expect("writes");
        writer.write_image_data(&[180, 100, 100]).expect("writes");
        drop(writer);
        let [r, g, b, _] = at(&decoded(&file), 0, 0);
        [r, g, b]
    };
    let moved = grey_red(&p3);
    assert!(moved[0] > 184 && moved[1] < 100, "{moved:?}");
    let srgb = moxcms::ColorProfile::new_srgb().encode().expect("a profile of the library's own");
    assert_eq!(grey_red(&srgb), [180, 100, 100]);
    for (profile, converted) in [(&p3[..], true), (&p3[..200], false), (b"no profile", false), (&srgb, false)] {
        check("png", &png(profile), converted);
        check("jpeg", &jpeg(profile), converted);
        check("webp", &webp(profile), converted);
    }
}

#[test]
fn orientation_is_applied() {
    let check = |orientation, size: (u32, u32), corners: [[u8; 3]; 4]| {
        let mut png = png_file(255);
        let block = exif(orientation);
        let mut chunk = u32::try_from(block.len()).expect("small").to_be_bytes().to_vec();
        chunk.extend(b"eXIf");
        chunk.extend(block);
        // The checksum of a chunk that only the walk reads; decoders skip it as ancillary.
        chunk.extend([0; 4]);
        png.splice(33..33, chunk);
        let webp = moving_webp(2, orientation);
        for (name, file) in [("jpeg", jpeg_file(orientation, false)), ("png", png), ("webp", webp)] {
            let pixels = decoded(&file);
            assert_eq!((pixels.info.width, pixels.info.height), size, "{name} {orientation}");
            let (right, bottom) = (size.0 - 1, size.1 - 1);
            for ((x, y), want) in [(0, 0), (right, 0), (0, bottom), (right, bottom)].into_iter().zip(corners) {
                let [r, g, b, _] = at(&pixels, x, y);
                let near = [r, g, b].iter().zip(want).all(|(a, b)| a.abs_diff(b) < 12);
                assert!(near, "{name} {orientation} ({x}, {y}): {:?} is not {want:?}", [r, g, b]);
            }
        }
    };
    check(1, (40, 24), [RED, GREEN, BLUE, WHITE]);
    check(2, (40, 24), [GREEN, RED, WHITE, BLUE]);
    check(3, (40, 24), [WHITE, BLUE, GREEN, RED]);
    check(4, (40, 24), [BLUE, WHITE, RED, GREEN]);
    check(5, (24, 40), [RED, BLUE, GREEN, WHITE]);
    check(6, (24, 40), [BLUE, RED, WHITE, GREEN]);
    check(7, (24, 40), [WHITE, GREEN, BLUE, RED]);
    check(8, (24, 40), [GREEN, WHITE, RED, BLUE]);
    check(0, (40, 24), [RED, GREEN, BLUE, WHITE]);
    check(9, (40, 24), [RED, GREEN, BLUE, WHITE]);
}

#[test]
fn a_gif_frame_lies_on_its_screen() {
    let pixels = decoded(&small_frame_gif());
    assert_eq!((pixels.info.width, pixels.info.height, pixels.info.has_alpha), (4, 4, true));
    assert_eq!(
        [at(&pixels, 0, 0), at(&pixels, 1, 1), at(&pixels, 2, 2), at(&pixels, 3, 3)],
        [[0; 4], opaque(RED), opaque(RED), [0; 4]]
    );
}

#[test]
fn a_picture_that_is_cut_off_is_broken() {
    for (name, file) in files() {
        decoded(&file);
        for end in 0..file.len() {
            let cut = decode(&file[..end], &Limits::default());
            assert!(matches!(cut, Err(DecodeError::Broken(_))), "{name} at {end} of {}: {cut:?}", file.len());
        }
    }
}

#[test]
fn a_kind_that_is_left_alone_is_so_wherever_it_is_cut_off() {
    use crate::variant::{Format, Geometry, Offer, Recipe, Variant};
    let recipe = Recipe {
        geometry: Geometry::Keep,
        offer: Offer::Only(Format::Avif),
        quality: None,
        background: [255; 3],
        source_may_serve: false,
    };
    let Ok(Variant::Encoded(avif)) =
        crate::render::render(&decoded(&png_file(255)), &recipe, &crate::render::Targets::default(), 0)
    else {
        panic!("it is not smaller than nothing");
    };
    for end in (64..avif.bytes.len()).step_by(64).chain([avif.bytes.len()]) {
        assert_eq!(decode(&avif.bytes[..end], &Limits::default()), Err(DecodeError::Unsupported), "at {end}");
    }
}

#[test]
fn a_still_webp_of_odd_chunks_is_whole_or_broken() {
    let file = lossy_webp();
    let picture = || (b"VP8 ", file[20..].to_vec());
    let header = |flags: u8| (b"VP8X", vec![flags, 0, 0, 0, 39, 0, 0, 23, 0, 0]);
    let whole = decoded(&file);
    for (name, chunks) in [
        ("an unknown chunk before", vec![header(0), (b"ABCD", vec![1, 2, 3]), picture()]),
        ("an unknown chunk behind", vec![header(0), picture(), (b"ABCD", vec![])]),
        ("metadata that is none", vec![header(0x28), (b"ICCP", vec![7; 5]), picture(), (b"EXIF", vec![7; 3])]),
    ] {
        assert!(decode(&riff(&chunks), &Limits::default()).as_ref() == Ok(&whole), "{name}");
    }
    for (name, chunks) in [
        ("nothing", vec![]),
        ("no picture", vec![header(0)]),
        ("an empty picture", vec![header(0), (b"VP8 ", vec![])]),
        ("a short header", vec![(b"VP8X", vec![0; 4]), picture()]),
        ("the data of the other kind", vec![(b"VP8L", file[20..].to_vec())]),
        ("an animation without frames", vec![header(2), picture()]),
        ("alpha only", vec![header(0x10), (b"ALPH", vec![0; 9])]),
    ] {
        let odd = decode(&riff(&chunks), &Limits::default());
        assert!(matches!(odd, Err(DecodeError::Broken(_))), "{name}: {odd:?}");
    }
}

/// What `decode` says of a WebP of `chunks` is wrong with it.
fn wrong(chunks: &[(&[u8; 4], Vec<u8>)]) -> String {
    match decode(&riff(chunks), &Limits::default()) {
        Err(DecodeError::Broken(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn f43_a_webp_in_which_two_readers_could_see_two_pictures_is_broken() {
    let header = |flags: u8, edges: [u8; 2]| (b"VP8X", vec![flags, 0, 0, 0, edges[0], 0, 0, edges[1], 0, 0]);
    let (lossy, lossless) = (lossy_webp()[20..].to_vec(), lossless_webp(&quarters(40, 24, 9))[20..].to_vec());
    let large = |mut lossy: Vec<u8>| {
        lossy[6..10].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
        lossy
    };
    let alpha = || (b"ALPH", vec![0; 1 + 40 * 24]);
    let framed = |chunk: &[u8; 4], data: &[u8], edges: [u8; 2]| {
        let chunks = riff(&[(chunk, data.to_vec())])[12..].to_vec();
        (b"ANMF", [&[0; 6][..], &[edges[0], 0, 0, edges[1], 0, 0, 50, 0, 0, 2], &chunks].concat())
    };
    let anim = || (b"ANIM", vec![0; 6]);
    let another_size = "a picture of another size than announced";
    for (name, chunks, why) in [
        ("a canvas larger than its picture", vec![header(0, [40, 23]), (b"VP8 ", lossy.clone())], another_size),
        ("the same, lossless", vec![header(0x10, [39, 24]), (b"VP8L", lossless.clone())], another_size),
        ("a canvas of 16 x 16", vec![header(0, [15, 15]), (b"VP8 ", large(lossy.clone()))], another_size),
        (
            "a frame larger than announced",
            vec![header(2, [39, 23]), anim(), framed(b"VP8 ", &large(lossy.clone()), [39, 23])],
            another_size,
        ),
        (
            "a lossless frame smaller than announced",
            vec![header(2, [99, 99]), anim(), framed(b"VP8L", &lossless, [40, 23])],
            another_size,
        ),
        (
            "a frame outside its canvas",
            vec![header(2, [38, 23]), anim(), framed(b"VP8L", &lossless, [39, 23])],
            "a frame outside its canvas",
        ),
        (
            "the second frame is another",
            vec![
                header(2, [39, 23]),
                anim(),
                framed(b"VP8L", &lossless, [39, 23]),
                framed(b"VP8 ", &large(lossy.clone()), [39, 23]),
            ],
            another_size,
        ),
        ("frames in a still picture", vec![header(0, [39, 23]), framed(b"VP8L", &lossless, [39, 23])], "no animation"),
        (
            "two headers",
            vec![header(0, [39, 23]), header(0, [39, 23]), (b"VP8 ", lossy.clone())],
            "a header that is short, or not the first chunk",
        ),
        (
            "a header behind the picture",
            vec![(b"VP8 ", lossy.clone()), header(0, [39, 23])],
            "a header that is short, or not the first chunk",
        ),
        (
            "two alpha channels",
            vec![header(0x10, [39, 23]), alpha(), alpha(), (b"VP8 ", lossy.clone())],
            "an alpha channel too many",
        ),
        (
            "two pictures",
            vec![header(0, [39, 23]), (b"VP8 ", lossy.clone()), (b"VP8L", lossless.clone())],
            "a picture too many",
        ),
        ("two simple pictures", vec![(b"VP8 ", lossy.clone()), (b"VP8 ", lossy.clone())], "a picture too many"),
        (
            "frames within frames",
            vec![
                header(2, [39, 23]),
                anim(),
                (0..999).fold(framed(b"VP8L", &lossless, [39, 23]), |inner, _| framed(inner.0, &inner.1, [39, 23])),
            ],
            "a frame without a picture",
        ),
    ] {
        assert_eq!(wrong(&chunks), why, "{name}");
    }
}

#[test]
fn a_chunk_of_a_webp_that_ends_behind_the_file_is_cut_off() {
    let file = riff(&[(b"VP8X", vec![0, 0, 0, 0, 39, 0, 0, 23, 0, 0]), (b"VP8 ", lossy_webp()[20..].to_vec())]);
    for (name, place) in [("the whole", 4), ("the header", 16), ("the picture", 34)] {
        let mut longer = file.clone();
        let length = u32::from_le_bytes([longer[place], longer[place + 1], longer[place + 2], longer[place + 3]]);
        longer[place..place + 4].copy_from_slice(&(length + 100_000).to_le_bytes());
        assert_eq!(decode(&longer, &Limits::default()).map(drop), Err(cut_off()), "{name}");
    }
    // A chunk of an odd length that nothing fills up, where another one follows: that begins a byte too late.
    let mut odd = riff(&[
        (b"VP8X", vec![0, 0, 0, 0, 39, 0, 0, 23, 0, 0]),
        (b"ABCD", vec![1, 2, 3]),
        (b"VP8 ", lossy_webp()[20..].to_vec()),
    ]);
    odd.remove(41);
    let length = u32::try_from(odd.len() - 8).expect("small").to_le_bytes();
    odd[4..8].copy_from_slice(&length);
    assert!(matches!(decode(&odd, &Limits::default()), Err(DecodeError::Broken(_))));
    // At the very end some writers leave it out, and nothing is missing.
    let mut last = riff(&[
        (b"VP8X", vec![0x10, 0, 0, 0, 39, 0, 0, 23, 0, 0]),
        (b"VP8L", lossless_webp(&quarters(40, 24, 9))[20..].to_vec()),
        (b"ABCD", vec![7]),
    ]);
    assert_eq!(last.pop(), Some(0));
    let length = u32::try_from(last.len() - 8).expect("small").to_le_bytes();
    last[4..8].copy_from_slice(&length);
    assert_eq!(decoded(&last).raster.samples, quarters(40, 24, 9).into_raw());
}

/// Bits of a lossless WebP, the lowest of each byte first.
#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        self.0.extend((0..count).map(|bit| value >> bit & 1 == 1));
    }

    fn bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
        self.0.chunks(8).map(byte).collect()
    }
}

/// The codes of a picture, with 65,536 groups announced of which `groups` are there. Each code takes a dozen bytes of the file
/// and 4 KiB of the decoder.
fn many_codes(groups: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    // No transform, no colour cache; groups by blocks of 4 x 4, whose picture has no cache and one colour: the last group.
    for (value, count) in [(0, 1), (0, 1), (1, 1), (0, 3), (0, 1)] {
        bits.put(value, count);
    }
    for symbol in [255, 255, 0, 0, 0] {
        for (value, count) in [(1, 1), (0, 1), (1, 1), (symbol, 8)] {
            bits.put(value, count);
        }
    }
    for _ in 0..5 * groups {
        // A code of lengths, 14 of them told: 1 to 6 take three bits, 7 to 10 take four.
        for (value, count) in [(0, 1), (10, 4)] {
            bits.put(value, count);
        }
        for length in [0, 0, 0, 3, 3, 3, 3, 3, 0, 3, 4, 4, 4, 4] {
            bits.put(length, 3);
        }
        // Eleven symbols: of one bit, of two, and so on, and two of ten.
        for (value, count) in [(1, 1), (1, 3), (9, 4)] {
            bits.put(value, count);
        }
        for length in (1..=10_u32).chain([10]) {
            let (code, count) = if length < 7 { (length - 1, 3) } else { (12 + length - 7, 4) };
            bits.put(code.reverse_bits() >> (32 - count), count);
        }
    }
    bits.bytes()
}

#[test]
fn f41_prefix_codes_are_counted_before_they_are_built() {
    let codes = many_codes(2000);
    assert!(codes.len() < 2000 * 5 * 12, "{}", codes.len());
    let lossless = [&lossless_webp(&quarters(40, 24, 9))[20..25], &codes].concat();
    let header = |flags: u8| (b"VP8X", vec![flags, 0, 0, 0, 39, 0, 0, 23, 0, 0]);
    let alpha = (b"ALPH", [&[1][..], &codes].concat());
    for (name, chunks) in [
        ("a picture", vec![(b"VP8L", lossless.clone())]),
        ("a picture in a canvas", vec![header(0x10), (b"VP8L", lossless)]),
        ("an alpha channel", vec![header(0x10), alpha, (b"VP8 ", lossy_webp()[20..].to_vec())]),
    ] {
        let file = riff(&chunks);
        assert_eq!(decode(&file, &Limits::default()), Err(DecodeError::OverLimit("decoder memory")), "{name}");
        // With room for them it is what it is.
        let more = Limits { decoder_memory: 1 << 30, ..Limits::default() };
        assert!(matches!(decode(&file, &more), Err(DecodeError::Broken(_))), "{name}");
    }
    let each = 2000 * 5 * (4096 + 170 + 64);
    assert_eq!(lossless::codes(&codes, (40, 24), each - 1), Err(DecodeError::OverLimit("decoder memory")));
    assert_eq!(lossless::codes(&codes, (40, 24), u64::MAX), Err(cut_off()), "there should be more groups");
}

#[test]
fn the_codes_of_honest_pictures_are_read_and_take_little() {
    use crate::variant::{Format, Geometry, Offer, Recipe, Variant};
    let recipe = Recipe {
        geometry: Geometry::Keep,
        offer: Offer::Only(Format::Webp),
        quality: Some(100),
        background: [255; 3],
        source_may_serve: false,
    };
    let mut most = 0;
    for file in [
        &include_bytes!("../../../benches/pictures/photo-ski-chelsea.png")[..],
        include_bytes!("../../../benches/pictures/illu-dice-thumbs.png"),
        include_bytes!("../../../benches/pictures/illu-dice-lorelei.png"),
        include_bytes!("../../../benches/pictures/letter-A.png"),
    ] {
        let pixels = decoded(file);
        let Ok(Variant::Encoded(webp)) = crate::render::render(&pixels, &recipe, &crate::render::Targets::default(), 0)
        else {
            panic!("it encodes")
        };
        let place = webp.bytes.windows(4).position(|kind| kind == b"VP8L").expect("every pixel is kept") + 13;
        let size = (pixels.info.width, pixels.info.height);
        most = most.max(lossless::codes(&webp.bytes[place..], size, u64::MAX).expect("it is read"));
        // The colours of what is not seen are not kept.
        let again = decoded(&webp.bytes);
        let same = pixels.raster.rgba().zip(again.raster.rgba()).all(|(a, b)| a == b || a[3] == 0 && b[3] == 0);
        assert!(same && pixels.raster.rgba().count() == again.raster.rgba().count());
    }
    assert!((15_000..8_000_000).contains(&most), "{most}");
}

#[test]
fn f43_a_png_has_one_header() {
    let mut file = png_file(9);
    let header = file[8..33].to_vec();
    let end = file.len() - 12;
    let with = |place: usize, chunk: &[u8]| [&file[..place], chunk, &file[place..]].concat();
    let text = b"\0\0\0\x02tEXta\0\0\0\0\0";
    for (name, odd) in [
        ("two before the data", with(33, &header)),
        ("another behind the data", with(end, &header)),
        ("something before it", with(8, text)),
        ("none", [&file[..8], &file[33..]].concat()),
    ] {
        assert_eq!(decode(&odd, &Limits::default()), Err(broken("not one header, and that the first chunk")), "{name}");
    }
    assert_eq!(decoded(&with(33, text)), decoded(&file));
    // The first says what is allocated: were it believed, that would be the end of the process.
    file.splice(end..end, header);
    file[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0x7f, 0xff, 0xff, 0xff]);
    let sum = crc(&file[12..29]);
    file[29..33].copy_from_slice(&sum.to_be_bytes());
    assert!(matches!(decode(&file, &Limits::default()), Err(DecodeError::Broken(_))));
}

/// The checksum of a chunk (W3C PNG, annex D).
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

#[test]
fn f43_a_frame_of_a_gif_larger_than_its_screen_is_within_the_limits() {
    for (width, height, over) in [(65_535, 65_535, Some("edge")), (4000, 4000, Some("pixels")), (4, 4, None)] {
        let mut file = small_frame_gif();
        let frame = file.iter().position(|&byte| byte == 0x2c).expect("a frame");
        file[frame + 5..frame + 7].copy_from_slice(&u16::to_le_bytes(width));
        file[frame + 7..frame + 9].copy_from_slice(&u16::to_le_bytes(height));
        let found = decode(&file, &Limits::default());
        match over {
            Some(over) => assert_eq!(found, Err(DecodeError::OverLimit(over)), "{width}"),
            None => assert!(!matches!(found, Err(DecodeError::OverLimit(_))), "{width}"),
        }
    }
}

#[test]
fn f43_a_jpeg_of_two_frames_is_left_alone() {
    let file = jpeg_file(1, false);
    let place = |marker: u8| file.windows(2).position(|bytes| bytes == [0xff, marker]).expect("a segment");
    let (frame, scan) = (place(0xc0), place(0xda));
    let length = 2 + usize::from(u16::from_be_bytes([file[frame + 2], file[frame + 3]]));
    let mut large = file[frame..frame + length].to_vec();
    large[5..9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
    let behind = [&file[..scan], &large, &file[scan..]].concat();
    assert_eq!(decode(&behind, &Limits::default()), Err(DecodeError::Unsupported));
    let before = [&file[..frame], &large, &file[frame..]].concat();
    assert_eq!(decode(&before, &Limits::default()), Err(DecodeError::OverLimit("edge")));
}

#[test]
fn bytes_behind_the_picture_are_ignored() {
    for (name, file) in files() {
        let longer = [&file[..], b"\0\0\xff\xd9trailing", &file].concat();
        assert_eq!(decoded(&longer), decoded(&file), "{name}");
    }
}

#[test]
fn what_is_no_picture_of_ours() {
    let check = |bytes: &[u8], unsupported: bool| {
        let want = decode(bytes, &Limits::default()).expect_err("no picture");
        assert_eq!(want == DecodeError::Unsupported, unsupported, "{bytes:?}: {want:?}");
    };
    check(b"BMF\0\0\0\0\0\0\0\x36\0\0\0", true);
    check(b"II*\0\x08\0\0\0", true);
    check(b"MM\0*\0\0\0\x08", true);
    check(b"\0\0\0 ftypavif\0\0\0\0", true);
    check(b"\0\0\0\x18ftypheic\0\0\0\0", true);
    check(b"\0\0\x01\0\x01\0", true);
    check(b"\xff\x0a\xfa", true);
    check(b"<?xml version=\"1.0\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\"/>", true);
    check(b"<SVG/>", true);
    check(b"<!doctype html><title>Sign in</title>", false);
    check(b"BM and other words", false);
    check(b"", false);
    check(b"\0", false);
    check(b"\x89PNG", false);
    check(b"\xff\xd8", false);
    check(b"GIF88a", false);
    check(b"RIFF\0\0\0\0WAVE", false);
}

#[test]
fn limits_are_held_before_anything_is_decoded() {
    // Only headers: nothing but them can have been read.
    let png = |width: u32, height: u32| {
        let mut file = png_file(255);
        file[16..20].copy_from_slice(&width.to_be_bytes());
        file[20..24].copy_from_slice(&height.to_be_bytes());
        file
    };
    let jpeg = |width: u16, height: u16| {
        let head = [&b"\xff\xd8\xff\xc0\0\x0b\x08"[..], &height.to_be_bytes(), &width.to_be_bytes(), b"\x01\x01\x11\0"];
        [&head.concat()[..], b"\xff\xda\0\x08\x01\x01\0\0?\0\0\xff\xd9"].concat()
    };
    let gif = |width: u16, height: u16| {
        let mut file = small_frame_gif();
        file[6..8].copy_from_slice(&width.to_le_bytes());
        file[8..10].copy_from_slice(&height.to_le_bytes());
        file
    };
    let webp = |width: u32, height: u32| {
        let [w, h] = [width - 1, height - 1].map(u32::to_le_bytes);
        let mut file = moving_webp(1, 1);
        file[24..27].copy_from_slice(&w[..3]);
        file[27..30].copy_from_slice(&h[..3]);
        file
    };
    let started = std::time::Instant::now();
    for (name, small, wide, large) in [
        ("png", png(100, 100), png(4097, 1), png(4000, 4000)),
        ("jpeg", jpeg(100, 100), jpeg(4097, 1), jpeg(4000, 4000)),
        ("gif", gif(100, 100), gif(4097, 1), gif(4000, 4000)),
        ("webp", webp(100, 100), webp(4097, 1), webp(4000, 4000)),
    ] {
        let over = |file: &[u8], limits: &Limits| decode(file, limits).expect_err(name);
        assert_eq!(over(&wide, &Limits::default()), DecodeError::OverLimit("edge"), "{name}");
        assert_eq!(over(&large, &Limits::default()), DecodeError::OverLimit("pixels"), "{name}");
        let little = Limits { decoder_memory: 20_000, ..Limits::default() };
        assert_eq!(over(&small, &little), DecodeError::OverLimit("decoder memory"), "{name}");
    }
    assert!(matches!(decode(&png(0, 5), &Limits::default()), Err(DecodeError::Broken(_))));
    assert!(matches!(decode(&gif(0, 5), &Limits::default()), Err(DecodeError::Broken(_))));
    assert!(started.elapsed() < std::time::Duration::from_secs(1));
}

#[test]
fn a_profile_and_text_are_not_read() {
    // Chunks that would not inflate; their checksums are right.
    let picture = quarters(40, 24, 9);
    let mut file = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut file, 40, 24);
    encoder.set_color(::png::ColorType::Rgba);
    let mut writer = encoder.write_header().expect("writes");
    writer.write_chunk(::png::chunk::iCCP, b"p\0\0no zlib stream").expect("writes");
    writer.write_chunk(::png::chunk::zTXt, b"t\0\0no zlib stream").expect("writes");
    writer.write_image_data(&picture).expect("writes");
    drop(writer);
    assert_eq!(decoded(&file), decoded(&png_file(9)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), magic in 0_usize..5) {
        let magics: [&[u8]; 5] = [b"", png::SIGNATURE, b"\xff\xd8\xff", b"GIF89a", b"RIFF\x80\0\0\0WEBPVP8X"];
        let _ = decode(&[magics[magic], &bytes].concat(), &Limits::default());
    }

    #[test]
    fn no_damage_panics(
        which in 0_usize..11,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (_, mut file) = files().swap_remove(which);
        for (place, byte) in damage {
            let place = place.index(file.len());
            file[place] = byte;
        }
        let _ = decode(&file, &Limits::default());
    }
}
