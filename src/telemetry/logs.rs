//! The log: how it is set up, and the one line that every request leaves.

use super::labels::{Outcome, ProofKind, Route};
use super::log_writer::{LogGuard, LogWriter};
use super::metrics::Telemetry;
use crate::identity::{PictureId, PictureKind};
use http::{Method, StatusCode};
use std::fmt;
use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::time::Duration;
use tracing::field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::{Registry, reload};

/// How much is logged, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The least severe level that is written. Lines of requests have the level info.
    pub level: LevelFilter,
    /// The form of a line.
    pub format: LogFormat,
    /// Whether each request leaves a line; who answers requests looks here before [`log_request`].
    pub requests: bool,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Every form.
    pub const ALL: [Self; 2] = [Self::Human, Self::Json];

    /// The word in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
        }
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No thread for it.
    #[error("the log's thread does not start: {0}")]
    Thread(#[from] io::Error),
    /// There is one already.
    #[error("a log is already set up in this process")]
    Taken(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Sends the log of this process to its standard output, and counts in `telemetry` what nobody took. Errors before this
/// belong on standard error.
///
/// # Errors
/// See [`LogError`].
pub fn init_logs(settings: &LogSettings, telemetry: &Telemetry) -> Result<(LogGuard, LogLevel), LogError> {
    let colours = io::stdout().is_terminal();
    let (writer, guard) = LogWriter::start(io::stdout(), telemetry.log_lines_dropped())?;
    let (layer, level) = layer(settings, writer, colours);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;
    Ok((guard, level))
}

/// The level of the log, to be changed while it runs.
#[derive(Debug)]
pub struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    /// From now on lines are written from this level on.
    pub fn set(&self, level: LevelFilter) {
        // It can only fail where there is no log any more.
        let _ = self.0.reload(filter(level));
    }
}

fn filter(level: LevelFilter) -> Targets {
    // What HTTP libraries tell of below a warning may be header fields, hence credentials.
    Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), level)
        // It calls every client that breaks off or sends nonsense an error.
        .with_target("actix_http", LevelFilter::OFF)
        .with_default(level.min(LevelFilter::WARN))
}

fn layer(
    settings: &LogSettings,
    writer: LogWriter,
    colours: bool,
) -> (Box<dyn Layer<Registry> + Send + Sync>, LogLevel) {
    let (filter, handle) = reload::Layer::new(filter(settings.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    let layer = match settings.format {
        LogFormat::Human => lines.with_ansi(colours).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_filter(filter).boxed(),
    };
    (layer, LogLevel(handle))
}

/// One request as the log tells of it. No field takes a path, a query or a header field of the client: what is not here
/// cannot leak.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine<'a> {
    /// The method; one that the client invented is logged as `OTHER`.
    pub method: &'a Method,
    /// What it asked for.
    pub route: Route,
    /// The picture, where the route is one of a picture.
    pub picture: Option<&'a PictureId>,
    /// The status sent; `None` when nothing was.
    pub status: Option<StatusCode>,
    /// How it was answered.
    pub outcome: Outcome,
    /// What let the caller see the picture.
    pub proof: Option<ProofKind>,
    /// Bytes of the body that were sent.
    pub bytes_sent: u64,
    /// Bytes of the body that came from upstream for it.
    pub bytes_upstream: u64,
    /// From the head of the request to the end of the answer.
    pub duration: Duration,
    /// The name of the request, also in our own errors.
    pub request_id: &'a str,
    /// Mattermost's name for it, which the client is told and which stands in Mattermost's own log.
    pub upstream_request_id: Option<&'a str>,
    /// Who asked; behind a trusted proxy, as that says.
    pub client: Option<IpAddr>,
}

/// Writes the line of a request.
pub fn log_request(line: &RequestLine<'_>) {
    tracing::info!(
        http.method = method_name(line.method),
        http.route = line.route.name(),
        http.path = line.picture.map(|picture| field::display(PicturePath(picture))),
        http.status = line.status.map(|status| status.as_u16()),
        cache.outcome = line.outcome.name(),
        cache.proof = line.proof.map(ProofKind::name),
        bytes.sent = line.bytes_sent,
        bytes.upstream = line.bytes_upstream,
        duration_ms = milliseconds(line.duration),
        request.id = line.request_id,
        upstream.request_id = line.upstream_request_id,
        client.address = line.client.map(field::display),
        "request"
    );
}

/// Whole microseconds: more digits would only be noise.
fn milliseconds(duration: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact for 285 years")]
    let microseconds = duration.as_micros() as f64;
    microseconds / 1e3
}

fn method_name(method: &Method) -> &'static str {
    const STANDARD: [(Method, &str); 9] = [
        (Method::GET, "GET"),
        (Method::HEAD, "HEAD"),
        (Method::POST, "POST"),
        (Method::PUT, "PUT"),
        (Method::PATCH, "PATCH"),
        (Method::DELETE, "DELETE"),
        (Method::OPTIONS, "OPTIONS"),
        (Method::CONNECT, "CONNECT"),
        (Method::TRACE, "TRACE"),
    ];
    STANDARD.iter().find(|(standard, _)| standard == method).map_or("OTHER", |(_, name)| name)
}

