//! `Accept` and `User-Agent`: no bytes panic, and WebP is never offered where nothing names it.
#![no_main]

use avatar_proxy::variant::negotiation::{OfferKind, Settings, negotiate};
use avatar_proxy::variant::transform::RequestedFormat;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let (agent, accept) = lines.split_first().expect("a split has a part");
    let settings = Settings::default();
    let ours = settings.user_agents.iter().any(|(prefix, _)| agent.starts_with(prefix.as_bytes()));
    let negotiated = negotiate(RequestedFormat::Auto, accept.iter().copied(), Some(agent), &settings);
    let named = accept.iter().any(|line| line.windows(10).any(|word| word.eq_ignore_ascii_case(b"image/webp")));
    assert!(negotiated.offer != OfferKind::Webp || named || ours);
    assert!(negotiated.vary_accept);
});
