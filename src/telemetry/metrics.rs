//! The recorder: what is counted, and the text that Prometheus reads.
//!
//! Every series exists from the start and is reached through an array, so counting is a few relaxed additions: no lock,
//! no look-up, no allocation.

use super::histogram::DurationHistogram;
use super::labels::{
    CacheName, ChangeOutcome, Ended, Fault, Heard, Improvement, LessonOutcome, Outcome, ProofKind, Reason, Route,
    Stage, StatusClass, UpstreamKind,
};
use super::series::{Build, Per, PerPair};
use crate::identity::PictureKind;
use crate::variant::Format;
use http::StatusCode;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// A level that bytes are counted in; the default of `prometheus-client` is signed.
type Level = Gauge<u64, AtomicU64>;

/// One request, when its answer is complete.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// What it asked for.
    pub route: Route,
    /// How it was answered.
    pub outcome: Outcome,
    /// The status sent; `None` when nothing was.
    pub status: Option<StatusCode>,
    /// Bytes of the body that were sent to the client.
    pub bytes_sent: u64,
    /// From the head of the request to the end of the answer.
    pub duration: Duration,
}

/// How full a cache is, read when somebody looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheLevel {
    /// Bytes with keys and overhead.
    pub weight: u64,
    /// Entries.
    pub entries: u64,
}

/// How full the caches are, and the queue before the improver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheLevels {
    /// Upstream's bytes.
    pub sources: CacheLevel,
    /// Encoded pictures.
    pub variants: CacheLevel,
    /// Decoded pictures.
    pub pixels: CacheLevel,
    /// Variants that wait to be improved.
    pub waiting_for_improvement: u64,
}

/// Counts everything. Built once and shared; there is no global registry.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    requests: PerPair<Route, Outcome, Counter>,
    pictures_shown: Per<ProofKind, Counter>,
    request_duration: Per<Route, DurationHistogram>,
    responses: PerPair<Route, StatusClass, Counter>,
    client_bytes: Per<Route, Counter>,
    upstream_bytes: Per<Route, Counter>,
    original_bytes: Counter,
    render_duration: Per<Stage, DurationHistogram>,
    renders: Per<Format, Counter>,
    improvements: Per<Improvement, Counter>,
    improvement_saved_bytes: Counter,
    improvements_waiting: Level,
    upstream_duration: Per<UpstreamKind, DurationHistogram>,
    upstream_answers: PerPair<UpstreamKind, StatusClass, Counter>,
    refusals: Per<Reason, Counter>,
    faults: Per<Fault, Counter>,
    lessons: Per<LessonOutcome, Counter>,
    news: Per<Heard, Counter>,
    grants_ended: Per<Ended, Counter>,
    picture_changes: PerPair<PictureKind, ChangeOutcome, Counter>,
    cache_weight: Per<CacheName, Level>,
    cache_entries: Per<CacheName, Level>,
    cache_evictions: Per<CacheName, Counter>,
    log_lines_dropped: Counter,
    connections: Gauge,
    websockets: Gauge,
    in_flight_requests: Gauge,
}