/// A picture's path, written from its parts and not from the request.
struct PicturePath<'a>(&'a PictureId);

impl fmt::Display for PicturePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (collection, tail) = match self.0.kind {
            PictureKind::User => ("users", "image"),
            PictureKind::Default => ("users", "image/default"),
            PictureKind::Team => ("teams", "image"),
            PictureKind::Emoji => ("emoji", "image"),
        };
        write!(f, "/api/v4/{collection}/{}/{tail}", self.0.object.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ObjectId, Site};
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(settings: &LogSettings, say: impl FnOnce(&LogLevel)) -> String {
        let kept = Kept::default();
        let (writer, guard) = LogWriter::start(kept.clone(), Telemetry::new().log_lines_dropped()).expect("a thread");
        let (layer, level) = layer(settings, writer, false);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || say(&level));
        drop(guard);
        String::from_utf8(kept.0.lock().expect("no writer panics").clone()).expect("lines are text")
    }

    fn settings(level: LevelFilter, format: LogFormat) -> LogSettings {
        LogSettings { level, format, requests: true }
    }

    fn a_request() {
        let picture = PictureId {
            site: Site::of(b"chat.example.org"),
            kind: PictureKind::Default,
            object: ObjectId::parse(b"abcdefghijklmnopqrstuvwxyz").expect("26 letters"),
        };
        log_request(&RequestLine {
            proof: Some(ProofKind::Grant),
            method: &Method::GET,
            route: Route::DefaultPicture,
            picture: Some(&picture),
            status: Some(StatusCode::OK),
            outcome: Outcome::Hit,
            bytes_sent: 700,
            bytes_upstream: 0,
            duration: Duration::from_nanos(1_234_567),
            request_id: "r1\nfaked line",
            upstream_request_id: Some("m1"),
            client: Some(IpAddr::from([192, 0, 2, 7])),
        });
    }

    #[test]
    fn a_request_is_one_line_of_json() {
        let text = logged(&settings(LevelFilter::INFO, LogFormat::Json), |_| a_request());
        assert_eq!(text.lines().count(), 1, "{text}");
        let mut line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        line.as_object_mut().expect("an object").remove("timestamp");
        assert_eq!(
            line,
            serde_json::json!({
                "level": "INFO", "message": "request", "http.method": "GET", "http.route": "default_picture",
                "http.path": "/api/v4/users/abcdefghijklmnopqrstuvwxyz/image/default", "http.status": 200,
                "cache.outcome": "hit", "cache.proof": "grant", "bytes.sent": 700, "bytes.upstream": 0, "duration_ms": 1.234,
                "request.id": "r1\nfaked line", "upstream.request_id": "m1", "client.address": "192.0.2.7",
            })
        );
    }

    #[test]
    fn a_request_is_one_line_for_people() {
        let text = logged(&settings(LevelFilter::INFO, LogFormat::Human), |_| a_request());
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in
            ["INFO request ", "http.route=\"default_picture\"", "http.status=200", "request.id=\"r1\\nfaked line\""]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn what_is_not_a_picture_has_no_path() {
        let text = logged(&settings(LevelFilter::INFO, LogFormat::Json), |_| {
            log_request(&RequestLine {
                proof: None,
                method: &Method::from_bytes(b"SECRET").expect("a token"),
                route: Route::Passthrough,
                picture: None,
                status: None,
                outcome: Outcome::Left,
                bytes_sent: 0,
                bytes_upstream: 0,
                duration: Duration::ZERO,
                request_id: "r2",
                upstream_request_id: None,
                client: None,
            });
        });
        assert!(!text.contains("http.path") && !text.contains("client.address") && !text.contains("SECRET"), "{text}");
        assert!(text.contains("\"http.method\":\"OTHER\""), "{text}");
        // Nor has what was not answered a status.
        assert!(!text.contains("http.status") && text.contains("\"cache.outcome\":\"left\""), "{text}");
    }

    #[test]
    fn the_level_filters_and_libraries_never_tell_details() {
        let say = |_: &LogLevel| {
            tracing::debug!("ours");
            tracing::debug!(target: "hyper", "Authorization: Bearer pencil");
            tracing::warn!(target: "hyper", "theirs");
            a_request();
        };
        let text = logged(&settings(LevelFilter::TRACE, LogFormat::Human), say);
        assert!(text.contains("ours") && text.contains("theirs") && !text.contains("pencil"), "{text}");
        let text = logged(&settings(LevelFilter::WARN, LogFormat::Human), say);
        assert!(!text.contains("ours") && text.contains("theirs") && !text.contains("request"), "{text}");
        assert_eq!(logged(&settings(LevelFilter::OFF, LogFormat::Human), say), "");
    }

    #[test]
    fn the_level_can_be_changed_while_the_log_is_written() {
        let text = logged(&settings(LevelFilter::INFO, LogFormat::Human), |level| {
            tracing::debug!("first");
            level.set(LevelFilter::DEBUG);
            tracing::debug!("second");
            level.set(LevelFilter::OFF);
            tracing::error!("third");
        });
        assert!(!text.contains("first") && text.contains("second") && !text.contains("third"), "{text}");
    }
}
