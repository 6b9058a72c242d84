//! A transform meets its source: the pixel size that comes of it, never above the source, and the recipe, in which
//! whatever cannot change the bytes is made equal.

use super::negotiation::OfferKind;
use super::transform::{Edges, Fit, Transform, WHITE};
use super::{Format, Geometry, Offer, Plain, Plan, Recipe};
use crate::source::{SourceFormat, SourceInfo};
use std::cmp::Ordering;
use std::ops::RangeInclusive;

/// The pixels at which a picture may be smaller as AVIF, within a time that can be spent: below, its headers outweigh what
/// it saves; above, one takes seconds. Nor does it pay with alpha, which takes a second picture.
const AVIF_PAYS: RangeInclusive<u64> = 96 * 96..=256 * 256;

impl Transform {
    /// What to send of `source` to a client to which `offer` may be made.
    ///
    /// With `format=original` a source is left alone unless its size or quality has to change.
    #[must_use]
    pub fn plan(&self, offer: OfferKind, source: &SourceInfo) -> Plan {
        let geometry = geometry(self.edges, source);
        let changes = geometry != Geometry::Keep || self.quality.is_some();
        let stilled = source.animated && self.animated == Some(false);
        if offer == OfferKind::Original && !changes && !stilled {
            return Plan::Untouched;
        }
        if source.animated && self.animated == Some(true) {
            return self.plan_moving(geometry, offer, source);
        }
        Plan::Render(self.recipe(geometry, offer, source))
    }

    /// Frames are only ever encoded as WebP. Whom that does not suit gets the source as it is, whatever size was asked for,
    /// or the first frame where the source would not be shown either.
    fn plan_moving(&self, geometry: Geometry, kind: OfferKind, source: &SourceInfo) -> Plan {
        let is_webp = source.format == SourceFormat::Webp;
        let source_suits = match kind {
            OfferKind::Avif | OfferKind::Webp => true,
            OfferKind::Only(Format::Webp) => is_webp,
            OfferKind::Original if is_webp => true,
            OfferKind::Basic | OfferKind::AvifBeside(_) | OfferKind::Alone(_) | OfferKind::Original if !is_webp => {
                return Plan::Untouched;
            }
            OfferKind::Basic
            | OfferKind::AvifBeside(_)
            | OfferKind::Alone(_)
            | OfferKind::Original
            | OfferKind::Only(_) => {
                return Plan::Render(self.recipe(geometry, kind, source));
            }
        };
        Plan::Render(Recipe {
            geometry,
            offer: Offer::Moving,
            quality: self.quality,
            background: WHITE,
            source_may_serve: source_suits && keeps_aspect(geometry, source),
        })
    }

    fn recipe(&self, geometry: Geometry, kind: OfferKind, source: &SourceInfo) -> Recipe {
        let transparent = source.has_alpha || matches!(geometry, Geometry::Pad { .. });
        let avif_suits = !transparent && AVIF_PAYS.contains(&pixels(geometry, source));
        let offer = match kind {
            OfferKind::Avif if avif_suits => Offer::Avif,
            OfferKind::AvifBeside(plain) if avif_suits => Offer::AvifBeside(plain),
            OfferKind::AvifBeside(plain) => plain.offer(),
            OfferKind::Only(Format::Avif) if pixels(geometry, source) > *AVIF_PAYS.end() => Offer::Webp,
            OfferKind::Avif | OfferKind::Webp => Offer::Webp,
            OfferKind::Basic => Offer::Basic,
            OfferKind::Only(format) | OfferKind::Alone(format) => Offer::Only(format),
            OfferKind::Original => Offer::Only(own_format(source.format)),
        };
        let flattened = transparent && offer == Offer::Only(Format::Jpeg);
        Recipe {
            geometry,
            offer,
            quality: self.quality,
            background: if flattened { self.background } else { WHITE },
            source_may_serve: shows_the_source(kind, source) && keeps_aspect(geometry, source),
        }
    }
}

