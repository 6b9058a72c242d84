//! The default picture of a person: one white letter on one of eight colours, as Mattermost draws it
//! (`CreateProfileImage` in `server/channels/app/users/profile_picture.go`).

use bytes::Bytes;
use image::{GrayImage, Rgb, RgbImage};

use super::illustrations::encode_png;

/// The edge of a stored profile picture, in pixels.
pub(super) const EDGE: u32 = 128;

/// The eight colours, in the order of first use.
const COLORS: [[u8; 3]; 8] = [
    [197, 8, 126],
    [227, 207, 18],
    [28, 181, 105],
    [35, 188, 224],
    [116, 49, 196],
    [197, 19, 19],
    [250, 134, 6],
    [123, 201, 71],
];

/// Mattermost's list of 26: it starts with five, then repeats the whole set in this order.
const PALETTE: [usize; 26] = [0, 1, 2, 3, 4, 0, 5, 6, 1, 7, 2, 3, 4, 0, 5, 6, 1, 7, 2, 3, 4, 0, 5, 6, 1, 7];

/// A row of the 26 letters, white on black, rendered once from Nunito Bold at 64 px (see `assets/SOURCES.md`).
const SHEET: &[u8] = include_bytes!("assets/letters.png");

/// One letter's cell on the sheet, and where that cell lies on the picture.
const CELL: (u32, u32) = (80, 60);
const ORIGIN: (u32, u32) = (24, 34);

/// Draws the picture of a user who has none: 128x128, truecolour, no alpha.
pub(super) fn draw(user_id: &str, username: &str) -> Bytes {
    let background = color_of(user_id);
    let mut picture = RgbImage::from_pixel(EDGE, EDGE, Rgb(background));
    if let Some(index) = letter_index(username) {
        let sheet = sheet();
        for y in 0..CELL.1 {
            for x in 0..CELL.0 {
                let ink = sheet.get_pixel(index * CELL.0 + x, y).0[0];
                picture.put_pixel(ORIGIN.0 + x, ORIGIN.1 + y, Rgb(background.map(|channel| blend(channel, ink))));
            }
        }
    }
    encode_png(&picture.into())
}

/// FNV-1a over the id picks the colour, so a rename keeps it.
fn color_of(user_id: &str) -> [u8; 3] {
    let place = usize::try_from(fnv1a(user_id) % 26).expect("a number below 26 fits");
    COLORS[PALETTE[place]]
}

pub(super) fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Only letters are on the sheet; Mattermost's usernames begin with one.
fn letter_index(username: &str) -> Option<u32> {
    let first = username.bytes().next()?.to_ascii_uppercase();
    first.is_ascii_uppercase().then(|| u32::from(first - b'A'))
}

fn sheet() -> GrayImage {
    image::load_from_memory(SHEET).expect("the embedded sheet is a PNG").into_luma8()
}

/// White over `channel` with `ink` of 255 parts.
fn blend(channel: u8, ink: u8) -> u8 {
    let mixed = (u32::from(channel) * (255 - u32::from(ink)) + 255 * u32::from(ink) + 127) / 255;
    u8::try_from(mixed).expect("a mean of two bytes is a byte")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The colours that the recorded server drew for these ids.
    #[test]
    fn colours_are_mattermosts() {
        for (id, expected) in [
            ("ge45wmpse3g8umtziei4q749th", [227, 207, 18]),
            ("j4wbi4m3gjytfjeipzru7gsura", [250, 134, 6]),
            ("rmpxah3wm3r1tx986jcsoayk5c", [123, 201, 71]),
            ("iuo8pcrg7jnsdqr11ig38b5cho", [197, 8, 126]),
            ("jetgyty9w3gc5e9k8cikb4qbna", [197, 8, 126]),
            ("4o3iztns6jrcpjjz1edni1xbpo", [250, 134, 6]),
        ] {
            assert_eq!(color_of(id), expected, "{id}");
        }
    }

    #[test]
    fn a_letter_is_white_in_the_middle_and_small() {
        let bytes = draw("j4wbi4m3gjytfjeipzru7gsura", "frank");
        let picture = image::load_from_memory(&bytes).expect("a PNG");
        assert_eq!((picture.width(), picture.height()), (EDGE, EDGE));
        assert_eq!(picture.color(), image::ColorType::Rgb8);
        assert!(picture.to_rgb8().pixels().any(|pixel| pixel.0 == [255; 3]));
        assert!(bytes.len() < 2048, "{}", bytes.len());
    }

    #[test]
    fn every_letter_differs_and_odd_names_are_a_plain_tile() {
        let mut seen: Vec<Bytes> = ('a'..='z').map(|letter| draw("x", &letter.to_string())).collect();
        seen.push(draw("x", "9"));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 27);
        assert_eq!(draw("x", ""), draw("x", "\u{e4}"));
    }
}
