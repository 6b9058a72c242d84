//! Searches of small pictures, end to end.

use super::*;
use crate::render::{Fate, Limits, Pixels, animate, candidates, decode, improve, render, resize};
use crate::variant::{Geometry, Variant};
use std::cell::Cell;
use std::sync::Arc;
use std::thread;

const PHOTO: &[u8] = include_bytes!("../../../benches/pictures/photo-ski-astronaut.png");
const DRAWING: &[u8] = include_bytes!("../../../benches/pictures/illu-dice-lorelei.png");
const LETTER: &[u8] = include_bytes!("../../../benches/pictures/letter-K.png");

const RECIPE: Recipe = Recipe {
    geometry: Geometry::Keep,
    offer: Offer::Webp,
    quality: None,
    background: [255; 3],
    source_may_serve: false,
};

fn pixels(file: &[u8], geometry: Geometry) -> Pixels {
    let pixels = decode(file, &Limits::default()).expect("decodes");
    resize(&pixels, geometry).expect("a size").into_owned()
}

fn tries(raster: &Raster, recipe: &Recipe) -> Tries {
    search(raster, Content::of(raster), recipe, &Targets::default(), &|| true)
        .expect("encodes")
        .expect("nobody cancels")
}

#[test]
fn the_best_reaches_the_target_with_fewest_bytes() {
    // The drawing is transparent, and flattened for JPEG it has the colours of a letter.
    for (name, file, target, jpeg_target) in
        [("photo", PHOTO, 80.0, 80.0), ("drawing", DRAWING, 80.0, 90.0), ("letter", LETTER, 90.0, 90.0)]
    {
        let pixels = pixels(file, Geometry::Scale { width: 32, height: 32 });
        for offer in [Offer::Webp, Offer::Basic, Offer::Only(Format::Png), Offer::Only(Format::Jpeg)] {
            let target = if offer == Offer::Only(Format::Jpeg) { jpeg_target } else { target };
            let tries = tries(&pixels.raster, &Recipe { offer, ..RECIPE });
            let best = tries.best();
            assert!(best.score >= Some(target), "{name} {offer:?}: {:?}", best.score);
            for other in &tries.all {
                let asked = target + PALETTE_MARGIN;
                let longer = other.file.len() >= best.file.len();
                assert!(longer || other.score < Some(asked), "{name} {offer:?}: {:?}", other.made);
                assert!(offer != Offer::Webp || other.format == Format::Webp);
            }
            assert!(tries.all.len() < 60, "{name} {offer:?}: {}", tries.all.len());
        }
    }
}

#[test]
fn what_looks_better_in_fewer_colours_is_found() {
    // Three flat colours: in ten, two of them fall together.
    let file = include_bytes!("../../../benches/pictures/illu-dice-identicon.png");
    let pixels = pixels(file, Geometry::Scale { width: 128, height: 128 });
    for offer in [Offer::Webp, Offer::Basic] {
        let tries = tries(&pixels.raster, &Recipe { offer, ..RECIPE });
        let best = tries.best();
        assert!(best.score >= Some(90.0) && best.file.len() < 200, "{offer:?}: {} B", best.file.len());
    }
}

#[test]
fn a_letter_takes_little_more_in_png_than_in_webp() {
    for file in [&include_bytes!("../../../benches/pictures/letter-A.png")[..], LETTER] {
        for edge in [24, 32] {
            let pixels = pixels(file, Geometry::Scale { width: edge, height: edge });
            let length = |offer| {
                let tries = tries(&pixels.raster, &Recipe { offer, ..RECIPE });
                assert!(tries.best().score >= Some(90.0), "{edge} {offer:?}");
                tries.best().file.len()
            };
            let (webp, png) = (length(Offer::Webp), length(Offer::Basic));
            assert!(4 * png <= 5 * webp, "{edge}: {webp} B of WebP, {png} B of PNG");
            assert_eq!(length(Offer::Only(Format::Png)), png, "{edge}");
        }
    }
}

