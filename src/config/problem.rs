//! What is wrong with a configuration, said so that it can be put right: where, which key, and what was expected.

use std::fmt;

/// How many problems are printed; a file of another kind altogether would fill the screen.
const SHOWN_AT_MOST: usize = 40;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the file.
    File {
        /// The file as it was named.
        file: String,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Environment(variable) => f.write_str(variable),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    origin: Option<Origin>,
    key: Option<String>,
    told: String,
}

impl Problem {
    pub(super) fn new(told: impl Into<String>) -> Self {
        Self { origin: None, key: None, told: told.into() }
    }

    pub(super) fn at(self, origin: Origin) -> Self {
        Self { origin: Some(origin), ..self }
    }

    pub(super) fn of(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(Origin::Default) | None => {}
            Some(origin) => write!(f, "{origin}: ")?,
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.told)
    }
}

/// Why there is no configuration: every problem that was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn of(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// Every problem: of the file by line, of the environment by name, of the flags, and of keys that do not fit.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        write!(f, "the configuration has {count} {}", if count == 1 { "error" } else { "errors" })?;
        for problem in self.problems.iter().take(SHOWN_AT_MOST) {
            write!(f, "\n  {problem}")?;
        }
        match count.saturating_sub(SHOWN_AT_MOST) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// A value as it may be repeated in a message: short, on one line, and without what could be a secret in a URL that
/// ended up at the wrong key.
pub(super) fn repeated(text: &str) -> String {
    let visible = text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("***@{host}"));
    let visible = match visible.split_once(['?', '#']) {
        Some((before, _)) => format!("{before}..."),
        None => visible,
    };
    let short: String = visible.chars().take(60).collect();
    let rest = if short.len() < visible.len() { "..." } else { "" };
    format!("\"{}{rest}\"", short.escape_debug())
}

/// The candidate that was most likely meant, if one is near enough to be a slip of the keyboard.
pub(super) fn nearest<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The distance costs the product of both lengths, and no key is near this long.
    if written.len() > 80 {
        return None;
    }
    candidates
        .map(|candidate| (distance(written, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(4))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance in bytes, one row at a time.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (one, other, expected) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("workers", "worker", 1)]
        {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn only_a_slip_is_corrected() {
        let keys = ["server.listen", "server.workers", "cache.sources"];
        for (written, meant) in [
            ("server.worker", Some("server.workers")),
            ("sever.listen", Some("server.listen")),
            ("cache.source", Some("cache.sources")),
            ("grants.ttl", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, keys.into_iter()), meant, "{written}");
        }
        assert_eq!(nearest(&"x".repeat(1_000_000), keys.into_iter()), None);
    }

    #[test]
    fn nothing_secret_is_repeated() {
        for (text, shown) in [
            ("abc", "\"abc\""),
            ("http://bob:pen?cil@host", "\"***@host\""),
            ("http://host/?pencil", "\"http://host/...\""),
            ("a\nb", "\"a\\nb\""),
        ] {
            assert_eq!(repeated(text), shown);
        }
        assert_eq!(repeated(&"x".repeat(100)), format!("\"{}...\"", "x".repeat(60)));
    }
}
