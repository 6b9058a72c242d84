//! The whole way of a picture: decode, resize and encode of the first frame, of all frames where it moves, and the search for
//! fewer bytes where it is tiny. No bytes panic, and what comes out is a picture of the size that was asked for.
#![no_main]

use avatar_proxy::render::{Limits, Pixels, Targets, animate, decode, improve, render, resize};
use avatar_proxy::variant::hints::Hints;
use avatar_proxy::variant::negotiation::OfferKind;
use avatar_proxy::variant::transform::{Sizes, Transform};
use avatar_proxy::variant::{Format, Geometry, Offer, Plain, Plan, Recipe, Variant};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

const LIMITS: Limits = Limits {
    edge: 2048,
    pixels: 1 << 18,
    decoder_memory: 8 << 20,
    frames: 40,
    frame_pixels: 1 << 18,
    animation_time: Duration::from_millis(500),
};

/// Up to so many pixels AVIF is made, which takes three milliseconds for each thousand; and a search, hundreds of encodings.
const AVIF_PIXELS: u32 = 64 * 64;
const SEARCH_PIXELS: u32 = 12 * 12;

fuzz_target!(|bytes: &[u8]| {
    let Ok(pixels) = decode(bytes, &LIMITS) else { return };
    // What is asked is told by the end of the file, behind what decoders read.
    let told: [u8; 3] = std::array::from_fn(|n| bytes.len().checked_sub(n + 1).map_or(0, |at| bytes[at]));
    let recipe = if told[1] < 64 { by_query(told, &pixels) } else { by_parts(told) };
    let Some(recipe) = recipe else { return };
    let size = size(recipe.geometry, &pixels);
    let targets = if told[2] < 128 { Targets::default() } else { Targets { photo: 55.0, flat: f64::from(told[2] / 3) } };
    if makes_avif(recipe.offer) && size.0 * size.1 > AVIF_PIXELS {
        return;
    }
    if recipe.offer != Offer::Moving {
        check(&render(&pixels, &recipe, &targets, bytes.len()).expect("what decodes can be rendered"), size);
        if size.0 * size.1 <= SEARCH_PIXELS {
            let resized = resize(&pixels, recipe.geometry).expect("a size");
            let better = improve(&resized, &recipe, &targets, bytes.len(), &|| true).expect("encodes");
            check(&better.expect("nobody cancels"), size);
        }
    }
    if pixels.info.animated
        && let Ok(moving) = animate(bytes, &Recipe { offer: Offer::Moving, ..recipe }, &targets, &LIMITS)
    {
        check(&moving, size);
    }
});

/// As a request has it, from somebody who saves data.
fn by_query([size, kind, quality]: [u8; 3], pixels: &Pixels) -> Option<Recipe> {
    let mut hints = Hints::default();
    hints.take("save-data", b"on");
    hints.take("sec-ch-dpr", b"2");
    let query = match quality {
        0..128 => format!("size={}&animated={}", size % 64 + 1, kind % 2),
        _ => format!("size={}&quality={}", size % 64 + 1, quality - 127),
    };
    let transform = Transform::parse_hinted(&query, &Sizes::default(), &hints).expect("all in range").transform;
    let kind = match kind % 5 {
        0 => OfferKind::Avif,
        1 => OfferKind::Webp,
        2 => OfferKind::AvifBeside(Plain::Both),
        3 => OfferKind::Only(Format::Avif),
        _ => OfferKind::Basic,
    };
    match transform.plan(kind, &pixels.info) {
        // What is looked at is what is made.
        Plan::Render(recipe) => Some(Recipe { source_may_serve: false, ..recipe }),
        Plan::Untouched => None,
    }
}

fn by_parts([shape, offer, quality]: [u8; 3]) -> Option<Recipe> {
    let geometry = match shape % 5 {
        0 => Geometry::Keep,
        1 => Geometry::Scale { width: 24, height: 16 },
        2 => Geometry::Crop { width: 16, height: 16 },
        3 => Geometry::Scale { width: 11, height: 12 },
        _ => Geometry::Pad { width: 20, height: 24 },
    };
    let offer = match offer % 8 {
        0 => Offer::Webp,
        1 => Offer::Basic,
        2 => Offer::Only(Format::Png),
        3 => Offer::Only(Format::Jpeg),
        4 => Offer::Only(Format::Avif),
        5 => Offer::Only(Format::Webp),
        // Planned for opaque pictures only.
        6 => Offer::Avif,
        _ => Offer::AvifBeside(Plain::Both),
    };
    let quality = (quality % 22).checked_sub(1).map(|steps| (5 * steps).clamp(5, 100));
    Some(Recipe { geometry, offer, quality, background: [quality.unwrap_or(255); 3], source_may_serve: false })
}

fn size(geometry: Geometry, pixels: &Pixels) -> (u32, u32) {
    match geometry {
        Geometry::Keep => (pixels.info.width, pixels.info.height),
        Geometry::Scale { width, height } | Geometry::Crop { width, height } | Geometry::Pad { width, height } => {
            (width, height)
        }
    }
}

fn makes_avif(offer: Offer) -> bool {
    matches!(offer, Offer::Avif | Offer::AvifBeside(_) | Offer::Only(Format::Avif))
}

fn check(variant: &Variant, size: (u32, u32)) {
    let Variant::Encoded(encoded) = variant else { panic!("the source may not serve") };
    if encoded.format == Format::Avif {
        // It is not decoded here; its size stands in a box of its own.
        let at = encoded.bytes.windows(4).position(|kind| kind == b"ispe").expect("its size");
        let edge = |at: usize| u32::from_be_bytes(encoded.bytes[at..at + 4].try_into().expect("four bytes"));
        assert_eq!((edge(at + 8), edge(at + 12)), size);
        return;
    }
    let pixels = decode(&encoded.bytes, &Limits::default()).expect("what we encode decodes");
    assert_eq!((pixels.info.width, pixels.info.height), size);
}
