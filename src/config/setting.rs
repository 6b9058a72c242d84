//! Settings: how one value is read from TOML or from text, and how it is written back.
//!
//! A scalar is read by its text, so `workers = 4`, `workers = "4"` and the environment's `4` are one thing.

use super::address::{BasePath, UpstreamHost, UpstreamUrl};
use crate::telemetry::LogFormat;
use crate::variant::Format;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use toml::de::DeValue;
use tracing::level_filters::LevelFilter;

/// A value as it was written, before anybody knows what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// A scalar of the file, or any variable or flag.
    Text(String),
    /// An array of scalars.
    List(Vec<String>),
    /// A table of scalars and arrays.
    Table(BTreeMap<String, Vec<String>>),
    /// A shape that no key has.
    Nested,
}

impl Raw {
    /// Reduces a TOML value to the shapes that keys have.
    pub(super) fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::Array(items) => {
                items.iter().map(|item| scalar(item.get_ref())).collect::<Option<_>>().map_or(Self::Nested, Self::List)
            }
            DeValue::Table(entries) => entries
                .iter()
                .map(|(name, value)| {
                    let items = match Self::of(value.get_ref()) {
                        Self::Text(text) => vec![text],
                        Self::List(items) => items,
                        Self::Table(_) | Self::Nested => return None,
                    };
                    Some((name.get_ref().to_string(), items))
                })
                .collect::<Option<_>>()
                .map_or(Self::Nested, Self::Table),
            value => scalar(value).map_or(Self::Nested, Self::Text),
        }
    }

    fn text(&self) -> Result<&str, Invalid> {
        match self {
            Self::Text(text) => Ok(text.trim()),
            Self::List(_) | Self::Table(_) | Self::Nested => Err(Invalid::NotUnderstood),
        }
    }

    /// The items of an array; in text, an array as in TOML or words between commas.
    fn items(&self) -> Result<Vec<String>, Invalid> {
        match self {
            Self::List(items) => Ok(items.clone()),
            Self::Text(text) if text.trim_start().starts_with('[') => Self::of_text(text)?.items(),
            Self::Text(text) if text.trim().is_empty() => Ok(Vec::new()),
            Self::Text(text) => Ok(text.split(',').map(|item| item.trim().to_owned()).collect()),
            Self::Table(_) | Self::Nested => Err(Invalid::NotUnderstood),
        }
    }

    /// The entries of a table; in text, an inline table as in TOML.
    fn entries(&self) -> Result<BTreeMap<String, Vec<String>>, Invalid> {
        match self {
            Self::Table(entries) => Ok(entries.clone()),
            Self::Text(text) if text.trim_start().starts_with('{') => Self::of_text(text)?.entries(),
            Self::Text(text) if text.trim().is_empty() => Ok(BTreeMap::new()),
            Self::Text(_) | Self::List(_) | Self::Nested => Err(Invalid::NotUnderstood),
        }
    }

    fn of_text(text: &str) -> Result<Self, Invalid> {
        match Self::of(DeValue::parse(text.trim()).map_err(|_| Invalid::NotUnderstood)?.get_ref()) {
            // A scalar here could be read as text again without end.
            Self::Text(_) => Err(Invalid::NotUnderstood),
            raw => Ok(raw),
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(word) => Some(word.to_string()),
        DeValue::Datetime(time) => Some(time.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Why a value was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// It is not what the key expects; the value is quoted in the message.
    NotUnderstood,
    /// More can be said. Holds no part of a value that may be a secret.
    Because(String),
}

/// A type that a key may have.
pub(super) trait Setting: Sized {
    /// Reads it; ranges are the key's business.
    fn read(raw: &Raw) -> Result<Self, Invalid>;

    /// Writes it as a TOML value that reads back as itself.
    fn show(&self) -> String;
}

/// A TOML basic string, which a key may be too. Its escapes are those of JSON, but it wants DEL escaped as well.
pub(super) fn quoted(text: impl fmt::Display) -> String {
    serde_json::Value::String(text.to_string()).to_string().replace('\u{7f}', "\\u007F")
}

fn listed<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "))
}

macro_rules! whole_number {
    ($($number:ty),+) => {$(
        impl Setting for $number {
            fn read(raw: &Raw) -> Result<Self, Invalid> {
                let text = raw.text()?;
                // `FromStr` takes a plus sign, which nobody writes on purpose.
                let digits = text.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| text.parse().ok()).flatten().ok_or(Invalid::NotUnderstood)
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}
whole_number!(u32, u64, usize);

impl Setting for bool {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        raw.text()?.parse().map_err(|_| Invalid::NotUnderstood)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

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
        let (_, unit) = Self::UNITS.iter().find(|(name, _)| *name == unit).ok_or(Invalid::NotUnderstood)?;
        count.checked_mul(*unit).map(Self).ok_or(Invalid::NotUnderstood)
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
        let (_, unit) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or(Invalid::NotUnderstood)?;
        count.checked_mul(*unit).map(Self::from_millis).ok_or(Invalid::NotUnderstood)
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
    Ok((count.parse().map_err(|_| Invalid::NotUnderstood)?, unit.trim_start()))
}

impl Setting for SocketAddr {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        raw.text()?.parse().map_err(|_| Invalid::NotUnderstood)
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Setting for Option<SocketAddr> {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        if raw.text()?.is_empty() { Ok(None) } else { SocketAddr::read(raw).map(Some) }
    }

    fn show(&self) -> String {
        self.map_or_else(|| quoted(""), |address| address.show())
    }
}

impl Setting for Vec<IpNet> {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        raw.items()?.iter().map(|item| network(item)).collect()
    }

    fn show(&self) -> String {
        listed(self, |network| quoted(network))
    }
}

/// A network, or an address that stands for itself. Bits behind the prefix are more often a slip than a wish.
fn network(text: &str) -> Result<IpNet, Invalid> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network: IpNet = text.parse().map_err(|_| Invalid::NotUnderstood)?;
    if network.trunc() == network {
        Ok(network)
    } else {
        Err(Invalid::Because(format!("{network} has bits behind its prefix, the network is {}", network.trunc())))
    }
}

impl Setting for Vec<u32> {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        raw.items()?.into_iter().map(|item| u32::read(&Raw::Text(item))).collect()
    }

    fn show(&self) -> String {
        listed(self, u32::to_string)
    }
}

impl Setting for Vec<Format> {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        negotiable(&raw.items()?)
    }

    fn show(&self) -> String {
        listed(self, |format| quoted(format.name()))
    }
}