/// The pixels of `geometry`.
fn pixels(geometry: Geometry, source: &SourceInfo) -> u64 {
    let (width, height) = match geometry {
        Geometry::Keep => (source.width, source.height),
        Geometry::Scale { width, height } | Geometry::Crop { width, height } | Geometry::Pad { width, height } => {
            (width, height)
        }
    };
    u64::from(width) * u64::from(height)
}

/// The format that stands for the source's own; nobody needs a GIF of one frame.
const fn own_format(format: SourceFormat) -> Format {
    match format {
        SourceFormat::Png | SourceFormat::Gif => Format::Png,
        SourceFormat::Jpeg => Format::Jpeg,
        SourceFormat::Webp => Format::Webp,
    }
}

/// Whether the source as it is would be an answer: any client shows a still PNG, JPEG or GIF, unless it says that it takes
/// one of them alone; an explicit `format=` is kept to.
fn shows_the_source(kind: OfferKind, source: &SourceInfo) -> bool {
    let known = match kind {
        OfferKind::Avif | OfferKind::Webp | OfferKind::Original => true,
        OfferKind::Basic | OfferKind::AvifBeside(Plain::Both) => source.format != SourceFormat::Webp,
        OfferKind::AvifBeside(Plain::Png) => source.format == SourceFormat::Png,
        OfferKind::AvifBeside(Plain::Jpeg) => source.format == SourceFormat::Jpeg,
        OfferKind::Only(format) | OfferKind::Alone(format) => {
            source.format != SourceFormat::Gif && own_format(source.format) == format
        }
    };
    known && !source.animated
}

/// Whether the whole picture is shown with its aspect ratio, up to the rounding of one edge.
fn keeps_aspect(geometry: Geometry, source: &SourceInfo) -> bool {
    match geometry {
        Geometry::Keep => true,
        Geometry::Scale { width, height } => {
            (width, height) == by_width(source, width) || (width, height) == by_height(source, height)
        }
        Geometry::Crop { .. } | Geometry::Pad { .. } => false,
    }
}

fn geometry(edges: Edges, source: &SourceInfo) -> Geometry {
    match edges {
        Edges::Source => Geometry::Keep,
        Edges::Width(width) => scale(by_width(source, width), source),
        Edges::Height(height) => scale(by_height(source, height), source),
        Edges::Box { width, height, fit } => match fit {
            Fit::Cover => cover(width, height, source),
            Fit::Contain => contain(width, height, source),
            Fit::Inside => scale(inside(width, height, source), source),
            Fit::Outside => scale(outside(width, height, source), source),
            Fit::Fill => scale((width.min(source.width), height.min(source.height)), source),
        },
    }
}

/// The box shrinks with its own aspect ratio until the source covers it.
fn cover(width: u32, height: u32, source: &SourceInfo) -> Geometry {
    let same_aspect = compare_aspects(width, height, source).is_eq();
    let (width, height) = if width <= source.width && height <= source.height {
        (width, height)
    } else if compare_aspects(width, height, source).is_ge() {
        (source.width, proportion(height, source.width, width))
    } else {
        (proportion(width, source.height, height), source.height)
    };
    if same_aspect || (width, height) == (source.width, source.height) {
        scale((width, height), source)
    } else {
        Geometry::Crop { width, height }
    }
}

/// The most pixels of a frame that is larger than its source: 1024 x 1024. What is added to a sliver is nothing to be seen, and
/// would take a thousand times its memory.
const FRAME_PIXELS: u64 = 1 << 20;

/// The box shrinks with its own aspect ratio until the source reaches two of its sides, and further until it is no larger
/// than [`FRAME_PIXELS`] or the source.
fn contain(width: u32, height: u32, source: &SourceInfo) -> Geometry {
    let (width, height) = if width <= source.width || height <= source.height {
        (width, height)
    } else if compare_aspects(width, height, source).is_le() {
        (source.width, proportion(height, source.width, width))
    } else {
        (proportion(width, source.height, height), source.height)
    };
    let (width, height) = within(width, height, FRAME_PIXELS.max(pixels(Geometry::Keep, source)));
    if inside(width, height, source) == (width, height) {
        scale((width, height), source)
    } else {
        Geometry::Pad { width, height }
    }
}

