//! The command line: what may be typed, and what it means.

use crate::config::Sources;
use crate::explain::{Question, values};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What the process was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Serve.
    Serve(Flags),
    /// Check the configuration and print the effective one.
    Check(Flags),
    /// Show what would be made of one picture by the configuration.
    Explain(Flags, Question),
    /// Serve an embedded stand-in for Mattermost, and a page to look at.
    Demo {
        /// Where; `None` for the demo's own choice.
        listen: Option<SocketAddr>,
    },
}

impl Task {
    /// Reads a command line, the program's name included.
    ///
    /// # Errors
    /// What clap says of a line that is not understood, and of `--help` and `--version`; its `exit` ends the process as
    /// is usual.
    pub fn parse(line: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let Line { flags, command } = Line::try_parse_from(line)?;
        match command {
            None => Ok(Self::Serve(flags)),
            Some(Command::Check) => Ok(Self::Check(flags)),
            Some(Command::Explain(picture)) => Ok(Self::Explain(flags, picture.question())),
            Some(Command::Demo) => flags.for_demo().map(|listen| Self::Demo { listen }),
        }
    }
}

/// A permission-aware image proxy for Mattermost: profile pictures resized, re-encoded and kept in memory.
///
/// Without a command it serves.
#[derive(Debug, Parser)]
#[command(name = "avatar-proxy", version, after_long_help = AFTER_HELP)]
struct Line {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

const AFTER_HELP: &str = "\
Configuration:
  Each layer goes over the one before: the defaults, config.toml, the environment, the flags.
  Any key can be set in the environment as AVATAR_PROXY__SECTION__KEY, for example
    AVATAR_PROXY__UPSTREAM__URL=http://127.0.0.1:8065
    AVATAR_PROXY__CACHE__SOURCES=128MiB
    AVATAR_PROXY__SERVER__TRUSTED_PROXIES=10.0.0.0/8,192.168.0.0/16
    AVATAR_PROXY__SERVER__TLS__KEY=/etc/avatar-proxy/key.pem        (the key of the section [server.tls])
  Unknown keys and impossible values stop the start. `avatar-proxy check` prints every key, its value and where the
  value came from. `check`, `explain` and the proxy itself read the same layers; `demo` reads none of them.

Signals:
  SIGTERM, SIGINT  stop taking connections, finish what is in flight within server.shutdown_timeout, exit; a second
                   one exits at once
  SIGHUP           read log.level and the files of [server.tls] again

Exit status:
  0  served until it was told to stop, the configuration is good, or the picture was explained
  1  the configuration is not good, the start failed, or there is no picture to explain
  2  the command line was not understood";

/// The flags of `serve`, `check` and `explain`; their values are judged with the rest of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Flags {
    /// The configuration file; without this flag ./config.toml, if there is one
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Mattermost's address, such as `http://127.0.0.1:8065`
    #[arg(
        long,
        value_name = "URL",
        global = true,
        help = "Mattermost's address, such as http://127.0.0.1:8065 [key: upstream.url]"
    )]
    pub upstream: Option<String>,
    /// Where clients connect [key: server.listen] [default: 127.0.0.1:8066]
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub listen: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Check the configuration and print the effective one, with where each value came from
    Check,
    /// Show what would be made of one picture: everything that is tried, with bytes and scores
    ///
    /// An address is asked as the proxy would ask Mattermost; no proxy has to run for that.
    Explain(ToExplain),
    /// Serve a built-in stand-in for Mattermost with pictures to look at; of the flags, only --listen
    Demo,
}

#[derive(Clone, Debug, Args)]
struct ToExplain {
    /// A file, or an address that begins with http:// or https://
    #[arg(value_name = "FILE|URL")]
    picture: String,
    /// The edge in pixels that is asked for, the same as --query size=PIXELS; without either the picture keeps its size
    #[arg(long, value_name = "PIXELS", conflicts_with = "query")]
    size: Option<u32>,
    /// What a client writes behind the `?`
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        help = "What a client writes behind the ?, such as 'size=32&fit=contain'"
    )]
    query: String,
    /// What the client says it can show; empty for a client that does not say. Without this what --header says of it, else
    /// image/avif,image/webp,*/*;q=0.8 as browsers have it, or nothing where --header names a User-Agent
    #[arg(long)]
    accept: Option<String>,
    /// A field of the client's request, such as 'User-Agent: ...' or, for a URL, 'Authorization: Bearer ...'; may be
    /// repeated
    #[arg(long = "header", value_name = "FIELD")]
    fields: Vec<String>,
    /// Writes a page of HTML that shows all of them side by side, on white and on dark
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
}

/// What browsers accept, in short.
const BROWSER: &str = "image/avif,image/webp,*/*;q=0.8";

impl ToExplain {
    fn question(self) -> Question {
        let Self { picture, size, query, accept, fields, sheet } = self;
        let query = size.map_or(query, |size| format!("size={size}"));
        let told = |name| values(&fields, name).next().map(str::to_owned);
        // An app speaks for itself: the table of User-Agents is for those that name no image type.
        let usual = || if told("user-agent").is_some() { String::new() } else { BROWSER.to_owned() };
        let accept = accept.or_else(|| told("accept")).unwrap_or_else(usual);
        Question { picture, fields, query, accept, sheet }
    }
}

