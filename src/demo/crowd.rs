//! A town of many made-up people, for loads: some with letters, some with pictures of their own, in channels.

use bytes::Bytes;
use flate2::Crc;

use super::options::{Channel, Options, Portrait, Resident, Role, Team};

/// How many people share a channel, beside the town square of all.
const ROOM: usize = 40;

/// What the pictures are made of: photographs and drawings, 128x128, as Mattermost stores them.
const PICTURES: [&[u8]; 6] = [
    include_bytes!("assets/astronaut.png"),
    include_bytes!("assets/dice-lorelei.png"),
    include_bytes!("assets/chelsea.png"),
    include_bytes!("assets/dice-shapes.png"),
    include_bytes!("assets/coffee.png"),
    include_bytes!("assets/dice-thumbs.png"),
];

/// The chunk that ends a PNG.
const END: usize = 12;

impl Options {
    /// A town of so many members in one team: every second has a picture of their own, of which no two have the same
    /// bytes though many look the same, the others a letter; each is in the town square and in one channel of up to 40. Nobody has a session yet: [`sessions`](super::StandIn::sessions)
    /// opens one for each. The same number always makes the same town.
    #[must_use]
    pub fn crowd(people: usize) -> Self {
        let team = Team::new("crowd");
        let residents: Vec<Resident> = (0..people).map(resident).collect();
        let room = |(number, people): (usize, &[Resident])| Channel {
            members: people.iter().map(|resident| resident.id.clone()).collect(),
            ..Channel::new(&format!("room {number}"), &team)
        };
        let channels = residents.chunks(ROOM).enumerate().map(room).collect();
        Self { residents, channels, teams: vec![team], ..Self::empty() }
    }
}

/// Usernames begin with any letter, as the letters of default pictures are to differ.
fn resident(number: usize) -> Resident {
    let first = char::from(b"abcdefghijklmnopqrstuvwxyz"[number % 26]);
    let username = format!("{first}{number:05}");
    let portrait = if number.is_multiple_of(2) {
        Portrait::Default
    } else {
        Portrait::Png(signed(PICTURES[number / 2 % PICTURES.len()], &username))
    };
    Resident { first_name: format!("Person {number}"), ..Resident::new(&username, Role::Member, portrait) }
}

/// The same picture with a comment in it: to draw and to compress one for each would take longer than the load.
fn signed(png: &[u8], comment: &str) -> Bytes {
    let (before, end) = png.split_at(png.len() - END);
    let chunk = [b"tEXtComment\0", comment.as_bytes()].concat();
    let length = u32::try_from(chunk.len() - 4).expect("a short comment");
    let mut crc = Crc::new();
    crc.update(&chunk);
    [before, &length.to_be_bytes(), &chunk, &crc.sum().to_be_bytes(), end].concat().into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::ids::is_id;
    use super::*;

    #[test]
    fn everybody_is_somebody_else_and_somewhere() {
        let options = Options::crowd(2_000);
        let ids: HashSet<&str> = options.residents.iter().map(|resident| resident.id.as_str()).collect();
        let names: HashSet<&str> = options.residents.iter().map(|resident| resident.username.as_str()).collect();
        let placed: HashSet<&str> =
            options.channels.iter().flat_map(|channel| &channel.members).map(String::as_str).collect();
        assert_eq!([ids.len(), names.len(), placed.len(), options.channels.len()], [2_000, 2_000, 2_000, 50]);
        assert!(ids.iter().all(|id| is_id(id)) && placed == ids);
        let pictures: HashSet<&Bytes> = options
            .residents
            .iter()
            .filter_map(|resident| match &resident.portrait {
                Portrait::Png(bytes) => Some(bytes),
                _ => None,
            })
            .collect();
        assert_eq!(pictures.len(), 1_000);
    }

    /// Checksums and all: the `png` crate refuses a chunk whose checksum is wrong.
    #[test]
    fn signed_pictures_are_the_same_pictures() {
        for png in PICTURES {
            let decoder = png::Decoder::new(std::io::Cursor::new(signed(png, "a00001")));
            let mut reader = decoder.read_info().expect("a PNG");
            reader.finish().expect("whole to its end");
            let comments = &reader.info().uncompressed_latin1_text;
            assert_eq!(comments.last().map(|comment| comment.text.as_str()), Some("a00001"));
        }
    }
}
