//! Quantities with a unit: sizes in bytes and times.

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

const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Setting for Duration {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        let (count, unit) = number_and_unit(raw.text()?)?;
        // A bare number is refused: seconds and milliseconds are mixed up too easily.
        let (_, unit) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or(Invalid::Unexpected)?;
        count.checked_mul(*unit).map(Self::from_millis).ok_or(Invalid::Unexpected)
    }

    fn show(&self) -> String {
        let millis = self.as_millis();
        let whole = TIME_UNITS.iter().find(|(_, unit)| {
            let unit = u128::from(*unit);
            // `60s` reads better than `1m`, `2m` better than `120s`.
            millis >= unit && millis.is_multiple_of(unit) && (millis > unit || unit <= 1_000)
        });
        quoted(whole.map_or("0s".to_owned(), |(name, unit)| format!("{}{name}", millis / u128::from(*unit))))
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
        for (text, millis) in [("500ms", 500), ("60s", 60_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(read(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "60", "s", "1.5s", "-1s", "1d", "1 hour", "99999999999999999999s", "9999999999999999h"] {
            assert_eq!(read::<Duration>(text), Err(Invalid::Unexpected), "{text}");
        }
    }

    #[test]
    fn both_are_written_as_people_do() {
        for (size, shown) in
            [(0, "0B"), (1, "1B"), (1024, "1KiB"), (64 << 20, "64MiB"), (1500, "1500B"), (10_000, "10kB")]
        {
            assert_eq!(ByteSize(size).to_string(), shown);
        }
        for (millis, shown) in
            [(0, "0s"), (500, "500ms"), (1_500, "1500ms"), (60_000, "60s"), (90_000, "90s"), (120_000, "2m")]
        {
            assert_eq!(Duration::from_millis(millis).show(), quoted(shown));
        }
    }
}
