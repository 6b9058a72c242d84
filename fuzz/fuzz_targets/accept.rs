//! `Accept` and `User-Agent`: no bytes panic, and neither WebP nor AVIF is offered where nothing names it or the configuration
//! does not have it.
#![no_main]

use avatar_proxy::variant::Format;
use avatar_proxy::variant::negotiation::{OfferKind, Settings, negotiate};
use avatar_proxy::variant::transform::RequestedFormat;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let (agent, accept) = lines.split_first().expect("a split has a part");
    for formats in [&[Format::Avif, Format::Webp][..], &[Format::Avif], &[Format::Webp], &[]] {
        check(agent, accept, &Settings { formats: formats.to_vec(), ..Settings::default() });
    }
});

fn check(agent: &[u8], accept: &[&[u8]], settings: &Settings) {
    let negotiated = negotiate(RequestedFormat::Auto, accept.iter().copied(), Some(agent), settings);
    let has_row = |format| {
        let mut rows = settings.user_agents.iter();
        rows.any(|(prefix, formats)| agent.starts_with(prefix.as_bytes()) && formats.contains(&format))
    };
    let may = |format: Format| {
        let name = format.media_type().as_bytes();
        let named =
            accept.iter().any(|line| line.windows(name.len()).any(|word| word.eq_ignore_ascii_case(name)));
        settings.formats.contains(&format) && (named || has_row(format))
    };
    let (avif, webp) = match negotiated.offer {
        OfferKind::Avif => (true, true),
        OfferKind::AvifBeside(_) => (true, false),
        OfferKind::Webp => (false, true),
        OfferKind::Basic | OfferKind::Alone(_) => (false, false),
        OfferKind::Only(_) | OfferKind::Original => panic!("nobody asked for that"),
    };
    assert!(!avif || may(Format::Avif));
    assert!(!webp || may(Format::Webp));
    assert!(negotiated.vary_accept);
    assert!(negotiated.vary_user_agent || !(webp && !accept.iter().any(|line| line.contains(&b'/'))));
}