#[test]
fn a_drawing_takes_little_more_without_webp_than_in_it() {
    let drawings = [
        &include_bytes!("../../../benches/pictures/illu-dice-identicon.png")[..],
        include_bytes!("../../../benches/pictures/illu-dice-shapes.png"),
        include_bytes!("../../../benches/pictures/illu-dice-thumbs.png"),
        DRAWING,
    ];
    // As it is asked of the median of them, and of each with more room.
    for edge in [32, 64] {
        let mut ratios = drawings.map(|file| {
            let pixels = pixels(file, Geometry::Scale { width: edge, height: edge });
            let length = |offer| {
                let tries = tries(&pixels.raster, &Recipe { offer, ..RECIPE });
                assert!(tries.best().score >= Some(80.0), "{edge} {offer:?}");
                tries.best().file.len()
            };
            #[expect(clippy::cast_precision_loss, reason = "small files")]
            let ratio = length(Offer::Basic) as f64 / length(Offer::Webp) as f64;
            ratio
        });
        ratios.sort_by(f64::total_cmp);
        assert!(f64::midpoint(ratios[1], ratios[2]) <= 1.25 && ratios[3] <= 1.4, "{edge}: {ratios:?}");
    }
}

#[test]
fn whoever_shows_avif_and_no_webp_gets_it_where_it_is_smallest() {
    // Half of what it is offered for, to take a quarter of the time.
    let pixels = pixels(PHOTO, Geometry::Scale { width: 48, height: 48 });
    let all = |offer| tries(&pixels.raster, &Recipe { offer, ..RECIPE });
    let jpeg = all(Offer::Only(Format::Jpeg));
    for plain in [Plain::Both, Plain::Jpeg] {
        let beside = all(Offer::AvifBeside(plain));
        assert_eq!(beside.best().format, Format::Avif, "{plain:?}");
        assert!(beside.best().score >= Some(80.0) && beside.best().file.len() < jpeg.best().file.len(), "{plain:?}");
        assert!(beside.all.iter().all(|tried| tried.format != Format::Webp), "{plain:?}");
        // Nobody waits for it.
        assert_eq!(beside.all[0].format, Format::Jpeg, "{plain:?}");
        assert_eq!(beside.all[0].file, jpeg.all[0].file, "{plain:?}");
    }
}

#[test]
fn transparency_is_searched_too() {
    let pixels = pixels(PHOTO, Geometry::Pad { width: 40, height: 24 });
    for offer in [Offer::Webp, Offer::Basic] {
        let tries = tries(&pixels.raster, &Recipe { offer, ..RECIPE });
        assert!(tries.best().score >= Some(80.0), "{offer:?}");
        let seen = encode::seen(tries.best().format, &tries.best().file, &pixels.raster).expect("decodes");
        assert!(seen.has_alpha(), "{offer:?}");
    }
}

#[test]
fn an_asked_quality_is_the_target() {
    let pixels = pixels(PHOTO, Geometry::Scale { width: 32, height: 32 });
    let best = |quality| {
        let tries = tries(&pixels.raster, &Recipe { quality: Some(quality), ..RECIPE });
        (tries.best().file.len(), tries.best().score.expect("judged"))
    };
    let found = [50, 70, 90, 100].map(best);
    assert!(found.is_sorted_by(|one, next| one.0 < next.0), "{found:?}");
    assert!(found[0].1 >= 50.0 && found[1].1 >= 70.0 && found[2].1 >= 90.0 && found[3].1 > 99.9, "{found:?}");
}

#[test]
fn a_search_ends_when_it_is_told() {
    let pixels = pixels(DRAWING, Geometry::Scale { width: 24, height: 24 });
    let whole = tries(&pixels.raster, &RECIPE).all.len();
    for most in [0, 1, whole / 2, whole - 1] {
        let left = Cell::new(most);
        let go_on = || left.replace(left.get().saturating_sub(1)) > 0;
        let found = search(&pixels.raster, pixels.content(), &RECIPE, &Targets::default(), &go_on).expect("encodes");
        assert!(found.is_none(), "{most} of {whole}");
    }
}

#[test]
fn a_large_picture_keeps_its_first_answer() {
    let large = Raster::opaque(300, 300, vec![7; 300 * 300 * 3]);
    let tries = tries(&large, &RECIPE);
    assert!(matches!(&tries.all[..], [Try { made: Made::First, score: None, .. }]));
    // Nor is it asked for: counting has ended.
    for (edge, counted) in [(256, true), (257, false)] {
        let pixels = Pixels {
            raster: Raster::opaque(edge, edge, vec![7; (edge * edge * 3) as usize]),
            ..pixels(LETTER, Geometry::Keep)
        };
        let Ok(Variant::Encoded(encoded)) = render(&pixels, &RECIPE, &Targets::default(), 0) else {
            panic!("no source is offered")
        };
        assert_eq!(encoded.popularity.once_more().is_some(), counted, "{edge}");
    }
}

