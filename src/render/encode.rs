//! Pixels to the smallest file that looks the same, among the formats on offer.
//!
//! What suits a picture is told by its colours. A letter or a drawing has few, and takes a palette and a lossless
//! encoding, which is several times smaller than a lossy one and keeps the edges clean. A photograph has almost as many
//! colours as pixels and takes one lossy encoding.

pub(super) mod aim;
pub(super) mod animation;
pub(super) mod avif;
pub(super) mod colours;
pub(super) mod jpeg;
pub(super) mod kmeans;
pub(super) mod palette;
pub(super) mod png;
mod quantise;
pub(super) mod webp;

use super::raster::Raster;
use super::{EncodeError, Limits};
use crate::variant::{Format, Offer, Recipe};
use aim::Aim;
use colours::Content;
use jpeg::Planes;
use palette::{Counted, Indexed, Sticky};
use webp::{Lossy, Pace};

/// Above this many pixels a palette is not looked for, and quality 100 is not without loss in WebP: either costs far more time there than a lossy encoding.
const PALETTE_PIXELS: usize = 1 << 18;

/// Up to this many pixels a palette can undercut JPEG even on a photograph, whose headers alone are some 300 bytes.
const PALETTE_BEATS_JPEG_PIXELS: usize = 40 * 40;

/// Up to this many pixels the blends at the edges of a letter take fewer colours.
const TINY_LETTER_PIXELS: usize = 32 * 32;

/// What a lossy encoding of a drawing hardly undercuts, in bytes for each pixel along its edge: it is not tried then.
const FEW_BYTES_AN_EDGE: usize = 16;

/// How much farther than the usual colour that of a pixel beside it may be in a drawing, as a share of the tolerance. It makes
/// files of drawings 1 to 6 % smaller at the same score.
const STICKY_SHARE: f64 = 0.1;

/// Encodes `raster`, which shows `content`, in the format among those on offer that takes the fewest bytes, to look about as
/// alike as is aimed at.
pub(super) fn encode(
    raster: &Raster,
    content: Content,
    recipe: &Recipe,
    aim: Aim,
) -> Result<(Format, Vec<u8>), EncodeError> {
    match recipe.offer {
        // PNG has nothing to add: its palette pictures are always the larger ones.
        Offer::Webp | Offer::Only(Format::Webp) | Offer::Moving => {
            Ok((Format::Webp, webp(raster, content, aim, Pace::Quick)?))
        }
        // AVIF takes longer than somebody who waits would like; it is found when the variant is improved. Until then, twice the time
        // keeps a photograph within a fifth of what AVIF will take.
        Offer::Avif => Ok((Format::Webp, webp(raster, content, aim, Pace::Careful)?)),
        Offer::AvifBeside(plain) => encode(raster, content, &Recipe { offer: plain.offer(), ..*recipe }, aim),
        Offer::Only(Format::Avif) => Ok((Format::Avif, avif(raster, aim)?.file)),
        Offer::Only(Format::Png) => Ok((Format::Png, png(raster, content, aim)?)),
        Offer::Only(Format::Jpeg) => Ok((Format::Jpeg, jpeg(&raster.flattened(recipe.background), content, aim)?)),
        Offer::Basic if raster.has_alpha() => Ok((Format::Png, png(raster, content, aim)?)),
        Offer::Basic => basic(raster, content, aim),
    }
}

/// What becomes of a transparent `raster` where the format asked for has no alpha.
pub(super) fn flattened(raster: &Raster, recipe: &Recipe) -> Option<Raster> {
    let is_lost = raster.has_alpha() && recipe.offer == Offer::Only(Format::Jpeg);
    is_lost.then(|| raster.flattened(recipe.background))
}

/// [`encode`]; gives also what it will look like, where that is known by the way.
pub(super) fn first(
    raster: &Raster,
    content: Content,
    recipe: &Recipe,
    aim: Aim,
) -> Result<(Format, Vec<u8>, Option<Raster>), EncodeError> {
    if recipe.offer == Offer::Only(Format::Avif) {
        let avif::Encoding { file, shown } = avif(raster, aim)?;
        return Ok((Format::Avif, file, Some(shown)));
    }
    encode(raster, content, recipe, aim).map(|(format, file)| (format, file, None))
}

fn avif(raster: &Raster, aim: Aim) -> Result<avif::Encoding, EncodeError> {
    avif::encode(raster, avif::usual_quantizer(aim), avif::Effort::Quick)
}

