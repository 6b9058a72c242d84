//! Quantities with a unit: sizes in bytes, times, and how many in a time.

use super::raw::{Invalid, Raw};
use super::setting::{Setting, quoted};
use std::fmt;
use std::time::Duration;

/// A number of bytes, written `64MiB`, `64MB` or `67108864`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    const UNITS: [(&'static str, u64); 8] = [
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1_000),
        ("B", 1),
        ("", 1),
    ];

    /// So many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many times 1,048,576 bytes.
    #[must_use]
    pub const fn mebibytes(count: u32) -> Self {
        Self((count as u64) << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::UNITS.iter().find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => f.write_str("0B"),
        }
    }
}

impl Setting for ByteSize {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        let (count, unit) = number_and_unit(raw.text()?)?;
        let (_, unit) = Self::UNITS.iter().find(|(name, _)| *name == unit).ok_or(Invalid::Unexpected)?;
        count.checked_mul(*unit).map(Self).ok_or(Invalid::Unexpected)
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

/// A number from 0 with at most two digits behind the point, written `0.25`, `80` or `82.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal {
    hundredths: u32,
}

impl Decimal {
    /// So many hundredths.
    #[must_use]
    pub const fn hundredths(hundredths: u32) -> Self {
        Self { hundredths }
    }

    /// A whole number.
    #[must_use]
    pub const fn whole(number: u16) -> Self {
        Self { hundredths: number as u32 * 100 }
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> f64 {
        f64::from(self.hundredths) / 100.0
    }
}

impl Setting for Decimal {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        let (whole, fraction) = raw.text()?.split_once('.').unwrap_or((raw.text()?, "0"));
        let digits = |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if !(digits(whole, 7) && digits(fraction, 2)) {
            return Err(Invalid::Unexpected);
        }
        format!("{whole}{fraction:0<2}").parse().map(Self::hundredths).map_err(|_| Invalid::Unexpected)
    }

    fn show(&self) -> String {
        self.value().to_string()
    }
}

const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Setting for Duration {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        read_time(raw.text()?)
    }

    fn show(&self) -> String {
        quoted(time_text(*self))
    }
}

fn read_time(text: &str) -> Result<Duration, Invalid> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (count, unit) = number_and_unit(text)?;
    // Any other bare number is refused: seconds and milliseconds are mixed up too easily.
    let (_, unit) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or(Invalid::Unexpected)?;
    count.checked_mul(*unit).map(Duration::from_millis).ok_or(Invalid::Unexpected)
}

/// A time as it is written in `config.toml`, to the millisecond.
pub(super) fn time_text(time: Duration) -> String {
    let millis = time.as_millis();
    let whole = TIME_UNITS.iter().find(|(_, unit)| {
        let unit = u128::from(*unit);
        // `60s` reads better than `1m`, `2m` better than `120s`.
        millis >= unit && millis.is_multiple_of(unit) && (millis > unit || unit != 60_000)
    });
    whole.map_or("0s".to_owned(), |(name, unit)| format!("{}{name}", millis / u128::from(*unit)))
}

/// So many in a time, written `600/60s`: so many at once after a pause, and for ever at that pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// The time.
    pub per: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, time_text(self.per))
    }
}

/// `None`, no limit at all, is written `0`.
impl Setting for Option<Rate> {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        let text = raw.text()?;
        if text == "0" {
            return Ok(None);
        }
        let (count, per) = text.split_once('/').ok_or(Invalid::Unexpected)?;
        let count = u32::read(&Raw::Text(count.to_owned()))?;
        // `0/60s` could be meant as "nothing at all", which is not what `0` means.
        if count == 0 {
            return Err(Invalid::Unexpected);
        }
        Ok(Some(Rate { count, per: read_time(per.trim())? }))
    }

    fn show(&self) -> String {
        self.map_or_else(|| quoted(0), quoted)
    }
}

/// Splits `64MiB` behind its digits; a blank between them is allowed.
fn number_and_unit(text: &str) -> Result<(u64, &str), Invalid> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    Ok((count.parse().map_err(|_| Invalid::Unexpected)?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Setting>(text: &str) -> Result<T, Invalid> {
        T::read(&Raw::Text(text.to_owned()))
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("7B", 7),
            ("1KiB", 1024),
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("2GiB", 2 << 30),
            ("5kB", 5_000),
            ("5MB", 5_000_000),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(read(text), Ok(ByteSize(bytes)), "{text}");
        }
        for text in
            ["", "MiB", "-1", "+1", "1.5MiB", "1mib", "1TiB", "64MiB!", "99999999999999999999", "20000000000GiB"]
        {
            assert_eq!(read::<ByteSize>(text), Err(Invalid::Unexpected), "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, millis) in [("500ms", 500), ("60s", 60_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0), ("0", 0)]
        {
            assert_eq!(read(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "60", "s", "1.5s", "-1s", "1d", "1 hour", "99999999999999999999s", "9999999999999999h"] {
            assert_eq!(read::<Duration>(text), Err(Invalid::Unexpected), "{text}");
        }
    }

    #[test]
    fn rates_are_a_count_in_a_time() {
        let rate = |count, seconds| Ok(Some(Rate { count, per: Duration::from_secs(seconds) }));
        for (text, read_as, shown) in [
            ("600/60s", rate(600, 60), "600/60s"),
            (" 600 / 1m ", rate(600, 60), "600/60s"),
            ("1/1h", rate(1, 3600), "1/1h"),
            ("4294967295/1s", rate(u32::MAX, 1), "4294967295/1s"),
            ("0", Ok(None), "0"),
        ] {
            let rate = read::<Option<Rate>>(text);
            assert_eq!(rate, read_as, "{text}");
            assert_eq!(rate.map(|rate| rate.show()), Ok(quoted(shown)), "{text}");
        }
        for text in [
            "",
            "600",
            "600/",
            "/60s",
            "600/60",
            "0/60s",
            "00",
            "-1/60s",
            "+1/60s",
            "1.5/60s",
            "4294967296/1s",
            "1/s",
            "1/1s/1s",
        ] {
            assert_eq!(read::<Option<Rate>>(text), Err(Invalid::Unexpected), "{text}");
        }
    }

    #[test]
    fn both_are_written_as_people_do() {
        for (size, shown) in
            [(0, "0B"), (1, "1B"), (1024, "1KiB"), (64 << 20, "64MiB"), (1500, "1500B"), (10_000, "10kB")]
        {
            assert_eq!(ByteSize(size).to_string(), shown);
        }
        for (millis, shown) in [
            (0, "0s"),
            (500, "500ms"),
            (1_500, "1500ms"),
            (60_000, "60s"),
            (90_000, "90s"),
            (120_000, "2m"),
            (3_600_000, "1h"),
        ] {
            assert_eq!(Duration::from_millis(millis).show(), quoted(shown));
        }
    }
}
