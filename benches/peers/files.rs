//! The files that are compared: ours, of which a table tells, and those of the peers, which are scored here.

use avatar_proxy::render::{Limits, Pixels, decode, score};
use std::collections::BTreeMap;
use std::path::Path;

/// A file that was made of a picture.
#[derive(Clone, Copy)]
pub(crate) struct Made {
    pub(crate) bytes: f64,
    pub(crate) score: f64,
}

/// Files by class and edge, and in these by picture.
pub(crate) type Files = BTreeMap<(String, u32), BTreeMap<String, Made>>;

/// Our improved answers by what the client was offered, from the table that `bytes` wrote. Where nobody is offered AVIF,
/// that is what is sent to those who take WebP.
pub(crate) fn ours(folder: &Path) -> BTreeMap<String, Files> {
    let table = std::fs::read_to_string(folder.join("scores.csv")).expect("`bytes` has written its table");
    let mut ours = BTreeMap::<String, Files>::new();
    for line in table.lines().skip(1) {
        let [picture, edge, offer, answer, _, bytes, score] = line.split(',').collect::<Vec<_>>()[..] else {
            panic!("seven columns: {line}");
        };
        if answer == "improved" {
            let number = |column: &str| column.parse::<f64>().expect("a number");
            let edge = edge.parse().expect("a number");
            let of_offer = ours.entry(offer.to_owned()).or_default();
            let made = Made { bytes: number(bytes), score: number(score) };
            of_offer.entry(place(picture, edge)).or_default().insert(picture.to_owned(), made);
        }
    }
    let mut avif = ours.remove("avif").unwrap_or_default();
    for (place, files) in &ours["webp"] {
        avif.entry(place.clone()).or_insert_with(|| files.clone());
    }
    ours.insert("avif".to_owned(), avif);
    ours
}

/// What each folder beside `pictures` holds: for a picture the file (`.bin`) and what is seen of it (`.png`).
pub(crate) fn peers(folder: &Path) -> BTreeMap<String, Files> {
    let originals: Vec<(String, Pixels)> = names(&folder.join("pictures"))
        .into_iter()
        .map(|name| {
            let pixels = pixels(&folder.join("pictures").join(&name));
            (name, pixels)
        })
        .collect();
    let peers = names(folder).into_iter().filter(|peer| peer.contains('-'));
    peers.map(|peer| (peer.clone(), files(&folder.join(peer), &originals))).collect()
}

fn files(peer: &Path, originals: &[(String, Pixels)]) -> Files {
    let mut files = Files::new();
    for (name, original) in originals {
        let seen = peer.join(name);
        let made = seen.with_extension("bin").metadata().expect("each picture has a file of each peer");
        let score = score(original, &pixels(&seen)).expect("the pictures are small");
        #[expect(clippy::cast_precision_loss, reason = "files are far below 2^52 bytes")]
        let bytes = made.len() as f64;
        let (picture, edge) = name.trim_end_matches(".png").rsplit_once('-').expect("the edge ends the name");
        let place = place(picture, edge.parse().expect("a number"));
        files.entry(place).or_default().insert(picture.to_owned(), Made { bytes, score });
    }
    files
}

/// The class is the first word of a picture's name.
fn place(picture: &str, edge: u32) -> (String, u32) {
    (picture.split('-').next().unwrap_or(picture).to_owned(), edge)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is readable");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("the folder is readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn pixels(file: &Path) -> Pixels {
    let bytes = std::fs::read(file).expect("the file is readable");
    decode(&bytes, &Limits::default()).expect("the peers' pixels are PNG")
}