/// A box of about the same aspect ratio and at most so many pixels.
fn within(width: u32, height: u32, pixels: u64) -> (u32, u32) {
    let (wide, high) = (u64::from(width), u64::from(height));
    if wide * high <= pixels {
        return (width, height);
    }
    let narrowed = (pixels * wide / high.max(1)).isqrt().clamp(1, wide.max(1));
    let lowered = (pixels / narrowed).clamp(1, high.max(1));
    let edge = |edge: u64| u32::try_from(edge).expect("no longer than it was");
    (edge(narrowed), edge(lowered))
}

fn inside(width: u32, height: u32, source: &SourceInfo) -> (u32, u32) {
    let width_decides = compare_aspects(width, height, source).is_le();
    if width_decides { by_width(source, width) } else { by_height(source, height) }
}

fn outside(width: u32, height: u32, source: &SourceInfo) -> (u32, u32) {
    let width_decides = compare_aspects(width, height, source).is_ge();
    if width_decides { by_width(source, width) } else { by_height(source, height) }
}

/// Whether the box is relatively wider than the source (`Greater`) or taller (`Less`), without rounding.
fn compare_aspects(width: u32, height: u32, source: &SourceInfo) -> Ordering {
    (u64::from(width) * u64::from(source.height)).cmp(&(u64::from(height) * u64::from(source.width)))
}

fn by_width(source: &SourceInfo, width: u32) -> (u32, u32) {
    let width = width.min(source.width);
    (width, proportion(source.height, width, source.width))
}

fn by_height(source: &SourceInfo, height: u32) -> (u32, u32) {
    let height = height.min(source.height);
    (proportion(source.width, height, source.height), height)
}

/// `edge * part / whole` for a part that is not above the whole, rounded to the nearest pixel and at least one.
fn proportion(edge: u32, part: u32, whole: u32) -> u32 {
    let whole = u64::from(whole.max(1));
    let rounded = (u64::from(edge) * u64::from(part) + whole / 2) / whole;
    u32::try_from(rounded).expect("a part of an edge is no longer than the edge").max(1)
}

/// The whole picture at this size, which is no change when it is the size of the source.
fn scale((width, height): (u32, u32), source: &SourceInfo) -> Geometry {
    if (width, height) == (source.width, source.height) { Geometry::Keep } else { Geometry::Scale { width, height } }
}

#[cfg(test)]
mod tests {
    use super::super::transform::Sizes;
    use super::super::transform::tests::transform;
    use super::*;
    use Geometry::{Crop, Keep, Pad, Scale};
    use proptest::prelude::*;

    const STILL: SourceInfo =
        SourceInfo { format: SourceFormat::Png, width: 128, height: 128, has_alpha: false, animated: false };
    const MOVING: SourceInfo = SourceInfo { format: SourceFormat::Gif, animated: true, ..STILL };

    fn recipe(query: &str, offer: OfferKind, source: SourceInfo) -> Recipe {
        match transform(query).plan(offer, &source) {
            Plan::Render(recipe) => recipe,
            Plan::Untouched => panic!("{query} leaves {source:?} untouched"),
        }
    }

    fn check(query: &str, width: u32, height: u32, geometry: Geometry) {
        let source = SourceInfo { width, height, ..STILL };
        assert_eq!(recipe(query, OfferKind::Basic, source).geometry, geometry, "{query} of {width}x{height}");
    }

    #[test]
    fn a_size_is_rounded_up_and_never_enlarges() {
        check("", 128, 128, Keep);
        check("size=128", 128, 128, Keep);
        check("size=4096", 128, 128, Keep);
        check("size=256", 128, 128, Keep);
        check("size=100", 128, 128, Keep);
        check("size=30", 128, 128, Scale { width: 32, height: 32 });
        check("size=32&dpr=1.5", 128, 128, Scale { width: 48, height: 48 });
        check("size=1", 128, 128, Scale { width: 16, height: 16 });
        check("size=512", 1000, 1000, Scale { width: 256, height: 256 });
        check("size=64", 50, 50, Keep);
        check("size=32", 1, 1, Keep);
    }

