//! A query string, read as Go's `url.ParseQuery` reads it: what cannot be decoded is left out.

use super::routes;

/// The parameters of a request, in order.
#[derive(Default, Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part behind the `?`.
    pub(super) fn parse(raw: &str) -> Self {
        let decode = |text: &str| routes::decode(&text.replace('+', " "));
        let pairs = raw.split('&').filter(|pair| !pair.contains(';')).filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        });
        Self(pairs.collect())
    }

    /// The first value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// A whole number, or what stands for it when the parameter is absent or none.
    pub(super) fn number(&self, name: &str, otherwise: usize) -> usize {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or(otherwise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_decodable_value_counts() {
        for (raw, name, expected) in [
            ("a=1&a=2", "a", Some("1")),
            ("a=%41+b", "a", Some("A b")),
            ("%zz&a=1", "a", Some("1")),
            ("a", "a", Some("")),
            ("b=1", "a", None),
            ("", "a", None),
        ] {
            assert_eq!(Query::parse(raw).get(name), expected, "{raw}");
        }
        assert_eq!(Query::parse("page=3").number("page", 0), 3);
        assert_eq!(Query::parse("page=x").number("page", 7), 7);
    }
}