impl Telemetry {
    /// The media type of [`Telemetry::encode`] (`OpenMetrics` 1.0).
    pub const MEDIA_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// A recorder in which everything is zero.
    #[must_use]
    pub fn new() -> Self {
        let mut build = Build { registry: Registry::with_prefix("avatar_proxy") };
        build.registry.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self {
            requests: build.per_pair(
                "requests",
                "Requests by what became of them; one whose client was gone before its answer (nginx calls it 499) has no status",
                ["route", "outcome"],
                None,
            ),
            pictures_shown: build.per("pictures_shown", "Pictures shown, by what allowed it", "proof", None),
            request_duration: build.per(
                "request_duration",
                "From the head of a request to the end of its answer",
                "route",
                Some(Unit::Seconds),
            ),
            responses: build.per_pair("responses", "Answers by their status", ["route", "status_class"], None),
            client_bytes: build.per("client", "Body bytes sent to clients", "route", Some(Unit::Bytes)),
            upstream_bytes: build.per("upstream", "Body bytes received from upstream", "route", Some(Unit::Bytes)),
            original_bytes: build.one(
                "original",
                "Body bytes that clients would have received without the proxy, for the pictures served",
                Some(Unit::Bytes),
            ),
            render_duration: build.per("render_duration", "Stages of a render", "stage", Some(Unit::Seconds)),
            renders: build.per("renders", "Variants encoded", "format", None),
            improvements: build.per("improvements", "Variants encoded anew in idle time", "outcome", None),
            improvement_saved_bytes: build.one(
                "improvement_saved",
                "Bytes by which improved variants are smaller than what they took the place of; 0 for one that is larger, since the first did not look enough alike",
                Some(Unit::Bytes),
            ),
            improvements_waiting: build.one("improvements_waiting", "Variants to be encoded anew", None),
            upstream_duration: build.per(
                "upstream_duration",
                "From a request sent upstream to the head of its answer",
                "kind",
                Some(Unit::Seconds),
            ),
            upstream_answers: build.per_pair("upstream_answers", "Upstream's answers", ["kind", "status_class"], None),
            refusals: build.per("refusals", "Errors of our own", "reason", None),
            faults: build.per("faults", "What went wrong though the request was answered", "fault", None),
            lessons: build.per("lessons", "Answers that could teach who may see whom", "outcome", None),
            news: build.per("news", "Changes heard of in events that passed through", "subject", None),
            grants_ended: build.per("grants_ended", "Requests passed through that ended grants", "scope", None),
            picture_changes: build.per_pair("picture_changes", "Requests that may change a picture", ["kind", "outcome"], None),
            cache_weight: build.per("cache_weight", "Memory taken by a cache", "cache", Some(Unit::Bytes)),
            cache_entries: build.per("cache_entries", "Entries of a cache", "cache", None),
            cache_evictions: build.per("cache_evictions", "Entries that made room for others", "cache", None),
            log_lines_dropped: build.one("log_lines_dropped", "Log lines that nobody took", None),
            connections: build.one("connections", "Open client connections", None),
            websockets: build.one("websockets", "Open WebSockets, each over a client connection of its own", None),
            in_flight_requests: build.one("in_flight_requests", "Requests being answered", None),
            registry: build.registry,
        }
    }

    /// A request was answered, or its client is gone.
    pub fn answered(&self, answered: &Answered) {
        self.requests.at(answered.route, answered.outcome).inc();
        if let Some(status) = answered.status {
            self.responses.at(answered.route, StatusClass::of(status)).inc();
        }
        self.client_bytes.at(answered.route).inc_by(answered.bytes_sent);
        self.request_duration.at(answered.route).observe(answered.duration);
    }

    /// A picture was shown to a caller.
    pub fn picture_shown(&self, proof: ProofKind) {
        self.pictures_shown.at(proof).inc();
    }

    /// Upstream sent body bytes for a request of this route.
    pub fn upstream_bytes(&self, route: Route, bytes: u64) {
        self.upstream_bytes.at(route).inc_by(bytes);
    }

    /// A picture was served for which the client would have received so many bytes from upstream.
    pub fn original_bytes(&self, bytes: u64) {
        self.original_bytes.inc_by(bytes);
    }

    /// A render spent time in a stage.
    pub fn render_stage(&self, stage: Stage, duration: Duration) {
        self.render_duration.at(stage).observe(duration);
    }

    /// A variant was encoded.
    pub fn rendered(&self, format: Format) {
        self.renders.at(format).inc();
    }

    /// A variant was encoded anew in idle time.
    pub fn improved(&self, outcome: Improvement) {
        self.improvements.at(outcome).inc();
    }

    /// A variant that took another's place is so many bytes smaller.
    pub fn improvement_saved(&self, bytes: u64) {
        self.improvement_saved_bytes.inc_by(bytes);
    }

    /// The head of upstream's answer arrived.
    pub fn upstream_answered(&self, kind: UpstreamKind, status: StatusCode, duration: Duration) {
        self.upstream_answers.at(kind, StatusClass::of(status)).inc();
        self.upstream_duration.at(kind).observe(duration);
    }

    /// An error of our own was answered.
    pub fn refused(&self, reason: Reason) {
        self.refusals.at(reason).inc();
    }

    /// Something went wrong though the request was answered.
    pub fn fault(&self, fault: Fault) {
        self.faults.at(fault).inc();
    }

    /// An answer that might have taught something was read, or was not.
    pub fn lesson(&self, outcome: LessonOutcome) {
        self.lessons.at(outcome).inc();
    }

    /// A change was heard of.
    pub fn heard(&self, subject: Heard) {
        self.news.at(subject).inc();
    }

    /// Grants were ended by a request that passed through.
    pub fn grants_ended(&self, scope: Ended) {
        self.grants_ended.at(scope).inc();
    }