    #[test]
    fn one_edge_is_followed_by_the_other() {
        check("w=64", 128, 96, Scale { width: 64, height: 48 });
        check("h=48&fit=fill", 128, 96, Scale { width: 64, height: 48 });
        check("w=256", 128, 96, Keep);
        check("w=50", 100, 67, Scale { width: 64, height: 43 });
        check("w=16", 4000, 1, Scale { width: 16, height: 1 });
        check("h=16", 1, 4000, Scale { width: 1, height: 16 });
    }

    #[test]
    fn cover_crops_and_shrinks_its_box() {
        check("size=64", 200, 100, Crop { width: 64, height: 64 });
        check("size=128", 200, 100, Crop { width: 100, height: 100 });
        check("w=64&h=32", 200, 100, Scale { width: 64, height: 32 });
        check("w=256&h=128", 200, 100, Keep);
        check("w=64&h=32", 50, 50, Crop { width: 50, height: 25 });
        check("w=32&h=64", 50, 50, Crop { width: 25, height: 50 });
        check("w=256&h=192", 41, 31, Keep);
        check("size=32", 4000, 1, Crop { width: 1, height: 1 });
    }

    #[test]
    fn contain_pads_and_shrinks_its_box() {
        check("size=64&fit=contain", 128, 64, Pad { width: 64, height: 64 });
        check("size=128&fit=contain", 100, 50, Pad { width: 100, height: 100 });
        check("size=128&fit=contain", 50, 100, Pad { width: 100, height: 100 });
        check("size=64&fit=contain", 128, 128, Scale { width: 64, height: 64 });
        check("size=256&fit=contain", 100, 100, Keep);
        check("w=64&h=16&fit=contain", 32, 32, Pad { width: 64, height: 16 });
        check("w=48&h=32&fit=contain", 100, 67, Scale { width: 48, height: 32 });
    }

    #[test]
    fn a_frame_does_not_grow_a_sliver() {
        for ((width, height), (source_width, source_height), frame) in [
            ((4096, 4096), (4096, 1), (1024, 1024)),
            ((4096, 4096), (1, 4096), (1024, 1024)),
            ((4096, 1024), (4096, 8), (2048, 512)),
            ((1024, 1024), (1024, 3), (1024, 1024)),
            ((4096, 4096), (4096, 1000), (2023, 2024)),
            ((4096, 16), (4096, 16), (4096, 16)),
        ] {
            let source = SourceInfo { width: source_width, height: source_height, ..STILL };
            let found = match contain(width, height, &source) {
                Pad { width, height } | Scale { width, height } => (width, height),
                Keep => (source.width, source.height),
                Crop { .. } => panic!("nothing is cut off"),
            };
            assert_eq!(found, frame, "{width} x {height} of {source_width} x {source_height}");
        }
    }

    #[test]
    fn the_other_fits_show_the_whole_picture() {
        check("w=64&h=64&fit=inside", 200, 100, Scale { width: 64, height: 32 });
        check("w=64&h=16&fit=inside", 200, 100, Scale { width: 32, height: 16 });
        check("size=256&method=scale", 200, 100, Keep);
        check("w=64&h=64&fit=outside", 200, 100, Scale { width: 128, height: 64 });
        check("w=192&h=16&fit=outside", 200, 100, Scale { width: 192, height: 96 });
        check("w=16&h=128&fit=outside", 200, 100, Keep);
        check("w=64&h=128&fit=fill", 200, 100, Scale { width: 64, height: 100 });
        check("w=256&h=128&fit=fill", 200, 100, Keep);
    }

