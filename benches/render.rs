//! What pixels cost: decode, classify, resize, encode in each format, score, search and the whole, by class of picture and edge,
//! beside libwebp alone; and all frames of moving pictures.
//!
//! The pictures are those of `benches/pictures`, and those of the folder that `AVATAR_PROXY_CORPUS` names when it is
//! set. A picture's class is the first word of its name: photo, illu(stration) or letter.

mod corpus;
mod reels;

use avatar_proxy::render::{Limits, Pixels, Targets, animate, decode, encode, improve, render, resize, score};
use avatar_proxy::variant::{Format, Geometry, Offer, Recipe, Variant};
use corpus::{CLASSES, EDGES};
use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use libwebp_sys::{
    WebPConfig, WebPEncode, WebPMemoryWrite, WebPMemoryWriter, WebPMemoryWriterClear, WebPMemoryWriterInit,
    WebPPicture, WebPPictureFree, WebPPictureImportRGBA,
};
use std::hint::black_box;
use std::time::Duration;

criterion_main!(benches);
criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800));
    targets = stages, searches, reels
}

/// What is offered to clients, with a word for it.
const OFFERS: [(&str, Offer); 4] = [
    ("webp", Offer::Webp),
    ("png", Offer::Only(Format::Png)),
    ("jpeg", Offer::Only(Format::Jpeg)),
    ("avif", Offer::Only(Format::Avif)),
];

/// The stages in the order of a request, and the yardstick.
fn stages(criterion: &mut Criterion) {
    for class in CLASSES {
        let files: Vec<Vec<u8>> = corpus::files(class).into_values().collect();
        let sources: Vec<Pixels> = files.iter().map(|file| decoded(file)).collect();
        criterion
            .bench_function(&format!("decode/{class}/128"), |bencher| round(bencher, &files, |file| decoded(file)));
        let (recipe, targets) = (corpus::recipe(128, Offer::Webp), Targets::default());
        criterion.bench_function(&format!("classify/{class}/128"), |bencher| {
            round(bencher, &sources, |source| targets.asked(source, &recipe));
        });
        for edge in EDGES {
            let geometry = Geometry::Scale { width: edge, height: edge };
            let recipe = corpus::recipe(edge, Offer::Webp);
            let small: Vec<Pixels> = sources.iter().map(|source| resized(source, geometry)).collect();
            let plain: Vec<Vec<u8>> = small.iter().map(|pixels| rgba(pixels, edge)).collect();
            criterion.bench_function(&format!("resize/{class}/{edge}"), |bencher| {
                round(bencher, &sources, |source| resized(source, geometry));
            });
            for (name, offer) in OFFERS {
                let recipe = corpus::recipe(edge, offer);
                criterion.bench_function(&format!("encode/{class}/{edge}/{name}"), |bencher| {
                    round(bencher, &small, |pixels| encode(pixels, &recipe, &targets, 0).expect("encodes"));
                });
            }
            criterion.bench_function(&format!("score/{class}/{edge}"), |bencher| {
                round(bencher, &small, |pixels| score(pixels, pixels).expect("it is small"));
            });
            criterion.bench_function(&format!("whole/{class}/{edge}"), |bencher| {
                round(bencher, &files, |file| render(&decoded(file), &recipe, &targets, 0).expect("encodes"));
            });
            // What is sent to who names no format; and until AVIF is found: below, nobody is offered it.
            let others = [("basic", Offer::Basic), ("avif", Offer::Avif)];
            for (name, offer) in others.into_iter().filter(|(_, offer)| *offer != Offer::Avif || edge >= 96) {
                let recipe = corpus::recipe(edge, offer);
                criterion.bench_function(&format!("whole/{class}/{edge}/{name}"), |bencher| {
                    round(bencher, &files, |file| render(&decoded(file), &recipe, &targets, 0).expect("encodes"));
                });
            }
            criterion.bench_function(&format!("libwebp_alone/{class}/{edge}"), |bencher| {
                round(bencher, &plain, |pixels| libwebp_alone(pixels, edge));
            });
        }
    }
}

