//! Negotiation: what the client named in `Accept`, by its User-Agent or in the query, reduced to a few values before
//! any key is made.

use super::transform::RequestedFormat;
use super::{Format, Plain};

/// The longest `Accept` that is looked at, in bytes over all its lines; a longer one names nothing.
pub const LONGEST_ACCEPT: usize = 8192;

/// What may be negotiated, and for whom without being named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `pictures.formats`: what may be negotiated beside PNG, JPEG and the source. Without WebP in it none is made
    /// but for `format=webp`; without AVIF none at all, since one takes much time.
    pub formats: Vec<Format>,
    /// `pictures.user_agents`: the formats that a client shows whose `User-Agent` begins so, case included. The longest
    /// prefix that fits counts.
    pub user_agents: Vec<(String, Vec<Format>)>,
}

impl Default for Settings {
    fn default() -> Self {
        let formats = vec![Format::Avif, Format::Webp];
        Self { formats, user_agents: vec![("Mattermost Mobile/".to_owned(), vec![Format::Webp])] }
    }
}

/// What may be made for a client, before the source is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OfferKind {
    /// Negotiated: the client named AVIF and WebP.
    Avif,
    /// Negotiated: the client named AVIF and not WebP.
    AvifBeside(Plain),
    /// Negotiated: the client named WebP.
    Webp,
    /// Negotiated: the client named nothing that helps.
    Basic,
    /// Negotiated: the client takes one, of those that everybody shows.
    Alone(Format),
    /// `format=` named one.
    Only(Format),
    /// `format=original`: that of the source.
    Original,
}

/// The outcome of a negotiation, with what it depended on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Negotiated {
    /// What may be made.
    pub offer: OfferKind,
    /// Whether `Vary` has to name `Accept` (RFC 9110 section 12.5.5).
    pub vary_accept: bool,
    /// Whether `Vary` has to name `User-Agent`.
    pub vary_user_agent: bool,
}

/// Chooses by `format=`, else by `Accept` (its field lines in their order), else by `User-Agent`.
#[must_use]
pub fn negotiate<'a>(
    requested: RequestedFormat,
    accept: impl IntoIterator<Item = &'a [u8]>,
    user_agent: Option<&[u8]>,
    settings: &Settings,
) -> Negotiated {
    let explicit = |offer| Negotiated { offer, vary_accept: false, vary_user_agent: false };
    match requested {
        RequestedFormat::Webp => explicit(OfferKind::Only(Format::Webp)),
        RequestedFormat::Jpeg => explicit(OfferKind::Only(Format::Jpeg)),
        RequestedFormat::Png => explicit(OfferKind::Only(Format::Png)),
        RequestedFormat::Original => explicit(OfferKind::Original),
        RequestedFormat::Avif if settings.formats.contains(&Format::Avif) => explicit(OfferKind::Only(Format::Avif)),
        RequestedFormat::Auto | RequestedFormat::Avif => {
            let named = Named::in_accept(accept);
            let consults_table = !named.an_image_type && !settings.user_agents.is_empty();
            let row = user_agent.filter(|_| consults_table).and_then(|agent| settings.row(agent));
            let takes = |mention: Mention, format| {
                let shown = mention.is_welcome() || row.is_some_and(|formats| formats.contains(&format));
                shown && settings.formats.contains(&format)
            };
            Negotiated {
                offer: match (takes(named.webp, Format::Webp), takes(named.avif, Format::Avif)) {
                    (true, true) => OfferKind::Avif,
                    (true, false) => OfferKind::Webp,
                    (false, true) => OfferKind::AvifBeside(named.plain()),
                    (false, false) => OfferKind::beside_nothing(named.plain()),
                },
                vary_accept: true,
                // Whoever has no row has been looked for in the table as well, so the field has influenced the answer (RFC 9110
                // section 12.5.5): kept under `Accept` alone, it would be sent to a client that has a row. Browsers name
                // image types, and their answers do not vary on it.
                vary_user_agent: consults_table,
            }
        }
    }
}

impl OfferKind {
    const fn beside_nothing(plain: Plain) -> Self {
        match plain {
            Plain::Both => Self::Basic,
            Plain::Png => Self::Alone(Format::Png),
            Plain::Jpeg => Self::Alone(Format::Jpeg),
        }
    }
}

impl Settings {
    fn row(&self, agent: &[u8]) -> Option<&[Format]> {
        let fitting = self.user_agents.iter().filter(|(prefix, _)| agent.starts_with(prefix.as_bytes()));
        fitting.max_by_key(|(prefix, _)| prefix.len()).map(|(_, formats)| formats.as_slice())
    }
}

/// What an `Accept` says of one type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Mention {
    named: bool,
    /// By `q=0`, which no other mention takes back.
    refused: bool,
}