    #[test]
    fn an_animated_source_is_stilled_unless_it_is_to_move() {
        for query in ["", "animated=false", "size=128", "size=32", "q=80"] {
            for offer in [OfferKind::Webp, OfferKind::Basic, OfferKind::Only(Format::Webp)] {
                let recipe = recipe(query, offer, MOVING);
                assert!(recipe.offer != Offer::Moving && !recipe.source_may_serve, "{query} {offer:?}");
            }
        }
        for (query, format) in [("f=png", Format::Png), ("f=avif", Format::Avif)] {
            let stilled = recipe(query, OfferKind::Only(format), MOVING);
            assert_eq!((stilled.geometry, stilled.offer), (Keep, Offer::Only(format)), "{query}");
        }
        assert_eq!(transform("f=original").plan(OfferKind::Original, &MOVING), Plan::Untouched);
        let stilled = recipe("f=original&animated=0", OfferKind::Original, MOVING);
        assert_eq!((stilled.geometry, stilled.offer), (Keep, Offer::Only(Format::Png)));
    }

    #[test]
    fn what_moves_is_webp_or_the_source() {
        let webp = SourceInfo { format: SourceFormat::Webp, ..MOVING };
        let png = SourceInfo { format: SourceFormat::Png, ..MOVING };
        let (jpeg, only) = (OfferKind::Alone(Format::Jpeg), OfferKind::Only(Format::Webp));
        let small = Scale { width: 32, height: 32 };
        let check = |query: &str, offer, source, want: Option<(Offer, Geometry, bool)>| {
            let plan = transform(&format!("animated=1&{query}")).plan(offer, &source);
            let got = match plan {
                Plan::Untouched => None,
                Plan::Render(recipe) => Some((recipe.offer, recipe.geometry, recipe.source_may_serve)),
            };
            assert_eq!(got, want, "{query} {offer:?} {source:?}");
        };
        for source in [MOVING, png, webp] {
            check("", OfferKind::Webp, source, Some((Offer::Moving, Keep, true)));
            check("size=32", OfferKind::Webp, source, Some((Offer::Moving, small, true)));
            check("size=32&bg=000000", only, source, Some((Offer::Moving, small, source == webp)));
            check("", OfferKind::Original, source, None);
            check("f=png", OfferKind::Only(Format::Png), source, Some((Offer::Only(Format::Png), Keep, false)));
        }
        let cut = Some((Offer::Moving, Crop { width: 32, height: 64 }, false));
        check("w=32&h=64", OfferKind::Webp, MOVING, cut);
        for (query, source) in [("", MOVING), ("size=32", MOVING), ("q=50", png)] {
            check(query, OfferKind::Basic, source, None);
            check(query, jpeg, source, None);
            check(query, OfferKind::AvifBeside(Plain::Both), source, None);
            check(query, OfferKind::Original, source, None);
        }
        check("", OfferKind::AvifBeside(Plain::Both), webp, Some((Offer::AvifBeside(Plain::Both), Keep, false)));
        check("", OfferKind::Basic, webp, Some((Offer::Basic, Keep, false)));
        check("size=32", jpeg, webp, Some((Offer::Only(Format::Jpeg), small, false)));
        check("size=32", OfferKind::Original, webp, Some((Offer::Moving, small, true)));
        // What does not move is as if nothing had been said.
        assert_eq!(transform("animated=1").plan(OfferKind::Webp, &STILL), transform("").plan(OfferKind::Webp, &STILL));
    }

    #[test]
    fn the_original_format_is_kept() {
        for query in ["f=original", "f=original&size=128", "f=original&size=256&fit=fill", "f=original&animated=0"] {
            assert_eq!(transform(query).plan(OfferKind::Original, &STILL), Plan::Untouched, "{query}");
        }
        for (format, own) in [
            (SourceFormat::Png, Format::Png),
            (SourceFormat::Gif, Format::Png),
            (SourceFormat::Jpeg, Format::Jpeg),
            (SourceFormat::Webp, Format::Webp),
        ] {
            for query in ["f=original&size=32", "f=original&q=50"] {
                let recipe = recipe(query, OfferKind::Original, SourceInfo { format, ..STILL });
                assert_eq!((recipe.offer, recipe.source_may_serve), (Offer::Only(own), true), "{query}");
            }
        }
    }