#[test]
fn any_picture_has_a_best() {
    let noise = |i: u32| i.wrapping_mul(0x9e37_79b1).to_le_bytes()[2];
    for (width, height) in [(1, 1), (1, 200), (3, 2), (17, 16)] {
        for channels in [3, 4] {
            let samples: Vec<u8> = (0..width * height * channels).map(noise).collect();
            let raster = if channels == 3 { Raster::opaque } else { Raster::with_alpha }(width, height, samples);
            for offer in [Offer::Webp, Offer::Basic, Offer::Only(Format::Jpeg)] {
                let tries = tries(&raster, &Recipe { offer, ..RECIPE });
                let usable = offer == Offer::Only(Format::Jpeg) || tries.best().score >= Some(80.0);
                assert!(usable, "{width} x {height}, {channels} channels, {offer:?}: {:?}", tries.best().score);
            }
        }
    }
}

#[test]
fn the_next_step_lies_between_what_is_known() {
    let family = Family::Lossy(Lossy::PLAIN);
    let next = |fine, coarse| between(&family, fine, coarse);
    assert_eq!(next(Some((20, Verdict::Passed(4.0))), None), Some(25));
    assert_eq!(next(Some((20, Verdict::Passed(0.0))), None), Some(21));
    assert_eq!(next(Some((20, Verdict::TooLong(1.0))), None), Some(21));
    assert_eq!(next(None, Some((20, 4.0))), Some(15));
    assert_eq!(next(None, Some((3, f64::INFINITY))), Some(0));
    assert_eq!(next(None, Some((0, 4.0))), None);
    assert_eq!(next(Some((20, Verdict::Passed(1.0))), Some((30, 9.0))), Some(21));
    assert_eq!(next(Some((20, Verdict::Passed(9.0))), Some((30, 1.0))), Some(29));
    assert_eq!(next(Some((20, Verdict::TooLong(2.0))), Some((30, 1.0))), Some(25));
    assert_eq!(next(Some((20, Verdict::Passed(9.0))), Some((21, 1.0))), None);
    assert_eq!(next(Some((22, Verdict::Passed(9.0))), Some((21, 1.0))), None);
}

#[test]
fn the_source_serves_where_it_is_smaller() {
    let pixels = pixels(LETTER, Geometry::Scale { width: 32, height: 32 });
    let improved = |source_may_serve, source_len| {
        let recipe = Recipe { source_may_serve, ..RECIPE };
        improve(&pixels, &recipe, &Targets::default(), source_len, &|| true).expect("encodes").expect("nobody cancels")
    };
    assert_eq!(improved(true, 20), Variant::SourceIsBest);
    assert!(matches!(improved(false, 20), Variant::Encoded(_)));
    assert!(matches!(improved(true, 2000), Variant::Encoded(_)));
}

#[test]
fn candidates_tell_what_becomes_of_them() {
    for (file, edge) in [(PHOTO, 24), (LETTER, 32)] {
        let pixels = pixels(file, Geometry::Scale { width: edge, height: edge });
        let all = candidates(&pixels, &RECIPE, &Targets::default()).expect("encodes");
        let sent = |fate: Fate| all.iter().filter(|one| one.fate == fate).collect::<Vec<_>>();
        let (both, firsts, improved) = (sent(Fate::FirstAndLast), sent(Fate::First), sent(Fate::Improved));
        assert_eq!((both.len() + firsts.len(), both.len() + improved.len()), (1, 1));
        let best = improved.first().or(both.first()).expect("one of them");
        let Ok(Some(Variant::Encoded(same))) = improve(&pixels, &RECIPE, &Targets::default(), 0, &|| true) else {
            panic!("nobody cancels, and no source is offered");
        };
        assert_eq!((&best.bytes[..], best.format), (&same.bytes[..], same.format));
        assert!(all.iter().all(|one| !one.name.is_empty() && !one.bytes.is_empty()));
    }
}

/// What there is to do to one picture.
enum Job {
    /// The pixels, and what is made of them at once; and whether a better answer is looked for, too.
    Still(Arc<Pixels>, Recipe, bool),
    /// A file whose frames are all made.
    Moving(Arc<[u8]>, Recipe),
}

impl Job {
    fn first(&self) -> Variant {
        match self {
            Self::Still(pixels, recipe, _) => render(pixels, recipe, &Targets::default(), 0).expect("encodes"),
            Self::Moving(file, recipe) => {
                animate(file, recipe, &Targets::default(), &Limits::default()).expect("it moves")
            }
        }
    }

    fn better(&self) -> Option<Variant> {
        let Self::Still(pixels, recipe, true) = self else { return None };
        let resized = resize(pixels, recipe.geometry).expect("a size");
        improve(&resized, recipe, &Targets::default(), 0, &|| true).expect("encodes")
    }
}

