//! Values as they are written, in TOML or as plain text: their shapes, before anybody knows what they should be.

use std::collections::BTreeMap;
use toml::de::DeValue;

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

    /// The text of a scalar.
    pub(super) fn text(&self) -> Result<&str, Invalid> {
        match self {
            Self::Text(text) => Ok(text.trim()),
            Self::List(_) | Self::Table(_) | Self::Nested => Err(Invalid::Unexpected),
        }
    }

    /// The items of an array; in text, an array as in TOML or words between commas.
    pub(super) fn items(&self) -> Result<Vec<String>, Invalid> {
        match self {
            Self::List(items) => Ok(items.clone()),
            Self::Text(text) if text.trim_start().starts_with('[') => Self::of_text(text)?.items(),
            Self::Text(text) if text.trim().is_empty() => Ok(Vec::new()),
            Self::Text(text) => Ok(text.split(',').map(|item| item.trim().to_owned()).collect()),
            Self::Table(_) | Self::Nested => Err(Invalid::Unexpected),
        }
    }

    /// The entries of a table; in text, an inline table as in TOML.
    pub(super) fn entries(&self) -> Result<BTreeMap<String, Vec<String>>, Invalid> {
        match self {
            Self::Table(entries) => Ok(entries.clone()),
            Self::Text(text) if text.trim_start().starts_with('{') => Self::of_text(text)?.entries(),
            Self::Text(text) if text.trim().is_empty() => Ok(BTreeMap::new()),
            Self::Text(_) | Self::List(_) | Self::Nested => Err(Invalid::Unexpected),
        }
    }

    fn of_text(text: &str) -> Result<Self, Invalid> {
        match Self::of(DeValue::parse(text.trim()).map_err(|_| Invalid::Unexpected)?.get_ref()) {
            // A scalar here could be read as text again without end.
            Self::Text(_) => Err(Invalid::Unexpected),
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
    Unexpected,
    /// More can be said. Holds no part of a value that may be a secret.
    Because(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Raw {
        Raw::of(DeValue::parse(text).expect("TOML").get_ref())
    }

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn a_scalar_is_its_text() {
        for (written, read) in [
            ("\"a\"", "a"),
            ("12", "12"),
            ("8_000_000", "8000000"),
            ("0x10", "0x10"),
            ("1.50", "1.50"),
            ("true", "true"),
            ("2026-01-01", "2026-01-01"),
        ] {
            assert_eq!(toml(written), text(read));
        }
        assert_eq!(text(" a ").text(), Ok("a"));
        assert_eq!(toml("[1]").text(), Err(Invalid::Unexpected));
    }

    #[test]
    fn lists_and_tables_are_one_level_deep() {
        assert_eq!(toml("[1, \"a\"]"), Raw::List(vec!["1".to_owned(), "a".to_owned()]));
        assert_eq!(toml("[[1]]"), Raw::Nested);
        assert_eq!(toml("{ a = { b = 1 } }"), Raw::Nested);
        let entries = BTreeMap::from([("a".to_owned(), vec!["1".to_owned()]), ("b".to_owned(), Vec::new())]);
        assert_eq!(toml("{ a = 1, b = [] }"), Raw::Table(entries.clone()));
        assert_eq!(text("{ a = 1, b = [] }").entries(), Ok(entries));
        assert_eq!(text("").entries(), Ok(BTreeMap::new()));
        assert_eq!(text("a").entries(), Err(Invalid::Unexpected));
        assert_eq!(text("{").entries(), Err(Invalid::Unexpected));
    }

    #[test]
    fn text_may_be_a_list() {
        for (written, items) in [("", &[][..]), ("a", &["a"]), ("a, b", &["a", "b"]), (" [\"a\", 1] ", &["a", "1"])] {
            assert_eq!(text(written).items(), Ok(items.iter().map(ToString::to_string).collect()), "{written}");
        }
        for written in ["[", "[[1]]", "[1] 2"] {
            assert_eq!(text(written).items(), Err(Invalid::Unexpected), "{written}");
        }
    }
}
