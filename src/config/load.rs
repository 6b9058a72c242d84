//! Loading: defaults, then the file, then the environment, then the flags, each over the one before. Whatever is wrong in
//! any of them is told at once.

use super::Config;
use super::keys::{self, ENVIRONMENT_PREFIX, KEYS, Key};
use super::problem::{ConfigError, Origin, Problem, nearest, repeated};
use super::raw::{Invalid, Raw};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// More than a configuration ever has; `--config /dev/zero` should be an error too.
const FILE_BYTES_AT_MOST: u64 = 1 << 20;

/// The file that is looked for when none is named.
const USUAL_FILE: &str = "config.toml";

/// Where the file is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FileSource {
    /// This one, which has to be there.
    Named(PathBuf),
    /// This one if it is there.
    IfPresent(PathBuf),
    /// None.
    #[default]
    Absent,
}

/// Everything that a configuration is read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file.
    pub file: FileSource,
    /// The environment; variables that are not ours are skipped.
    pub environment: Vec<(OsString, OsString)>,
    /// The flags that were given, by the name in [`Key::flag`].
    pub flags: Vec<(&'static str, String)>,
}

impl Sources {
    /// What this process was started with: the file of `--config` or else `./config.toml` if there is one, its
    /// environment, and `flags`.
    #[must_use]
    pub fn of_process(config: Option<PathBuf>, flags: Vec<(&'static str, String)>) -> Self {
        Self {
            file: config.map_or_else(|| FileSource::IfPresent(USUAL_FILE.into()), FileSource::Named),
            environment: std::env::vars_os().collect(),
            flags,
        }
    }
}

/// A configuration that passed every check, and where each value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Beside each row of [`KEYS`]: where its value came from.
    pub(super) origins: Vec<Origin>,
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// Unknown sections, keys and variables, values that are not what their key expects, keys that do not fit together,
    /// and an `upstream.url` that nobody named: all of them at once.
    ///
    /// # Panics
    /// When [`Sources::flags`] names a flag that no key has: a mistake in the program.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        Self::load_for(sources, Mattermost::Required)
    }

    /// [`Config::load`] for what can be done without a Mattermost: `upstream.url` need not be named.
    ///
    /// # Errors
    /// All others of [`Config::load`].
    ///
    /// # Panics
    /// As [`Config::load`].
    pub fn load_without_upstream(sources: &Sources) -> Result<Loaded, ConfigError> {
        Self::load_for(sources, Mattermost::Spared)
    }

    fn load_for(sources: &Sources, mattermost: Mattermost) -> Result<Loaded, ConfigError> {
        let mut draft = Draft::new();
        draft.apply_file(&sources.file);
        draft.apply_environment(&sources.environment);
        draft.apply_flags(&sources.flags);
        draft.check_as_a_whole(mattermost);
        if draft.problems.is_empty() {
            Ok(Loaded { config: draft.config, origins: draft.origins })
        } else {
            Err(ConfigError::of(draft.problems))
        }
    }
}

/// Whether somebody has to say where Mattermost is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mattermost {
    Required,
    Spared,
}

impl Loaded {
    /// Where the value of the key `section.name` came from; `None` for a key that does not exist.
    #[must_use]
    pub fn origin(&self, path: &str) -> Option<&Origin> {
        position(path).map(|row| &self.origins[row])
    }
}

/// The row of the key `section.name`.
fn position(path: &str) -> Option<usize> {
    let (section, name) = path.rsplit_once('.')?;
    KEYS.iter().position(|key| key.section == section && key.name == name)
}

/// A configuration while its layers are laid on each other.
struct Draft {
    config: Config,
    origins: Vec<Origin>,
    problems: Vec<Problem>,
    /// Beside each row of [`KEYS`]: whether a value of it was refused, so that what stands there is not what was meant.
    refused: Vec<bool>,
    /// A file that could not be read may have held any key.
    file_is_unknown: bool,
}

impl Draft {
    fn new() -> Self {
        Self {
            config: Config::default(),
            origins: vec![Origin::Default; KEYS.len()],
            problems: Vec::new(),
            refused: vec![false; KEYS.len()],
            file_is_unknown: false,
        }
    }