/// The formats among which negotiation may choose. PNG and JPEG need not be named: they are always there.
fn negotiable(names: &[String]) -> Result<Vec<Format>, Invalid> {
    let mut formats = Vec::new();
    for name in names {
        if name != Format::Webp.name() {
            return Err(Invalid::NotUnderstood);
        }
        if formats.contains(&Format::Webp) {
            return Err(Invalid::Because(format!("{name} is named twice")));
        }
        formats.push(Format::Webp);
    }
    Ok(formats)
}

/// What clients whose `User-Agent` begins with `prefix` are known to show, though their `Accept` does not say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserAgentFormats {
    /// The beginning of the field value.
    pub prefix: String,
    /// The formats.
    pub formats: Vec<Format>,
}

impl Setting for Vec<UserAgentFormats> {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        raw.entries()?
            .into_iter()
            .map(|(prefix, names)| Ok(UserAgentFormats { prefix, formats: negotiable(&names)? }))
            .collect()
    }

    fn show(&self) -> String {
        if self.is_empty() {
            return "{}".to_owned();
        }
        let entries: Vec<_> =
            self.iter().map(|agent| format!("{} = {}", quoted(&agent.prefix), agent.formats.show())).collect();
        format!("{{ {} }}", entries.join(", "))
    }
}

