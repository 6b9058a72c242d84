//! As much of HTTP/1.1 as both ends of the load need: they are ours, so nothing is checked.

/// Where the head ends and the body begins, once all of the head is there.
pub(crate) fn body_of(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|window| window == b"\r\n\r\n").map(|end| end + 4)
}

/// The length that a head declares; none is 0.
pub(crate) fn length_of(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    let value = |line: &[u8]| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then(|| std::str::from_utf8(value).expect("a number").trim().to_owned())
    };
    head.split(|byte| *byte == b'\n').find_map(value).map_or(0, |length| length.parse().expect("a number"))
}