/// The improvement of a variant, for clients that take WebP, AVIF too, and neither.
fn searches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("search");
    group.sample_size(10);
    for class in CLASSES {
        let files = corpus::files(class);
        let sources: Vec<Pixels> = files.values().map(|file| decoded(file)).collect();
        for edge in EDGES {
            let offers = [("webp", Offer::Webp), ("basic", Offer::Basic), ("avif", Offer::Avif)];
            // Below, nobody is offered AVIF.
            for (name, offer) in offers.into_iter().filter(|(_, offer)| *offer != Offer::Avif || edge >= 96) {
                let recipe = corpus::recipe(edge, offer);
                let small: Vec<Pixels> = sources.iter().map(|source| resized(source, recipe.geometry)).collect();
                group.bench_function(format!("{class}/{edge}/{name}"), |bencher| {
                    round(bencher, &small, |pixels| improve(pixels, &recipe, &Targets::default(), 0, &|| true));
                });
            }
        }
    }
}

/// All frames of ten moving GIFs, as they are and at the size of an emoji.
fn reels(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("animate");
    group.sample_size(10);
    let reels = reels::all();
    for (name, geometry) in [("whole", Geometry::Keep), ("32", Geometry::Scale { width: 32, height: 32 })] {
        let recipe = Recipe { geometry, ..corpus::recipe(32, Offer::Moving) };
        group.bench_function(name, |bencher| {
            round(bencher, &reels, |(_, gif)| {
                animate(gif, &recipe, &Targets::default(), &Limits::default()).expect("within the limits")
            });
        });
    }
}

/// Goes round `inputs`, one an iteration, so that the time is a mean over them.
fn round<I, O>(bencher: &mut Bencher<'_>, inputs: &[I], work: impl Fn(&I) -> O) {
    let mut next = inputs.iter().cycle();
    bencher.iter(|| black_box(work(next.next().expect("a class has pictures"))));
}

fn decoded(file: &[u8]) -> Pixels {
    decode(file, &Limits::default()).expect("a picture of the corpus decodes")
}

fn resized(source: &Pixels, geometry: Geometry) -> Pixels {
    resize(source, geometry).expect("a size").into_owned()
}

/// The samples of `pixels`, brought out of the library by way of a PNG of exact colours.
fn rgba(pixels: &Pixels, edge: u32) -> Vec<u8> {
    let exact = Recipe { quality: Some(100), ..corpus::recipe(edge, Offer::Only(Format::Png)) };
    let made = encode(pixels, &exact, &Targets::default(), 0).expect("encodes");
    let Variant::Encoded(file) = made else { unreachable!("no source offered") };
    image::load_from_memory(&file.bytes).expect("decodes").into_rgba8().into_raw()
}

/// libwebp as others call it: method 4, quality 80, the rest as it comes. Gives the length of the file.
#[expect(unsafe_code, reason = "the yardstick is libwebp without anything of ours around it")]
fn libwebp_alone(rgba: &[u8], edge: u32) -> usize {
    let edge = i32::try_from(edge).expect("a small edge");
    let mut config = WebPConfig::new().expect("libwebp of this version");
    config.quality = 80.0;
    config.method = 4;
    let mut picture = WebPPicture::new().expect("libwebp of this version");
    picture.width = edge;
    picture.height = edge;
    let mut writer = std::mem::MaybeUninit::<WebPMemoryWriter>::uninit();
    // SAFETY: everything is initialised before it is used, `rgba` holds edge * edge pixels of four bytes, the writer
    // outlives the encoding, and both are freed once.
    unsafe {
        WebPMemoryWriterInit(writer.as_mut_ptr());
        picture.writer = Some(WebPMemoryWrite);
        picture.custom_ptr = writer.as_mut_ptr().cast();
        assert_ne!(WebPPictureImportRGBA(&raw mut picture, rgba.as_ptr(), edge * 4), 0);
        assert_ne!(WebPEncode(&raw const config, &raw mut picture), 0);
        let length = writer.assume_init_ref().size;
        WebPPictureFree(&raw mut picture);
        WebPMemoryWriterClear(writer.as_mut_ptr());
        length
    }
}
