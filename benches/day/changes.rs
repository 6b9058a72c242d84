//! The ways in which a picture becomes another.

use crate::site::Site;
use bytes::Bytes;
use http::{Method, StatusCode};
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::json;
use std::io::Cursor;

/// What is done to a picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Upload,
    /// Back to the letter.
    Reset,
    /// Another name, and so another letter.
    Rename,
}

/// Where it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// By a request through the proxy.
    Here,
    /// At another node of the cluster, past the proxy.
    Elsewhere,
}

/// Every path by which a picture changes, in an order in which the people of a crowd fit them, over and over.
pub(crate) const PATHS: [(Change, Place); 6] = [
    (Change::Upload, Place::Here),
    (Change::Reset, Place::Here),
    (Change::Rename, Place::Here),
    (Change::Reset, Place::Elsewhere),
    (Change::Rename, Place::Elsewhere),
    (Change::Upload, Place::Elsewhere),
];

/// Whether somebody can be changed so: every second person of a crowd has a letter, which alone follows the name; the
/// others have a picture, which alone can be taken away.
pub(crate) fn fits(change: Change, person: usize) -> bool {
    match change {
        Change::Upload => true,
        Change::Reset => !person.is_multiple_of(2),
        Change::Rename => person.is_multiple_of(2),
    }
}

/// Changes somebody's picture; `serial` tells the changes of a run apart.
pub(crate) async fn apply(site: &Site, person: usize, (change, place): (Change, Place), serial: usize) {
    let resident = &site.people[person];
    let (id, name) = (&resident.id, name_after(&resident.username, serial));
    let path = format!("/api/v4/users/{id}/image");
    let own = site.credentials(person, 0);
    let answer = match (place, change) {
        (Place::Elsewhere, Change::Upload) => return site.town.show(id, picture(serial)),
        (Place::Elsewhere, Change::Reset) => return site.town.reset(id),
        (Place::Elsewhere, Change::Rename) => return site.town.rename(id, &name),
        (Place::Here, Change::Upload) => {
            let body = [FORM_BEGIN.as_bytes(), &picture(serial), FORM_END.as_bytes()].concat();
            site.ask(&own, Method::POST, &path, (FORM, body.into())).await
        }
        (Place::Here, Change::Reset) => site.ask(&own, Method::DELETE, &path, ("", Bytes::new())).await,
        (Place::Here, Change::Rename) => {
            let changed = json!({ "username": name }).to_string();
            let path = format!("/api/v4/users/{id}/patch");
            site.ask(&own, Method::PUT, &path, ("application/json", changed.into())).await
        }
    };
    assert_eq!(answer.status, StatusCode::OK, "{change:?}");
}

const FORM: &str = "multipart/form-data; boundary=x";
const FORM_BEGIN: &str = "--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n";
const FORM_END: &str = "\r\n--x--\r\n";

/// A picture as Mattermost stores it, another for each serial number.
fn picture(serial: usize) -> Bytes {
    let [red, green, blue, ..] = (serial + 1).wrapping_mul(0x009e_3779).to_le_bytes();
    let picture = RgbImage::from_fn(128, 128, |x, _| Rgb([red, green, if x < 64 { blue } else { !blue }]));
    let mut file = Vec::new();
    picture.write_to(&mut Cursor::new(&mut file), ImageFormat::Png).expect("encodes");
    file.into()
}

/// A name that nobody has and that begins with another letter than `name`.
fn name_after(name: &str, serial: usize) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyz";
    let first = letters.iter().position(|letter| name.as_bytes()[0] == *letter).expect("names begin with a letter");
    format!("{}renamed{serial}", char::from(letters[(first + 1 + serial % 25) % 26]))
}
