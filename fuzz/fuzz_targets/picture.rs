//! The whole way of a picture: decode, resize and encode of the first frame, and of all frames where it moves. No bytes
//! panic, and what comes out is a picture of the size that was asked for.
#![no_main]

use avatar_proxy::render::{Limits, animate, decode, render};
use avatar_proxy::variant::{Format, Geometry, Offer, Recipe, Variant};
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

fuzz_target!(|bytes: &[u8]| {
    let Ok(pixels) = decode(bytes, &LIMITS) else { return };
    let last = bytes.last().copied().unwrap_or_default();
    let geometry = match last % 4 {
        0 => Geometry::Keep,
        1 => Geometry::Scale { width: 24, height: 16 },
        2 => Geometry::Crop { width: 16, height: 16 },
        _ => Geometry::Pad { width: 20, height: 24 },
    };
    let offer = match last / 4 % 4 {
        0 => Offer::Webp,
        1 => Offer::Basic,
        2 => Offer::Only(Format::Png),
        _ => Offer::Only(Format::Jpeg),
    };
    let recipe = Recipe { geometry, offer, quality: None, background: [255; 3], source_may_serve: false };
    let size = match geometry {
        Geometry::Keep => (pixels.info.width, pixels.info.height),
        Geometry::Scale { width, height } | Geometry::Crop { width, height } | Geometry::Pad { width, height } => {
            (width, height)
        }
    };
    check(&render(&pixels, &recipe, bytes.len()).expect("what decodes can be rendered"), size);
    if pixels.info.animated
        && let Ok(moving) = animate(bytes, &Recipe { offer: Offer::Moving, ..recipe }, &LIMITS)
    {
        check(&moving, size);
    }
});

fn check(variant: &Variant, size: (u32, u32)) {
    let Variant::Encoded(encoded) = variant else { panic!("the source may not serve") };
    let pixels = decode(&encoded.bytes, &Limits::default()).expect("what we encode decodes");
    assert_eq!((pixels.info.width, pixels.info.height), size);
}