    fn apply_file(&mut self, source: &FileSource) {
        let (path, text) = match source {
            FileSource::Absent => return,
            FileSource::Named(path) => (path, read_text(path)),
            FileSource::IfPresent(path) => match read_text(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
                text => (path, text),
            },
        };
        let file = path.display().to_string();
        match text {
            Ok(text) => self.apply_text(&file, &text),
            Err(error) => {
                self.file_is_unknown = true;
                self.problems.push(Problem::new(format!("{file}: cannot be read: {error}")));
            }
        }
    }

    fn apply_text(&mut self, file: &str, text: &str) {
        let at = |offset: usize| Origin::File { file: file.to_owned(), line: line_of(text, offset) };
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            self.file_is_unknown = true;
            for error in errors {
                // Only the message: the error's own form repeats the line, and that may hold a password.
                let told = Problem::new(format!("this is not TOML: {}", error.message()));
                self.problems.push(told.at(at(error.span().map_or(0, |span| span.start))));
            }
            return;
        }
        for (section, content) in in_file_order(document.get_ref()) {
            let DeValue::Table(entries) = content else {
                let told = unknown_section_or_key(section.text);
                self.problems.push(told.at(at(section.offset)));
                continue;
            };
            if !KEYS.iter().any(|key| key.section == section.text) {
                self.problems.push(unknown_section_or_key(section.text).at(at(section.offset)));
                continue;
            }
            self.apply_section(section.text, entries, &at);
        }
    }

    fn apply_section(&mut self, section: &str, entries: &DeTable<'_>, at: &dyn Fn(usize) -> Origin) {
        for (name, value) in in_file_order(entries) {
            let path = format!("{section}.{}", name.text);
            match (position(&path), value) {
                (Some(row), _) => self.apply(row, at(name.offset), &Raw::of(value)),
                (None, DeValue::Table(entries)) if KEYS.iter().any(|key| key.section == path) => {
                    self.apply_section(&path, entries, at);
                }
                (None, _) => self.problems.push(unknown_key(&path).at(at(name.offset))),
            }
        }
    }

    fn apply_environment(&mut self, environment: &[(OsString, OsString)]) {
        let mut ours: Vec<_> = environment
            .iter()
            .map(|(name, value)| (name.to_string_lossy(), value))
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
            .collect();
        ours.sort();
        for (name, value) in ours {
            let origin = Origin::Environment(name.to_string());
            match (KEYS.iter().position(|key| key.variable() == *name), value.to_str()) {
                (Some(row), Some(text)) => self.apply(row, origin, &Raw::Text(text.to_owned())),
                (Some(row), None) => {
                    self.refused[row] = true;
                    self.problems.push(Problem::new("its value is not UTF-8").at(origin).of(KEYS[row].path()));
                }
                (None, _) => self.problems.push(unknown_variable(&name).at(origin)),
            }
        }
    }

    fn apply_flags(&mut self, flags: &[(&'static str, String)]) {
        for (flag, text) in flags {
            let row = KEYS
                .iter()
                .position(|key| key.flag == Some(flag))
                .expect("the command line has only the flags that the table of keys names");
            self.apply(row, Origin::Flag(flag), &Raw::Text(text.clone()));
        }
    }

    fn apply(&mut self, row: usize, origin: Origin, raw: &Raw) {
        let key = &KEYS[row];
        match key.read(&mut self.config, raw) {
            Ok(()) => self.origins[row] = origin,
            Err(invalid) => {
                self.refused[row] = true;
                self.problems.push(refusal(key, raw, invalid).at(origin).of(key.path()));
            }
        }
    }

    fn check_as_a_whole(&mut self, mattermost: Mattermost) {
        if self.file_is_unknown {
            return;
        }
        let row_of = |path: &str| position(path).expect("a check names keys of the table");
        let url = row_of("upstream.url");
        let named = self.origins[url] != Origin::Default;
        if !named && !self.refused[url] && mattermost == Mattermost::Required {
            let key = &KEYS[url];
            let told = format!(
                "nobody said where Mattermost is; expected {}, by --upstream, {} or url in [upstream] of {USUAL_FILE}",
                key.expects,
                key.variable()
            );
            self.problems.push(Problem::new(told).of(key.path()));
        }
        let trusted = |paths: &[&str]| {
            paths.iter().all(|path| !self.refused[row_of(path)]) && (named || !paths.contains(&"upstream.url"))
        };
        for (path, problem) in keys::conflicts(&self.config, trusted) {
            self.problems.push(problem.at(self.origins[row_of(path)].clone()).of(path));
        }
    }
}

/// A key or section name, and where it stands.
struct Name<'a> {
    text: &'a str,
    offset: usize,
}

