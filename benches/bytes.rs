//! What pictures weigh and how alike they look: a table of class and edge, the first answer beside the improvement, for
//! clients that take WebP, AVIF too, and for those that name nothing; what the last lose; and what the first answer comes to where
//! a quality is asked for. A plain program; see `benches/render.rs` for the pictures.
//!
//! `AVATAR_PROXY_FILES` names a folder for the files themselves (`ours/`), the pixels that they were made of (`pictures/`)
//! and their scores (`scores.csv`): `benches/peers` says what other encoders make of the same pixels.

mod corpus;

use avatar_proxy::render::{self, Candidate, Fate, Limits, Pixels, Targets, candidates, decode, encode, resize};
use avatar_proxy::variant::{Format, Offer, Recipe, Variant};
use corpus::{CLASSES, EDGES};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    let folder = std::env::var_os("AVATAR_PROXY_FILES").map(PathBuf::from);
    for of in folder.iter().flat_map(|folder| [folder.join("ours"), folder.join("pictures")]) {
        std::fs::create_dir_all(of).expect("the folder is writable");
    }
    let mut scores = "picture,edge,offer,answer,format,bytes,score\n".to_owned();
    let mut without = WithoutWebp::default();
    for (offer, name) in [(Offer::Webp, "webp"), (Offer::Avif, "avif"), (Offer::Basic, "basic")] {
        println!("\nOffered: {name}. Bytes: median (mean); scores: median, least\n");
        println!(
            "| class | pictures | edge | first | score | improved | score | under target - 0.5 | CPU ms: median, most |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        for class in CLASSES {
            let pictures = corpus::files(class);
            // Below, nobody is offered AVIF.
            for edge in EDGES.into_iter().filter(|edge| offer != Offer::Avif || *edge >= 96) {
                let mut row = Row::new(if class == "letter" { 90.0 } else { 80.0 });
                for (picture, file) in &pictures {
                    let measured = Measured::of(file, &corpus::recipe(edge, offer));
                    row.add(&measured);
                    without.add(class, edge, offer, &measured);
                    if let Some(folder) = &folder {
                        scores += &measured.write(folder, picture.trim_end_matches(".png"), edge, name);
                    }
                }
                println!("| {class} | {} | {edge} | {row} |", pictures.len());
            }
        }
    }
    if let Some(folder) = folder {
        std::fs::write(folder.join("scores.csv"), scores).expect("the folder is writable");
    }
    without.print();
    aimed();
}