    #[test]
    fn the_source_serves_whoever_can_show_it() {
        let webp = SourceInfo { format: SourceFormat::Webp, ..STILL };
        let flat = SourceInfo { width: 128, height: 67, ..STILL };
        for (query, offer, source, may_serve) in [
            ("", OfferKind::Basic, STILL, true),
            ("", OfferKind::Webp, STILL, true),
            ("", OfferKind::Webp, webp, true),
            ("", OfferKind::Basic, webp, false),
            ("size=32", OfferKind::Basic, STILL, true),
            ("size=32", OfferKind::Basic, flat, false),
            ("w=32", OfferKind::Basic, flat, true),
            ("size=32&fit=inside", OfferKind::Basic, flat, true),
            ("size=32&fit=contain", OfferKind::Basic, flat, false),
            ("size=32&fit=fill", OfferKind::Basic, flat, false),
            ("", OfferKind::Alone(Format::Jpeg), STILL, false),
            ("", OfferKind::Alone(Format::Png), STILL, true),
            ("", OfferKind::Alone(Format::Png), SourceInfo { format: SourceFormat::Jpeg, ..STILL }, false),
            ("", OfferKind::Alone(Format::Png), SourceInfo { format: SourceFormat::Gif, ..STILL }, false),
            ("", OfferKind::Alone(Format::Jpeg), webp, false),
            ("f=png", OfferKind::Only(Format::Png), STILL, true),
            ("f=webp", OfferKind::Only(Format::Webp), STILL, false),
            ("f=avif", OfferKind::Only(Format::Avif), STILL, false),
            ("", OfferKind::Avif, webp, true),
            ("", OfferKind::AvifBeside(Plain::Both), STILL, true),
            ("", OfferKind::AvifBeside(Plain::Both), webp, false),
            ("", OfferKind::AvifBeside(Plain::Png), STILL, true),
            ("", OfferKind::AvifBeside(Plain::Jpeg), STILL, false),
            ("", OfferKind::AvifBeside(Plain::Png), webp, false),
            ("f=png", OfferKind::Only(Format::Png), SourceInfo { format: SourceFormat::Gif, ..STILL }, false),
        ] {
            assert_eq!(recipe(query, offer, source).source_may_serve, may_serve, "{query} {offer:?} {source:?}");
        }
    }

    #[test]
    fn avif_is_for_opaque_pictures_of_some_size() {
        const BESIDE: OfferKind = OfferKind::AvifBeside(Plain::Both);
        let source = SourceInfo { width: 300, height: 300, ..STILL };
        let alpha = SourceInfo { has_alpha: true, ..source };
        let wide = SourceInfo { width: 1000, height: 50, ..STILL };
        let avif = OfferKind::Only(Format::Avif);
        for (query, kind, source, offer) in [
            ("size=96", OfferKind::Avif, source, Offer::Avif),
            ("size=256", OfferKind::Avif, source, Offer::Avif),
            ("", OfferKind::Avif, STILL, Offer::Avif),
            ("", OfferKind::Avif, wide, Offer::Avif),
            ("size=72", OfferKind::Avif, source, Offer::Webp),
            ("w=96&h=72", OfferKind::Avif, source, Offer::Webp),
            ("", OfferKind::Avif, source, Offer::Webp),
            ("size=128", OfferKind::Avif, alpha, Offer::Webp),
            ("size=128&fit=contain", OfferKind::Avif, SourceInfo { height: 200, ..source }, Offer::Webp),
            ("size=128", OfferKind::Webp, source, Offer::Webp),
            ("size=96", BESIDE, source, Offer::AvifBeside(Plain::Both)),
            ("size=128", OfferKind::AvifBeside(Plain::Jpeg), source, Offer::AvifBeside(Plain::Jpeg)),
            ("size=72", BESIDE, source, Offer::Basic),
            ("", BESIDE, source, Offer::Basic),
            ("size=128", BESIDE, alpha, Offer::Basic),
            ("size=72", OfferKind::AvifBeside(Plain::Png), source, Offer::Only(Format::Png)),
            ("size=72", OfferKind::AvifBeside(Plain::Jpeg), source, Offer::Only(Format::Jpeg)),
            // Who asked for it gets it, unless it would take seconds.
            ("size=16&format=avif", avif, source, Offer::Only(Format::Avif)),
            ("size=128&format=avif", avif, alpha, Offer::Only(Format::Avif)),
            ("format=avif", avif, source, Offer::Webp),
        ] {
            let key = recipe(query, kind, source);
            assert_eq!(key.offer, offer, "{query} {kind:?} {source:?}");
            // Nothing is stored twice: what becomes WebP, PNG or JPEG is what a client without AVIF gets.
            for (with, without, offered) in [
                (OfferKind::Avif, OfferKind::Webp, Offer::Webp),
                (BESIDE, OfferKind::Basic, Offer::Basic),
                (OfferKind::AvifBeside(Plain::Png), OfferKind::Alone(Format::Png), Offer::Only(Format::Png)),
            ] {
                if (kind, offer) == (with, offered) {
                    assert_eq!(key, recipe(query, without, source), "{query}");
                }
            }
        }
    }

