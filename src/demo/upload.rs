//! What becomes of an uploaded picture: the form is taken apart, the picture decoded, turned upright, cropped and
//! scaled (`AdjustImage` in `server/channels/app/user.go`).

use std::io::Cursor;

use bytes::Bytes;
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use thiserror::Error;

use super::account::StoredFile;
use super::illustrations::encode_png;
use super::letters::EDGE;

/// Mattermost's default `MaxImageResolution`.
const MOST_PIXELS: u64 = 33_177_600;

/// Why an upload is not a picture that can be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(super) enum UploadError {
    #[error("the size cannot be read, or is too large")]
    Limits,
    #[error("the picture cannot be decoded")]
    Decode,
}

/// One part of a multipart form.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) file_name: String,
    pub(super) bytes: Bytes,
}

/// Takes a `multipart/form-data` body apart (RFC 7578); `None` when it is none.
pub(super) fn parts(content_type: &str, body: &Bytes) -> Option<Vec<Part>> {
    let boundary = content_type
        .strip_prefix("multipart/form-data")?
        .split(';')
        .find_map(|parameter| parameter.trim().strip_prefix("boundary=").map(|value| value.trim_matches('"')))?;
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut at = find(body, delimiter.as_bytes(), 0)? + delimiter.len();
    loop {
        if body[at..].starts_with(b"--") {
            return Some(parts);
        }
        let head_start = at.checked_add(2).filter(|start| body[at..].starts_with(b"\r\n") && *start <= body.len())?;
        let head_end = find(body, b"\r\n\r\n", head_start)?;
        let end = find(body, format!("\r\n{delimiter}").as_bytes(), head_end + 2)?;
        let head = String::from_utf8_lossy(&body[head_start..head_end]).into_owned();
        let parameter = |name: &str| {
            let value = head.split(&format!("{name}=\"")).nth(1)?.split('"').next()?;
            Some(value.to_owned())
        };
        parts.push(Part {
            name: parameter("; name").unwrap_or_default(),
            file_name: parameter("; filename").unwrap_or_default(),
            bytes: body.slice((head_end + 4).min(end)..end),
        });
        at = end + 2 + delimiter.len();
    }
}

fn find(body: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    body.get(from..)?.windows(wanted.len()).position(|window| window == wanted).map(|place| from + place)
}

/// A profile picture or team icon as the store keeps it: upright, centre-cropped to 128x128, PNG; opaque pictures
/// without an alpha channel.
///
/// # Errors
///
/// When the size is unreadable or over `MaxImageResolution`, and when the picture does not decode.
pub(super) fn square(bytes: &[u8]) -> Result<Bytes, UploadError> {
    let (picture, _) = decode(bytes)?;
    Ok(encode(&picture.resize_to_fill(EDGE, EDGE, FilterType::Lanczos3)))
}

/// A custom emoji: kept as it is up to 128x128, scaled to fit when larger. Unlike Mattermost, a larger moving picture
/// is stilled.
///
/// # Errors
///
/// As [`square`].
pub(super) fn emoji(bytes: &Bytes) -> Result<StoredFile, UploadError> {
    let (picture, format) = decode(bytes)?;
    if picture.width() <= EDGE && picture.height() <= EDGE {
        return Ok(StoredFile { bytes: bytes.clone(), content_type: format.to_mime_type().to_owned() });
    }
    Ok(StoredFile::png(encode(&picture.resize(EDGE, EDGE, FilterType::Lanczos3))))
}

fn decode(bytes: &[u8]) -> Result<(DynamicImage, ImageFormat), UploadError> {
    let reader = || ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|_| UploadError::Limits);
    let format = reader()?.format().ok_or(UploadError::Limits)?;
    let (width, height) = reader()?.into_dimensions().map_err(|_| UploadError::Limits)?;
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(UploadError::Limits);
    }
    let mut decoder = reader()?.into_decoder().map_err(|_| UploadError::Decode)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|_| UploadError::Decode)?;
    picture.apply_orientation(orientation);
    Ok((picture, format))
}

fn encode(picture: &DynamicImage) -> Bytes {
    let opaque = !picture.color().has_alpha() || picture.to_rgba8().pixels().all(|pixel| pixel.0[3] == 255);
    encode_png(&if opaque { picture.to_rgb8().into() } else { picture.to_rgba8().into() })
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage, Rgba, RgbaImage};
    use proptest::prelude::*;

    use super::*;

    const FORM: &str = "multipart/form-data; boundary=xyz";

    #[test]
    fn a_form_is_taken_apart() {
        let body = Bytes::from_static(
            b"--xyz\r\nContent-Disposition: form-data; name=\"emoji\"\r\n\r\n{}\r\n--xyz\r\nContent-Disposition: \
              form-data; name=\"image\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\na\r\nb\r\n--xyz--\r\n",
        );
        let part = |name: &str, file_name: &str, bytes: &'static [u8]| Part {
            name: name.to_owned(),
            file_name: file_name.to_owned(),
            bytes: Bytes::from_static(bytes),
        };
        let expected = vec![part("emoji", "", b"{}"), part("image", "a.png", b"a\r\nb")];
        assert_eq!(parts(FORM, &body), Some(expected));
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for (content_type, body) in
            [("", ""), ("image/png", "--xyz--"), (FORM, ""), (FORM, "--xyz\r\n"), (FORM, "--xyz")]
        {
            assert_eq!(parts(content_type, &Bytes::copy_from_slice(body.as_bytes())), None, "{content_type} {body}");
        }
    }

    #[test]
    fn pictures_become_128_px_squares() {
        let opaque = encode(&RgbImage::from_pixel(300, 200, Rgb([9, 9, 9])).into());
        let clear = encode(&RgbaImage::from_pixel(1, 1, Rgba([9, 9, 9, 99])).into());
        for (bytes, color) in [(opaque, image::ColorType::Rgb8), (clear, image::ColorType::Rgba8)] {
            let stored = image::load_from_memory(&square(&bytes).expect("a picture")).expect("a PNG");
            assert_eq!((stored.width(), stored.height(), stored.color()), (EDGE, EDGE, color));
        }
    }

    /// A JPEG whose EXIF says that it lies on its side: the left half is to be the top.
    #[test]
    fn pictures_are_turned_upright() {
        let lying = RgbImage::from_fn(64, 64, |x, _| Rgb(if x < 32 { [250, 10, 10] } else { [10, 10, 250] }));
        let mut jpeg = Cursor::new(Vec::new());
        lying.write_to(&mut jpeg, ImageFormat::Jpeg).expect("writing to memory cannot fail");
        let jpeg = jpeg.into_inner();
        let exif = b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let bytes = [&jpeg[..2], exif, &jpeg[2..]].concat();
        let stored = image::load_from_memory(&square(&bytes).expect("a picture")).expect("a PNG").to_rgb8();
        let [top, bottom] = [8, 120].map(|row| stored.get_pixel(64, row).0);
        assert!(top[0] > 200 && bottom[2] > 200, "{top:?} {bottom:?}");
    }

    #[test]
    fn what_is_no_picture_is_told_apart() {
        let png = encode_png(&RgbImage::from_pixel(300, 200, Rgb([9, 9, 9])).into());
        for (bytes, expected) in [
            (b"text".as_slice(), UploadError::Limits),
            (&png[..20], UploadError::Limits),
            (&png[..png.len() - 40], UploadError::Decode),
        ] {
            assert_eq!(square(bytes), Err(expected));
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in "(--xyz|--|\r\n|name=\"|a){0,12}") {
            parts(FORM, &Bytes::from(body));
        }
    }
}