/// A small GIF of some frames, a bar that goes over noise.
fn reel() -> Arc<[u8]> {
    let mut file = Vec::new();
    let palette: Vec<u8> = (0..=255).flat_map(|i: u8| [i, i.wrapping_mul(7), 255 - i]).collect();
    let mut encoder = gif::Encoder::new(&mut file, 24, 24, &palette).expect("a header");
    for n in 0..4 {
        let pixel = |i: u16| if i % 24 == 5 * n { 255 } else { i.wrapping_mul(40_503).to_le_bytes()[1] };
        let buffer: Vec<u8> = (0..24 * 24).map(pixel).collect();
        let frame = gif::Frame { width: 24, height: 24, delay: 5, buffer: buffer.into(), ..gif::Frame::default() };
        encoder.write_frame(&frame).expect("a frame");
    }
    drop(encoder);
    file.into()
}

#[test]
fn a_thousand_renders_in_any_order_give_the_same_bytes() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 250;
    let mut jobs = Vec::new();
    for file in [PHOTO, DRAWING, LETTER] {
        let pixels = Arc::new(decode(file, &Limits::default()).expect("decodes"));
        for (edge, offers) in [
            (9, &[Offer::Webp, Offer::Basic, Offer::Only(Format::Png), Offer::Only(Format::Jpeg)][..]),
            (16, &[Offer::Webp, Offer::Basic, Offer::Only(Format::Png), Offer::Only(Format::Jpeg)]),
            (32, &[Offer::Webp, Offer::Basic]),
            (64, &[Offer::Webp, Offer::Basic]),
        ] {
            for &offer in offers {
                let geometry = Geometry::Scale { width: edge, height: edge };
                jobs.push(Job::Still(pixels.clone(), Recipe { geometry, offer, ..RECIPE }, edge <= 16));
            }
        }
    }
    let photo = Arc::new(decode(PHOTO, &Limits::default()).expect("decodes"));
    jobs.push(Job::Still(photo.clone(), RECIPE, false));
    let tiny = Geometry::Scale { width: 12, height: 12 };
    jobs.push(Job::Still(photo, Recipe { geometry: tiny, offer: Offer::Only(Format::Avif), ..RECIPE }, false));
    let reel = reel();
    for geometry in [Geometry::Keep, tiny] {
        jobs.push(Job::Moving(reel.clone(), Recipe { geometry, offer: Offer::Moving, ..RECIPE }));
    }
    let expected: Vec<_> = jobs.iter().map(|job| (job.first(), job.better())).collect();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (jobs, expected) = (&jobs, &expected);
            scope.spawn(move || {
                // Strides without a factor in common with the number of jobs, so that all come in another order each.
                let stride = [1, 3, 7, 9][thread];
                assert!((1..jobs.len()).all(|n| n * stride % jobs.len() != 0), "each job is reached");
                for round in 0..ROUNDS {
                    let job = (thread + round * stride) % jobs.len();
                    assert_eq!(jobs[job].first(), expected[job].0, "{job}");
                    if round % 50 == thread {
                        assert_eq!(jobs[job].better(), expected[job].1, "{job}");
                    }
                }
            });
        }
    });
}

#[test]
fn a_smooth_slope_is_kept_as_it_is_where_that_is_shortest() {
    let byte = |value: u32| u8::try_from(value).expect("a byte");
    for edge in [32, 64, 128] {
        let pixel = |i: u32| [byte(i % edge * 255 / edge), byte(i / edge * 255 / edge), 128];
        let raster = Raster::opaque(edge, edge, (0..edge * edge).flat_map(pixel).collect());
        let tries = tries(&raster, &RECIPE);
        assert_eq!(tries.best().made, Made::Exact, "{edge}");
        let others = tries.all.iter().filter(|tried| tried.made != Made::Exact && tried.score >= Some(80.0));
        let (best, next) = (tries.best().file.len(), others.map(|tried| tried.file.len()).min().expect("some pass"));
        assert!(best < next && tries.best().score >= Some(99.9), "{edge}: {best} {next}");
        assert_eq!(webp::decode(&tries.best().file, &raster).expect("decodes").samples, raster.samples, "{edge}");
    }
    // Of a photograph it is not even tried.
    let photo = pixels(PHOTO, Geometry::Scale { width: 48, height: 48 });
    assert!(tries(&photo.raster, &RECIPE).all.iter().all(|tried| tried.made != Made::Exact));
}