    #[test]
    fn a_background_is_kept_only_where_it_shows() {
        let alpha = SourceInfo { has_alpha: true, ..STILL };
        let flat = SourceInfo { height: 64, ..STILL };
        let jpeg = OfferKind::Only(Format::Jpeg);
        for (query, offer, source, background) in [
            ("bg=102030", jpeg, alpha, [16, 32, 48]),
            ("bg=102030", jpeg, STILL, WHITE),
            ("bg=102030&size=32", jpeg, flat, WHITE),
            ("bg=102030&size=32&fit=contain", jpeg, flat, [16, 32, 48]),
            ("bg=102030", OfferKind::Only(Format::Png), alpha, WHITE),
            ("bg=102030", OfferKind::Basic, alpha, WHITE),
        ] {
            assert_eq!(recipe(query, offer, source).background, background, "{query} {offer:?}");
        }
    }

    fn edges() -> impl Strategy<Value = String> {
        let fit = prop::sample::select(vec!["cover", "contain", "inside", "outside", "fill"]);
        let (width, height) = (prop::option::of(1..600_u32), prop::option::of(1..600_u32));
        (width, height, fit, 5..40_u32).prop_map(|(width, height, fit, dpr)| {
            let edge = |name: &str, edge: Option<u32>| edge.map_or(String::new(), |edge| format!("&{name}={edge}"));
            format!("fit={fit}&dpr={}.{}{}{}", dpr / 10, dpr % 10, edge("w", width), edge("h", height))
        })
    }

    proptest! {
        #[test]
        fn nothing_is_enlarged_and_no_edge_is_lost(query in edges(), width in 1..700_u32, height in 1..700_u32) {
            let source = SourceInfo { width, height, ..STILL };
            let sizes = Sizes::default();
            match recipe(&query, OfferKind::Basic, source).geometry {
                Keep => {}
                Scale { width: w, height: h } | Crop { width: w, height: h } => {
                    prop_assert!((1..=width).contains(&w) && (1..=height).contains(&h));
                    prop_assert!((w, h) != (width, height));
                    // A uniform or shrunken box has at least one edge of the list or of the source.
                    let known = |edge: &u32| sizes.as_slice().contains(edge) || [width, height].contains(edge);
                    prop_assert!(known(&w) || known(&h));
                }
                Pad { width: w, height: h } => {
                    prop_assert!(w >= 1 && h >= 1);
                    prop_assert!(w <= width || h <= height);
                }
            }
        }

        #[test]
        fn a_zero_sized_source_does_not_panic(query in edges(), width in 0..2_u32, height in 0..2_u32) {
            let _ = transform(&query).plan(OfferKind::Basic, &SourceInfo { width, height, ..STILL });
        }

        #[test]
        fn asking_for_the_size_that_it_has_asks_nothing(has_alpha in any::<bool>(), webp in any::<bool>()) {
            let source = SourceInfo { has_alpha, ..STILL };
            let offer = if webp { OfferKind::Webp } else { OfferKind::Basic };
            prop_assert_eq!(transform("size=128").plan(offer, &source), transform("").plan(offer, &source));
        }
    }
}
