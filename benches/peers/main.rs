//! What other programs make of the very pixels that `bytes` made our files of, beside ours: bytes, and scores by the same
//! measure. A plain program; `README.md` tells where the files come from and what is compared with what.

mod files;

use files::{Files, Made};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// A peer whose mean score is lower than ours by more is no peer: it saves its bytes by looking worse.
const AS_ALIKE: f64 = 0.5;

/// What clients take, and which of our answers they get.
const CLIENTS: [(&str, &[&str]); 3] =
    [("webp", &["jpeg", "png", "webp"]), ("avif", &["avif", "jpeg", "png", "webp"]), ("basic", &["jpeg", "png"])];

fn main() {
    let Some(folder) = std::env::var_os("AVATAR_PROXY_FILES").map(PathBuf::from) else {
        println!("AVATAR_PROXY_FILES names no folder of files: benches/peers/README.md tells how to make them");
        return;
    };
    let ours = files::ours(&folder);
    let peers = files::peers(&folder);
    for (client, formats) in CLIENTS {
        let peers = peers.iter().filter(|(peer, _)| formats.contains(&format_of(peer)));
        let mut columns = BTreeMap::<Column, Vec<&Files>>::new();
        for (peer, files) in peers {
            columns.entry(Column::of(peer)).or_default().push(files);
        }
        table(client, &ours[client], &columns);
    }
}

/// `webp` for `sharp-webp` and `sharp-webp@80`.
fn format_of(peer: &str) -> &str {
    let (name, _) = peer.split_once('@').unwrap_or((peer, ""));
    name.rsplit('-').next().unwrap_or(name)
}

/// What is compared with ours as one: the settings that a peer has, or the row of qualities of an encoder.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Column {
    Settings(String),
    AnyQuality(String),
}

impl Column {
    fn of(peer: &str) -> Self {
        peer.split_once('@').map_or(Self::Settings(peer.to_owned()), |(name, _)| Self::AnyQuality(name.to_owned()))
    }
}

impl std::fmt::Display for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Settings(name) => write!(f, "{name}"),
            Self::AnyQuality(name) => write!(f, "{name}, any quality"),
        }
    }
}

fn table(client: &str, ours: &Files, columns: &BTreeMap<Column, Vec<&Files>>) {
    println!(
        "\nOffered: {client}. Median bytes, mean score; in brackets where the score is lower than ours by over 0.5\n"
    );
    let names: Vec<String> = columns.keys().map(Column::to_string).collect();
    println!("| class | edge | ours | {} | beside their settings | beside any quality |", names.join(" | "));
    println!("|{}", "---|".repeat(names.len() + 5));
    for ((class, edge), ours) in ours {
        let us = Summary::of(ours);
        let (mut cells, mut settings, mut qualities) = (String::new(), Vec::new(), Vec::new());
        for (column, files) in columns {
            let summaries = files.iter().filter_map(|files| files.get(&(class.clone(), *edge))).map(Summary::of);
            let (peers, others): (Vec<_>, Vec<_>) = summaries.partition(|peer| peer.score >= us.score - AS_ALIKE);
            let best = peers.into_iter().min_by(|one, other| one.median.total_cmp(&other.median));
            let nearest = others.into_iter().max_by(|one, other| one.score.total_cmp(&other.score));
            match (&best, &nearest) {
                (Some(peer), _) => write!(cells, " {peer} |"),
                (None, Some(other)) => write!(cells, " ({other}) |"),
                (None, None) => write!(cells, " |"),
            }
            .expect("a string takes everything");
            match column {
                Column::Settings(name) => settings.extend(best.map(|peer| (us.share_of(&peer), name))),
                Column::AnyQuality(name) => qualities.extend(best.map(|peer| (us.share_of(&peer), name))),
            }
        }
        println!("| {class} | {edge} | {us} |{cells} {} | {} |", verdict(&settings), verdict(&qualities));
    }
}

/// What is to be said of the smallest of those that look as much alike.
fn verdict(rivals: &[(f64, &String)]) -> String {
    match rivals.iter().max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((share, name)) if *share < 1.0 => format!("smaller: {share:.2} of {name}"),
        Some((share, name)) => format!("**not smaller**: {share:.2} of {name}"),
        None => "none so much alike".to_owned(),
    }
}

/// The files of one class and edge.
struct Summary {
    median: f64,
    mean: f64,
    score: f64,
}

impl Summary {
    fn of(files: &BTreeMap<String, Made>) -> Self {
        let mut bytes: Vec<f64> = files.values().map(|made| made.bytes).collect();
        bytes.sort_by(f64::total_cmp);
        let middle = bytes.len() / 2;
        let median =
            if bytes.len().is_multiple_of(2) { f64::midpoint(bytes[middle - 1], bytes[middle]) } else { bytes[middle] };
        let mean = |value: fn(&Made) -> f64| {
            #[expect(clippy::cast_precision_loss, reason = "a corpus of some dozens")]
            let count = files.len() as f64;
            files.values().map(value).sum::<f64>() / count
        };
        Self { median, mean: mean(|made| made.bytes), score: mean(|made| made.score) }
    }

    /// By the median or the mean, whichever is worse for us.
    fn share_of(&self, peer: &Self) -> f64 {
        (self.median / peer.median).max(self.mean / peer.mean)
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0}, {:.1}", self.median, self.score)
    }
}
