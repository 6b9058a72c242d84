//! What is uploaded in place of the recorded uploads, whose bytes are not kept: pictures of the same kind.

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageFormat, Luma, RgbImage, Rgba, RgbaImage};
use serde_json::Value;

use super::recording_body;

const FORM: &str = "multipart/form-data; boundary=----recordingsboundary7d3a";

/// The body for a recorded request.
pub(crate) fn of(name: &str, request: &Value) -> Option<Vec<u8>> {
    if let Some(json) = request.get("json") {
        let password = "\"PASSWORD\"";
        let ours = format!("\"{}\"", avatar_proxy::demo::PASSWORD);
        return Some(json.to_string().replace(password, &ours).into_bytes());
    }
    if request["body_bytes"].as_u64().unwrap_or_default() == 0 {
        return None;
    }
    let coffee = || include_bytes!("../../src/demo/assets/coffee.png").to_vec();
    let picture = match name {
        "upload-raw-png" => return Some(coffee()),
        "json-too-large" => {
            return Some(format!("[{}\"x\"]", "\"x\",".repeat(100_000)).into_bytes());
        }
        "get-with-body" => return Some(b"hello".to_vec()),
        "file-post-raw" | "file-post-raw-chunked" => return Some(vec![7; 1 << 20]),
        "file-post-multipart" => return Some(part("files", "c.bin", &vec![7; 1 << 20])),
        "emoji-create" => {
            let emoji = r#"{"name":"tmp1795434310","creator_id":"jetgyty9w3gc5e9k8cikb4qbna"}"#;
            return Some(emoji_form(emoji));
        }
        "upload-wrong-field" => return Some(part("picture", "a.png", &coffee())),
        "upload-not-image" => b"This is no picture at all.".repeat(20),
        "upload-truncated" => coffee()[..4000].to_vec(),
        "upload-9000" => encode(&GrayImage::from_pixel(9000, 9000, Luma([0])).into(), ImageFormat::Png),
        "upload-gif" => recording_body("1562e988cf655edd.gif").to_vec(),
        "upload-webp" => encode(&slope(160, 120), ImageFormat::WebP),
        "upload-1x1" => encode(&slope(1, 1), ImageFormat::Png),
        "upload-alpha" => {
            let half =
                RgbaImage::from_fn(300, 200, |x, y| Rgba([90, texture(x, y), 200, if x < 150 { 80 } else { 255 }]));
            encode(&half.into(), ImageFormat::Png)
        }
        "upload-wrong-type" => encode(&GrayImage::from_pixel(200, 200, Luma([99])).into(), ImageFormat::Png),
        "upload-jpeg-exif" | "upload-by-admin" => encode(&slope(200, 150), ImageFormat::Jpeg),
        "upload-large" => encode(&slope(4000, 3000), ImageFormat::Jpeg),
        "team-image-post" | "team-image-post-403" => encode(&slope(150, 150), ImageFormat::Png),
        "upload-me" | "upload-path-me" => recording_body("aff3afc7ac2d3691.png").to_vec(),
        _ => coffee(),
    };
    Some(part("image", "a.png", &picture))
}

/// The recording of an event, who did it, method, path, type and bytes of the body.
type Act = (&'static str, &'static str, &'static str, String, Option<(&'static str, Vec<u8>)>);

/// What is done in the recorded events, in an order in which each has an effect.
pub(crate) fn acts(id: impl Fn(&str) -> String, team: &str, role: &str) -> Vec<Act> {
    let image = |user: &str| format!("/api/v4/users/{}/image", id(user));
    let patch = format!("/api/v4/users/{}/patch", id("alice"));
    let active = format!("/api/v4/users/{}/active", id("grace"));
    let icon = format!("/api/v4/teams/{team}/image");
    let coffee = || Some((FORM, part("image", "a.png", include_bytes!("../../src/demo/assets/coffee.png"))));
    let other = || Some((FORM, part("image", "a.png", include_bytes!("../../src/demo/assets/chelsea.png"))));
    let json = |text: &str| Some(("application/json", text.as_bytes().to_vec()));
    let emoji = Some((FORM, emoji_form(r#"{"name":"tmp"}"#)));
    vec![
        ("ev-upload", "alice", "POST", image("alice"), coffee()),
        ("ev-upload-same", "alice", "POST", image("alice"), coffee()),
        ("ev-delete", "alice", "DELETE", image("alice"), None),
        ("ev-rename", "alice", "PUT", patch.clone(), json(r#"{"username":"zalice"}"#)),
        ("ev-rename-back", "alice", "PUT", patch.clone(), json(r#"{"username":"alice"}"#)),
        ("ev-nickname", "alice", "PUT", patch, json(r#"{"nickname":"n"}"#)),
        ("ev-upload-mallory", "mallory", "POST", image("mallory"), coffee()),
        ("ev-upload-oscar", "oscar", "POST", image("oscar"), coffee()),
        ("ev-bot-picture", "mmadmin", "POST", image("painter"), coffee()),
        ("ev-team-icon", "mmadmin", "POST", icon.clone(), coffee()),
        ("ev-team-icon-delete", "mmadmin", "DELETE", icon, None),
        ("ev-emoji-added", "mmadmin", "POST", "/api/v4/emoji".to_owned(), emoji),
        ("ev-after-logout-change", "alice", "POST", image("alice"), coffee()),
        ("ev-deactivate", "mmadmin", "PUT", active.clone(), json(r#"{"active":false}"#)),
        ("ev-reactivate", "mmadmin", "PUT", active, json(r#"{"active":true}"#)),
        (
            "ev-role-patch",
            "mmadmin",
            "PUT",
            format!("/api/v4/roles/{role}/patch"),
            json(&super::without_view_members()),
        ),
        ("ev-upload-restricted", "alice", "POST", image("alice"), other()),
    ]
}

fn emoji_form(emoji: &str) -> Vec<u8> {
    let body =
        format!("------recordingsboundary7d3a\r\nContent-Disposition: form-data; name=\"emoji\"\r\n\r\n{emoji}\r\n");
    let mut body = body.into_bytes();
    body.extend(part("image", "a.png", &recording_body("d10b6dda83cc3eec.png")));
    body
}

/// A form with one file.
fn part(field: &str, file_name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut body = format!(
        "------recordingsboundary7d3a\r\nContent-Disposition: form-data; name=\"{field}\"; \
         filename=\"{file_name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend(bytes);
    body.extend(b"\r\n------recordingsboundary7d3a--\r\n");
    body
}

fn slope(width: u32, height: u32) -> DynamicImage {
    let shade = |place: u32, edge: u32| u8::try_from(place * 255 / edge).expect("a part of 255");
    RgbImage::from_fn(width, height, |x, y| image::Rgb([shade(x, width), shade(y, height), texture(x, y)])).into()
}

/// Something that does not compress to nothing.
fn texture(x: u32, y: u32) -> u8 {
    u8::try_from((x * x + 3 * y * y + x * y) / 16 % 251).expect("below 251")
}

fn encode(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("writing to memory cannot fail");
    bytes.into_inner()
}