impl Mention {
    fn is_welcome(self) -> bool {
        self.named && !self.refused
    }
}

/// What an `Accept` names (RFC 9110 section 12.5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Named {
    avif: Mention,
    webp: Mention,
    png: Mention,
    jpeg: Mention,
    /// `image/*` or `*/*`.
    wildcard: Mention,
    /// Any image type by its name, be it to refuse it: then the client speaks for itself.
    an_image_type: bool,
}

impl Named {
    fn in_accept<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let (mut named, mut seen) = (Self::default(), 0);
        for line in lines {
            seen += line.len();
            if seen > LONGEST_ACCEPT {
                return Self::default();
            }
            for MediaRange { kind, refused } in split(line, b',').filter_map(MediaRange::parse) {
                named.an_image_type |= kind != Kind::Wildcard;
                let mention = match kind {
                    Kind::Avif => &mut named.avif,
                    Kind::Webp => &mut named.webp,
                    Kind::Png => &mut named.png,
                    Kind::Jpeg => &mut named.jpeg,
                    Kind::Wildcard => &mut named.wildcard,
                    Kind::Other => continue,
                };
                mention.named |= !refused;
                mention.refused |= refused;
            }
        }
        named
    }

    /// What to make without WebP. Every client shows PNG and JPEG, so both may be made unless this one says otherwise: by
    /// refusing one, or by naming one and nothing that covers the other.
    fn plain(&self) -> Plain {
        let open = !self.an_image_type || self.wildcard.is_welcome();
        let takes = |mention: Mention| if open { !mention.refused } else { mention.is_welcome() };
        match (takes(self.png), takes(self.jpeg)) {
            (true, false) => Plain::Png,
            (false, true) => Plain::Jpeg,
            (true, true) | (false, false) => Plain::Both,
        }
    }
}

/// The types that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Avif,
    Webp,
    Png,
    Jpeg,
    /// Another image type.
    Other,
    Wildcard,
}

/// One element of an `Accept`.
struct MediaRange {
    kind: Kind,
    /// `q=0`.
    refused: bool,
}

impl MediaRange {
    /// `None` for junk and what is no image.
    fn parse(element: &[u8]) -> Option<Self> {
        let mut parts = split(element, b';').map(<[u8]>::trim_ascii);
        let mut kind = Kind::of(parts.next()?)?;
        for parameter in parts.filter(|parameter| !parameter.is_empty()) {
            if let Some(weight) = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q=")) {
                // What follows the weight was `accept-ext` until RFC 9110 and never narrowed a range.
                return Some(Self { kind, refused: is_zero(weight)? });
            }
            // With a parameter it is more specific than what we make.
            kind = Kind::Other;
        }
        Some(Self { kind, refused: false })
    }
}

impl Kind {
    fn of(media_range: &[u8]) -> Option<Self> {
        if media_range == b"*/*" {
            return Some(Self::Wildcard);
        }
        let (kind, subtype) = media_range.split_at_checked(6)?;
        if !kind.eq_ignore_ascii_case(b"image/") || subtype.is_empty() || !subtype.iter().copied().all(is_token) {
            return None;
        }
        let known = [
            (&b"*"[..], Self::Wildcard),
            (b"avif", Self::Avif),
            (b"webp", Self::Webp),
            (b"png", Self::Png),
            (b"jpeg", Self::Jpeg),
        ];
        let found = known.into_iter().find(|(name, _)| subtype.eq_ignore_ascii_case(name));
        Some(found.map_or(Self::Other, |(_, kind)| kind))
    }
}

/// Whether a weight is zero; `None` when it is no weight. More than three decimals are met and read.
fn is_zero(weight: &[u8]) -> Option<bool> {
    let (unit, decimals) = match weight {
        [unit] => (*unit, &b""[..]),
        [unit, b'.', decimals @ ..] => (*unit, decimals),
        _ => return None,
    };
    let zeros = decimals.iter().all(|digit| *digit == b'0');
    match unit {
        b'0' if decimals.iter().all(u8::is_ascii_digit) => Some(zeros),
        b'1' if zeros => Some(false),
        _ => None,
    }
}

