//! What moving pictures weigh and cost: the bytes of ten GIFs beside those of the animated WebP made of them, at their own
//! size and at that of an emoji in a line of text, with the time that takes. A plain program; the files go to the folder
//! that `AVATAR_PROXY_REELS` names, to be looked at.

mod reels;

use avatar_proxy::render::{Limits, Targets, animate};
use avatar_proxy::variant::{Geometry, Offer, Recipe, Variant};
use std::time::Instant;

fn main() {
    let folder = std::env::var_os("AVATAR_PROXY_REELS").map(std::path::PathBuf::from);
    println!("| reel | GIF | WebP | of the GIF | ms | 32 px | of the GIF | ms |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut shares = Vec::new();
    for (name, gif) in reels::all() {
        let whole = rendered(&gif, Geometry::Keep);
        let small = rendered(&gif, Geometry::Scale { width: 32, height: 32 });
        #[expect(clippy::cast_precision_loss, reason = "small files")]
        let share = |length: usize| length as f64 / gif.len() as f64;
        println!(
            "| {name} | {} | {} | {:.2} | {:.1} | {} | {:.2} | {:.1} |",
            gif.len(),
            whole.0.len(),
            share(whole.0.len()),
            whole.1,
            small.0.len(),
            share(small.0.len()),
            small.1,
        );
        shares.push(share(whole.0.len()));
        if let Some(folder) = &folder {
            for (file, kind) in [(&gif, "gif"), (&whole.0, "webp"), (&small.0, "32.webp")] {
                std::fs::write(folder.join(format!("{}.{kind}", name.replace(' ', "-"))), file).expect("a folder");
            }
        }
    }
    shares.sort_by(f64::total_cmp);
    println!("\nMedian {:.2} of the GIF", f64::midpoint(shares[4], shares[5]));
}

/// The file and the milliseconds that it took.
fn rendered(gif: &[u8], geometry: Geometry) -> (Vec<u8>, f64) {
    let recipe =
        Recipe { geometry, offer: Offer::Moving, quality: None, background: [255; 3], source_may_serve: false };
    let started = Instant::now();
    match animate(gif, &recipe, &Targets::default(), &Limits::default()).expect("it is within the limits") {
        Variant::Encoded(encoded) => (encoded.bytes.to_vec(), started.elapsed().as_secs_f64() * 1000.0),
        Variant::SourceForNow(_) | Variant::SourceIsBest => unreachable!("the source may not serve"),
    }
}
