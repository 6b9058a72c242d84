//! Settings: how one value is read from TOML or from text, and how it is written back.
//!
//! A scalar is read by its text, so `workers = 4`, `workers = "4"` and the environment's `4` are one thing.

use super::address::{BasePath, TlsName, UpstreamHost, UpstreamUrl};
use super::problem::repeated;
use super::raw::{Invalid, Raw};
use crate::telemetry::LogFormat;
use crate::upstream::Roots;
use crate::variant::Format;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use tracing::level_filters::LevelFilter;

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
                digits.then(|| text.parse().ok()).flatten().ok_or(Invalid::Unexpected)
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
        raw.text()?.parse().map_err(|_| Invalid::Unexpected)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for SocketAddr {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        raw.text()?.parse().map_err(|_| Invalid::Unexpected)
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

impl Setting for Option<PathBuf> {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        let text = raw.text()?;
        Ok((!text.is_empty()).then(|| text.into()))
    }

    fn show(&self) -> String {
        quoted(self.as_deref().unwrap_or(Path::new("")).display())
    }
}

impl Setting for Option<Roots> {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        let path = raw.text()?;
        if path.is_empty() {
            return Ok(None);
        }
        Roots::read(Path::new(path)).map(Some).map_err(|error| Invalid::Because(format!("{}: {error}", repeated(path))))
    }

    fn show(&self) -> String {
        quoted(self.as_ref().map_or(Path::new(""), Roots::path).display())
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
    let network: IpNet = text.parse().map_err(|_| Invalid::Unexpected)?;
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
        let known = [Format::Avif, Format::Webp].into_iter().find(|format| format.name() == name);
        let format = known.ok_or(Invalid::Unexpected)?;
        if formats.contains(&format) {
            return Err(Invalid::Because(format!("{name} is named twice")));
        }
        formats.push(format);
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

impl Setting for Option<TlsName> {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        let text = raw.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        TlsName::parse(text).map(Some).map_err(|why| Invalid::Because(why.to_owned()))
    }

    fn show(&self) -> String {
        quoted(self.as_ref().map_or("", TlsName::as_str))
    }
}

impl Setting for LevelFilter {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        let text = raw.text()?;
        // `FromStr` takes numbers and any case too; one spelling is enough.
        [Self::OFF, Self::ERROR, Self::WARN, Self::INFO, Self::DEBUG, Self::TRACE]
            .into_iter()
            .find(|level| level.to_string() == text)
            .ok_or(Invalid::Unexpected)
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Setting for LogFormat {
    fn read(raw: &Raw) -> Result<Self, Invalid> {
        let text = raw.text()?;
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or(Invalid::Unexpected)
    }

    fn show(&self) -> String {
        quoted(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::quantity::{ByteSize, Rate};
    use proptest::prelude::*;
    use std::time::Duration;
    use toml::de::DeValue;

    fn read<T: Setting>(text: &str) -> Result<T, Invalid> {
        T::read(&Raw::Text(text.to_owned()))
    }

    #[test]
    fn lists_and_tables_may_be_text() {
        assert_eq!(read("16, 32"), Ok(vec![16_u32, 32]));
        assert_eq!(read(" [16, 32] "), Ok(vec![16_u32, 32]));
        assert_eq!(read(""), Ok(Vec::<u32>::new()));
        assert_eq!(read::<Vec<u32>>("[[16]]"), Err(Invalid::Unexpected));
        assert_eq!(read::<Vec<u32>>("[16"), Err(Invalid::Unexpected));
        assert_eq!(
            read("{ \"X/\" = [\"webp\"], Y = \"webp\" }"),
            Ok(["X/", "Y"].map(|p| UserAgentFormats { prefix: p.to_owned(), formats: vec![Format::Webp] }).to_vec())
        );
        assert_eq!(read("webp, avif"), Ok(vec![Format::Webp, Format::Avif]));
        assert_eq!(read("avif"), Ok(vec![Format::Avif]));
        assert_eq!(read::<Vec<Format>>("jpeg"), Err(Invalid::Unexpected));
        assert_eq!(read::<Vec<UserAgentFormats>>("webp"), Err(Invalid::Unexpected));
        assert_eq!(read::<Vec<Format>>("webp,webp"), Err(Invalid::Because("webp is named twice".to_owned())));
    }

    #[test]
    fn networks_are_whole() {
        let networks = read::<Vec<IpNet>>("10.0.0.0/8, ::1, 192.0.2.7").expect("good networks");
        assert_eq!(networks.show(), r#"["10.0.0.0/8", "::1/128", "192.0.2.7/32"]"#);
        assert!(matches!(read::<Vec<IpNet>>("10.0.0.5/8"), Err(Invalid::Because(_))));
        assert_eq!(read::<Vec<IpNet>>("10.0.0.0/33"), Err(Invalid::Unexpected));
    }

    #[test]
    fn words_are_spelled_one_way() {
        for level in ["off", "error", "warn", "info", "debug", "trace"] {
            assert_eq!(read::<LevelFilter>(level).map(|level| level.show()), Ok(quoted(level)));
        }
        for level in ["", "INFO", "3", "warning"] {
            assert_eq!(read::<LevelFilter>(level), Err(Invalid::Unexpected));
        }
        assert_eq!(read("json"), Ok(LogFormat::Json));
        assert_eq!(read::<LogFormat>("JSON"), Err(Invalid::Unexpected));
    }

    fn reads_back<T: Setting + PartialEq + fmt::Debug>(value: &T) {
        let shown = value.show();
        let parsed = DeValue::parse(&shown).expect("`show` writes TOML");
        assert_eq!(T::read(&Raw::of(parsed.get_ref())).as_ref(), Ok(value), "{shown}");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(
            bytes: u64,
            seconds in 0..=u64::from(u32::MAX),
            count in 1..=u32::MAX,
            sizes: Vec<u32>,
            prefix: String,
        ) {
            reads_back(&ByteSize::new(bytes));
            reads_back(&Duration::from_secs(seconds));
            reads_back(&Duration::from_millis(seconds));
            reads_back(&Some(Rate { count, per: Duration::from_millis(seconds) }));
            reads_back(&sizes);
            reads_back(&vec![UserAgentFormats { prefix, formats: vec![Format::Webp] }]);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = read::<ByteSize>(&text);
            let _ = read::<Duration>(&text);
            let _ = read::<Option<Rate>>(&text);
            let _ = read::<Vec<u32>>(&text);
            let _ = read::<Vec<UserAgentFormats>>(&text);
            let _ = read::<Vec<IpNet>>(&text);
            let _ = read::<UpstreamUrl>(&text);
            let _ = read::<UpstreamHost>(&text);
            let _ = read::<BasePath>(&text);
        }
    }
}
