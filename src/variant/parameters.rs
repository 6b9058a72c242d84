//! The table of our query parameters: names, aliases and the values they take. The parser, its error messages and the
//! test of `docs/openapi.yaml` all read it, so none of them can drift from the others.

use super::query::hex_digit;
use super::transform::{Fit, RequestedFormat};
use std::fmt;

/// The largest edge that can be asked for, in CSS pixels and in pixels.
pub(super) const LONGEST_EDGE: u32 = 4096;

/// One parameter of ours.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// The name that messages and documents use.
    pub name: &'static str,
    /// Other names for the same.
    pub aliases: &'static [&'static str],
    /// What it takes.
    pub values: Values,
    /// What holds when it is absent, where that can be written as a value.
    pub default: Option<&'static str>,
}

/// The values that a parameter takes.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// A whole number in ASCII digits; above the range it is clamped.
    Whole {
        /// The least; less is not understood.
        min: u32,
        /// The greatest that has an effect.
        max: u32,
        /// What the number sets.
        sets: fn(u32) -> Setting,
    },
    /// A positive decimal, digits after the point optional and the fourth and later without effect; outside the range
    /// it is clamped.
    Decimal {
        /// The least that has an effect, in thousandths.
        min: u32,
        /// The greatest that has an effect, in thousandths.
        max: u32,
        /// What the thousandths set.
        sets: fn(u32) -> Setting,
    },
    /// One of these words, in lower case.
    Words(&'static [(&'static str, Setting)]),
    /// Six hexadecimal digits.
    Colour {
        /// What red, green and blue set.
        sets: fn([u8; 3]) -> Setting,
    },
}

/// A value that was understood, with what it is a value of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    /// The edge of a square, in CSS pixels.
    Size(u32),
    /// In CSS pixels.
    Width(u32),
    /// In CSS pixels.
    Height(u32),
    /// Pixels in a CSS pixel, in thousandths.
    Dpr(u32),
    /// How a picture meets a box of another aspect ratio.
    Fit(Fit),
    /// The format.
    Format(RequestedFormat),
    /// 5 to 100 in steps of 5.
    Quality(u32),
    /// Whether an animated source keeps its frames.
    Animated(bool),
    /// Red, green and blue.
    Background([u8; 3]),
}

/// Every parameter of ours. `method` is Matrix's word for `fit`, with words of its own.
pub const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "size",
        aliases: &["s"],
        values: Values::Whole { min: 1, max: LONGEST_EDGE, sets: Setting::Size },
        default: None,
    },
    Parameter {
        name: "width",
        aliases: &["w"],
        values: Values::Whole { min: 1, max: LONGEST_EDGE, sets: Setting::Width },
        default: None,
    },
    Parameter {
        name: "height",
        aliases: &["h"],
        values: Values::Whole { min: 1, max: LONGEST_EDGE, sets: Setting::Height },
        default: None,
    },
    Parameter {
        name: "dpr",
        aliases: &[],
        values: Values::Decimal { min: 500, max: 4000, sets: Setting::Dpr },
        default: Some("1"),
    },
    Parameter {
        name: "fit",
        aliases: &[],
        values: Values::Words(&[
            ("cover", Setting::Fit(Fit::Cover)),
            ("contain", Setting::Fit(Fit::Contain)),
            ("inside", Setting::Fit(Fit::Inside)),
            ("outside", Setting::Fit(Fit::Outside)),
            ("fill", Setting::Fit(Fit::Fill)),
        ]),
        default: Some("cover"),
    },
    Parameter {
        name: "method",
        aliases: &[],
        values: Values::Words(&[("crop", Setting::Fit(Fit::Cover)), ("scale", Setting::Fit(Fit::Inside))]),
        default: None,
    },
    Parameter {
        name: "format",
        aliases: &["f", "output"],
        values: Values::Words(&[
            ("auto", Setting::Format(RequestedFormat::Auto)),
            ("avif", Setting::Format(RequestedFormat::Avif)),
            ("webp", Setting::Format(RequestedFormat::Webp)),
            ("jpeg", Setting::Format(RequestedFormat::Jpeg)),
            ("jpg", Setting::Format(RequestedFormat::Jpeg)),
            ("png", Setting::Format(RequestedFormat::Png)),
            ("original", Setting::Format(RequestedFormat::Original)),
        ]),
        default: Some("auto"),
    },
    Parameter {
        name: "quality",
        aliases: &["q"],
        values: Values::Whole { min: 1, max: 100, sets: stepped_quality },
        default: None,
    },
    Parameter {
        name: "animated",
        aliases: &[],
        values: Values::Words(&[
            ("true", Setting::Animated(true)),
            ("1", Setting::Animated(true)),
            ("false", Setting::Animated(false)),
            ("0", Setting::Animated(false)),
        ]),
        default: Some("false"),
    },
    Parameter {
        name: "background",
        aliases: &["bg"],
        values: Values::Colour { sets: Setting::Background },
        default: Some("ffffff"),
    },
];

/// The nearest step of 5, so that neighbours share a variant; never 0.
fn stepped_quality(quality: u32) -> Setting {
    Setting::Quality(((quality + 2) / 5 * 5).max(5))
}

impl Parameter {
    /// The parameter that goes by `name` or has it as an alias, case included.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<&'static Self> {
        PARAMETERS.iter().find(|parameter| {
            parameter.name.as_bytes() == name || parameter.aliases.iter().any(|alias| alias.as_bytes() == name)
        })
    }
}

