//! Client hints: what a client says of its screen and of its line beside the query, reduced to a few values before any key
//! is made.
//!
//! `Sec-CH-DPR` and `Sec-CH-Width` are of the responsive image client hints (WICG), `DPR` and `Width` their names before
//! that, `Save-Data` is of its own (WICG). What cannot be read says nothing; the query wins over all of them.
//!
//! No picture asks for them: browsers heed the `Accept-CH` (RFC 8942 section 3.1) of the page that they opened, and that is
//! passed through as it came.

/// The fields that are looked at, as `Vary` names them (RFC 9110 section 12.5.5).
pub const FIELDS: &str = "Sec-CH-DPR, DPR, Sec-CH-Width, Width, Save-Data";

/// Pixels in a CSS pixel, in thousandths: what is said is rounded up to one of these.
const RATIOS: [u32; 5] = [1000, 1500, 2000, 3000, 4000];

/// The `quality` for whoever saves data and asked for none: it shows, but not at the first glance.
const SAVING_QUALITY: u32 = 70;

/// What a client says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hints {
    ratio: Option<u32>,
    old_ratio: Option<u32>,
    width: Option<u32>,
    old_width: Option<u32>,
    saves_data: bool,
}

impl Hints {
    /// Takes a field, its name in lower case; others are not looked at.
    pub fn take(&mut self, name: &str, value: &[u8]) {
        match name {
            "sec-ch-dpr" => self.ratio = ratio(value),
            "dpr" => self.old_ratio = ratio(value),
            "sec-ch-width" => self.width = width(value),
            "width" => self.old_width = width(value),
            // A structured field: `on` may have parameters (RFC 8941 section 3.3.4).
            "save-data" => {
                let token = value.split(|byte| *byte == b';').next().unwrap_or_default();
                self.saves_data = token.trim_ascii().eq_ignore_ascii_case(b"on");
            }
            _ => {}
        }
    }

    /// Pixels in a CSS pixel, in thousandths.
    pub(super) fn ratio(&self) -> Option<u32> {
        // Whoever saves data does without the finer pixels.
        if self.saves_data { None } else { self.ratio.or(self.old_ratio) }
    }

    /// The width of the place that the picture has, in pixels.
    pub(super) fn width(&self) -> Option<u32> {
        self.width.or(self.old_width)
    }

    /// 5 to 100 in steps of 5.
    pub(super) fn quality(&self) -> Option<u32> {
        self.saves_data.then_some(SAVING_QUALITY)
    }
}

fn ratio(value: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let thousandths = number(whole)?.checked_mul(1000)?.checked_add(number(&format!("{fraction:0<3.3}"))?)?;
    let is_number = fraction.bytes().all(|byte| byte.is_ascii_digit()) && !fraction.is_empty();
    let least = (is_number && thousandths > 0).then_some(thousandths)?;
    Some(RATIOS.into_iter().find(|ratio| *ratio >= least).unwrap_or(4000))
}

fn width(value: &[u8]) -> Option<u32> {
    number(std::str::from_utf8(value).ok()?.trim()).filter(|width| *width > 0)
}

fn number(text: &str) -> Option<u32> {
    let is_plain = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(fields: &[(&str, &str)]) -> Hints {
        let mut hints = Hints::default();
        for (name, value) in fields {
            hints.take(name, value.as_bytes());
        }
        hints
    }

    #[test]
    fn what_is_said_is_reduced_to_few_values() {
        for (value, ratio) in [
            ("1", Some(1000)),
            ("1.0", Some(1000)),
            ("0.75", Some(1000)),
            ("1.25", Some(1500)),
            ("1.5", Some(1500)),
            ("2.000001", Some(2000)),
            ("2.625", Some(3000)),
            (" 3 ", Some(3000)),
            ("97", Some(4000)),
            ("0", None),
            ("0.0", None),
            ("-1", None),
            ("1e3", None),
            ("inf", None),
            ("NaN", None),
            ("1.", None),
            (".5", None),
            ("2.x", None),
            ("9999999999", None),
            ("", None),
        ] {
            assert_eq!(hints(&[("sec-ch-dpr", value)]).ratio(), ratio, "{value:?}");
            assert_eq!(hints(&[("dpr", value)]).ratio(), ratio, "{value:?}");
        }
        for (value, width) in [("32", Some(32)), ("0", None), ("1.5", None), ("-3", None), ("4294967296", None)] {
            assert_eq!(hints(&[("width", value)]).width(), width, "{value:?}");
        }
        for (value, saves) in [("on", true), ("On; x=1", true), ("off", false), ("", false), ("on on", false)] {
            assert_eq!(hints(&[("save-data", value)]).quality().is_some(), saves, "{value:?}");
        }
    }

    #[test]
    fn the_newer_name_wins_and_saving_needs_no_finer_pixels() {
        let both = hints(&[("dpr", "3"), ("sec-ch-dpr", "2"), ("sec-ch-width", "64"), ("width", "32")]);
        assert_eq!((both.ratio(), both.width()), (Some(2000), Some(64)));
        assert_eq!(hints(&[("dpr", "3"), ("save-data", "on")]).ratio(), None);
    }
}