impl Flags {
    /// Everything that the configuration of this process is read from.
    #[must_use]
    pub fn sources(self) -> Sources {
        let flags = [("--upstream", self.upstream), ("--listen", self.listen)];
        let given = flags.into_iter().filter_map(|(flag, value)| Some((flag, value?))).collect();
        Sources::of_process(self.config, given)
    }

    fn for_demo(self) -> Result<Option<SocketAddr>, clap::Error> {
        let unfit = |kind, told: &str| Line::command().error(kind, told);
        if self.config.is_some() || self.upstream.is_some() {
            return Err(unfit(ErrorKind::ArgumentConflict, "the demo brings its own upstream and takes only --listen"));
        }
        let told = "--listen takes an IP address with a port, such as 127.0.0.1:8066";
        self.listen.map(|text| text.parse().map_err(|_| unfit(ErrorKind::ValueValidation, told))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::KEYS;

    fn parse(line: &str) -> Result<Task, ErrorKind> {
        Task::parse(line.split_whitespace()).map_err(|error| error.kind())
    }

    fn flags(config: Option<&str>, upstream: Option<&str>, listen: Option<&str>) -> Flags {
        Flags { config: config.map(Into::into), upstream: upstream.map(Into::into), listen: listen.map(Into::into) }
    }

    /// A line that asks to explain `a.png` with `flags`, and the question that it comes to.
    fn explained(flags: &'static str, accept: &str, fields: &[&str]) -> (String, Result<Task, ErrorKind>) {
        let question = Question {
            picture: "a.png".to_owned(),
            fields: fields.iter().map(|&field| field.to_owned()).collect(),
            query: String::new(),
            accept: accept.to_owned(),
            sheet: None,
        };
        (format!("avatar-proxy explain a.png {flags}"), Ok(Task::Explain(Flags::default(), question)))
    }

    #[test]
    fn what_the_client_accepts_is_what_is_said_of_it() {
        for (line, task) in [
            explained("", "image/avif,image/webp,*/*;q=0.8", &[]),
            explained("--accept image/png", "image/png", &[]),
            explained("--accept image/png --header Accept:*/*", "image/png", &["Accept:*/*"]),
            explained("--header Accept:*/*", "*/*", &["Accept:*/*"]),
            explained("--header user-agent:App/1", "", &["user-agent:App/1"]),
            explained("--header user-agent:App/1 --accept */*", "*/*", &["user-agent:App/1"]),
        ] {
            assert_eq!(parse(&line), task, "{line}");
        }
    }

    #[test]
    fn lines_and_what_they_mean() {
        for (line, task) in [
            ("avatar-proxy", Ok(Task::Serve(Flags::default()))),
            (
                "avatar-proxy --config a.toml --upstream http://mm --listen 0.0.0.0:80",
                Ok(Task::Serve(flags(Some("a.toml"), Some("http://mm"), Some("0.0.0.0:80")))),
            ),
            ("avatar-proxy check", Ok(Task::Check(Flags::default()))),
            ("avatar-proxy --config a.toml check", Ok(Task::Check(flags(Some("a.toml"), None, None)))),
            ("avatar-proxy check --config a.toml", Ok(Task::Check(flags(Some("a.toml"), None, None)))),
            ("avatar-proxy demo", Ok(Task::Demo { listen: None })),
            (
                "avatar-proxy demo --listen [::1]:0",
                Ok(Task::Demo { listen: Some("[::1]:0".parse().expect("an address")) }),
            ),
            ("avatar-proxy demo --listen nowhere", Err(ErrorKind::ValueValidation)),
            ("avatar-proxy demo --upstream http://mm", Err(ErrorKind::ArgumentConflict)),
            ("avatar-proxy demo --config a.toml", Err(ErrorKind::ArgumentConflict)),
            (
                "avatar-proxy explain a.png --size 64",
                Ok(Task::Explain(
                    Flags::default(),
                    Question {
                        picture: "a.png".to_owned(),
                        fields: Vec::new(),
                        query: "size=64".to_owned(),
                        accept: "image/avif,image/webp,*/*;q=0.8".to_owned(),
                        sheet: None,
                    },
                )),
            ),
            ("avatar-proxy explain", Err(ErrorKind::MissingRequiredArgument)),
            ("avatar-proxy explain a.png --size 64 --query s=3", Err(ErrorKind::ArgumentConflict)),
            ("avatar-proxy serve", Err(ErrorKind::InvalidSubcommand)),
            ("avatar-proxy --port 80", Err(ErrorKind::UnknownArgument)),
            ("avatar-proxy --version", Err(ErrorKind::DisplayVersion)),
            ("avatar-proxy --help", Err(ErrorKind::DisplayHelp)),
        ] {
            assert_eq!(parse(line), task, "{line}");
        }
    }

    #[test]
    fn flags_of_keys_exist_and_are_helpful() {
        Line::command().debug_assert();
        let help = Line::command().render_long_help().to_string();
        for key in KEYS {
            if let Some(flag) = key.flag {
                assert!(help.contains(flag) && help.contains(&format!("[key: {}]", key.path())), "{flag} in {help}");
            }
        }
        assert!(help.contains("AVATAR_PROXY__SECTION__KEY"));
    }

    #[test]
    fn flags_become_sources() {
        let sources = flags(None, Some("http://mm"), None).sources();
        assert_eq!(sources.flags, [("--upstream", "http://mm".to_owned())]);
    }
}