/// The entries of a table by their place in the file, because people read errors from the top.
fn in_file_order<'a>(table: &'a DeTable<'_>) -> Vec<(Name<'a>, &'a DeValue<'a>)> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(name, value)| (Name { text: name.get_ref(), offset: name.span().start }, value.get_ref()))
        .collect();
    entries.sort_by_key(|(name, _)| name.offset);
    entries
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(FILE_BYTES_AT_MOST + 1).read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read <= FILE_BYTES_AT_MOST) {
        Ok(text)
    } else {
        Err(std::io::Error::other("it is longer than 1MiB"))
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count() + 1
}

fn refusal(key: &Key, raw: &Raw, invalid: Invalid) -> Problem {
    let told = match (invalid, raw) {
        (Invalid::Because(why), _) => why,
        (Invalid::Unexpected, Raw::Text(text)) => format!("{} is not accepted", repeated(text)),
        (Invalid::Unexpected, Raw::List(items)) => {
            format!(
                "[{}] is not accepted",
                items.iter().take(20).map(|item| repeated(item)).collect::<Vec<_>>().join(", ")
            )
        }
        (Invalid::Unexpected, Raw::Table(_) | Raw::Nested) => "this is not accepted".to_owned(),
    };
    Problem::new(format!("{told}; expected {}", key.expects))
}

/// A word at the top of the file: a section that does not exist, or a key outside of any.
fn unknown_section_or_key(written: &str) -> Problem {
    let mut sections: Vec<_> = KEYS.iter().map(|key| key.section).filter(|section| !section.contains('.')).collect();
    sections.dedup();
    let told = if sections.contains(&written) {
        format!("this is a section, written [{written}]")
    } else if let Some(key) = KEYS.iter().find(|key| key.name == written) {
        format!("unknown key outside of a section; did you mean {}?", key.path())
    } else if let Some(meant) = nearest(written, sections.iter().copied()) {
        format!("unknown section; did you mean [{meant}]?")
    } else {
        format!("unknown section; version {} has {}", env!("CARGO_PKG_VERSION"), sections.join(", "))
    };
    Problem::new(told).of(repeated(written))
}

fn unknown_key(path: &str) -> Problem {
    let paths: Vec<_> = KEYS.iter().map(Key::path).collect();
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let elsewhere = || KEYS.iter().find(|key| key.name == name).map(Key::path);
    let told = match nearest(path, paths.iter().map(String::as_str)).map(str::to_owned).or_else(elsewhere) {
        Some(meant) => format!("unknown key; did you mean {meant}?"),
        None => format!("unknown key; [{section}] of version {} has {}", env!("CARGO_PKG_VERSION"), names_in(section)),
    };
    // A key of a file that is no configuration of ours may be anything.
    Problem::new(told).of(if name.len() <= 60 { path.to_owned() } else { repeated(path) })
}

fn names_in(section: &str) -> String {
    KEYS.iter().filter(|key| key.section == section).map(|key| key.name).collect::<Vec<_>>().join(", ")
}

fn unknown_variable(name: &str) -> Problem {
    let variables: Vec<_> = KEYS.iter().map(Key::variable).collect();
    Problem::new(match nearest(&name.to_uppercase(), variables.iter().map(String::as_str)) {
        Some(meant) => format!("unknown variable; did you mean {meant}?"),
        None => format!("unknown variable; expected {ENVIRONMENT_PREFIX}SECTION__KEY, such as {}", variables[0]),
    })
}