fn webp(raster: &Raster, content: Content, aim: Aim, pace: Pace) -> Result<Vec<u8>, EncodeError> {
    if aim.is_exact() && raster.len() <= PALETTE_PIXELS {
        return webp::lossless(raster);
    }
    let indexed = if content == Content::Photo { None } else { indexed(raster, content, aim) };
    let Some(indexed) = indexed else {
        return webp::lossy(raster, &Lossy::usual(raster, content, aim, pace));
    };
    let lossless = webp::lossless(&indexed.raster())?;
    if content == Content::Letter || lossless.len() <= FEW_BYTES_AN_EDGE * raster.len().isqrt() {
        return Ok(lossless);
    }
    // So many bytes are no longer those of flat areas, so the colour planes need no care either.
    let lossy = webp::lossy(raster, &Lossy::usual(raster, Content::Photo, aim, pace))?;
    Ok(if lossy.len() < lossless.len() { lossy } else { lossless })
}

fn png(raster: &Raster, content: Content, aim: Aim) -> Result<Vec<u8>, EncodeError> {
    match indexed(raster, content, aim) {
        Some(indexed) => png::indexed(&indexed, png::Packing::Quick),
        None => png::exact(raster),
    }
}

fn jpeg(raster: &Raster, content: Content, aim: Aim) -> Result<Vec<u8>, EncodeError> {
    let planes = if content == Content::Photo { Planes::Halved } else { Planes::Whole };
    jpeg::encode(raster, planes, jpeg::usual_quality(raster.len(), planes, aim))
}

fn basic(raster: &Raster, content: Content, aim: Aim) -> Result<(Format, Vec<u8>), EncodeError> {
    let worth_trying = content != Content::Photo || raster.len() <= PALETTE_BEATS_JPEG_PIXELS;
    let indexed = if worth_trying { indexed(raster, content, aim) } else { None };
    let Some(indexed) = indexed else {
        return Ok((Format::Jpeg, jpeg(raster, content, aim)?));
    };
    let png = png::indexed(&indexed, png::Packing::Quick)?;
    if content == Content::Letter {
        return Ok((Format::Png, png));
    }
    let jpeg = jpeg(raster, content, aim)?;
    Ok(if jpeg.len() < png.len() { (Format::Jpeg, jpeg) } else { (Format::Png, png) })
}

/// What is seen of `file`, which was made of `raster`.
pub(super) fn seen(format: Format, file: &[u8], raster: &Raster) -> Result<Raster, EncodeError> {
    if format == Format::Webp {
        return webp::decode(file, raster);
    }
    let decoded = super::decode(file, &Limits::default());
    decoded.map(|pixels| pixels.raster).map_err(|error| EncodeError(error.to_string()))
}

fn indexed(raster: &Raster, content: Content, aim: Aim) -> Option<Indexed> {
    if raster.len() > PALETTE_PIXELS {
        return None;
    }
    let counted = Counted::of(raster);
    let tolerance = tolerance(raster, content, aim, counted.variance());
    // The detail of a drawing hides that; it would show at the edges of a letter.
    let sticky = (content == Content::Drawing).then_some(Sticky {
        factor: 1.0,
        more: STICKY_SHARE * tolerance,
        spares_runs: false,
    });
    counted.fewest(raster, tolerance, sticky)
}

