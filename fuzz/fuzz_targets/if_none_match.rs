//! `If-None-Match`: no bytes panic, and nothing matches a tag that it does not hold.
#![no_main]

use avatar_proxy::source::Validator;
use avatar_proxy::variant::validators::{names_etag, names_validator};
use libfuzzer_sys::fuzz_target;

const TAG: &[u8] = b"\"0123456789abcdef\"";

fuzz_target!(|bytes: &[u8]| {
    let lines = || bytes.split(|byte| *byte == b'\n');
    let holds = |tag: &[u8]| bytes.windows(tag.len()).any(|part| part == tag);
    assert!(!names_etag(lines(), TAG) || holds(TAG) || bytes.contains(&b'*'));
    let validator = Validator::new(b"1712345678901").expect("not empty");
    assert!(!names_validator(lines(), &validator) || holds(validator.as_bytes()));
});