/// A character of RFC 9110's `token` (section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The elements between separators that stand outside of quoted strings (RFC 9110 section 5.6.4). A string that is not
/// closed swallows the rest.
fn split(field: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    field.split(move |byte| {
        if escaped {
            escaped = false;
        } else {
            escaped = quoted && *byte == b'\\';
            quoted ^= *byte == b'"';
        }
        !quoted && *byte == separator
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOBILE: &[u8] = b"Mattermost Mobile/2.43.0+700 (iOS; 18.6; iPhone)";

    fn named(lines: &[&str]) -> (bool, bool) {
        let named = Named::in_accept(lines.iter().map(|line| line.as_bytes()));
        (named.webp.is_welcome(), named.an_image_type)
    }

    #[test]
    fn only_what_is_named_counts() {
        for (accept, webp, an_image_type) in [
            // Chrome, Firefox, Safari, and a URLSession.
            ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", true, true),
            ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", true, true),
            (
                "image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,\
                 image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",
                true,
                true,
            ),
            ("image/*,*/*;q=0.8", false, false),
            ("*/*", false, false),
            ("", false, false),
            ("image/png", false, true),
            ("IMAGE/WebP;Q=0.1", true, true),
            (" image/webp\t; q=1.000 ,", true, true),
            ("image/webp;q=0", false, true),
            ("image/webp;q=0.000, image/*", false, true),
            ("image/webp, image/webp;q=0", false, true),
            ("image/webp;q=0, image/webp", false, true),
            ("image/*;q=0, image/webp", true, true),
            ("image/webp;q=0.001", true, true),
            ("image/webp;q=0.8500;x=1", true, true),
            ("image/webp;level=1", false, true),
            ("image/webp;level=1;q=0, image/webp", true, true),
            ("image/webp;;", true, true),
            // Junk.
            ("image/webp;q=abc", false, false),
            ("image/webp;q=", false, false),
            ("image/webp;q=2", false, false),
            ("image/webp;q=-0", false, false),
            ("image/webp;q=1.5", false, false),
            ("image/ webp", false, false),
            ("image/", false, false),
            ("image", false, false),
            ("webp", false, false),
            ("ximage/webp", false, false),
            ("image/webp image/png", false, false),
            ("text/html;x=\"image/webp, \", */*", false, false),
            ("text/html;x=\"a\\\", image/webp\", */*", false, false),
            ("text/html;x=\"\\\\\", image/webp", true, true),
            ("text/html;x=\", image/webp", false, false),
            ("\u{fffd},,;;q=0,image/webp", true, true),
        ] {
            assert_eq!(named(&[accept]), (webp, an_image_type), "{accept}");
        }
        assert_eq!(named(&["image/webp", "image/webp;q=0"]), (false, true));
        assert_eq!(named(&["text/html", "image/webp"]), (true, true));
    }

    #[test]
    fn without_webp_only_what_is_named_or_covered_is_made() {
        use Plain::{Both, Jpeg, Png};
        for (accept, plain) in [
            ("", Both),
            ("*/*", Both),
            ("image/*;q=0.8", Both),
            ("image/png,image/jpeg", Both),
            ("image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", Both),
            ("image/gif", Both),
            ("image/png", Png),
            ("image/png, */*;q=0", Png),
            ("image/jpeg, text/html", Jpeg),
            ("*/*, image/jpeg;q=0", Png),
            ("image/*, image/png;q=0.0", Jpeg),
            ("image/png;q=0, image/jpeg;q=0", Both),
        ] {
            assert_eq!(Named::in_accept([accept.as_bytes()]).plain(), plain, "{accept}");
            let without = negotiate(RequestedFormat::Auto, [accept.as_bytes()], None, &Settings::default()).offer;
            assert_eq!(without, OfferKind::beside_nothing(plain), "{accept}");
            let avif = format!("{accept},image/avif");
            let plain = if accept.contains("image/") || accept.contains('*') { plain } else { Both };
            let beside = negotiate(RequestedFormat::Auto, [avif.as_bytes()], None, &Settings::default()).offer;
            assert_eq!(beside, OfferKind::AvifBeside(plain), "{avif}");
        }
    }

    #[test]
    fn a_long_accept_names_nothing() {
        let padded = |len: usize| format!("image/webp,{}", "x".repeat(len - 11));
        assert_eq!(named(&[&padded(LONGEST_ACCEPT)]), (true, true));
        assert_eq!(named(&[&padded(LONGEST_ACCEPT), "x"]), (false, false));
    }

    fn check(format: RequestedFormat, accept: &str, agent: Option<&[u8]>, offer: OfferKind, vary: (bool, bool)) {
        let outcome = negotiate(format, [accept.as_bytes()], agent, &Settings::default());
        let expected = Negotiated { offer, vary_accept: vary.0, vary_user_agent: vary.1 };
        assert_eq!(outcome, expected, "{format:?} {accept} {agent:?}");
    }

    #[test]
    fn the_query_outranks_accept_and_accept_the_user_agent() {
        use OfferKind::{Avif, AvifBeside, Basic, Only, Original, Webp};
        use RequestedFormat::{Auto, Jpeg, Png};
        check(Auto, "image/webp", None, Webp, (true, false));
        check(Auto, "image/avif,image/webp", None, Avif, (true, false));
        check(Auto, "image/webp,*/*, IMAGE/AVIF;q=0.1", None, Avif, (true, false));
        check(Auto, "image/avif;q=0,image/webp", None, Webp, (true, false));
        check(Auto, "image/avif;q=0,image/avif,image/webp", None, Webp, (true, false));
        check(Auto, "image/avif-sequence,image/webp", None, Webp, (true, false));
        check(Auto, "image/avif,image/webp;q=0", None, AvifBeside(Plain::Both), (true, false));
        check(Auto, "image/avif", None, AvifBeside(Plain::Both), (true, false));
        check(Auto, "image/png,image/avif", None, AvifBeside(Plain::Png), (true, false));
        check(Auto, "image/png,image/avif;q=0,*/*", None, Basic, (true, false));
        check(RequestedFormat::Avif, "image/avif;q=0,image/webp", Some(MOBILE), Only(Format::Avif), (false, false));
        check(Auto, "*/*", Some(b"Mozilla/5.0"), Basic, (true, true));
        check(Auto, "", None, Basic, (true, true));
        check(Auto, "*/*", Some(MOBILE), Webp, (true, true));
        check(Auto, "", Some(MOBILE), Webp, (true, true));
        check(Auto, "image/png", Some(MOBILE), OfferKind::Alone(Format::Png), (true, false));
        check(Auto, "image/webp;q=0,*/*", Some(MOBILE), Basic, (true, false));
        check(Auto, "*/*", Some(b"mattermost mobile/2"), Basic, (true, true));
        check(Jpeg, "image/webp", Some(MOBILE), Only(Format::Jpeg), (false, false));
        check(Png, "", None, Only(Format::Png), (false, false));
        check(RequestedFormat::Webp, "image/webp;q=0", None, Only(Format::Webp), (false, false));
        check(RequestedFormat::Original, "image/webp", None, Original, (false, false));
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        let never = Settings { formats: vec![], ..Settings::default() };
        let outcome = negotiate(RequestedFormat::Auto, [&b"image/webp"[..]], Some(MOBILE), &never);
        assert_eq!(outcome.offer, OfferKind::Basic);
        let no_avif = Settings { formats: vec![Format::Webp], ..Settings::default() };
        for requested in [RequestedFormat::Auto, RequestedFormat::Avif] {
            let outcome = negotiate(requested, [&b"image/avif,image/webp"[..]], None, &no_avif);
            assert_eq!((outcome.offer, outcome.vary_accept), (OfferKind::Webp, true), "{requested:?}");
        }
        let only_avif = Settings { formats: vec![Format::Avif], ..Settings::default() };
        let outcome = negotiate(RequestedFormat::Auto, [&b"image/avif,image/webp,*/*"[..]], None, &only_avif);
        assert_eq!(outcome.offer, OfferKind::AvifBeside(Plain::Both));
        let no_table = Settings { user_agents: vec![], ..Settings::default() };
        let outcome = negotiate(RequestedFormat::Auto, [&b"*/*"[..]], Some(MOBILE), &no_table);
        assert_eq!((outcome.offer, outcome.vary_user_agent), (OfferKind::Basic, false));
        let rows = vec![("Mattermost Mobile/".to_owned(), vec![Format::Avif])];
        let avif_row = Settings { user_agents: rows, ..Settings::default() };
        let outcome = negotiate(RequestedFormat::Auto, [&b"*/*"[..]], Some(MOBILE), &avif_row);
        assert_eq!((outcome.offer, outcome.vary_user_agent), (OfferKind::AvifBeside(Plain::Both), true));
        let rows = vec![("Mattermost Mobile/".to_owned(), vec![Format::Avif, Format::Webp])];
        let both = Settings { user_agents: rows, ..Settings::default() };
        let outcome = negotiate(RequestedFormat::Auto, [&b"*/*"[..]], Some(MOBILE), &both);
        assert_eq!((outcome.offer, outcome.vary_user_agent), (OfferKind::Avif, true));
        let rows = vec![("Mattermost".to_owned(), vec![Format::Webp]), ("Mattermost Mobile/".to_owned(), vec![])];
        let longest = Settings { user_agents: rows, ..Settings::default() };
        let outcome = negotiate(RequestedFormat::Auto, [], Some(MOBILE), &longest);
        assert_eq!((outcome.offer, outcome.vary_user_agent), (OfferKind::Basic, true));
    }

    proptest! {
        #[test]
        fn no_accept_panics(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4)) {
            let _ = Named::in_accept(lines.iter().map(Vec::as_slice));
        }

        #[test]
        fn wildcards_name_nothing(accept in "((image|[*])/[*](; ?q=[01](\\.[0-9]{0,3})?)?, ?){0,5}") {
            prop_assert_eq!(named(&[&accept]), (false, false));
        }
    }
}