/// How far a palette may be off: the mean of squared distances, where green counts more than blue. The flat areas of a letter show
/// everything. The detail of a drawing hides much, and more the smaller it is and the more its colours differ, by their `variance`;
/// likewise the noise of a photograph. So it came out on a hundred drawings and letters of 24 to 128 pixels. Where every pixel is to
/// be kept, only exact colours do.
fn tolerance(raster: &Raster, content: Content, aim: Aim, variance: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "an edge is far below 2^52 pixels")]
    let edge = raster.len().isqrt() as f64;
    let usual = match content {
        Content::Letter if raster.len() <= TINY_LETTER_PIXELS => 34.0,
        Content::Letter => 20.0,
        Content::Drawing => 41.6 * variance.cbrt() / edge.sqrt(),
        Content::Photo => 25.0 * variance.cbrt() / edge.sqrt(),
    };
    aim.tolerance(usual, content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{Limits, Pixels, Targets, decode, render};
    use crate::variant::{Encoded, Geometry, Popularity, Variant};
    use proptest::prelude::*;
    use std::sync::Arc;

    const PHOTO: &[u8] = include_bytes!("../../benches/pictures/photo-ski-chelsea.png");
    const DRAWING: &[u8] = include_bytes!("../../benches/pictures/illu-dice-lorelei.png");
    const LETTER: &[u8] = include_bytes!("../../benches/pictures/letter-A.png");

    const RECIPE: Recipe = Recipe {
        geometry: Geometry::Scale { width: 32, height: 32 },
        offer: Offer::Webp,
        quality: None,
        background: [255; 3],
        source_may_serve: false,
    };

    fn pixels(file: &[u8]) -> Pixels {
        decode(file, &Limits::default()).expect("decodes")
    }

    fn encoded(file: &[u8], recipe: &Recipe) -> Arc<Encoded> {
        match render(&pixels(file), recipe, &Targets::default(), file.len()).expect("encodes") {
            Variant::Encoded(encoded) => encoded,
            Variant::SourceForNow(_) | Variant::SourceIsBest => panic!("the source may not serve"),
        }
    }

    /// The kind of the first chunk of a WebP file.
    fn chunk(encoded: &Encoded) -> &[u8] {
        &encoded.bytes[12..16]
    }

    #[test]
    fn the_encoding_suits_the_content() {
        for edge in [16, 24, 32, 40, 64, 96, 128] {
            let check = |name: &str, file: &[u8], webp: &[&[u8]], basic: Format| {
                let recipe = Recipe { geometry: Geometry::Scale { width: edge, height: edge }, ..RECIPE };
                let ours = encoded(file, &recipe);
                assert!(webp.contains(&chunk(&ours)), "{name} at {edge}: {:?}", chunk(&ours));
                if edge > 40 {
                    assert_eq!(
                        encoded(file, &Recipe { offer: Offer::Basic, ..recipe }).format,
                        basic,
                        "{name} at {edge}"
                    );
                }
            };
            // Neither has a VP8X chunk, that is an alpha plane, since the pictures are opaque.
            check("photo", PHOTO, &[b"VP8 "], Format::Jpeg);
            check("letter", LETTER, &[b"VP8L"], Format::Png);
            check("drawing", DRAWING, &[b"VP8L", b"VP8X"], Format::Png);
        }
    }

    #[test]
    fn avif_is_made_for_who_asks_and_is_otherwise_left_to_the_improvement() {
        let edge = 128;
        let recipe = Recipe { geometry: Geometry::Scale { width: edge, height: edge }, ..RECIPE };
        // Until then more care is taken than for who gets WebP for good.
        let first = encoded(PHOTO, &Recipe { offer: Offer::Avif, ..recipe });
        let quick = encoded(PHOTO, &recipe);
        assert_eq!((first.format, quick.format), (Format::Webp, Format::Webp));
        assert!(20 * first.bytes.len() < 19 * quick.bytes.len(), "{} {}", first.bytes.len(), quick.bytes.len());
        let avif = encoded(PHOTO, &Recipe { offer: Offer::Only(Format::Avif), ..recipe });
        assert!(avif.format == Format::Avif && &avif.bytes[4..12] == b"ftypavif");
        assert!(avif.bytes.len() < first.bytes.len(), "{} {}", avif.bytes.len(), first.bytes.len());
    }

    #[test]
    fn each_format_is_what_it_says() {
        let magics: [(Format, &[u8]); 3] =
            [(Format::Webp, b"RIFF"), (Format::Png, b"\x89PNG"), (Format::Jpeg, b"\xff\xd8\xff")];
        for (format, magic) in magics {
            for file in [PHOTO, DRAWING, LETTER] {
                let ours = encoded(file, &Recipe { offer: Offer::Only(format), ..RECIPE });
                assert!(ours.format == format && ours.bytes.starts_with(magic), "{format:?}");
                let again = pixels(&ours.bytes);
                assert_eq!((again.info.width, again.info.height), (32, 32), "{format:?}");
            }
        }
    }

    #[test]
    fn what_is_transparent_stays_so_or_is_flattened() {
        let padded = Recipe { geometry: Geometry::Pad { width: 32, height: 16 }, ..RECIPE };
        for offer in [Offer::Webp, Offer::Basic, Offer::Only(Format::Png)] {
            let ours = pixels(&encoded(PHOTO, &Recipe { offer, ..padded }).bytes);
            assert!(ours.info.has_alpha, "{offer:?}");
            assert_eq!(ours.raster.rgba().next().expect("a pixel")[3], 0, "{offer:?}");
        }
        let recipe = Recipe { offer: Offer::Only(Format::Jpeg), background: [0, 90, 200], ..padded };
        let flat = pixels(&encoded(PHOTO, &recipe).bytes);
        let [r, g, b, a] = flat.raster.rgba().next().expect("a pixel");
        assert!(r < 12 && g.abs_diff(90) < 12 && b.abs_diff(200) < 12 && a == 255, "{:?}", [r, g, b, a]);
    }

    #[test]
    fn a_higher_quality_takes_more_bytes() {
        for (name, file) in [("photo", PHOTO), ("drawing", DRAWING), ("letter", LETTER)] {
            for offer in [Offer::Webp, Offer::Basic, Offer::Only(Format::Jpeg), Offer::Only(Format::Avif)] {
                let length = |quality| encoded(file, &Recipe { quality: Some(quality), offer, ..RECIPE }).bytes.len();
                let lengths = [length(20), length(60), length(90)];
                assert!(lengths.is_sorted() && lengths[0] < lengths[2], "{name} {offer:?}: {lengths:?}");
            }
        }
    }

    #[test]
    fn the_configured_target_is_what_an_answer_without_a_quality_aims_at() {
        for (name, file) in [("photo", PHOTO), ("drawing", DRAWING), ("letter", LETTER)] {
            for offer in [Offer::Webp, Offer::Basic, Offer::Only(Format::Jpeg), Offer::Only(Format::Avif)] {
                let made = |quality, targets: Targets| {
                    let recipe = Recipe { offer, quality, ..RECIPE };
                    render(&pixels(file), &recipe, &targets, 0).expect("encodes").into_encoded().expect("no source")
                };
                let usual = Targets::default();
                assert_eq!(made(Some(80), usual), made(None, usual), "{name} {offer:?}");
                // Where a picture in colours is flattened it may count as one that is not flat, and the other way round.
                for (asked, target) in [(50, 50.0), (70, 70.0), (85, 85.0)] {
                    let targets = Targets { photo: target, flat: target + 10.0 };
                    assert_eq!(made(None, targets), made(Some(asked), usual), "{name} {offer:?} {asked}");
                    assert_eq!(made(Some(asked), targets), made(Some(asked), usual), "{name} {offer:?} {asked}");
                }
                let at = |target: f64| made(None, Targets { photo: target, flat: target + 10.0 }).bytes.len();
                let lengths = [at(40.0), at(80.0), at(89.0)];
                assert!(lengths.is_sorted() && lengths[0] < lengths[2], "{name} {offer:?}: {lengths:?}");
            }
        }
    }

    #[test]
    fn the_source_serves_where_nothing_is_smaller() {
        let recipe = Recipe { source_may_serve: true, ..RECIPE };
        let ours = encoded(LETTER, &RECIPE).bytes.len();
        let rendered =
            |source_len, recipe| render(&pixels(LETTER), recipe, &Targets::default(), source_len).expect("encodes");
        // A search may find what is.
        let source = |popularity: Popularity| Variant::SourceForNow(Arc::new(popularity));
        assert_eq!(rendered(ours, &recipe), source(Popularity::default()));
        assert_eq!(rendered(0, &recipe), source(Popularity::default()));
        let large = Pixels { raster: Raster::opaque(300, 300, vec![7; 300 * 300 * 3]), ..pixels(LETTER) };
        assert_eq!(
            crate::render::encode(&large, &recipe, &Targets::default(), 1).expect("encodes"),
            Variant::SourceIsBest
        );
        assert!(matches!(rendered(ours + 1, &recipe), Variant::Encoded(_)));
        assert!(matches!(rendered(0, &RECIPE), Variant::Encoded(_)));
    }

    #[test]
    fn every_variant_is_far_smaller_than_its_source() {
        for (file, most) in [(PHOTO, 500), (DRAWING, 700), (LETTER, 200)] {
            let ours = encoded(file, &RECIPE).bytes.len();
            assert!(ours < most, "{ours}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn equal_recipes_give_equal_bytes_of_the_size_asked_for(
            noise in proptest::collection::vec(any::<u8>(), 4 * 20 * 14),
            coarse in 0_u32..8,
            width in 1_u32..40,
            height in 1_u32..40,
            shape in 0_usize..4,
            offer in 0_usize..5,
            quality in proptest::option::of(1_u8..=20),
        ) {
            let samples = noise.iter().map(|sample| sample >> coarse << coarse).collect();
            let raster = Raster::with_alpha(20, 14, samples);
            let geometry = [
                Geometry::Keep,
                Geometry::Scale { width, height },
                Geometry::Crop { width, height },
                Geometry::Pad { width, height },
            ][shape];
            let offer = [
                Offer::Webp,
                Offer::Basic,
                Offer::Only(Format::Webp),
                Offer::Only(Format::Png),
                Offer::Only(Format::Jpeg),
            ][offer];
            let recipe = Recipe { geometry, offer, quality: quality.map(|steps| steps * 5), ..RECIPE };
            let resized = crate::render::resize::resize(&raster, geometry).expect("a size");
            let content = Content::of(&resized);
            let aim = Targets::default().aim(content, recipe.quality);
            let (format, bytes) = encode(&resized, content, &recipe, aim).expect("encodes");
            prop_assert_eq!(&encode(&resized, content, &recipe, aim).expect("encodes"), &(format, bytes.clone()));
            let again = pixels(&bytes);
            prop_assert_eq!((again.info.width, again.info.height), (resized.width, resized.height));
            prop_assert!(resized.has_alpha() || !again.info.has_alpha);
        }
    }
}
