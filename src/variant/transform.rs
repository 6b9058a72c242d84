//! The query of a picture: parsed once, clamped and canonical. Equal pictures get equal transforms.

pub use super::parameters::{PARAMETERS, Parameter, Setting, Values};
pub use super::sizes::{Sizes, SizesError};

use super::hints::Hints;
use super::query::pairs;
use crate::identity::PictureKind;

/// The longest raw query that is looked at, in bytes. Upstream refuses a target over 2048 bytes itself
/// (`ServiceSettings.MaximumURLLength`).
pub const LONGEST_QUERY: usize = 8191;

/// The most `name=value` pairs that are looked at.
pub const MOST_PAIRS: usize = 100;

/// What a query asks of a picture, in pixels of the configured list and independent of any source.
///
/// Canonical: spellings, order, aliases and unknown parameters leave no trace in it. What cannot matter to a given
/// source leaves none in the recipe that [`Transform::plan`] makes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Transform {
    pub(super) edges: Edges,
    pub(super) format: RequestedFormat,
    pub(super) quality: Option<u8>,
    pub(super) animated: Option<bool>,
    pub(super) background: [u8; 3],
}

/// A query, understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// What it asks of the picture.
    pub transform: Transform,
    /// The greater by absolute value of `_` and `lastPictureUpdate` where they are plain decimals: the stamp in
    /// milliseconds that the client has heard of. Never part of a key, never proof of anything.
    pub stamp: Option<i64>,
}

/// The box that was asked for, in pixels of the configured list.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Edges {
    /// None: the size of the source.
    Source,
    /// The height follows the aspect ratio.
    Width(u32),
    /// The width follows the aspect ratio.
    Height(u32),
    /// Both.
    Box { width: u32, height: u32, fit: Fit },
}

/// How a picture meets a box of another aspect ratio, as CSS `object-fit` and sharp name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Fit {
    /// Fills the box; what sticks out is cut off.
    #[default]
    Cover,
    /// Wholly inside the box, the rest of which stays empty.
    Contain,
    /// Shrunk until it is inside the box; the box shrinks to it.
    Inside,
    /// Shrunk until it just covers the box; nothing is cut off.
    Outside,
    /// Stretched.
    Fill,
}

/// What `format=` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum RequestedFormat {
    /// Negotiated by `Accept`.
    #[default]
    Auto,
    /// AVIF; where none may be made, negotiated like `Auto`.
    Avif,
    /// WebP.
    Webp,
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// The format of the source.
    Original,
}

/// Why a query was not understood. Displayed, it is the `message` of Mattermost's error JSON.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Longer than [`LONGEST_QUERY`].
    #[error("The query is longer than {LONGEST_QUERY} bytes.")]
    TooLong,
    /// More than [`MOST_PAIRS`].
    #[error("The query has more than {MOST_PAIRS} parameters.")]
    TooMany,
    /// Not one of the parameter's values.
    #[error("Parameter {} takes {}, not '{found}'.", .parameter.name, .parameter.values)]
    Value {
        /// The parameter.
        parameter: &'static Parameter,
        /// The first characters of what was found, made harmless.
        found: String,
    },
    /// The same setting twice, by whatever name, with different values.
    #[error("Parameter {} is given more than once, with different values.", .parameter.name)]
    Repeated {
        /// The parameter.
        parameter: &'static Parameter,
    },
}

impl QueryError {
    /// The `id` of Mattermost's error JSON.
    #[must_use]
    pub const fn id(&self) -> &'static str {
        match self {
            Self::TooLong => "avatar_proxy.query.too_long",
            Self::TooMany => "avatar_proxy.query.too_many",
            Self::Value { .. } => "avatar_proxy.query.value",
            Self::Repeated { .. } => "avatar_proxy.query.repeated",
        }
    }
}

impl Transform {
    /// Understands the raw, undecoded query of a request (without its `?`; empty when there is none), rounding edges up
    /// to the next of `sizes`. Parameters that are not ours are not looked at.
    ///
    /// # Errors
    /// When a value of ours cannot be understood, contradicts another, or the query exceeds [`LONGEST_QUERY`] or
    /// [`MOST_PAIRS`].
    pub fn parse(raw: &str, sizes: &Sizes) -> Result<Parsed, QueryError> {
        Self::parse_hinted(raw, sizes, &Hints::default())
    }

