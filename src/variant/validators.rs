//! `If-None-Match`: whether the client already has what would be sent, by RFC 9110 for tags of ours and byte for byte
//! for upstream's, which are no entity tags.

use crate::source::Validator;

/// The longest `If-None-Match` that is looked at, in bytes over all its lines; a longer one counts as absent.
pub const LONGEST_IF_NONE_MATCH: usize = 8192;

/// Whether the field lines name `etag`, an entity tag with its quotes: lists over several lines, `*`, weak comparison
/// (RFC 9110 sections 8.8.3.2 and 13.1.2). A malformed field counts as absent, for no tag in it can be trusted.
#[must_use]
pub fn names_etag<'a>(lines: impl IntoIterator<Item = &'a [u8]>, etag: &[u8]) -> bool {
    let wanted = opaque_tag(etag);
    let (mut named, mut anything, mut elements, mut seen) = (false, false, 0_u32, 0);
    for line in lines {
        seen += line.len();
        if seen > LONGEST_IF_NONE_MATCH {
            return false;
        }
        let mut rest = line;
        while let Some((element, after)) = next_element(rest) {
            let Some(element) = element else { return false };
            anything |= element == b"*";
            named |= opaque_tag(element) == wanted;
            elements += 1;
            rest = after;
        }
    }
    // `*` stands alone: beside anything else the field is malformed.
    if anything { elements == 1 } else { named }
}

/// Whether the field names upstream's own tag as Mattermost compares it: the first line only, trimmed, byte for byte
/// (`Context.HandleEtag` in `server/channels/web/context.go`).
#[must_use]
pub fn names_validator<'a>(lines: impl IntoIterator<Item = &'a [u8]>, validator: &Validator) -> bool {
    lines.into_iter().next().is_some_and(|line| line.trim_ascii() == validator.as_bytes())
}

/// A tag without its mark of weakness.
fn opaque_tag(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The next element of a list and what follows it: `None` at the end, `Some((None, _))` when it is malformed. Empty
/// elements are skipped (RFC 9110 section 5.6.1.2).
fn next_element(line: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let start = line.iter().position(|byte| !matches!(byte, b',' | b' ' | b'\t'))?;
    let line = &line[start..];
    let Some(len) = element_len(line) else {
        return Some((None, &[]));
    };
    let (element, after) = line.split_at(len);
    let ended = after.trim_ascii_start().first().is_none_or(|byte| *byte == b',');
    Some((ended.then_some(element), after))
}

/// The length of the `*` or entity tag (RFC 9110 section 8.8.3) that `line` begins with.
fn element_len(line: &[u8]) -> Option<usize> {
    if line.first() == Some(&b'*') {
        return Some(1);
    }
    let weakness = line.len() - opaque_tag(line).len();
    let inside = opaque_tag(line).strip_prefix(b"\"")?;
    let closing = inside.iter().position(|byte| *byte == b'"')?;
    let is_etagc = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..);
    inside[..closing].iter().all(is_etagc).then_some(weakness + closing + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(lines: &[&str], etag: &str, named: bool) {
        assert_eq!(names_etag(lines.iter().map(|line| line.as_bytes()), etag.as_bytes()), named, "{lines:?} {etag}");
    }

    #[test]
    fn lists_weakness_and_the_asterisk() {
        let etag = "\"abc\"";
        for (line, named) in [
            ("\"abc\"", true),
            ("W/\"abc\"", true),
            ("  \"abc\"\t", true),
            ("\"x\", \"abc\"", true),
            ("\"x\",W/\"abc\",\"y\"", true),
            (", ,\"abc\",,", true),
            ("*", true),
            (" * ", true),
            ("\"ab\"", false),
            ("\"ABC\"", false),
            ("\"x,\"abc\"", false),
            ("\"x,\\\", \"abc\"", true),
            ("", false),
            (",", false),
            // Malformed.
            ("abc", false),
            ("w/\"abc\"", false),
            ("W/ \"abc\"", false),
            ("\"abc", false),
            ("\"abc\"x", false),
            ("\"abc\" \"x\"", false),
            ("\"abc\", \"x", false),
            ("\"abc\", 1712345678901", false),
            ("*, \"abc\"", false),
            ("\"abc\", *", false),
            ("\"a b\", \"abc\"", false),
            ("*\"abc\"", false),
            ("**", false),
            ("1712345678901", false),
        ] {
            check(&[line], etag, named);
        }
        check(&["\"x\"", "\"abc\""], etag, true);
        check(&["\"abc\"", "junk"], etag, false);
        check(&["*", "*"], etag, false);
        check(&["", "*"], etag, true);
        check(&[], etag, false);
        check(&["\"abc\""], "W/\"abc\"", true);
        check(&["\"a,b\""], "\"a,b\"", true);
        check(&["\"a,b\""], "\"a\"", false);
        check(&["\"é\""], "\"é\"", true);
        check(&["\"\""], "\"\"", true);
    }

    #[test]
    fn a_long_field_counts_as_absent() {
        let long = format!("\"abc\"{}", ",".repeat(LONGEST_IF_NONE_MATCH - 5));
        check(&[&long], "\"abc\"", true);
        check(&[&long, ","], "\"abc\"", false);
    }

    /// As a real server compares: recordings `image-inm-*`.
    #[test]
    fn upstreams_tag_is_compared_raw() {
        let tag = Validator::new(b"1795433849817").expect("not empty");
        for (lines, named) in [
            (&["1795433849817"][..], true),
            (&["  1795433849817  "], true),
            (&["\"1795433849817\""], false),
            (&["W/1795433849817"], false),
            (&["1795433849817, \"x\""], false),
            (&["\"x\", 1795433849817"], false),
            (&["*"], false),
            (&[""], false),
            (&["0", "1795433849817"], false),
            (&["1795433849817", "0"], true),
            (&[], false),
        ] {
            assert_eq!(names_validator(lines.iter().map(|line| line.as_bytes()), &tag), named, "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn no_field_panics(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4)) {
            let _ = names_etag(lines.iter().map(Vec::as_slice), b"\"abc\"");
        }

        #[test]
        fn a_listed_tag_is_found(
            tags in prop::collection::vec("(W/)?\"[!#-~]{0,8}\"", 1..5),
            pick in any::<prop::sample::Index>(),
        ) {
            let etag = tags[pick.index(tags.len())].clone();
            prop_assert!(names_etag([tags.join(" , ").as_bytes()], etag.as_bytes()));
        }
    }
}
