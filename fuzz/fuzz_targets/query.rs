//! The query of a picture: what is understood is canonical, whatever the source, and no bytes panic.
#![no_main]

use avatar_proxy::source::{SourceFormat, SourceInfo};
use avatar_proxy::variant::Plan;
use avatar_proxy::variant::negotiation::OfferKind;
use avatar_proxy::variant::query::forwarded_query;
use avatar_proxy::variant::transform::{Sizes, Transform};
use libfuzzer_sys::fuzz_target;

const LARGEST: u32 = 4096;

fuzz_target!(|query: &str| {
    if let Some(forwarded) = forwarded_query(query) {
        assert_eq!(forwarded_query(&forwarded).as_ref(), Some(&forwarded));
    }
    let Ok(parsed) = Transform::parse(query, &Sizes::default()) else { return };
    let seed = query.bytes().fold(1_u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let edge = |bits: u32| bits % LARGEST + 1;
    for animated in [false, true] {
        let source = SourceInfo {
            format: SourceFormat::Gif,
            width: edge(seed),
            height: edge(seed >> 12),
            has_alpha: seed % 2 == 0,
            animated,
        };
        for offer in [OfferKind::Webp, OfferKind::Basic, OfferKind::Original] {
            let plan = parsed.transform.plan(offer, &source);
            assert_eq!(plan, parsed.transform.plan(offer, &source));
            if let Plan::Render(recipe) = plan {
                assert!(recipe.quality.is_none_or(|quality| quality % 5 == 0 && (5..=100).contains(&quality)));
            }
        }
    }
});