    /// [`Transform::parse`], where what the query does not say is taken from `hints`.
    ///
    /// # Errors
    /// Those of [`Transform::parse`].
    pub fn parse_hinted(raw: &str, sizes: &Sizes, hints: &Hints) -> Result<Parsed, QueryError> {
        if raw.len() > LONGEST_QUERY {
            return Err(QueryError::TooLong);
        }
        let mut asked = Asked::default();
        let mut stamp = None;
        for (n, pair) in pairs(raw).enumerate() {
            if n == MOST_PAIRS {
                return Err(QueryError::TooMany);
            }
            let name = pair.name();
            if let Some(parameter) = Parameter::named(&name) {
                asked.take(parameter, &pair.value())?;
            } else if matches!(&*name, b"_" | b"lastPictureUpdate") {
                stamp = newer(stamp, plain_decimal(&pair.value()));
            }
        }
        Ok(Parsed { transform: asked.resolve(sizes, hints), stamp })
    }

    /// Settles what depends on what is shown: emoji move where the query does not say otherwise.
    #[must_use]
    pub fn of(mut self, kind: PictureKind) -> Self {
        if kind == PictureKind::Emoji {
            self.animated.get_or_insert(true);
        }
        self
    }

    /// What `format=` asks for, which negotiation turns into an offer.
    #[must_use]
    pub const fn format(&self) -> RequestedFormat {
        self.format
    }
}

/// The settings of a query as they came, before they are put together.
#[derive(Default)]
struct Asked {
    size: Option<u32>,
    width: Option<u32>,
    height: Option<u32>,
    dpr: Option<u32>,
    fit: Option<Fit>,
    format: Option<RequestedFormat>,
    quality: Option<u32>,
    animated: Option<bool>,
    background: Option<[u8; 3]>,
}

impl Asked {
    fn take(&mut self, parameter: &'static Parameter, value: &[u8]) -> Result<(), QueryError> {
        let setting =
            parameter.values.read(value).ok_or_else(|| QueryError::Value { parameter, found: harmless(value) })?;
        let agrees = match setting {
            Setting::Size(size) => agrees(&mut self.size, size),
            Setting::Width(width) => agrees(&mut self.width, width),
            Setting::Height(height) => agrees(&mut self.height, height),
            Setting::Dpr(dpr) => agrees(&mut self.dpr, dpr),
            Setting::Fit(fit) => agrees(&mut self.fit, fit),
            Setting::Format(format) => agrees(&mut self.format, format),
            Setting::Quality(quality) => agrees(&mut self.quality, quality),
            Setting::Animated(animated) => agrees(&mut self.animated, animated),
            Setting::Background(background) => agrees(&mut self.background, background),
        };
        agrees.then_some(()).ok_or(QueryError::Repeated { parameter })
    }

    fn resolve(&self, sizes: &Sizes, hints: &Hints) -> Transform {
        let dpr = self.dpr.or(hints.ratio()).unwrap_or(1000);
        let quality = self.quality.or(hints.quality());
        let pixels = |css: u32| sizes.round_up((css * dpr).div_ceil(1000));
        let fit = self.fit.unwrap_or_default();
        let edges = match (self.width.map(pixels), self.height.map(pixels), self.size.map(pixels)) {
            (Some(width), Some(height), _) => Edges::Box { width, height, fit },
            (Some(width), None, _) => Edges::Width(width),
            (None, Some(height), _) => Edges::Height(height),
            (None, None, Some(edge)) => Edges::Box { width: edge, height: edge, fit },
            // Pixels already, and not of CSS.
            (None, None, None) => hints.width().map_or(Edges::Source, |width| Edges::Width(sizes.round_up(width))),
        };
        Transform {
            edges,
            format: self.format.unwrap_or_default(),
            quality: quality.map(|quality| u8::try_from(quality).expect("the table ends quality at 100")),
            animated: self.animated,
            background: self.background.unwrap_or(WHITE),
        }
    }
}