    /// A picture was forgotten.
    pub fn picture_changed(&self, kind: PictureKind, outcome: ChangeOutcome) {
        self.picture_changes.at(kind, outcome).inc();
    }

    /// An entry of a cache made room for another.
    pub fn evicted(&self, cache: CacheName) {
        self.cache_evictions.at(cache).inc();
    }

    /// A client connected; the connection counts until the result is dropped.
    #[must_use]
    pub fn connection(&self) -> Counted {
        Counted::one_of(&self.connections)
    }

    /// How many clients are connected.
    #[must_use]
    pub fn open_connections(&self) -> i64 {
        self.connections.get()
    }

    /// A client connection has become a `WebSocket`'s; that counts until the result is dropped.
    #[must_use]
    pub fn websocket(&self) -> Counted {
        Counted::one_of(&self.websockets)
    }

    /// How many client connections are `WebSocket`s.
    #[must_use]
    pub fn open_websockets(&self) -> i64 {
        self.websockets.get()
    }

    /// A request came in; it counts as in flight until [`Telemetry::request_ends`].
    pub fn request_begins(&self) {
        self.in_flight_requests.inc();
    }

    /// A request that began is over.
    pub fn request_ends(&self) {
        self.in_flight_requests.dec();
    }

    /// The counter of log lines that were dropped, for the log's writer.
    pub(super) fn log_lines_dropped(&self) -> Counter {
        self.log_lines_dropped.clone()
    }