impl Values {
    /// Understands a decoded value, clamping where the range allows it.
    #[must_use]
    pub fn read(&self, raw: &[u8]) -> Option<Setting> {
        match self {
            Self::Whole { min, max, sets } => whole(raw).filter(|n| n >= min).map(|n| sets(n.min(*max))),
            Self::Decimal { min, max, sets } => thousandths(raw).map(|n| sets(n.clamp(*min, *max))),
            Self::Words(words) => words.iter().find(|(word, _)| word.as_bytes() == raw).map(|(_, setting)| *setting),
            Self::Colour { sets } => colour(raw).map(sets),
        }
    }
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { min, max, .. } => write!(f, "a whole number from {min} to {max}"),
            Self::Decimal { min, max, .. } => {
                write!(f, "a decimal from {} to {}", f64::from(*min) / 1000.0, f64::from(*max) / 1000.0)
            }
            Self::Words(words) => {
                f.write_str("one of ")?;
                for (n, (word, _)) in words.iter().enumerate() {
                    write!(f, "{}{word}", if n == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Colour { .. } => f.write_str("a colour as rrggbb"),
        }
    }
}

/// ASCII digits; what is beyond the type is its greatest value, for the caller clamps.
fn whole(raw: &[u8]) -> Option<u32> {
    let digits = !raw.is_empty() && raw.iter().all(u8::is_ascii_digit);
    digits.then(|| raw.iter().fold(0_u32, |n, digit| n.saturating_mul(10).saturating_add(u32::from(digit - b'0'))))
}

/// `digits` or `digits.digits`, in thousandths and greater than zero. The fourth digit after the point is cut: it
/// is noise of a browser's 32-bit zoom factor, which would ask for one pixel more than meant.
fn thousandths(raw: &[u8]) -> Option<u32> {
    let point = raw.iter().position(|byte| *byte == b'.');
    let (units, decimals) = point.map_or((raw, &b"0"[..]), |at| (&raw[..at], &raw[at + 1..]));
    let (units, _) = (whole(units)?, whole(decimals)?);
    let decimal = |place: usize| decimals.get(place).map_or(0, |digit| u32::from(digit - b'0'));
    let positive = units > 0 || decimals.iter().any(|digit| *digit != b'0');
    positive.then(|| units.saturating_mul(1000).saturating_add(decimal(0) * 100 + decimal(1) * 10 + decimal(2)))
}

/// `rrggbb`, either case.
fn colour(raw: &[u8]) -> Option<[u8; 3]> {
    let digits: &[u8; 6] = raw.try_into().ok()?;
    let channel = |at: usize| Some(hex_digit(digits[at])? << 4 | hex_digit(digits[at + 1])?);
    Some([channel(0)?, channel(2)?, channel(4)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, raw: &str, setting: Option<Setting>) {
        let parameter = Parameter::named(name.as_bytes()).expect(name);
        assert_eq!(parameter.values.read(raw.as_bytes()), setting, "{name}={raw}");
    }

    #[test]
    fn numbers_are_clamped_or_refused() {
        for (raw, size) in [
            ("1", Some(1)),
            ("032", Some(32)),
            ("4096", Some(4096)),
            ("4097", Some(4096)),
            ("99999999999999999999999999", Some(4096)),
            ("0", None),
            ("000", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            (" 1", None),
            ("1e9", None),
            ("3.5", None),
            ("0x10", None),
            ("٣٢", None),
            ("３２", None),
            ("NaN", None),
            ("32px", None),
            ("3\0", None),
        ] {
            check("size", raw, size.map(Setting::Size));
        }
    }

    #[test]
    fn decimals_are_cut_at_thousandths() {
        for (raw, dpr) in [
            ("1", Some(1000)),
            ("2", Some(2000)),
            ("1.5", Some(1500)),
            ("01.50", Some(1500)),
            ("1.100000023841858", Some(1100)),
            ("4.1", Some(4000)),
            ("99999999999.9", Some(4000)),
            ("0.1", Some(500)),
            ("0.0000001", Some(500)),
            ("0", None),
            ("0.000", None),
            ("", None),
            (".", None),
            (".5", None),
            ("2.", None),
            ("1.2.3", None),
            ("-1", None),
            ("1e1", None),
            ("inf", None),
            ("nan", None),
            ("1,5", None),
        ] {
            check("dpr", raw, dpr.map(Setting::Dpr));
        }
    }

    #[test]
    fn quality_goes_in_steps_of_five() {
        for (raw, quality) in
            [("1", 5), ("7", 5), ("8", 10), ("80", 80), ("82", 80), ("83", 85), ("99", 100), ("101", 100)]
        {
            check("q", raw, Some(Setting::Quality(quality)));
        }
        check("q", "0", None);
    }

    #[test]
    fn words_and_colours_are_exact() {
        check("f", "jpg", Some(Setting::Format(RequestedFormat::Jpeg)));
        check("output", "exe", None);
        check("fit", "Cover", None);
        check("fit", "crop", None);
        check("method", "scale", Some(Setting::Fit(Fit::Inside)));
        check("animated", "yes", None);
        check("bg", "FF8000", Some(Setting::Background([255, 128, 0])));
        check("bg", "fff", None);
        check("bg", "#ffffff", None);
        check("bg", "gggggg", None);
    }

    #[test]
    fn no_name_is_given_twice_and_every_default_is_understood() {
        let mut names: Vec<_> = PARAMETERS.iter().flat_map(|p| p.aliases.iter().chain([&p.name])).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        for parameter in PARAMETERS {
            assert!(parameter.default.is_none_or(|value| parameter.values.read(value.as_bytes()).is_some()));
        }
    }
}