/// What transparency is flattened on when nothing else was asked for.
pub(super) const WHITE: [u8; 3] = [255; 3];

/// Fills the slot; false when it held something else.
fn agrees<T: Copy + PartialEq>(slot: &mut Option<T>, value: T) -> bool {
    *slot.get_or_insert(value) == value
}

/// An optional minus and ASCII digits that fit.
fn plain_decimal(raw: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(raw).ok()?;
    (!text.starts_with('+')).then(|| text.parse().ok()).flatten()
}

/// Stamps of default pictures are negative, so age is the absolute value; of two equals the positive one, whatever
/// their order.
fn newer(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    a.into_iter().chain(b).max_by_key(|stamp| (stamp.unsigned_abs(), *stamp))
}

/// At most 40 characters of hostile input, nothing in them that a terminal, a log or a page could take for its own.
fn harmless(raw: &[u8]) -> String {
    let kept = |byte: &u8| byte.is_ascii_alphanumeric() || b" !#$()*+,-./:;=?@[]^_|~%".contains(byte);
    raw.iter().take(40).map(|byte| if kept(byte) { char::from(*byte) } else { '.' }).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn transform(query: &str) -> Transform {
        Transform::parse(query, &Sizes::default()).unwrap_or_else(|error| panic!("{query}: {error}")).transform
    }

    /// The shortest query that asks for the same.
    fn to_query(transform: &Transform) -> String {
        use std::fmt::Write;
        let mut query = String::new();
        match transform.edges {
            Edges::Source => {}
            Edges::Width(width) => write!(query, "&width={width}").unwrap(),
            Edges::Height(height) => write!(query, "&height={height}").unwrap(),
            Edges::Box { width, height, fit } => {
                let fit = word("fit", Setting::Fit(fit));
                write!(query, "&width={width}&height={height}&fit={fit}").unwrap();
            }
        }
        write!(query, "&format={}", word("format", Setting::Format(transform.format))).unwrap();
        if let Some(quality) = transform.quality {
            write!(query, "&quality={quality}").unwrap();
        }
        if let Some(animated) = transform.animated {
            write!(query, "&animated={animated}").unwrap();
        }
        let [r, g, b] = transform.background;
        write!(query, "&background={r:02x}{g:02x}{b:02x}").unwrap();
        query
    }

    fn word(name: &str, setting: Setting) -> &'static str {
        match Parameter::named(name.as_bytes()).unwrap().values {
            Values::Words(words) => words.iter().find(|(_, value)| *value == setting).unwrap().0,
            _ => unreachable!("{name} takes words"),
        }
    }

    fn check_refused(query: &str, id: &str, message: &str) {
        let error = Transform::parse(query, &Sizes::default()).expect_err(query);
        assert_eq!((error.id(), error.to_string().as_str()), (id, message), "{query}");
    }

    #[test]
    fn hints_fill_in_what_the_query_leaves_open() {
        for (fields, query, same) in [
            (&[("dpr", "2")][..], "size=32", "size=64"),
            (&[("dpr", "2")], "size=32&dpr=1", "size=32"),
            (&[("dpr", "2")], "", ""),
            (&[("width", "60")], "", "width=64"),
            (&[("width", "60"), ("dpr", "2")], "", "width=64"),
            (&[("width", "60")], "size=24", "size=24"),
            (&[("width", "60")], "height=24", "height=24"),
            (&[("save-data", "on")], "size=24", "size=24&quality=70"),
            (&[("save-data", "on"), ("dpr", "3")], "size=24&q=90", "size=24&quality=90"),
            (&[("save-data", "on"), ("dpr", "3")], "size=24&dpr=2", "size=48&quality=70"),
        ] {
            let mut hints = Hints::default();
            for (name, value) in fields {
                hints.take(name, value.as_bytes());
            }
            let hinted = Transform::parse_hinted(query, &Sizes::default(), &hints).expect("understood").transform;
            assert_eq!(hinted, transform(same), "{fields:?} {query}");
        }
    }

    #[test]
    fn what_means_the_same_is_the_same() {
        for (query, same) in [
            ("size=032", "s=32"),
            ("%73ize=%33%32", "size=32"),
            ("size=30", "size=32"),
            ("SIZE=7", ""),
            ("size[]=1", ""),
            ("size%5B%5D=1&_=1&%ff=%ff&x", ""),
            ("size=9999999999", "size=256"),
            ("size=32&s=032&size=32", "size=32"),
            ("size=5000&s=4096", "size=4096"),
            ("size=32&dpr=2", "size=64"),
            ("size=25&dpr=1.3", "size=40"),
            ("size=40&dpr=1.2000000476837158", "size=48"),
            ("w=40&h=40&dpr=1.6000001", "size=64"),
            ("size=4096&dpr=4", "size=256"),
            ("size=33&dpr=0.1", "size=33&dpr=0.5"),
            ("size=99&w=32&height=48", "width=32&height=48"),
            ("size=64&width=32", "w=32"),
            ("w=32&fit=fill", "w=32"),
            ("dpr=2&fit=contain", ""),
            ("size=32&method=crop", "size=32"),
            ("size=32&method=scale", "size=32&fit=inside"),
            ("fit=inside&method=scale&s=16", "size=16&fit=inside"),
            ("format=jpg", "output=jpeg"),
            ("format=auto&animated=0", "animated=false"),
            ("q=101", "quality=100"),
            ("q=81&q=80", "quality=80"),
            ("bg=FFFFFF", ""),
        ] {
            assert_eq!(transform(query), transform(same), "{query} | {same}");
        }
        assert_ne!(transform("size=32"), transform("size=40"));
        assert_ne!(transform("animated=false"), transform(""));
    }

    #[test]
    fn what_cannot_be_understood_is_refused_by_name() {
        let size = "Parameter size takes a whole number from 1 to 4096, not ";
        for (query, found) in [
            ("size=", "''."),
            ("size", "''."),
            ("s=0", "'0'."),
            ("size=-1", "'-1'."),
            ("size=1e9", "'1e9'."),
            ("size=NaN", "'NaN'."),
            ("size=inf", "'inf'."),
            ("size=3.5", "'3.5'."),
            ("size=٣٢", "'....'."),
            ("size=%D9%A3%D9%A2", "'....'."),
            ("size=32%00", "'32.'."),
            ("size=%ff", "'.'."),
            ("size=+32", "' 32'."),
            ("size=32+", "'32 '."),
            ("size=abc%0d%0a%1b[31m<script>", "'abc...[31m.script.'."),
            ("size=32&s=abc", "'abc'."),
        ] {
            check_refused(query, "avatar_proxy.query.value", &format!("{size}{found}"));
        }
        check_refused(
            &format!("w={}", "x".repeat(5000)),
            "avatar_proxy.query.value",
            &format!("Parameter width takes a whole number from 1 to 4096, not '{}'.", "x".repeat(40)),
        );
        check_refused("dpr=inf", "avatar_proxy.query.value", "Parameter dpr takes a decimal from 0.5 to 4, not 'inf'.");
        check_refused(
            "fit=banana",
            "avatar_proxy.query.value",
            "Parameter fit takes one of cover, contain, inside, outside, fill, not 'banana'.",
        );
        check_refused(
            "format=exe",
            "avatar_proxy.query.value",
            "Parameter format takes one of auto, avif, webp, jpeg, jpg, png, original, not 'exe'.",
        );
        check_refused(
            "bg=red",
            "avatar_proxy.query.value",
            "Parameter background takes a colour as rrggbb, not 'red'.",
        );
    }

    #[test]
    fn contradictions_are_refused() {
        for (query, name) in [
            ("size=32&size=64", "size"),
            ("s=32&%73ize=64", "size"),
            ("method=crop&fit=inside", "fit"),
            ("fit=inside&method=crop", "method"),
            ("f=webp&output=png", "format"),
            ("animated=1&animated=false", "animated"),
        ] {
            let message = format!("Parameter {name} is given more than once, with different values.");
            check_refused(query, "avatar_proxy.query.repeated", &message);
        }
    }

    #[test]
    fn a_query_is_bounded() {
        let pairs = |n: usize| vec!["a=1"; n].join("&");
        assert_eq!(transform(&pairs(100)), transform(""));
        check_refused(&pairs(101), "avatar_proxy.query.too_many", "The query has more than 100 parameters.");
        assert_eq!(transform(&"&".repeat(8191)), transform(""));
        check_refused(&"a".repeat(8192), "avatar_proxy.query.too_long", "The query is longer than 8191 bytes.");
        check_refused(
            &format!("size={}", "1".repeat(10_000)),
            "avatar_proxy.query.too_long",
            "The query is longer than 8191 bytes.",
        );
    }

    #[test]
    fn a_stamp_is_a_plain_decimal() {
        for (query, stamp) in [
            ("", None),
            ("size=1", None),
            ("_=1712345678901", Some(1_712_345_678_901)),
            ("%5f=-5", Some(-5)),
            ("lastPictureUpdate=7", Some(7)),
            ("_=5&lastPictureUpdate=-7", Some(-7)),
            ("_=-7&_=7", Some(7)),
            ("_=7&_=-7", Some(7)),
            ("_=%2B5", None),
            ("_=abc&_=", None),
            ("_=99999999999999999999", None),
        ] {
            let parsed = Transform::parse(query, &Sizes::default()).expect(query);
            assert_eq!(parsed.stamp, stamp, "{query}");
        }
    }

    #[test]
    fn emoji_move_unless_they_are_asked_not_to() {
        for (query, kind, animated) in [
            ("size=32", PictureKind::Emoji, Some(true)),
            ("animated=1", PictureKind::Emoji, Some(true)),
            ("animated=0", PictureKind::Emoji, Some(false)),
            ("size=32", PictureKind::User, None),
            ("animated=1", PictureKind::Team, Some(true)),
            ("animated=0", PictureKind::Default, Some(false)),
        ] {
            assert_eq!(transform(query).of(kind).animated, animated, "{query} {kind:?}");
        }
    }

    /// One pair of ours that is understood, a different one for each name.
    fn setting() -> impl Strategy<Value = (&'static Parameter, String)> {
        (0..PARAMETERS.len(), 1..5000_u32, 0..7_usize).prop_map(|(at, number, pick)| {
            let parameter = &PARAMETERS[at];
            let value = match parameter.values {
                Values::Whole { .. } => number.to_string(),
                Values::Decimal { .. } => format!("{}.{}", number % 7, number),
                Values::Words(words) => words[pick % words.len()].0.to_owned(),
                Values::Colour { .. } => format!("{number:06x}"),
            };
            (parameter, value)
        })
    }

    proptest! {
        #[test]
        fn no_query_panics(raw in ".{0,200}") {
            let _ = Transform::parse(&raw, &Sizes::default());
        }

        #[test]
        fn no_query_of_our_names_panics(
            raw in "((s|w|h|dpr|bg|q|f|fit|animated|_|%73ize)[=&%+]?[0-9a-f.%+-]{0,12}&?){0,6}",
        ) {
            let _ = Transform::parse(&raw, &Sizes::default());
        }

        #[test]
        fn order_aliases_and_strangers_change_nothing(
            settings in prop::collection::vec(setting(), 0..6),
            pick in any::<prop::sample::Index>(),
            junk in "[A-Z]{1,5}=[0-9]{0,5}",
        ) {
            let plain: Vec<_> = settings.iter().map(|(p, value)| format!("{}={value}", p.name)).collect();
            let mut other: Vec<_> = settings
                .iter()
                .map(|(p, value)| format!("{}={value}", p.aliases.first().unwrap_or(&p.name)))
                .collect();
            other.reverse();
            other.insert(pick.index(other.len() + 1), junk);
            let sizes = Sizes::default();
            let plain = Transform::parse(&plain.join("&"), &sizes).ok();
            prop_assert_eq!(plain, Transform::parse(&other.join("&"), &sizes).ok());
        }

        #[test]
        fn a_transform_survives_its_canonical_query(settings in prop::collection::vec(setting(), 0..6)) {
            let query: Vec<_> = settings.iter().map(|(p, value)| format!("{}={value}", p.name)).collect();
            if let Ok(parsed) = Transform::parse(&query.join("&"), &Sizes::default()) {
                prop_assert_eq!(transform(&to_query(&parsed.transform)), parsed.transform);
            }
        }
    }
}