    /// Everything as `OpenMetrics` text, with the caches as full as `levels` says.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "a String takes every write")]
    pub fn encode(&self, levels: &CacheLevels) -> String {
        for (cache, level) in [
            (CacheName::Sources, levels.sources),
            (CacheName::Variants, levels.variants),
            (CacheName::Pixels, levels.pixels),
        ] {
            self.cache_weight.at(cache).set(level.weight);
            self.cache_entries.at(cache).set(level.entries);
        }
        self.improvements_waiting.set(levels.waiting_for_improvement);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes every write");
        text
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

/// Something that counts as long as it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    fn one_of(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// One of everything.
    fn busy() -> Telemetry {
        let telemetry = Telemetry::new();
        telemetry.answered(&Answered {
            route: Route::UserPicture,
            outcome: Outcome::Rendered,
            status: Some(StatusCode::OK),
            bytes_sent: 700,
            duration: Duration::from_millis(3),
        });
        telemetry.picture_shown(ProofKind::Grant);
        telemetry.lesson(LessonOutcome::Learned);
        telemetry.heard(Heard::User);
        telemetry.grants_ended(Ended::All);
        telemetry.upstream_bytes(Route::UserPicture, 9_000);
        telemetry.original_bytes(9_000);
        telemetry.render_stage(Stage::Decode, Duration::from_micros(400));
        telemetry.rendered(Format::Jpeg);
        telemetry.improved(Improvement::Replaced);
        telemetry.improvement_saved(120);
        telemetry.upstream_answered(UpstreamKind::Picture, StatusCode::NOT_MODIFIED, Duration::from_millis(2));
        telemetry.refused(Reason::Loop);
        telemetry.fault(Fault::BrokenPicture);
        telemetry.picture_changed(PictureKind::Emoji, ChangeOutcome::Unknown);
        telemetry.evicted(CacheName::Variants);
        telemetry
    }

    fn levels() -> CacheLevels {
        CacheLevels { pixels: CacheLevel { weight: u64::MAX, entries: 2 }, ..CacheLevels::default() }
    }

    /// Every family and every value of a label, but for the numbers of buckets and statuses, stands there between backticks.
    #[test]
    fn all_of_it_is_explained_in_the_documents() {
        let documents = include_str!("../../docs/metrics.md");
        let text = busy().encode(&levels());
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let is_told = |word: &str| documents.contains(&format!("`{word}`"));
        for sample in samples {
            let (name, rest) = sample.split_once(['{', ' ']).expect("a sample");
            let name = name.trim_start_matches("avatar_proxy_");
            let name = ["_bucket", "_sum", "_count"].iter().fold(name, |name, end| name.trim_end_matches(end));
            assert!(is_told(name), "{name}");
            let labels = rest.split_once('}').map_or("", |(labels, _)| labels);
            for value in labels.split('"').skip(1).step_by(2) {
                let is_number = value.starts_with(|first: char| first.is_ascii_digit() || first == '+');
                assert!(is_number || is_told(value), "{value} of {name}");
            }
        }
    }

    #[test]
    fn what_is_counted_is_told() {
        let telemetry = busy();
        let connection = telemetry.connection();
        telemetry.request_begins();
        telemetry.request_begins();
        telemetry.request_ends();
        let text = telemetry.encode(&levels());
        for line in [
            r#"requests_total{route="user_picture",outcome="rendered"} 1"#,
            r#"requests_total{route="user_picture",outcome="hit"} 0"#,
            r#"request_duration_seconds_count{route="user_picture"} 1"#,
            r#"request_duration_seconds_sum{route="user_picture"} 0.003"#,
            r#"request_duration_seconds_bucket{le="0.0025",route="user_picture"} 0"#,
            r#"request_duration_seconds_bucket{le="0.005",route="user_picture"} 1"#,
            r#"responses_total{route="user_picture",status_class="2xx"} 1"#,
            r#"client_bytes_total{route="user_picture"} 700"#,
            r#"upstream_bytes_total{route="user_picture"} 9000"#,
            "original_bytes_total 9000",
            r#"render_duration_seconds_count{stage="decode"} 1"#,
            r#"renders_total{format="jpeg"} 1"#,
            r#"improvements_total{outcome="replaced"} 1"#,
            "improvement_saved_bytes_total 120",
            r#"upstream_duration_seconds_count{kind="picture"} 1"#,
            r#"upstream_answers_total{kind="picture",status_class="3xx"} 1"#,
            r#"refusals_total{reason="loop"} 1"#,
            r#"faults_total{fault="broken_picture"} 1"#,
            r#"picture_changes_total{kind="emoji",outcome="unknown"} 1"#,
            r#"cache_weight_bytes{cache="pixels"} 18446744073709551615"#,
            r#"cache_entries{cache="pixels"} 2"#,
            r#"cache_evictions_total{cache="variants"} 1"#,
            "log_lines_dropped_total 0",
            "connections 1",
            "in_flight_requests 1",
            concat!(r#"build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
        ] {
            let line = format!("avatar_proxy_{line}");
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        drop(connection);
        telemetry.request_ends();
        let text = telemetry.encode(&CacheLevels::default());
        assert!(
            text.contains("\navatar_proxy_connections 0\n") && text.contains("\navatar_proxy_in_flight_requests 0\n")
        );
    }

    /// The labels of a sample, without the bucket's bound; no label of ours holds a comma or a quote.
    fn labels(sample: &str) -> impl Iterator<Item = (&str, &str)> {
        let inside = sample.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(inside, _)| inside);
        let pairs = inside.split(',').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').expect("name=value")).filter(|(name, _)| *name != "le")
    }

    #[test]
    fn every_family_is_explained_and_every_label_is_known_beforehand() {
        let text = busy().encode(&levels());
        let mut explained = BTreeMap::<&str, BTreeSet<&str>>::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# ")) {
            let mut words = line.split(' ');
            if let (Some(kind), Some(family)) = (words.next(), words.next()) {
                assert!(words.next().is_some_and(|rest| !rest.is_empty()), "{line}");
                explained.entry(family).or_default().insert(kind);
            }
        }
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for sample in &samples {
            let name = sample.split(['{', ' ']).next().expect("a name");
            let family = ["_total", "_bucket", "_count", "_sum", "_info"]
                .into_iter()
                .find_map(|suffix| name.strip_suffix(suffix).filter(|family| explained.contains_key(family)))
                .unwrap_or(name);
            assert!(family.starts_with("avatar_proxy_"), "{sample}");
            assert!(
                explained.get(family).is_some_and(|kinds| kinds.contains("HELP") && kinds.contains("TYPE")),
                "{sample}"
            );
            for (label, value) in labels(sample) {
                let known = [
                    "route",
                    "outcome",
                    "proof",
                    "subject",
                    "scope",
                    "status_class",
                    "stage",
                    "kind",
                    "format",
                    "reason",
                    "fault",
                    "cache",
                    "version",
                ];
                assert!(known.contains(&label), "{sample}");
                assert!(value.len() < 30, "{sample}");
            }
        }
        // Nothing that is sent to us makes another series.
        let idle = Telemetry::new().encode(&CacheLevels::default());
        assert_eq!(samples.len(), idle.lines().filter(|line| !line.starts_with('#')).count());
    }
}