/// The bytes of the improved by class and edge, with WebP and without.
#[derive(Default)]
struct WithoutWebp(BTreeMap<(&'static str, u32), [Vec<f64>; 2]>);

impl WithoutWebp {
    fn add(&mut self, class: &'static str, edge: u32, offer: Offer, measured: &Measured) {
        let column = match offer {
            Offer::Webp => 0,
            Offer::Basic => 1,
            _ => return,
        };
        #[expect(clippy::cast_precision_loss, reason = "files are far below 2^52 bytes")]
        self.0.entry((class, edge)).or_default()[column].push(measured.improved.bytes.len() as f64);
    }

    fn print(&self) {
        println!(
            "\nImproved, without WebP as a multiple of with it: median of the pictures, most, all bytes together\n"
        );
        println!("| class | edge | median | most | all |\n|---|---|---|---|---|");
        for ((class, edge), [with, without]) in &self.0 {
            let ratios: Vec<f64> = without.iter().zip(with).map(|(without, with)| without / with).collect();
            let most = ratios.iter().copied().fold(0.0, f64::max);
            println!("| {class} | {edge} | {:.2} | {most:.2} | {:.2} |", median(&ratios), mean(without) / mean(with));
        }
    }
}

/// What first answers come to at each quality that is asked for.
fn aimed() {
    println!("\nFirst answers by the quality asked for (10 more is meant for letters): median score (median bytes)\n");
    println!("| class | edge | offered | {} |", QUALITIES.map(|quality| quality.to_string()).join(" | "));
    println!("|---|---|---|{}", "---|".repeat(QUALITIES.len()));
    for class in CLASSES {
        let pictures = corpus::files(class);
        for edge in [32, 64, 128] {
            for (offer, name) in [(Offer::Webp, "webp"), (Offer::Basic, "basic"), (Offer::Only(Format::Jpeg), "jpeg")] {
                let cells = QUALITIES.map(|quality| {
                    let recipe = Recipe { quality: Some(quality), ..corpus::recipe(edge, offer) };
                    let (scores, lengths): (Vec<f64>, Vec<f64>) =
                        pictures.values().map(|file| first_answer(file, &recipe)).unzip();
                    format!("{:.1} ({:.0})", median(&scores), median(&lengths))
                });
                println!("| {class} | {edge} | {name} | {} |", cells.join(" | "));
            }
        }
    }
}

const QUALITIES: [u8; 8] = [30, 50, 60, 70, 80, 85, 90, 95];

/// Its score and its bytes; what is transparent is looked at on white.
fn first_answer(file: &[u8], recipe: &Recipe) -> (f64, f64) {
    let decoded = |file: &[u8]| decode(file, &Limits::default()).expect("it decodes");
    let resized = resize(&decoded(file), recipe.geometry).expect("a size").into_owned();
    let made = |recipe: &Recipe| {
        let made = encode(&resized, recipe, &Targets::default(), 0).expect("encodes");
        made.into_encoded().expect("no source offered").bytes.clone()
    };
    let ours = made(recipe);
    // What is asked of it is to look like the flattened picture, where it is flattened.
    let flat = Recipe { quality: Some(100), ..*recipe };
    let original = if recipe.offer == Offer::Only(Format::Jpeg) { decoded(&made(&flat)) } else { resized.clone() };
    #[expect(clippy::cast_precision_loss, reason = "files are far below 2^52 bytes")]
    let length = ours.len() as f64;
    (render::score(&original, &decoded(&ours)).expect("it is small"), length)
}

/// What became of one picture.
struct Measured {
    resized: Pixels,
    recipe: Recipe,
    first: Candidate,
    improved: Candidate,
    milliseconds: f64,
}

impl Measured {
    fn of(file: &[u8], recipe: &Recipe) -> Self {
        let pixels = decode(file, &Limits::default()).expect("a picture of the corpus decodes");
        let resized = resize(&pixels, recipe.geometry).expect("a size").into_owned();
        let started = cpu_milliseconds();
        let all = candidates(&resized, recipe, &Targets::default()).expect("encodes");
        let milliseconds = cpu_milliseconds() - started;
        let with = |fate| all.iter().find(|candidate| candidate.fate == fate).cloned();
        let both = with(Fate::FirstAndLast);
        let first = with(Fate::First).or(both.clone()).expect("there is a first answer");
        let improved = with(Fate::Improved).or(both).expect("there is a best answer");
        Self { resized, recipe: *recipe, first, improved, milliseconds }
    }

    /// Writes both files and the pixels, and gives the lines for the table of scores.
    fn write(&self, folder: &Path, picture: &str, edge: u32, offer: &str) -> String {
        let write = |path: String, bytes: &[u8]| {
            std::fs::write(folder.join(path), bytes).expect("the folder is writable");
        };
        let exact = Recipe { quality: Some(100), offer: Offer::Only(Format::Png), ..self.recipe };
        let Variant::Encoded(pixels) = encode(&self.resized, &exact, &Targets::default(), 0).expect("encodes") else {
            unreachable!("no source offered");
        };
        write(format!("pictures/{picture}-{edge}.png"), &pixels.bytes);
        let mut lines = String::new();
        for (answer, candidate) in [("first", &self.first), ("improved", &self.improved)] {
            let (format, length, score) = (candidate.format.name(), candidate.bytes.len(), score(candidate));
            write(format!("ours/{picture}-{edge}-{offer}-{answer}.{format}"), &candidate.bytes);
            writeln!(lines, "{picture},{edge},{offer},{answer},{format},{length},{score:.2}")
                .expect("a string takes everything");
        }
        lines
    }
}

fn score(candidate: &Candidate) -> f64 {
    candidate.score.expect("the pictures are small")
}

/// The CPU time of this thread.
fn cpu_milliseconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "hours at most")]
    let (seconds, nanoseconds) = (time.tv_sec as f64, time.tv_nsec as f64);
    seconds * 1e3 + nanoseconds / 1e6
}

/// A line of the table.
struct Row {
    target: f64,
    first: [Vec<f64>; 2],
    improved: [Vec<f64>; 2],
    milliseconds: Vec<f64>,
}

impl Row {
    fn new(target: f64) -> Self {
        Self { target, first: Default::default(), improved: Default::default(), milliseconds: Vec::new() }
    }

    fn add(&mut self, measured: &Measured) {
        #[expect(clippy::cast_precision_loss, reason = "files are far below 2^52 bytes")]
        for (columns, candidate) in [(&mut self.first, &measured.first), (&mut self.improved, &measured.improved)] {
            columns[0].push(candidate.bytes.len() as f64);
            columns[1].push(score(candidate));
        }
        self.milliseconds.push(measured.milliseconds);
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for [bytes, scores] in [&self.first, &self.improved] {
            write!(f, "{:.0} ({:.0}) | {:.1}, {:.1} | ", median(bytes), mean(bytes), median(scores), least(scores))?;
        }
        let missed = self.improved[1].iter().filter(|&&score| score < self.target - 0.5).count();
        let most = self.milliseconds.iter().copied().fold(0.0, f64::max);
        write!(f, "{missed} | {:.1}, {most:.1}", median(&self.milliseconds))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a corpus of some dozens")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], sorted[middle]) } else { sorted[middle] }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}