impl Setting for BasePath {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        Self::parse(raw.text()?).map_err(|why| Invalid::Because(why.to_owned()))
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Setting for UpstreamUrl {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        // The value is never quoted: what is wrong with it may be that it holds a password.
        Self::parse(raw.text().unwrap_or_default()).map_err(|why| Invalid::Because(why.to_owned()))
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Setting for UpstreamHost {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        Self::parse(raw.text()?).map_err(|why| Invalid::Because(why.to_owned()))
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Setting for LevelFilter {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        let text = raw.text()?;
        // `FromStr` takes numbers and any case too; one spelling is enough.
        [Self::OFF, Self::ERROR, Self::WARN, Self::INFO, Self::DEBUG, Self::TRACE]
            .into_iter()
            .find(|level| level.to_string() == text)
            .ok_or(Invalid::NotUnderstood)
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Setting for LogFormat {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        let text = raw.text()?;
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or(Invalid::NotUnderstood)
    }

    fn show(&self) -> String {
        quoted(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            assert_eq!(read::<ByteSize>(text), Err(Invalid::NotUnderstood), "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, millis) in [("500ms", 500), ("60s", 60_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(read(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "60", "s", "1.5s", "-1s", "1d", "1 hour", "99999999999999999999s", "9999999999999999h"] {
            assert_eq!(read::<Duration>(text), Err(Invalid::NotUnderstood), "{text}");
        }
    }

    #[test]
    fn lists_and_tables_may_be_text() {
        assert_eq!(read("16, 32"), Ok(vec![16_u32, 32]));
        assert_eq!(read(" [16, 32] "), Ok(vec![16_u32, 32]));
        assert_eq!(read(""), Ok(Vec::<u32>::new()));
        assert_eq!(read::<Vec<u32>>("[[16]]"), Err(Invalid::NotUnderstood));
        assert_eq!(read::<Vec<u32>>("[16"), Err(Invalid::NotUnderstood));
        assert_eq!(
            read("{ \"X/\" = [\"webp\"], Y = \"webp\" }"),
            Ok(["X/", "Y"].map(|p| UserAgentFormats { prefix: p.to_owned(), formats: vec![Format::Webp] }).to_vec())
        );
        assert_eq!(read::<Vec<UserAgentFormats>>("webp"), Err(Invalid::NotUnderstood));
        assert_eq!(read::<Vec<Format>>("webp,webp"), Err(Invalid::Because("webp is named twice".to_owned())));
    }

    #[test]
    fn networks_are_whole() {
        let networks = read::<Vec<IpNet>>("10.0.0.0/8, ::1, 192.0.2.7").expect("good networks");
        assert_eq!(networks.show(), r#"["10.0.0.0/8", "::1/128", "192.0.2.7/32"]"#);
        assert!(matches!(read::<Vec<IpNet>>("10.0.0.5/8"), Err(Invalid::Because(_))));
        assert_eq!(read::<Vec<IpNet>>("10.0.0.0/33"), Err(Invalid::NotUnderstood));
    }

    fn reads_back<T: Setting + PartialEq + fmt::Debug>(value: &T) {
        let shown = value.show();
        let parsed = DeValue::parse(&shown).expect("`show` writes TOML");
        assert_eq!(T::read(&Raw::of(parsed.get_ref())).as_ref(), Ok(value), "{shown}");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(bytes: u64, seconds in 0..=u64::from(u32::MAX), sizes: Vec<u32>, prefix: String) {
            reads_back(&ByteSize(bytes));
            reads_back(&Duration::from_secs(seconds));
            reads_back(&Duration::from_millis(seconds));
            reads_back(&sizes);
            reads_back(&vec![UserAgentFormats { prefix, formats: vec![Format::Webp] }]);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = read::<ByteSize>(&text);
            let _ = read::<Duration>(&text);
            let _ = read::<Vec<u32>>(&text);
            let _ = read::<Vec<UserAgentFormats>>(&text);
            let _ = read::<Vec<IpNet>>(&text);
            let _ = read::<UpstreamUrl>(&text);
            let _ = read::<UpstreamHost>(&text);
            let _ = read::<BasePath>(&text);
        }
    }
}
