//! What pictures weigh: a table of class and edge, the source's bytes beside ours for clients that take WebP and for
//! those that name nothing. A plain program; see `benches/render.rs` for the pictures.

mod corpus;

use avatar_proxy::render::{Limits, decode, render};
use avatar_proxy::variant::{Offer, Variant};
use corpus::{CLASSES, EDGES};

fn main() {
    println!("Bytes, mean (median)\n");
    println!("| class | pictures | edge | source | WebP offered | nothing offered |");
    println!("|---|---|---|---|---|---|");
    for class in CLASSES {
        let files = corpus::files(class);
        let sources = Lengths(files.iter().map(Vec::len).collect());
        for edge in EDGES {
            let [webp, basic] = [Offer::Webp, Offer::Basic]
                .map(|offer| Lengths(files.iter().map(|file| length(file, edge, offer)).collect()));
            println!("| {class} | {} | {edge} | {sources} | {webp} | {basic} |", files.len());
        }
    }
}

/// The bytes that a client is sent for `file`: the source where nothing is smaller at its own size.
fn length(file: &[u8], edge: u32, offer: Offer) -> usize {
    let pixels = decode(file, &Limits::default()).expect("a picture of the corpus decodes");
    let mut recipe = corpus::recipe(edge, offer);
    recipe.source_may_serve = (pixels.info.width, pixels.info.height) == (edge, edge);
    match render(&pixels, &recipe, file.len()).expect("encodes") {
        Variant::Encoded(encoded) => encoded.bytes.len(),
        Variant::SourceIsBest => file.len(),
    }
}

struct Lengths(Vec<usize>);

impl std::fmt::Display for Lengths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let mean = sorted.iter().sum::<usize>() / sorted.len().max(1);
        write!(f, "{mean} ({})", sorted.get(sorted.len() / 2).copied().unwrap_or_default())
    }
}
